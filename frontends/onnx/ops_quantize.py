"""Quantised tensors: real number = (stored whole number - zero point) * scale. Said in the IR's ordinary arithmetic."""

from __future__ import annotations

from sqzc.frontends.onnx.ops_conv import convolved
from sqzc.frontends.onnx.ops_elementwise import cast
from sqzc.frontends.onnx.ops_matrix import product
from sqzc.frontends.onnx.table import OpView, lift
from sqzc.frontends.onnx.tensors import int_range, require_dtype
from sqzc.ir import Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops.shape import Expand, Slice
from sqzc.ir.types import DType


def _spread(op: OpView, vector: Value, x: Value, axis: int, block: int) -> Value:
    """A scale or zero point so that it broadcasts to x: one number, one along an axis, or one for each block of it."""
    shape = x.type.shape
    if vector.type.elements == 1:
        return op.reshape(vector, ())
    axis = op.axis(axis, x.type.rank)
    if vector.type.rank == 1:
        if vector.type.elements != shape[axis]:
            raise op.error("a scale for each place along the axis", expected=str(shape[axis]), got=str(vector.type))
        return op.reshape(vector, [size if i == axis else 1 for i, size in enumerate(shape)])
    blocks = tuple(-(-size // block) if i == axis and block else size for i, size in enumerate(shape))
    if block < 1 or vector.type.shape != blocks:
        raise op.error(f"scales for blocks of {block}", expected=str(list(blocks)), got=str(vector.type))
    split = [*blocks[: axis + 1], 1, *blocks[axis + 1 :]]
    wide = [*blocks[: axis + 1], block, *blocks[axis + 1 :]]
    flat = [*blocks[:axis], blocks[axis] * block, *blocks[axis + 1 :]]
    repeated = op.reshape(op.add(Expand(shape=wide), op.reshape(vector, split)), flat)
    if tuple(flat) == shape:
        return repeated
    return op.add(Slice(starts=(0,) * x.type.rank, sizes=shape), repeated)


def _saturated(op: OpView, y: Value, dtype: DType) -> Value:
    """Real numbers that are whole, as the nearest ones of an integer type."""
    low, high = int_range(dtype)
    return cast(op, op.add(ew.Clip(lo=float(low), hi=float(high)), y), dtype)


def _less(op: OpView, x: Value, zero: Value | None) -> Value:
    return x if zero is None else op.add(ew.Sub(), x, zero)


@lift("DequantizeLinear", since=10)
def lift_dequantize(op: OpView) -> Value:
    """(x - zero point) * scale."""
    axis, block = op.attrs.integer("axis", 1), op.attrs.integer("block_size", 0)
    number = op.attrs.integer("output_dtype", 0)
    x, scale, zero = op.input(0), op.input(1), op.optional(2)
    wanted = require_dtype(number, "the result of DequantizeLinear") if number else scale.type.dtype
    inner = DType.F32 if wanted is DType.F16 else wanted
    point = None if zero is None else _spread(op, cast(op, zero, inner), x, axis, block)
    rest = _less(op, cast(op, x, inner), point)
    factor = _spread(op, cast(op, scale, inner), x, axis, block)
    return cast(op, op.add(ew.Mul(), rest, factor), wanted)


@lift("QuantizeLinear", since=10)
def lift_quantize(op: OpView) -> Value:
    """round(x / scale) + zero point, halves to even, kept within the type."""
    axis, block = op.attrs.integer("axis", 1), op.attrs.integer("block_size", 0)
    op.attrs.flag("saturate", True)  # of eight-bit floats only
    number, precision = op.attrs.integer("output_dtype", 0), op.attrs.integer("precision", 0)
    x, scale, zero = op.input(0), op.input(1), op.optional(2)
    wanted = zero.type.dtype if zero is not None else DType.U8
    if zero is None and number:
        wanted = require_dtype(number, "the result of QuantizeLinear")
    if wanted.is_float:
        raise op.unsupported(f"QuantizeLinear to {wanted.value}")
    inner = require_dtype(precision, "the precision of QuantizeLinear") if precision else scale.type.dtype
    factor = _spread(op, cast(op, scale, inner), x, axis, block)
    y = op.add(ew.Round(), op.add(ew.Div(), cast(op, x, inner), factor))
    y = cast(op, y, DType.F64 if wanted.item_bytes > 2 else DType.F32)
    if zero is not None:
        y = op.add(ew.Add(), y, _spread(op, cast(op, zero, y.type.dtype), x, axis, block))
    return _saturated(op, y, wanted)


def _centred(op: OpView, index: int, zero_index: int, *, rows: bool = False, filters: bool = False) -> Value:
    """An input as i32 less its zero point, which may have one number for each row, column or filter."""
    x = cast(op, op.input(index), DType.I32)
    zero = op.optional(zero_index)
    if zero is None:
        return x
    return op.add(ew.Sub(), x, _lined_up(op, cast(op, zero, DType.I32), x, rows=rows, filters=filters))


def _lined_up(op: OpView, vector: Value, x: Value, *, rows: bool = False, filters: bool = False) -> Value:
    """One number, or a vector along rows of a matrix, filters of a weight, or else columns."""
    if vector.type.elements == 1:
        return op.reshape(vector, ())
    if vector.type.rank != 1:
        return vector
    if filters:
        return op.reshape(vector, (vector.type.elements, *(1,) * (x.type.rank - 1)))
    return op.reshape(vector, (vector.type.elements, 1)) if rows else vector


@lift("MatMulInteger", since=10)
def lift_matmul_integer(op: OpView) -> Value:
    """The product of whole numbers less their zero points, in 32 bits."""
    return product(op, _centred(op, 0, 2, rows=True), _centred(op, 1, 3))


@lift("ConvInteger", since=10)
def lift_conv_integer(op: OpView) -> Value:
    """A convolution of whole numbers less their zero points, in 32 bits; padding is at the zero point."""
    return convolved(op, _centred(op, 0, 2), _centred(op, 1, 3, filters=True), ())


def _requantized(op: OpView, total: Value, factor: Value, scale_index: int, zero_index: int) -> Value:
    """32-bit sums times the operands' scales, in terms of the result's scale and zero point."""
    real = op.add(ew.Mul(), cast(op, total, factor.type.dtype), factor)
    y = op.add(ew.Round(), op.add(ew.Div(), real, op.reshape(cast(op, op.input(scale_index), factor.type.dtype), ())))
    zero = op.input(zero_index)
    y = op.add(ew.Add(), cast(op, y, DType.F32), op.reshape(cast(op, zero, DType.F32), ()))
    return _saturated(op, y, zero.type.dtype)


@lift("QLinearMatMul", since=10)
def lift_qlinear_matmul(op: OpView) -> Value:
    """MatMul of quantised matrices to a quantised matrix."""
    total = product(op, _centred(op, 0, 2, rows=True), _centred(op, 3, 5))
    scales = [cast(op, op.input(index), DType.F32) for index in (1, 4)]
    left, right = (_lined_up(op, scale, total, rows=first) for scale, first in zip(scales, (True, False), strict=True))
    return _requantized(op, total, op.add(ew.Mul(), left, right), 6, 7)


@lift("QLinearConv", since=10)
def lift_qlinear_conv(op: OpView) -> Value:
    """Conv of quantised images to quantised images; the bias is whole numbers in terms of both scales."""
    bias = op.optional(8)
    total = convolved(op, _centred(op, 0, 2), _centred(op, 3, 5, filters=True), () if bias is None else (bias,))
    weight_scale = cast(op, op.input(4), DType.F32)
    if weight_scale.type.elements > 1:
        weight_scale = op.reshape(weight_scale, (weight_scale.type.elements, *(1,) * (total.type.rank - 2)))
    image_scale = op.reshape(cast(op, op.input(1), DType.F32), ())
    factor = op.add(ew.Mul(), image_scale, _lined_up(op, weight_scale, total))
    return _requantized(op, total, factor, 6, 7)
