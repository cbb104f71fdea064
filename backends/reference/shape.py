"""Reference kernels of the ops that move, select or reduce elements."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sqzc.backends.reference.registry import kernel
from sqzc.diagnostics import UsageError
from sqzc.ir.constant import Array
from sqzc.ir.ops import shape as ops


@kernel("relayout")
def relayout(op: ops.Relayout, x: Array) -> Array:
    """Nothing to do: arrays here are always in logical shape."""
    return x


@kernel("reshape")
def reshape(op: ops.Reshape, x: Array) -> Array:
    """numpy's row-major reshape."""
    return x.reshape(op.shape)


@kernel("transpose")
def transpose(op: ops.Transpose, x: Array) -> Array:
    """numpy's transpose has the same meaning of `perm`."""
    return x.transpose(op.perm)


@kernel("concat")
def concat(op: ops.Concat, *xs: Array) -> Array:
    """`placed` is a matter of memory and changes nothing here."""
    return np.concatenate(xs, axis=op.axis)


@kernel("slice")
def slice_(op: ops.Slice, x: Array) -> Array:
    """Takes the listed positions axis by axis."""
    steps = op.steps or (1,) * x.ndim
    for axis, (start, size, step) in enumerate(zip(op.starts, op.sizes, steps, strict=True)):
        x = np.take(x, start + step * np.arange(size), axis=axis)
    return x


@kernel("pad")
def pad(op: ops.Pad, x: Array) -> Array:
    """numpy's names of the modes are the declaration's."""
    widths = list(zip(op.pads[: x.ndim], op.pads[x.ndim :], strict=True))
    if op.mode is ops.PadMode.CONSTANT:
        value = op.value if x.dtype.kind == "f" else int(op.value)
        return np.pad(x, widths, constant_values=np.asarray(value).astype(x.dtype))
    modes = {ops.PadMode.EDGE: "edge", ops.PadMode.REFLECT: "reflect", ops.PadMode.WRAP: "wrap"}
    return np.asarray(np.pad(x, widths, mode=modes[op.mode]))  # type: ignore[call-overload]


@kernel("expand")
def expand(op: ops.Expand, x: Array) -> Array:
    """A view that repeats elements without copying."""
    return np.broadcast_to(x, op.shape)


@kernel("reduce_sum")
def reduce_sum(op: ops.ReduceSum, x: Array) -> Array:
    """Sums in the type of x; integers wrap around."""
    return np.asarray(np.sum(x, axis=op.axes, keepdims=op.keepdims, dtype=x.dtype))


@kernel("reduce_mean")
def reduce_mean(op: ops.ReduceMean, x: Array) -> Array:
    """Sum over count; for integers in double, then truncated."""
    count = math.prod(x.shape[axis] for axis in op.axes)
    if x.dtype.kind == "f":
        return np.asarray(np.sum(x, axis=op.axes, keepdims=op.keepdims) / np.asarray(count, x.dtype))
    total = np.sum(x, axis=op.axes, keepdims=op.keepdims, dtype=np.float64)
    return np.asarray(np.trunc(total / np.float64(count)).astype(x.dtype))


@kernel("reduce_max")
def reduce_max(op: ops.ReduceMax, x: Array) -> Array:
    """np.max lets NaN win."""
    return np.asarray(np.max(x, axis=op.axes, keepdims=op.keepdims))


@kernel("reduce_min")
def reduce_min(op: ops.ReduceMin, x: Array) -> Array:
    """np.min lets NaN win."""
    return np.asarray(np.min(x, axis=op.axes, keepdims=op.keepdims))


@kernel("reduce_prod")
def reduce_prod(op: ops.ReduceProd, x: Array) -> Array:
    """Multiplies in the type of x; integers wrap around."""
    return np.asarray(np.prod(x, axis=op.axes, keepdims=op.keepdims, dtype=x.dtype))


def first_best(op: ops.ArgReduce, x: Array, is_better: Callable[[Array, Array], Array]) -> Array:
    """Walks along the axis and moves to each element that beats the best so far; NaN neither beats nor is beaten."""
    lanes = np.moveaxis(x, op.axis, 0)
    best = lanes[0]
    position = np.zeros(best.shape, np.int64)
    for index in range(1, len(lanes)):
        beats = is_better(lanes[index], best)
        best = np.where(beats, lanes[index], best)
        position = np.where(beats, index, position)
    return np.expand_dims(position, op.axis) if op.keepdims else position


@kernel("argmax")
def argmax(op: ops.ArgMax, x: Array) -> Array:
    """An equal later element wins only where the last of equals is asked for."""
    return first_best(op, x, np.greater_equal if op.last else np.greater)


@kernel("argmin")
def argmin(op: ops.ArgMin, x: Array) -> Array:
    """An equal later element wins only where the last of equals is asked for."""
    return first_best(op, x, np.less_equal if op.last else np.less)


@kernel("topk")
def topk(op: ops.TopK, x: Array) -> tuple[Array, Array]:
    """A stable sort keeps equals in order of index; for the largest it runs over the mirrored axis and is read back."""
    if op.largest:
        mirrored = np.argsort(x[..., ::-1], axis=-1, kind="stable")
        order = (x.shape[-1] - 1 - mirrored)[..., ::-1]
    else:
        order = np.argsort(x, axis=-1, kind="stable")
    positions = order[..., : op.k].astype(np.int64)
    return np.take_along_axis(x, positions, axis=-1), positions


@kernel("gather")
def gather(op: ops.Gather, x: Array, indices: Array) -> Array:
    """np.take; an index outside is a UsageError, as it is data and not the graph."""
    size = x.shape[op.axis]
    outside = indices[(indices < -size) | (indices >= size)]
    if outside.size:
        raise UsageError(f"gather: index {outside.flat[0]} on an axis of {size} elements")
    return np.take(x, indices, axis=op.axis)


def sample_positions(size: int, length: int, scale: float, rule: ops.Coordinates) -> Array:
    """Where each of `length` output samples reads an axis of `size` samples; float32, as declared."""
    index = np.arange(length, dtype=np.float32)
    if rule is ops.Coordinates.ALIGN_CORNERS:
        return index * np.float32(size - 1) / np.float32(max(length - 1, 1))
    ratio = np.float32(scale) if scale else np.float32(length) / np.float32(size)
    if rule is ops.Coordinates.HALF_PIXEL:
        return (index + np.float32(0.5)) / ratio - np.float32(0.5)
    return index / ratio


def resample(x: Array, axis: int, positions: Array, mode: ops.ResizeMode) -> Array:
    """x read at fractional positions along one axis, neighbours clamped to the edge."""
    last = x.shape[axis] - 1
    below = np.floor(positions)
    lower = np.take(x, np.clip(below, 0, last).astype(np.int64), axis=axis)
    if mode is ops.ResizeMode.NEAREST:
        return lower
    upper = np.take(x, np.clip(below + 1, 0, last).astype(np.int64), axis=axis)
    weight = (positions - below).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    return np.asarray(lower * (1 - weight) + upper * weight)


@kernel("resize2d")
def resize2d(op: ops.Resize2d, x: Array) -> Array:
    """Rows first, then columns: both modes are separable."""
    for axis, length, scale in ((2, op.size[0], op.scale_h), (3, op.size[1], op.scale_w)):
        x = resample(x, axis, sample_positions(x.shape[axis], length, scale, op.coordinates), op.mode)
    return x
