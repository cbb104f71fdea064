"""Convolutions and transposed convolutions over one to three spatial axes.

There are two-dimensional ops in the IR. One axis is a height of 1; a third one, the depth, is a sum of two-dimensional
convolutions, one for each depth of the kernel.
"""

from __future__ import annotations

from sqzc.frontends.onnx.table import OpView, lift
from sqzc.frontends.onnx.windows import (
    Window,
    as_image,
    auto_pad,
    frames,
    from_frames,
    from_image,
    halves,
    read_axes,
    read_window,
    spatial,
)
from sqzc.ir import Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops.nn import Conv2d, ConvTranspose2d
from sqzc.ir.ops.shape import Pad, Slice


def _check_weight(op: OpView, x: Value, w: Value) -> None:
    if w.type.rank != x.type.rank or 0 in w.type.shape:
        raise op.error(
            "the weight does not fit the input", expected=f"rank {x.type.rank} and no empty axis", got=str(w.type)
        )


def _group(op: OpView) -> int:
    group = op.attrs.integer("group", 1)
    if group < 1:
        raise op.error(f"'group' must be at least 1, got {group}")
    return group


def _bias(op: OpView) -> tuple[Value, ...]:
    bias = op.optional(2)
    return () if bias is None else (bias,)


@lift("Conv", since=1)
def lift_conv(op: OpView) -> Value:
    """Cross-correlation plus bias."""
    return convolved(op, op.input(0), op.input(1), _bias(op))


def convolved(op: OpView, x: Value, w: Value, bias: tuple[Value, ...]) -> Value:
    """x through the weight w by the window of the node's attributes."""
    sizes, group = spatial(op, x), _group(op)
    _check_weight(op, x, w)
    window = read_window(op, sizes, w.type.shape[2:])
    if window.axes > 3:
        raise op.unsupported(f"{op.type} over {window.axes} spatial axes")
    if window.axes == 3:
        return _conv3d(op, x, w, bias, window, group)
    ir = Conv2d(stride=window.stride2, pads=window.pads2, dilation=window.dilation2, group=group)
    return from_image(op, op.add(ir, as_image(op, x), as_image(op, w), *bias), x.type.rank)


def _conv3d(op: OpView, x: Value, w: Value, bias: tuple[Value, ...], window: Window, group: int) -> Value:
    if window.before[0] or window.after[0]:
        ends = ((0, 0, window.before[0], 0, 0), (0, 0, window.after[0], 0, 0))
        x = op.add(Pad(pads=(*ends[0], *ends[1])), x)
    depth = x.type.shape[2]
    if window.reach[0] > depth:
        raise op.error("the window is deeper than the padded input", expected=f"at most {depth}")
    count = (depth - window.reach[0]) // window.stride[0] + 1
    plane = window.only(1, 3)
    ir = Conv2d(stride=plane.stride2, pads=plane.pads2, dilation=plane.dilation2, group=group)
    total: Value | None = None
    for tap in range(window.kernel[0]):
        part = _along(op, x, 2, tap * window.dilation[0], count, window.stride[0])
        weight = op.reshape(_along(op, w, 2, tap, 1, 1), (*w.type.shape[:2], *w.type.shape[3:]))
        y = op.add(ir, frames(op, part), weight, *(bias if total is None else ()))
        total = y if total is None else op.add(ew.Add(), total, y)
    assert total is not None
    return from_frames(op, total, x.type.shape[0])


def _along(op: OpView, x: Value, axis: int, start: int, size: int, step: int) -> Value:
    """A strided slice along one axis."""
    rank, shape = x.type.rank, x.type.shape
    if (start, size, step) == (0, shape[axis], 1):
        return x
    pick = [(start, size, step) if i == axis else (0, shape[i], 1) for i in range(rank)]
    starts, sizes, steps = zip(*pick, strict=True)
    return op.add(Slice(starts=starts, sizes=sizes, steps=() if step == 1 else steps), x)


@lift("ConvTranspose", since=1)
def lift_conv_transpose(op: OpView) -> Value:
    """The gradient of Conv with respect to its input; the weight is [C, M / group, ...]."""
    x, w = op.input(0), op.input(1)
    sizes, group = spatial(op, x), _group(op)
    _check_weight(op, x, w)
    window, extra = _transposed_window(op, sizes, w.type.shape[2:])
    if window.axes > 3:
        raise op.unsupported(f"ConvTranspose over {window.axes} spatial axes")
    if window.axes == 3:
        return _conv_transpose3d(op, x, w, window, extra, group)
    ir = _transposed(window, extra, group)
    return from_image(op, op.add(ir, as_image(op, x), as_image(op, w), *_bias(op)), x.type.rank)


def _transposed(window: Window, extra: tuple[int, ...], group: int) -> ConvTranspose2d:
    output_pads = (0, extra[0]) if len(extra) == 1 else (extra[0], extra[1])
    return ConvTranspose2d(
        stride=window.stride2,
        pads=window.pads2,
        output_pads=output_pads,
        dilation=window.dilation2,
        group=group,
    )


def _transposed_window(op: OpView, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[Window, tuple[int, ...]]:
    """The window, and by how much the result is enlarged at its end."""
    axes = len(sizes)
    extra = read_axes(op, "output_padding", axes, 0, 0)
    wanted = op.attrs.ints("output_shape")
    mode = auto_pad(op)
    if wanted is None and mode in ("NOTSET", "VALID"):
        return read_window(op, sizes, kernel), extra
    op.attrs.ints("pads")  # given or not, the wanted shape decides
    if op.attrs.has("kernel_shape") and read_axes(op, "kernel_shape", axes, 0, 1) != kernel:
        raise op.error("kernel_shape is not that of the weight", expected=str(list(kernel)))
    stride = read_axes(op, "strides", axes, 1, 1)
    dilation = read_axes(op, "dilations", axes, 1, 1)
    if wanted is None:
        wanted = tuple(size * step for size, step in zip(sizes, stride, strict=True))
    if len(wanted) == axes + 2:
        wanted = wanted[2:]  # older exporters repeat the batch and the channels
    if len(wanted) != axes or min(wanted) < 1:
        raise op.error(f"output_shape {list(wanted)}", expected=f"{axes} positive numbers")
    before, after, more = [], [], list(extra)
    for axis, (size, s, k, d) in enumerate(zip(sizes, stride, kernel, dilation, strict=True)):
        total = s * (size - 1) + extra[axis] + (k - 1) * d + 1 - wanted[axis]
        ends = _share(op, max(total, 0), mode)
        before.append(ends[0])
        after.append(ends[1])
        more[axis] += max(-total, 0)
    return Window(kernel, stride, dilation, tuple(before), tuple(after)), tuple(more)


def _share(op: OpView, total: int, mode: str) -> tuple[int, int]:
    """A padding that follows from the wanted shape; before opset 11 the odd element goes to the other end."""
    first, second = halves(total, mode)
    return (first, second) if op.opset >= 11 else (second, first)


def _conv_transpose3d(op: OpView, x: Value, w: Value, window: Window, extra: tuple[int, ...], group: int) -> Value:
    """One two-dimensional product for each depth of the kernel, spread out in depth and added up."""
    n, depth = x.type.shape[0], x.type.shape[2]
    ir, images = _transposed(window.only(1, 3), extra[1:], group), frames(op, x)
    length = (depth - 1) * window.stride[0] + window.reach[0] + extra[0]
    total: Value | None = None
    for tap in range(window.kernel[0]):
        weight = op.reshape(_along(op, w, 2, tap, 1, 1), (*w.type.shape[:2], *w.type.shape[3:]))
        part = _spread(op, from_frames(op, op.add(ir, images, weight), n), window.stride[0])
        start = tap * window.dilation[0]
        gap = length - start - part.type.shape[2]
        if gap < 0:
            part = _along(op, part, 2, 0, length - start, 1)
        placed = op.add(Pad(pads=(0, 0, start, 0, 0, 0, 0, max(gap, 0), 0, 0)), part)
        total = placed if total is None else op.add(ew.Add(), total, placed)
    assert total is not None
    kept = length - window.before[0] - window.after[0]
    if kept < 1:
        raise op.error("the padding leaves nothing")
    y = _along(op, total, 2, window.before[0], kept, 1)
    for bias in _bias(op):
        y = op.add(ew.Add(), y, op.reshape(bias, (1, bias.type.elements, 1, 1, 1)))
    return y


def _spread(op: OpView, x: Value, step: int) -> Value:
    """x with `step` - 1 zero planes after each of its planes in depth."""
    if step == 1:
        return x
    n, c, d, h, w = x.type.shape
    apart = op.add(Pad(pads=(0, 0, 0, 0, 0, 0, step - 1, 0)), op.reshape(x, (n * c, d, 1, h * w)))
    return op.reshape(apart, (n, c, d * step, h, w))
