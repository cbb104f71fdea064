"""Reductions, searches along an axis, and softmax."""

from __future__ import annotations

import math

import numpy as np

from sqzc.frontends.onnx.ops_elementwise import cast
from sqzc.frontends.onnx.table import OpView, Results, lift
from sqzc.frontends.onnx.tensors import int_range
from sqzc.ir import Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops import shape as sh
from sqzc.ir.ops.nn import AvgPool2d, Softmax
from sqzc.ir.types import DType

_KINDS: dict[str, type[sh.Reduce]] = {
    "Sum": sh.ReduceSum,
    "Mean": sh.ReduceMean,
    "Max": sh.ReduceMax,
    "Min": sh.ReduceMin,
    "Prod": sh.ReduceProd,
}
_LARGEST = float(np.finfo(np.float32).max)


def _reduce_axes(op: OpView, rank: int, inputs_from: int) -> tuple[int, ...] | None:
    """The axes to reduce; None where no axes mean nothing to do."""
    given = op.ints("axes", 1, inputs_from)
    noop = op.attrs.flag("noop_with_empty_axes", False)
    if not given:
        return None if noop else tuple(range(rank))
    return tuple(sorted(op.axes(given, rank)))


def _reduce(op: OpView, inputs_from: int) -> Value:
    x, keepdims = op.input(0), op.attrs.flag("keepdims", True)
    axes, kind = _reduce_axes(op, x.type.rank, inputs_from), op.type.removeprefix("Reduce")
    if axes is None:
        # Without axes nothing is summed up, but the functions around the sum still apply.
        axes, keepdims = (), True
    if kind in _KINDS:
        return plain_reduce(op, x, kind, axes, keepdims)
    return _composed(op, x, kind, axes, keepdims)


def plain_reduce(op: OpView, x: Value, kind: str, axes: tuple[int, ...], keepdims: bool) -> Value:
    """One IR op; truth values go through numbers, and a maximum or minimum of nothing is the worst there is."""
    if x.type.dtype is DType.BOOL:
        return cast(op, plain_reduce(op, cast(op, x, DType.U8), kind, axes, keepdims), DType.BOOL)
    if kind in ("Max", "Min") and any(x.type.shape[axis] == 0 for axis in axes):
        shape = sh.ReduceSum(axes=axes, keepdims=keepdims).infer(x.type).shape
        return op.filled(_worst(x.type.dtype, kind), x.type.dtype, shape)
    if kind == "Mean" and axes == (2, 3) and x.type.rank == 4 and x.type.dtype is DType.F32 and x.type.elements:
        # What some exporters write for a global pool, which takes images in any layout.
        y = op.add(AvgPool2d(kernel=x.type.shape[2:]), x)
        return y if keepdims else op.reshape(y, x.type.shape[:2])
    return op.add(_KINDS[kind](axes=axes, keepdims=keepdims), x)


def _worst(dtype: DType, kind: str) -> float:
    if dtype.is_float:
        return -math.inf if kind == "Max" else math.inf
    return int_range(dtype)[0 if kind == "Max" else 1]


def _composed(op: OpView, x: Value, kind: str, axes: tuple[int, ...], keepdims: bool) -> Value:
    if kind == "LogSumExp":
        return _log_sum_exp(op, x, axes, keepdims)
    if kind == "L1":
        x = op.add(ew.Abs(), x)
    elif kind in ("L2", "SumSquare"):
        x = op.add(ew.Mul(), x, x)
    total = plain_reduce(op, x, "Sum", axes, keepdims)
    if kind not in ("L2", "LogSum"):
        return total
    dtype = total.type.dtype
    wide = total if dtype.is_float else cast(op, total, DType.F64)
    return cast(op, op.add(ew.Sqrt() if kind == "L2" else ew.Log(), wide), dtype)


def _log_sum_exp(op: OpView, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """The maximum is taken off first and put back after; an infinite one is taken for the largest number."""
    dtype = x.type.dtype
    wide = x if dtype.is_float else cast(op, x, DType.F64)
    top = op.add(ew.Clip(lo=-_LARGEST, hi=_LARGEST), plain_reduce(op, wide, "Max", axes, True))
    powers = op.add(ew.Exp(), op.add(ew.Sub(), wide, top))
    y = op.add(ew.Add(), op.add(ew.Log(), plain_reduce(op, powers, "Sum", axes, True)), top)
    if not keepdims:
        y = op.reshape(y, [size for axis, size in enumerate(y.type.shape) if axis not in axes])
    return cast(op, y, dtype)


@lift("ReduceSum", since=1)
def lift_reduce_sum(op: OpView) -> Value:
    """Axes are an input from opset 13 on."""
    return _reduce(op, 13)


@lift(*(f"Reduce{k}" for k in ("Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")), since=1)
def lift_reduce(op: OpView) -> Value:
    """Axes are an input from opset 18 on."""
    return _reduce(op, 18)


@lift("ArgMax", "ArgMin", since=1)
def lift_arg_reduce(op: OpView) -> Value:
    """The position along one axis; of equals the first, or the last."""
    x = op.input(0)
    axis = op.axis(op.attrs.integer("axis", 0), x.type.rank)
    keepdims, last = op.attrs.flag("keepdims", True), op.attrs.flag("select_last_index", False)
    kind = sh.ArgMax if op.type == "ArgMax" else sh.ArgMin
    return op.add(kind(axis=axis, keepdims=keepdims, last=last), x)


@lift("TopK", since=1)
def lift_topk(op: OpView) -> Results:
    """The k largest or smallest along one axis with their positions, in order."""
    x = op.input(0)
    rank = x.type.rank
    axis = op.axis(op.attrs.integer("axis", -1), rank)
    k = op.attrs.integer("k", 0) if op.opset < 10 else int(op.known_number(1, "k"))
    largest = op.attrs.flag("largest", True)
    op.attrs.flag("sorted", True)  # in order is an order
    to_last = (*(i for i in range(rank) if i != axis), axis)
    back = tuple(sorted(range(rank), key=lambda i: to_last[i]))
    results = op.add_multi(sh.TopK(k=k, largest=largest), op.transpose(x, to_last))
    return [op.transpose(value, back) for value in results]


def _softmax_axes(op: OpView, x: Value) -> tuple[int, ...]:
    """The axes to normalise over together.

    Before opset 13 everything from `axis` on, after that the one axis. Axes of one element behind it change nothing
    and are taken in, so that a net has one form whichever format it came from.
    """
    shape = x.type.shape
    if op.opset < 13:
        first = op.axis(op.attrs.integer("axis", 1), max(x.type.rank, 1))
        return tuple(range(first, x.type.rank))
    first = op.axis(op.attrs.integer("axis", -1), x.type.rank)
    last = first + 1
    while last < x.type.rank and shape[last] == 1:
        last += 1
    return tuple(range(first, last))


@lift("Softmax", since=1)
def lift_softmax(op: OpView) -> Value:
    """exp(x) over its sum. Half precision is rounded after every step, as in the standard's own definition."""
    x = op.input(0)
    axes = _softmax_axes(op, x)
    if x.type.dtype is not DType.F16:
        return op.add(Softmax(axes=axes), x)
    powers = op.add(ew.Exp(), op.add(ew.Sub(), x, op.add(sh.ReduceMax(axes=axes), x)))
    return op.add(ew.Div(), powers, op.add(sh.ReduceSum(axes=axes), powers))


@lift("LogSoftmax", since=1)
def lift_log_softmax(op: OpView) -> Value:
    """x - log(sum(exp(x))), the maximum taken off first."""
    x = op.input(0)
    axes = _softmax_axes(op, x)
    rest = op.add(ew.Sub(), x, op.add(sh.ReduceMax(axes=axes), x))
    total = op.add(sh.ReduceSum(axes=axes), op.add(ew.Exp(), rest))
    return op.add(ew.Sub(), rest, op.add(ew.Log(), total))


@lift("Hardmax", since=1)
def lift_hardmax(op: OpView) -> Value:
    """1 at the first largest element, 0 elsewhere."""
    x = op.input(0)
    axes = _softmax_axes(op, x)
    shape = x.type.shape
    before, inside = shape[: axes[0]], math.prod(shape[axis] for axis in axes)
    flat = op.reshape(x, (math.prod(before), inside, math.prod(shape[axes[-1] + 1 :])))
    best = op.add(sh.ArgMax(axis=1), flat)
    places = op.constant(np.arange(inside, dtype=np.int64).reshape(1, inside, 1), "places")
    return op.reshape(cast(op, op.add(ew.Equal(), best, places), x.type.dtype), shape)


@lift("CumSum", since=11)
def lift_cumulative_sum(op: OpView) -> Value:
    """Sums of all elements up to each one along an axis."""
    return _cumulative(op, ew.Add(), 0.0)


@lift("CumProd", since=26)
def lift_cumulative_product(op: OpView) -> Value:
    """Products of all elements up to each one along an axis."""
    return _cumulative(op, ew.Mul(), 1.0)


def _cumulative(op: OpView, ir: ew.Binary, neutral: float) -> Value:
    """Combines each element with the one 1 before it, then 2, 4, ... before it: log2 of the length many steps."""
    exclusive, backwards = op.attrs.flag("exclusive", False), op.attrs.flag("reverse", False)
    x = op.input(0)
    axis = op.axis(int(op.known_number(1, "the axis")), x.type.rank)
    size = x.type.shape[axis]
    y = _shifted(op, x, axis, 1, backwards, neutral) if exclusive and size else x
    step = 1
    while step < size:
        y = op.add(ir, y, _shifted(op, y, axis, step, backwards, neutral))
        step *= 2
    return y


def _shifted(op: OpView, x: Value, axis: int, step: int, backwards: bool, fill: float) -> Value:
    """Element i is x[i - step], or x[i + step] backwards; `fill` where there is none."""
    kept = x.type.shape[axis] - step
    starts = [step if i == axis and backwards else 0 for i in range(x.type.rank)]
    sizes = [kept if i == axis else dim for i, dim in enumerate(x.type.shape)]
    part = op.add(sh.Slice(starts=starts, sizes=sizes), x)
    room = [step if i == axis else 0 for i in range(x.type.rank)]
    none = [0] * x.type.rank
    return op.add(sh.Pad(pads=(*none, *room) if backwards else (*room, *none), value=fill), part)
