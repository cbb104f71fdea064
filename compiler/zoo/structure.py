"""The networks of the zoo without their weights, described by code, so that random weights need no download.

A description gives the operators as a Caffe2 text net with the published blob names, and the shapes of the parameters
as an init net of random fills.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqzc.zoo.manifest import look_up, published


def structure(name: str, folder: Path) -> tuple[Path, Path]:
    """Writes predict net and init net of the zoo model `name` into `folder`; ZooError for an unknown one."""
    look_up(name, published())
    assert name in _ARCHITECTURES, f"{name} is in the manifest, but nobody described its structure"
    net = _Net()
    _ARCHITECTURES[name](net)
    predict, init = folder / f"{name}.predict.pbtxt", folder / f"{name}.init.pbtxt"
    predict.write_text(net.predict_text())
    init.write_text(net.init_text())
    return predict, init


@dataclass
class _Net:
    """A net under construction; each method adds an operator that reads `top`, the blob made last, and becomes it."""

    ops: list[str] = field(default_factory=list)
    fills: list[str] = field(default_factory=list)
    top: str = "data"
    channels: int = 3

    def op(self, kind: str, inputs: list[str], outputs: list[str], **arguments: int) -> None:
        """Any operator with integer arguments."""
        words = [
            f'type: "{kind}"',
            *(f'input: "{blob}"' for blob in inputs),
            *(f'output: "{blob}"' for blob in outputs),
        ]
        words += [f'arg {{ name: "{name}" i: {value} }}' for name, value in arguments.items()]
        self.ops.append(f"op {{ {' '.join(words)} }}")
        self.top = outputs[0]

    def fill(self, kind: str, blob: str, *shape: int) -> None:
        """A parameter of the init net."""
        dims = " ".join(f"ints: {dim}" for dim in shape)
        self.fills.append(f'op {{ type: "{kind}" output: "{blob}" arg {{ name: "shape" {dims} }} }}')

    def conv_relu(self, name: str, channels: int, kernel: int, stride: int = 1, pad: int = 0) -> None:
        """A convolution with bias, and a ReLU in place."""
        self.fill("MSRAFill", f"{name}_w", channels, self.channels, kernel, kernel)
        self.fill("ConstantFill", f"{name}_b", channels)
        self.op("Conv", [self.top, f"{name}_w", f"{name}_b"], [name], stride=stride, pad=pad, kernel=kernel)
        self.op("Relu", [name], [name])
        self.channels = channels

    def fire(self, number: int, squeeze: int, expand: int) -> None:
        """A fire module: a 1x1 squeeze, then 1x1 and 3x3 expands side by side."""
        name = f"fire{number}"
        self.conv_relu(f"{name}/squeeze1x1", squeeze, 1)
        for kernel in (1, 3):
            self.top, self.channels = f"{name}/squeeze1x1", squeeze
            self.conv_relu(f"{name}/expand{kernel}x{kernel}", expand, kernel, pad=kernel // 2)
        parts = [f"{name}/expand{kernel}x{kernel}" for kernel in (1, 3)]
        self.op("Concat", parts, [f"{name}/concat", f"_{name}/concat_dims"])
        self.channels = 2 * expand

    def max_pool(self, name: str) -> None:
        """A pool of 3x3 windows, two apart, rounded up."""
        self.op("MaxPool", [self.top], [name], stride=2, kernel=3, legacy_pad=3)

    def predict_text(self) -> str:
        """The operators; the last blob is the output."""
        return "\n".join([*self.ops, f'external_output: "{self.top}"', ""])

    def init_text(self) -> str:
        """The parameters."""
        return "\n".join([*self.fills, ""])


def _squeezenet_1_1(net: _Net) -> None:
    """SqueezeNet 1.1 (F. Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016)."""
    net.conv_relu("conv1", 64, 3, stride=2)
    net.max_pool("pool1")
    for numbers, squeeze, expand in (((2, 3), 16, 64), ((4, 5), 32, 128), ((6, 7), 48, 192), ((8, 9), 64, 256)):
        if numbers[0] in (4, 6):
            net.max_pool(f"pool{numbers[0] - 1}")
        for number in numbers:
            net.fire(number, squeeze, expand)
    net.op("Dropout", [net.top], [net.top, "_fire9/concat_mask"], is_test=1)
    net.conv_relu("conv10", 1000, 1)
    net.op("AveragePool", [net.top], ["pool10"], global_pooling=1)
    net.op("Softmax", [net.top], ["softmaxout"])


_ARCHITECTURES: dict[str, Callable[[_Net], None]] = {"squeezenet1.1": _squeezenet_1_1}
