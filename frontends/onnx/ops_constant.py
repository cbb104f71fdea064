"""Operators that make tensors of nothing, and those that are known from static shapes alone."""

from __future__ import annotations

import math

import numpy as np

from sqzc.frontends.onnx.table import OpView, lift
from sqzc.frontends.onnx.tensors import ir_dtype, require_dtype
from sqzc.ir import Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.types import MAX_ELEMENTS, MAX_RANK, DType

MAX_MADE = 1 << 24


@lift("Constant", since=1)
def lift_constant(op: OpView) -> Value:
    """A tensor, a number, or a list of numbers."""
    attrs = op.attrs
    array = attrs.tensor("value")
    if array is None and attrs.has("value_float"):
        array = np.asarray(attrs.real("value_float", 0.0), np.float32)
    elif array is None and attrs.has("value_int"):
        array = np.asarray(attrs.integer("value_int", 0), np.int64)
    elif array is None and attrs.has("value_floats"):
        array = np.asarray(attrs.reals("value_floats"), np.float32)
    elif array is None and attrs.has("value_ints"):
        array = np.asarray(attrs.ints("value_ints"), np.int64)
    for name in ("value_string", "value_strings", "sparse_value"):
        if attrs.has(name):
            raise op.unsupported(f"Constant with '{name}'")
    if array is None:
        raise op.error("Constant without a value")
    return op.constant(array)


@lift("ConstantOfShape", since=9)
def lift_constant_of_shape(op: OpView) -> Value:
    """One number in every place of a known shape; 0.0 by default."""
    shape = op.known_ints(0, "the shape")
    fill = op.attrs.tensor("value")
    if fill is None:
        fill = np.zeros(1, np.float32)
    if fill.size != 1:
        raise op.error("ConstantOfShape with a value of several numbers", expected="1", got=str(fill.size))
    if len(shape) > MAX_RANK or any(dim < 0 for dim in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise op.error(f"no tensor has shape {list(shape)}")
    return op.values.filled(op.out, fill, shape)


@lift("Shape", since=1)
def lift_shape(op: OpView) -> Value:
    """The dimensions from `start` to `end`; shapes are static, so this is a constant."""
    shape = op.input(0).type.shape
    rank = len(shape)
    start, end = op.attrs.integer("start", 0), op.attrs.integer("end", rank)
    bounds = [min(max(bound + rank if bound < 0 else bound, 0), rank) for bound in (start, end)]
    return op.constant(np.asarray(shape[bounds[0] : bounds[1]], np.int64))


@lift("Size", since=1)
def lift_size(op: OpView) -> Value:
    """The number of elements."""
    return op.constant(np.asarray(op.input(0).type.elements, np.int64))


@lift("Range", since=11)
def lift_range(op: OpView) -> Value:
    """start, start + delta, ... before limit."""
    op.attrs.integer("stash_type", 1)
    start, limit, delta = (op.known(index, what) for index, what in enumerate(("'start'", "'limit'", "'delta'")))
    if not start.dtype == limit.dtype == delta.dtype or {start.size, limit.size, delta.size} != {1}:
        raise op.error("Range takes three numbers of one type")
    first, last, step = (float(part.ravel()[0]) for part in (start, limit, delta))
    if not step or not all(map(math.isfinite, (first, last, step))):
        raise op.error(f"Range from {first:g} to {last:g} in steps of {step:g}")
    count = max(math.ceil((last - first) / step), 0)
    if count > MAX_MADE:
        raise op.error(f"Range of {count} numbers", expected=f"at most {MAX_MADE}")
    steps = np.arange(count).astype(start.dtype)
    return op.constant((start.ravel() + steps * delta.ravel()).astype(start.dtype))


def _dtype_attribute(op: OpView, default: DType) -> DType:
    number = op.attrs.integer("dtype", 0)
    return require_dtype(number, f"the result of {op.type}") if number else default


@lift("EyeLike", since=9)
def lift_eye_like(op: OpView) -> Value:
    """Ones on the k-th diagonal of a matrix of the input's shape."""
    like = op.input(0).type
    if like.rank != 2 or like.elements > MAX_MADE:
        raise op.error(f"EyeLike of {like}", expected=f"a matrix of at most {MAX_MADE} elements")
    dtype = _dtype_attribute(op, like.dtype)
    rows, columns = like.shape
    k = min(max(op.attrs.integer("k", 0), -rows), columns)
    return op.constant(np.eye(rows, columns, k).astype(dtype.numpy))


@lift("Trilu", since=14)
def lift_trilu(op: OpView) -> Value:
    """The upper or lower triangle of each matrix, zeros elsewhere."""
    x = op.input(0)
    upper = op.attrs.flag("upper", True)
    k = int(op.known_number(1, "'k'")) if op.has(1) else 0
    if x.type.rank < 2 or math.prod(x.type.shape[-2:]) > MAX_MADE:
        raise op.error(f"Trilu of {x.type}", expected=f"matrices of at most {MAX_MADE} elements")
    rows, columns = x.type.shape[-2:]
    ones = np.ones((rows, columns), np.bool_)
    k = min(max(k, -rows - 1), columns + 1)
    kept = np.triu(ones, k) if upper else np.tril(ones, k)
    return op.add(ew.Where(), op.constant(kept, "kept"), x, op.number(0, x, "zero"))


def window(op: OpView, weights: tuple[float, float, float]) -> Value:
    """a - b cos(2 pi i / n) + c cos(4 pi i / n) for n known at compile time; n - 1 where not periodic."""
    size = int(op.known_number(0, "the size"))
    periodic = op.attrs.flag("periodic", True)
    number = op.attrs.integer("output_datatype", 1)
    if not 0 <= size <= MAX_MADE or ir_dtype(number) is None:
        raise op.error(f"{op.type} of {size} elements")
    angle = 2 * np.pi * np.arange(size) / max(size if periodic else size - 1, 1)
    a, b, c = weights
    array = a - b * np.cos(angle) + c * np.cos(2 * angle)
    return op.constant(array.astype(require_dtype(number, f"the result of {op.type}").numpy))


@lift("HannWindow", since=17)
def lift_hann(op: OpView) -> Value:
    """(1 - cos) / 2."""
    return window(op, (0.5, 0.5, 0.0))


@lift("HammingWindow", since=17)
def lift_hamming(op: OpView) -> Value:
    """25/46 - 21/46 cos."""
    return window(op, (25 / 46, 21 / 46, 0.0))


@lift("BlackmanWindow", since=17)
def lift_blackman(op: OpView) -> Value:
    """0.42 - 0.5 cos + 0.08 cos of twice the angle."""
    return window(op, (0.42, 0.5, 0.08))
