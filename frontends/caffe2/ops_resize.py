"""Padding and resizing of images."""

from __future__ import annotations

import numpy as np

from sqzc.frontends.caffe2.env import NameEnv
from sqzc.frontends.caffe2.ops_conv import image_operand, quad
from sqzc.frontends.caffe2.table import OpView, lift
from sqzc.frontends.caffe2.windows import LegacyPad, read_window
from sqzc.ir import Builder, Value
from sqzc.ir.ops.shape import Coordinates, Gather, Pad, PadMode, Resize2d, ResizeMode

MAX_SIDE = 1 << 20


@lift("PadImage")
def lift_pad_image(op: OpView, env: NameEnv, b: Builder) -> None:
    """Around the image: a constant, a mirror image that does not repeat the edge, or the edge."""
    window, order = read_window(op), op.order()
    if window.legacy is not LegacyPad.NOTSET or window.global_pooling:
        raise op.error("PadImage takes explicit pads only")
    modes = {"constant": PadMode.CONSTANT, "reflect": PadMode.REFLECT, "edge": PadMode.EDGE}
    mode = op.args.text("mode", "constant")
    value = op.args.real("value", 0.0)
    if mode not in modes:
        raise op.error(f"mode '{mode}'", argument="mode", expected=", ".join(modes))
    if min(window.pads) < 0:
        raise op.unsupported("PadImage with a negative pad")
    x = image_operand(op, env, order, 2)
    top, left, bottom, right = quad(window.pads)
    ir = Pad(
        pads=(0, 0, top, left, 0, 0, bottom, right),
        mode=modes[mode],
        value=value if modes[mode] is PadMode.CONSTANT else 0.0,
    )
    env.bind_image(op.out, b.add(ir, x, source=op.source), order)


def _scales(op: OpView, env: NameEnv) -> tuple[float, float]:
    """(height, width) factors: a second blob holds both, else the arguments."""
    height, width = op.args.real("height_scale", 1.0), op.args.real("width_scale", 1.0)
    if len(op.inputs) == 2:
        pair = env.known(op.inputs[1], "the scales of a resize").ravel()
        if pair.size != 2:
            raise op.error(f"blob '{op.inputs[1]}' holds {pair.size} scales", expected="2: height and width")
        height, width = float(pair[0]), float(pair[1])
    return height, width


def _output_size(op: OpView, size: int, scale: float) -> int:
    """Caffe2 multiplies in single precision and truncates."""
    if not 0 < scale <= MAX_SIDE:
        raise op.error(f"a scale of {scale:g}", expected="a positive number")
    result = int(np.float32(size) * np.float32(scale))
    if not 1 <= result <= MAX_SIDE:
        raise op.error(f"a scale of {scale:g} makes {size} pixels {result}")
    return result


@lift("ResizeNearest", inputs=(1, 2))
def lift_resize_nearest(op: OpView, env: NameEnv, b: Builder) -> None:
    """Output pixel i reads input pixel floor(i / scale), computed in single precision."""
    order = op.order()
    scales = _scales(op, env)
    x = image_operand(op, env, order, 2)
    env.bind_image(op.out, _nearest(op, b, x, scales), order)


def _nearest(op: OpView, b: Builder, x: Value, scales: tuple[float, float]) -> Value:
    inputs = x.type.shape[2:]
    sizes = [_output_size(op, size, scale) for size, scale in zip(inputs, scales, strict=True)]
    picks = []
    exact = True
    for size, out, scale in zip(inputs, sizes, scales, strict=True):
        positions = np.arange(out, dtype=np.float32)
        picks.append(np.minimum((positions / np.float32(scale)).astype(np.int64), size - 1))
        exact = exact and bool(
            np.array_equal(picks[-1], np.minimum((np.arange(out) / scale).astype(np.int64), size - 1))
        )
    if exact:
        # Left at 0, a scale is the ratio of the sizes.
        given = [0.0 if size * scale == out else scale for size, out, scale in zip(inputs, sizes, scales, strict=True)]
        ir = Resize2d(size=tuple(sizes), mode=ResizeMode.NEAREST, scale_h=given[0], scale_w=given[1])
        return b.add(ir, x, source=op.source)
    for axis, pick in zip((2, 3), picks, strict=True):
        # Single precision rounds some position up to the next pixel, which no formula in exact arithmetic gives.
        indices = b.constant("rows" if axis == 2 else "columns", pick)
        x = b.add(Gather(axis=axis), x, indices, source=op.source)
    return x


@lift("UpsampleNearest")
def lift_upsample_nearest(op: OpView, env: NameEnv, b: Builder) -> None:
    """Every pixel `scale` times in both directions."""
    scale = op.args.positive("scale", 2)
    x = image_operand(op, env, "NCHW", 2)
    size = tuple(_output_size(op, side, float(scale)) for side in x.type.shape[2:])
    env.bind(op.out, b.add(Resize2d(size=size, mode=ResizeMode.NEAREST), x, source=op.source))


@lift("UpsampleBilinear", inputs=(1, 2))
def lift_upsample_bilinear(op: OpView, env: NameEnv, b: Builder) -> None:
    """Linear in both directions; the corners of input and output coincide."""
    order = op.order()
    scales = _scales(op, env)
    x = image_operand(op, env, order, 2)
    size = tuple(_output_size(op, side, scale) for side, scale in zip(x.type.shape[2:], scales, strict=True))
    ir = Resize2d(size=size, mode=ResizeMode.LINEAR, coordinates=Coordinates.ALIGN_CORNERS)
    env.bind_image(op.out, b.add(ir, x, source=op.source), order)
