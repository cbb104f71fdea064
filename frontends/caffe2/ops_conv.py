"""Convolutions over one to three axes and transposed ones over one or two, in either axis order."""

from __future__ import annotations

from sqzc.frontends.caffe2.env import NameEnv
from sqzc.frontends.caffe2.table import OpView, lift
from sqzc.frontends.caffe2.volumes import convolved
from sqzc.frontends.caffe2.windows import LegacyPad, read_window, require_kernel, require_no_negative_pad, resolved_pads
from sqzc.ir import Builder, Value
from sqzc.ir.ops.elementwise import Relu
from sqzc.ir.ops.nn import Conv2d, ConvTranspose2d


def as_2d(env: NameEnv, value: Value) -> Value:
    """[N, C, L] as [N, C, 1, L]; rank 4 as it is."""
    if value.type.rank == 3:
        n, c, length = value.type.shape
        return env.reshape(value, (n, c, 1, length))
    return value


def pair(values: tuple[int, ...], fill: int) -> tuple[int, int]:
    """(height, width) values; one value is the width's."""
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


def quad(pads: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right); two values are left and right."""
    return (0, pads[0], 0, pads[1]) if len(pads) == 2 else (pads[0], pads[1], pads[2], pads[3])


def image_operand(op: OpView, env: NameEnv, order: str, axes: int, most: int = 3) -> Value:
    """The first input as an image with `axes` spatial axes, 1 to `most`."""
    shape = env.shape(op.inputs[0])
    if len(shape) != axes + 2:
        raise op.error(f"a window of {axes} axes", expected=f"an input of rank {axes + 2}", got=f"shape {list(shape)}")
    if not 1 <= axes <= most:
        raise op.unsupported(f"{op.type} over {axes} spatial axes")
    return env.image(op.inputs[0], order)


def bind_result(op: OpView, env: NameEnv, value: Value, axes: int, order: str) -> None:
    """Binds a rank 4 result, taken back to rank 3 where the operator worked on one axis."""
    if axes == 1:
        n, c, _, length = value.type.shape
        value = env.reshape(value, (n, c, length), op.source)
    env.bind_image(op.out, value, order)


def _bias(op: OpView, env: NameEnv, channels: int) -> tuple[Value, ...]:
    if len(op.inputs) < 3:
        return ()
    shape = env.shape(op.inputs[2])
    if shape != (channels,):
        raise op.error("the bias does not fit the weight", expected=f"shape [{channels}]", got=f"shape {list(shape)}")
    return (env.use(op.inputs[2]),)


def _check_weight(op: OpView, kernel: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if len(shape) != len(kernel) + 2 or shape[2:] != kernel:
        raise op.error(
            "the weight does not fit the kernel size",
            expected=f"a weight with a kernel of {'x'.join(map(str, kernel))}",
            got=f"shape {list(shape)} (as output channels, input channels, kernel)",
        )


def _check_channels(op: OpView, x: Value, weight: Value, group: int) -> None:
    channels, (m, own) = x.type.shape[1], weight.type.shape[:2]
    if own * group != channels or m % group:
        raise op.error(
            "the weight does not fit the input's channels",
            expected=f"{channels} input channels in {group} groups",
            got=f"shape {list(weight.type.shape)}",
        )


@lift("Conv", "Conv1D", "Conv2D", "Conv3D", "ConvRelu", inputs=(2, 3))
def lift_conv(op: OpView, env: NameEnv, b: Builder) -> None:
    """All spellings of a convolution. An operator named for a number of axes takes only that many."""
    window, order = read_window(op), op.order()
    group = op.args.positive("group", 1)
    if window.global_pooling:
        raise op.error("a convolution with global_pooling", argument="global_pooling")
    require_kernel(op, window)
    require_no_negative_pad(op, window)
    if op.type.endswith("D") and op.type != f"Conv{window.axes}D":
        raise op.error(f"{op.type} with a kernel of {window.axes} axes")
    x = image_operand(op, env, order, window.axes)
    weight = env.image(op.inputs[1], order)
    _check_weight(op, window.kernel, weight.type.shape)
    pads = resolved_pads(op, window, x.type.shape[2:])
    bias = _bias(op, env, weight.type.shape[0])
    if window.axes == 3:
        _check_channels(op, x, weight, group)
        y = convolved(op, env, b, window, pads, group, (x, weight, *bias))
    else:
        ir = Conv2d(stride=pair(window.stride, 1), pads=quad(pads), dilation=pair(window.dilation, 1), group=group)
        y = b.add(ir, as_2d(env, x), as_2d(env, weight), *bias, source=op.source)
    if op.type == "ConvRelu":
        y = b.add(Relu(), y, source=op.source)
    bind_result(op, env, y, window.axes, order)


@lift("ConvTranspose", inputs=(2, 3))
def lift_conv_transpose(op: OpView, env: NameEnv, b: Builder) -> None:
    """The weight is [C_in, C_out / group, kernel]; `adj` enlarges the result at the bottom and right."""
    window, order = read_window(op), op.order()
    group = op.args.positive("group", 1)
    require_kernel(op, window)
    require_no_negative_pad(op, window)
    if set(window.dilation) != {1}:
        raise op.error("a transposed convolution takes no dilation", argument="dilation")
    if window.legacy is LegacyPad.CAFFE or window.global_pooling:
        raise op.error("a transposed convolution takes neither legacy_pad 3 nor global_pooling")
    x = image_operand(op, env, order, window.axes, most=2)
    weight = env.image(op.inputs[1], order)
    _check_weight(op, window.kernel, weight.type.shape)
    ir = ConvTranspose2d(
        stride=pair(window.stride, 1),
        pads=quad(window.pads),
        output_pads=pair(_adjustments(op, window.stride), 0),
        group=group,
    )
    operands = (as_2d(env, x), as_2d(env, weight), *_bias(op, env, weight.type.shape[1] * group))
    bind_result(op, env, b.add(ir, *operands, source=op.source), window.axes, order)


def _adjustments(op: OpView, stride: tuple[int, ...]) -> tuple[int, ...]:
    adjs = list(op.args.ints("adjs") or ())
    whole = op.args.integer("adj", 0) if op.args.has("adj") else None
    parts = [op.args.integer(name, 0) if op.args.has(name) else None for name in ("adj_h", "adj_w")]
    if whole is not None:
        adjs = (adjs + [whole] * 2)[:2]
    elif None not in parts:
        adjs += [part for part in parts if part is not None]
    adjs = adjs or [0] * len(stride)
    if len(adjs) != len(stride) or any(not 0 <= adj <= step for adj, step in zip(adjs, stride, strict=False)):
        raise op.error("'adj' must be at least 0 and at most the stride", argument="adj", got=str(adjs))
    return tuple(adjs)
