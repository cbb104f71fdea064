"""Operators that choose or place elements by index."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sqzc.frontends.onnx.ops_elementwise import cast
from sqzc.frontends.onnx.table import OpView, lift
from sqzc.frontends.onnx.tensors import Array, int_range
from sqzc.ir import OpDef, Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops import shape as sh
from sqzc.ir.types import DType

MAX_TABLE = 1 << 24
MAX_ROUNDS = 64


def wrapped(op: OpView, indices: Value, size: int) -> Value:
    """Indices as i64, negative ones counted from the end."""
    wide = cast(op, indices, DType.I64)
    below = op.add(ew.Less(), wide, op.number(0, wide, "zero"))
    return op.add(ew.Where(), below, op.add(ew.Add(), wide, op.number(size, wide, "size")), wide)


@lift("Gather", since=1)
def lift_gather(op: OpView) -> Value:
    """Slices along one axis."""
    x, indices = op.input(0), op.input(1)
    axis = op.axis(op.attrs.integer("axis", 0), x.type.rank)
    return op.add(sh.Gather(axis=axis), x, cast(op, indices, DType.I64))


@lift("GatherElements", since=11)
def lift_gather_elements(op: OpView) -> Value:
    """y[i, j, k] = x[i, index[i, j, k], k] for axis 1: a gather from the flattened tensor."""
    x, indices = op.input(0), op.input(1)
    axis = op.axis(op.attrs.integer("axis", 0), x.type.rank)
    shape, wanted = x.type.shape, indices.type.shape
    if len(wanted) != len(shape) or any(w > s for i, (w, s) in enumerate(zip(wanted, shape, strict=True)) if i != axis):
        raise op.error("the indices do not fit", expected=f"rank {len(shape)}", got=f"{indices.type} for {x.type}")
    steps = _steps(shape)
    rest = _grid(op, wanted, [0 if i == axis else step for i, step in enumerate(steps)])
    along = op.add(ew.Mul(), wrapped(op, indices, shape[axis]), op.constant(np.asarray(steps[axis], np.int64), "step"))
    places = op.add(ew.Add(), along, op.constant(rest, "rest"))
    return op.add(sh.Gather(), op.reshape(x, (x.type.elements,)), places)


def _steps(shape: tuple[int, ...]) -> list[int]:
    """Elements from one index to the next along each axis."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _grid(op: OpView, shape: tuple[int, ...], steps: list[int]) -> Array:
    """The sum over all axes of index times step."""
    if math.prod(shape) > MAX_TABLE:
        raise op.unsupported(f"{op.type} of {math.prod(shape)} elements")
    total = np.zeros(shape, np.int64)
    for axis, step in enumerate(steps):
        line = np.arange(shape[axis], dtype=np.int64) * step
        total += line.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return total


@lift("GatherND", since=11)
def lift_gather_nd(op: OpView) -> Value:
    """The last axis of the indices holds a place in the axes of x after the first `batch_dims`."""
    x, indices = op.input(0), op.input(1)
    batch = op.attrs.integer("batch_dims", 0)
    shape, given = x.type.shape, indices.type.shape
    depth = given[-1] if given else 0
    if not 0 <= batch < min(len(given), len(shape)) or not 1 <= depth <= len(shape) - batch:
        raise op.error("the indices do not fit", got=f"{indices.type} for {x.type} with batch_dims {batch}")
    if shape[:batch] != given[:batch]:
        raise op.error("the batches differ", got=f"{indices.type} and {x.type}")
    rows, inner = shape[batch : batch + depth], shape[batch + depth :]
    places: Value | None = None
    for axis, (size, step) in enumerate(zip(rows, _steps(rows), strict=True)):
        starts, sizes = [0] * (len(given) - 1) + [axis], [*given[:-1], 1]
        part = op.reshape(op.add(sh.Slice(starts=starts, sizes=sizes), indices), given[:-1])
        line = op.add(ew.Mul(), wrapped(op, part, size), op.constant(np.asarray(step, np.int64), "step"))
        places = line if places is None else op.add(ew.Add(), places, line)
    assert places is not None
    if batch:
        steps = [step * math.prod(rows) for step in _steps(shape[:batch])]
        first = _grid(op, shape[:batch], steps).reshape(*shape[:batch], *(1,) * (len(given) - 1 - batch))
        places = op.add(ew.Add(), places, op.constant(first, "batch"))
    return op.add(sh.Gather(), op.reshape(x, (math.prod(shape[: batch + depth]), *inner)), places)


@lift("OneHot", since=9)
def lift_one_hot(op: OpView) -> Value:
    """The `on` value where the index is the place along a new axis, the `off` value elsewhere."""
    indices, depth, values = op.input(0), int(op.known_number(1, "the depth")), op.input(2)
    rank = indices.type.rank
    axis = op.axis(op.attrs.integer("axis", -1), rank + 1)
    if depth < 1 or depth * indices.type.elements > MAX_TABLE or values.type.shape != (2,):
        raise op.error(f"OneHot of depth {depth} with values {values.type}", expected="a depth from 1 and two values")
    whole = op.add(ew.Floor(), indices) if indices.type.dtype.is_float else indices
    shape = [*indices.type.shape[:axis], 1, *indices.type.shape[axis:]]
    places = np.arange(depth, dtype=np.int64).reshape([-1 if i == axis else 1 for i in range(rank + 1)])
    hit = op.add(ew.Equal(), op.reshape(wrapped(op, whole, depth), shape), op.constant(places, "places"))
    off, on = (op.reshape(op.add(sh.Slice(starts=(i,), sizes=(1,)), values), ()) for i in (0, 1))
    return op.add(ew.Where(), hit, on, off)


@lift("Compress", since=9)
def lift_compress(op: OpView) -> Value:
    """The slices where a known condition holds."""
    x, keep = op.input(0), op.known(1, "the condition")
    if op.attrs.has("axis"):
        axis = op.axis(op.attrs.integer("axis", 0), x.type.rank)
    else:
        x, axis = op.reshape(x, (x.type.elements,)), 0
    if keep.dtype != np.bool_ or keep.ndim != 1 or keep.size > x.type.shape[axis]:
        raise op.error("the condition does not fit", expected=f"up to {x.type.shape[axis]} truth values")
    return op.add(sh.Gather(axis=axis), x, op.constant(np.flatnonzero(keep).astype(np.int64), "kept"))


@lift("NonZero", since=9)
def lift_non_zero(op: OpView) -> Value:
    """The places of what is not zero, of a tensor that is known."""
    array = op.known(0, "the tensor")
    return op.constant(np.asarray(np.nonzero(array), np.int64).reshape(array.ndim, -1))


_REDUCTIONS: dict[str, tuple[Callable[[], OpDef], float]] = {
    "add": (ew.Add, 0.0),
    "mul": (ew.Mul, 1.0),
    "max": (ew.Maximum, -math.inf),
    "min": (ew.Minimum, math.inf),
}


def _scattered(op: OpView, x: Value, updates: Value, places: Array) -> Value:
    """x with the elements at `places` (in order, of the flattened tensor) replaced, or combined with what was there."""
    if places.size and not (0 <= places.min() and places.max() < x.type.elements):
        raise op.error("an index lies outside the tensor", got=str(x.type))
    if x.type.elements > MAX_TABLE:
        raise op.unsupported(f"{op.type} into {x.type.elements} elements")
    flat, added = op.reshape(x, (x.type.elements,)), op.reshape(updates, (updates.type.elements,))
    how = op.attrs.text("reduction", "none", ("none", *_REDUCTIONS))
    if how != "none":
        return op.reshape(_combined(op, flat, added, places.reshape(-1), how), x.type.shape)
    # One gather from both; of several updates of one element the last one stays.
    sources = np.arange(x.type.elements, dtype=np.int64)
    sources[places.reshape(-1)] = x.type.elements + np.arange(places.size)
    both = op.add(sh.Concat(axis=0), flat, added)
    return op.reshape(op.add(sh.Gather(), both, op.constant(sources, "sources")), x.type.shape)


def _combined(op: OpView, x: Value, updates: Value, places: Array, how: str) -> Value:
    """The n-th update of every element in the n-th round; an element without one meets what changes nothing."""
    ir, neutral = _REDUCTIONS[how]
    dtype = x.type.dtype
    if not dtype.is_float and math.isinf(neutral):
        neutral = int_range(dtype)[0 if neutral < 0 else 1]
    filled = op.add(sh.Concat(axis=0), updates, op.constant(np.asarray([neutral]).astype(dtype.numpy), "neutral"))
    order = np.argsort(places, kind="stable")
    counted = np.zeros(len(places), np.int64)
    starts = np.flatnonzero(np.diff(places[order], prepend=-1))
    counted[order] = np.arange(len(places)) - np.repeat(starts, np.diff(starts, append=len(places)))
    rounds = int(counted.max(initial=-1)) + 1
    if rounds > MAX_ROUNDS:
        raise op.unsupported(f"{op.type} with {rounds} updates of one element")
    for number in range(rounds):
        now = np.flatnonzero(counted == number)
        sources = np.full(x.type.elements, len(places), np.int64)
        sources[places[now]] = now
        x = op.add(ir(), x, op.add(sh.Gather(), filled, op.constant(sources, "sources")))
    return x


def _indices(op: OpView) -> Array:
    array = op.known(1, "the indices")
    if array.dtype.kind != "i":
        raise op.error("indices are whole numbers", got=array.dtype.name)
    return array.astype(np.int64)


@lift("ScatterElements", since=11)
@lift("Scatter", since=9)
def lift_scatter_elements(op: OpView) -> Value:
    """y[i, index[i, j, k], k] = updates[i, j, k] for axis 1, at indices that are known."""
    x, indices, updates = op.input(0), _indices(op), op.input(2)
    axis = op.axis(op.attrs.integer("axis", 0), x.type.rank)
    if indices.shape != updates.type.shape or indices.ndim != x.type.rank:
        raise op.error("indices and updates do not fit", got=f"{list(indices.shape)} and {updates.type} into {x.type}")
    steps, size = _steps(x.type.shape), x.type.shape[axis]
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        raise op.error("an index lies outside the tensor", expected=f"{-size} to {size - 1}")
    rest = _grid(op, tuple(indices.shape), [0 if i == axis else step for i, step in enumerate(steps)])
    return _scattered(op, x, updates, np.where(indices < 0, indices + size, indices) * steps[axis] + rest)


@lift("ScatterND", since=11)
def lift_scatter_nd(op: OpView) -> Value:
    """Slices of x replaced at places that are known."""
    x, indices, updates = op.input(0), _indices(op), op.input(2)
    shape = x.type.shape
    depth = indices.shape[-1] if indices.ndim else 0
    if not 1 <= depth <= len(shape) or updates.type.shape != (*indices.shape[:-1], *shape[depth:]):
        raise op.error("indices and updates do not fit", got=f"{list(indices.shape)} and {updates.type} into {x.type}")
    sizes = np.asarray(shape[:depth], np.int64)
    if indices.size and not ((-sizes <= indices).all() and (indices < sizes).all()):
        raise op.error("an index lies outside the tensor", got=str(x.type))
    first = (np.where(indices < 0, indices + sizes, indices) * np.asarray(_steps(shape)[:depth], np.int64)).sum(axis=-1)
    inner = _grid(op, shape[depth:], _steps(shape)[depth:])
    return _scattered(op, x, updates, first.reshape(*first.shape, *(1,) * inner.ndim) + inner)
