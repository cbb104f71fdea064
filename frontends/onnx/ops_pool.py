"""Pools over one to three spatial axes, and over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np

from sqzc.frontends.common import settled_rounding
from sqzc.frontends.onnx.table import OpView, Results, lift
from sqzc.frontends.onnx.tensors import int_range
from sqzc.frontends.onnx.windows import Window, as_image, frames, from_frames, from_image, read_window, spatial
from sqzc.ir import Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops import shape as sh
from sqzc.ir.ops.nn import AvgPool2d, MaxPool2d, Rounding, window_size
from sqzc.ir.types import DType

MAX_TAPS = 1 << 10


def _window(op: OpView, x: Value) -> tuple[Window, Rounding]:
    window = read_window(op, spatial(op, x))
    if window.axes > 3:
        raise op.unsupported(f"{op.type} over {window.axes} spatial axes")
    if not op.attrs.flag("ceil_mode", False):
        return window, Rounding.FLOOR
    parts = (window.reach, window.stride, window.before, window.after)
    return window, settled_rounding(spatial(op, x), *parts)


def _hanging(window: Window, sizes: tuple[int, ...]) -> tuple[Window, Rounding]:
    """A window whose padding is longer at the end as one that hangs over the end instead, if it has the same places.

    Only for pools to which padding and what lies past it are the same. Exporters write either form; this is Caffe2's.
    """
    if all(b >= a for b, a in zip(window.before, window.after, strict=True)):
        return window, Rounding.FLOOR
    for size, reach, stride, before, after in zip(
        sizes, window.reach, window.stride, window.before, window.after, strict=True
    ):
        if reach > size + 2 * before:
            return window, Rounding.FLOOR
        hanging = window_size(size, reach, stride, before, before, Rounding.CEIL, "pool")
        if hanging != window_size(size, reach, stride, before, after, Rounding.FLOOR, "pool"):
            return window, Rounding.FLOOR
    return replace(window, after=window.before), Rounding.CEIL


def _plane(op: OpView, x: Value, make: Callable[[Window], MaxPool2d | AvgPool2d], window: Window) -> Value:
    """A pool over one or two axes."""
    return from_image(op, op.add(make(window), as_image(op, x)), x.type.rank)


def _volume(op: OpView, x: Value, make: Callable[[Window], MaxPool2d | AvgPool2d], window: Window) -> Value:
    """A pool over three axes that can be taken one after the other: within the planes, then along the depth."""
    n, c = x.type.shape[:2]
    planes = from_frames(op, _plane(op, frames(op, x), make, window.only(1, 3)), n)
    d, h, w = planes.type.shape[2:]
    # The depth becomes the width: [N, C, H * W, D].
    columns = op.transpose(op.reshape(planes, (n, c, d, h * w)), (0, 1, 3, 2))
    y = op.add(make(window.only(0, 1)), columns)
    return op.reshape(op.transpose(y, (0, 1, 3, 2)), (n, c, y.type.shape[3], h, w))


@lift("MaxPool", since=1)
def lift_max_pool(op: OpView) -> Results:
    """Padded taps never win. The second output is the position of each maximum in the flattened input."""
    x = op.input(0)
    window, rounding = _window(op, x)
    if rounding is Rounding.FLOOR:
        window, rounding = _hanging(window, spatial(op, x))
    column_major = op.attrs.flag("storage_order", False)

    def make(part: Window) -> MaxPool2d:
        return MaxPool2d(
            kernel=part.kernel2, stride=part.stride2, pads=part.pads2, dilation=part.dilation2, rounding=rounding
        )

    y = _volume(op, x, make, window) if window.axes == 3 else _plane(op, x, make, window)
    if not op.wants(1):
        return y
    return y, _max_positions(op, x, window, y.type.shape[2:], column_major)


def _max_positions(op: OpView, x: Value, window: Window, out: tuple[int, ...], column_major: bool) -> Value:
    """The taps of every window side by side, the first largest among them, and where that tap lies."""
    sizes = x.type.shape[2:]
    taps = list(product(*(range(k) for k in window.kernel)))
    if len(taps) > MAX_TAPS:
        raise op.unsupported(f"the positions of a MaxPool over {len(taps)} elements")
    lowest = -math.inf if x.type.dtype.is_float else float(int_range(x.type.dtype)[0])
    padded = _pad_for_windows(op, x, window, out, lowest)
    layers, places = [], []
    strides = [math.prod(sizes[:axis]) if column_major else math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    for tap in taps:
        place = np.zeros((1,) * len(out), np.int64)
        starts = [0, 0]
        for axis, step in enumerate(strides):
            offset = tap[axis] * window.dilation[axis]
            starts.append(offset)
            line = (np.arange(out[axis]) * window.stride[axis] + offset - window.before[axis]) * step
            place = place + line.reshape([-1 if i == axis else 1 for i in range(len(out))])
        ir = sh.Slice(starts=starts, sizes=(*x.type.shape[:2], *out), steps=(1, 1, *window.stride))
        layers.append(op.reshape(op.add(ir, padded), (*x.type.shape[:2], *out, 1)))
        places.append(place)
    best = op.add(sh.ArgMax(axis=len(out) + 2, keepdims=False), op.add(sh.Concat(axis=len(out) + 2), *layers))
    return _look_up(op, best, np.stack(places, axis=-1), math.prod(sizes))


def _pad_for_windows(op: OpView, x: Value, window: Window, out: tuple[int, ...], value: float) -> Value:
    """x with room for every tap of every window."""
    after = []
    for axis, size in enumerate(x.type.shape[2:]):
        reach = (out[axis] - 1) * window.stride[axis] + window.reach[axis]
        after.append(max(reach - size - window.before[axis], 0))
    if not any(after) and not any(window.before):
        return x
    return op.add(sh.Pad(pads=(0, 0, *window.before, 0, 0, *after), value=value), x)


def _look_up(op: OpView, best: Value, places: np.ndarray[tuple[int, ...], np.dtype[np.int64]], plane: int) -> Value:
    """places[..., best] plus the start of the plane: best is [N, C, out...], places [out..., taps]."""
    n, c, *out = best.type.shape
    taps = places.shape[-1]
    rows = np.arange(math.prod(out), dtype=np.int64).reshape(out) * taps
    table = op.constant(places.reshape(-1), "places")
    picked = op.add(sh.Gather(), table, op.add(ew.Add(), best, op.constant(rows, "rows")))
    planes = (np.arange(n * c, dtype=np.int64) * plane).reshape(n, c, *(1,) * len(out))
    return op.add(ew.Add(), picked, op.constant(planes, "planes"))


@lift("AveragePool", since=1)
def lift_average_pool(op: OpView) -> Value:
    """Over the taps inside the image, or inside the image and its padding with `count_include_pad`."""
    x = op.input(0)
    window, rounding = _window(op, x)
    include = op.attrs.flag("count_include_pad", False)
    if rounding is Rounding.FLOOR and not include:
        window, rounding = _hanging(window, spatial(op, x))
    if window.axes == 3:
        return _average_volume(op, x, window, rounding, include)

    def make(part: Window) -> AvgPool2d:
        return AvgPool2d(
            kernel=part.kernel2,
            stride=part.stride2,
            pads=part.pads2,
            dilation=part.dilation2,
            rounding=rounding,
            count_include_pad=include,
        )

    return _plane(op, x, make, window)


def _window_sums(op: OpView, x: Value, window: Window, rounding: Rounding) -> Value:
    """The sum over each window: the mean that counts every tap, times their number."""

    def make(part: Window) -> AvgPool2d:
        return AvgPool2d(
            kernel=part.kernel2,
            stride=part.stride2,
            pads=part.pads2,
            dilation=part.dilation2,
            rounding=rounding,
            count_include_pad=True,
            count_overhang=True,
        )

    mean = _volume(op, x, make, window) if window.axes == 3 else _plane(op, x, make, window)
    return op.add(ew.Mul(), mean, op.number(math.prod(window.kernel), x, "taps"))


def _average_volume(op: OpView, x: Value, window: Window, rounding: Rounding, include: bool) -> Value:
    """The sum of each window over the number of its taps that count, which is known."""
    counts = np.ones((1,) * 3)
    for axis, size in enumerate(x.type.shape[2:]):
        pads = (window.before[axis], window.after[axis])
        out = window_size(size, window.reach[axis], window.stride[axis], *pads, rounding, op.type)
        first, last = (-pads[0], size + pads[1]) if include else (0, size)
        taps = np.arange(window.kernel[axis]) * window.dilation[axis]
        places = (np.arange(out) * window.stride[axis] - pads[0])[:, None] + taps
        line = ((places >= first) & (places < last)).sum(axis=1)
        counts = counts * line.reshape([-1 if i == axis else 1 for i in range(3)])
    sums = _window_sums(op, x, window, rounding)
    return op.add(ew.Div(), sums, op.constant(counts.astype(x.type.dtype.numpy), "counts"))


@lift("LpPool", since=2)
def lift_lp_pool(op: OpView) -> Value:
    """The p-th root of the sum of |x|^p over each window."""
    x = op.input(0)
    window, rounding = _window(op, x)
    p = float(op.attrs.integer("p", 2))
    return _root(op, _window_sums(op, _power(op, x, p), window, rounding), p)


def _power(op: OpView, x: Value, p: float) -> Value:
    if p < 1:
        raise op.error(f"'p' must be at least 1, got {p:g}")
    if p == 2:
        return op.add(ew.Mul(), x, x)
    magnitude = op.add(ew.Abs(), x)
    return magnitude if p == 1 else op.add(ew.Pow(), magnitude, op.number(p, x, "p"))


def _root(op: OpView, total: Value, p: float) -> Value:
    if p == 1:
        return total
    return op.add(ew.Sqrt(), total) if p == 2 else op.add(ew.Pow(), total, op.number(1 / p, total, "1/p"))


@lift("GlobalAveragePool", "GlobalMaxPool", since=1)
def lift_global_pool(op: OpView) -> Value:
    """One window over all spatial axes."""
    x = op.input(0)
    sizes = spatial(op, x)
    flat = x if len(sizes) <= 2 else op.reshape(x, (*x.type.shape[:2], sizes[0], math.prod(sizes[1:])))
    image = as_image(op, flat)
    kind = MaxPool2d if op.type == "GlobalMaxPool" else AvgPool2d
    y = op.add(kind(kernel=image.type.shape[2:]), image)
    return op.reshape(y, (*x.type.shape[:2], *(1,) * len(sizes)))


@lift("GlobalLpPool", since=2)
def lift_global_lp_pool(op: OpView) -> Value:
    """The p-th root of the sum of |x|^p over all spatial axes."""
    x = op.input(0)
    axes, p = tuple(range(2, 2 + len(spatial(op, x)))), float(op.attrs.integer("p", 2))
    return _root(op, op.add(sh.ReduceSum(axes=axes), _power(op, x, p)), p)


@lift("MaxUnpool", since=9)
def lift_max_unpool(op: OpView) -> Value:
    """Each element to the place that its index names, where those are known at compile time."""
    x, places = op.input(0), op.known(1, "the positions")
    window = read_window(op, spatial(op, x))
    shape = op.known_ints(2, "'output_shape'") if op.has(2) else _unpooled(x, window)
    inner = (*x.type.shape[:2], *_unpooled(x, window)[2:])
    if places.dtype != DType.I64.numpy or places.shape != x.type.shape:
        raise op.error("the positions do not fit", expected=f"i64{list(x.type.shape)}", got=str(list(places.shape)))
    # Positions count within the result without an output_shape.
    total = math.prod(inner)
    if places.size and not (0 <= places.min() and places.max() < total):
        raise op.error("a position lies outside the result", expected=f"0 to {total - 1}")
    sources = np.full(total, x.type.elements, np.int64)
    sources[places.reshape(-1)] = np.arange(places.size)
    padded = op.add(sh.Pad(pads=(0, 1)), op.reshape(x, (x.type.elements,)))
    y = op.reshape(op.add(sh.Gather(), padded, op.constant(sources, "sources")), inner)
    if tuple(shape) == inner:
        return y
    more = tuple(want - have for want, have in zip(shape, inner, strict=True))
    if len(shape) != len(inner) or min(more) < 0:
        raise op.unsupported(f"MaxUnpool to {list(shape)} from windows over {list(inner)}")
    return op.add(sh.Pad(pads=(*(0,) * len(more), *more)), y)


def _unpooled(x: Value, window: Window) -> tuple[int, ...]:
    sizes = []
    for axis, size in enumerate(x.type.shape[2:]):
        pads = window.before[axis] + window.after[axis]
        sizes.append((size - 1) * window.stride[axis] + window.kernel[axis] - pads)
    return (*x.type.shape[:2], *sizes)
