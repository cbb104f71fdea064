"""Small Caffe2 models that tests write to disk: the shapes of SqueezeNet in miniature, with seeded random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sqzc.frontends.caffe2 import caffe2_pb2

CLASSES = 10
INPUT_SHAPE = (1, 3, 27, 27)


class NetWriter:
    """Collects the operators and parameters of one model."""

    def __init__(self, seed: int = 0) -> None:
        self.predict = caffe2_pb2.NetDef()
        self.init = caffe2_pb2.NetDef()
        self.random = np.random.default_rng(seed)

    def op(self, type_: str, inputs: Sequence[str], outputs: Sequence[str], **args: int | float | str) -> None:
        """One operator of the predict net."""
        op = self.predict.op.add(type=type_, input=inputs, output=outputs)
        for name, value in args.items():
            arg = op.arg.add(name=name)
            if isinstance(value, str):
                arg.s = value.encode()
            elif isinstance(value, float):
                arg.f = value
            else:
                arg.i = value

    def fill(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """One parameter of the init net."""
        op = self.init.op.add(type="GivenTensorFill", output=[name])
        op.arg.add(name="shape", ints=values.shape)
        op.arg.add(name="values", floats=values.ravel().astype(np.float32))
        self.predict.external_input.append(name)

    def conv(self, x: str, y: str, channels: int, results: int, kernel: int, **args: int) -> None:
        """A convolution with its ReLU."""
        scale = np.sqrt(2.0 / (channels * kernel * kernel))
        self.fill(f"{y}_w", scale * self.random.standard_normal((results, channels, kernel, kernel)))
        self.fill(f"{y}_b", 0.1 * self.random.standard_normal(results))
        self.op("Conv", [x, f"{y}_w", f"{y}_b"], [y], kernel=kernel, **args)
        self.op("Relu", [y], [y])

    def save(self, folder: Path, input_shape: Sequence[int]) -> Path:
        """Writes predict_net.pb, init_net.pb and value_info.json."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "predict_net.pb").write_bytes(self.predict.SerializeToString(deterministic=True))
        (folder / "init_net.pb").write_bytes(self.init.SerializeToString(deterministic=True))
        (folder / "value_info.json").write_text(json.dumps({"data": [1, list(input_shape)]}))
        return folder


def write_small_net(folder: Path, *, seed: int = 0, first_pad: int = 0, size: int = INPUT_SHAPE[-1]) -> Path:
    """Convolution, pool, fire module, dropout, convolution, global pool, softmax; ten classes."""
    net = NetWriter(seed)
    net.predict.external_input.append("data")
    net.conv("data", "conv1", 3, 20, 3, stride=2, pad=first_pad)
    net.op("MaxPool", ["conv1"], ["pool1"], kernel=3, stride=2, legacy_pad=3)
    net.conv("pool1", "fire/squeeze", 20, 8, 1)
    net.conv("fire/squeeze", "fire/left", 8, 16, 1)
    net.conv("fire/squeeze", "fire/right", 8, 16, 3, pad=1)
    net.op("Concat", ["fire/left", "fire/right"], ["fire/concat", "_fire_dims"], order="NCHW")
    net.op("Dropout", ["fire/concat"], ["fire/concat", "_mask"], ratio=0.5, is_test=1)
    net.conv("fire/concat", "conv2", 32, CLASSES, 1)
    net.op("AveragePool", ["conv2"], ["pool2"], kernel=0, global_pooling=1)
    net.op("Softmax", ["pool2"], ["prob"])
    net.predict.external_output.append("prob")
    return net.save(folder, (1, 3, size, size))


def write_labels(folder: Path, count: int = CLASSES) -> list[str]:
    """Writes synset_words.txt and gives the names in it."""
    names = [f"thing {i}, number {i}" for i in range(count)]
    lines = [f"n{10000000 + i} {name}" for i, name in enumerate(names)]
    (folder / "synset_words.txt").write_text("\n".join(lines) + "\n")
    return names
