"""Operators on several tensors, broadcast by numpy's rule: arithmetic, comparisons, logic, choice."""

from __future__ import annotations

import math
from collections.abc import Callable

from sqzc.frontends.onnx.ops_elementwise import cast, unequal
from sqzc.frontends.onnx.table import OpView, lift
from sqzc.ir import OpDef, Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops.elementwise import broadcast_shapes
from sqzc.ir.types import DType

_ARITHMETIC: dict[str, Callable[[], OpDef]] = {"Add": ew.Add, "Sub": ew.Sub, "Mul": ew.Mul, "Div": ew.Div}


@lift(*_ARITHMETIC, since=7)
def lift_arithmetic(op: OpView) -> Value:
    """One IR op."""
    return op.add(_ARITHMETIC[op.type](), op.input(0), op.input(1))


_FOLDS: dict[str, Callable[[], OpDef]] = {"Sum": ew.Add, "Max": ew.Maximum, "Min": ew.Minimum, "Mean": ew.Add}


@lift(*_FOLDS, since=6)
def lift_fold(op: OpView) -> Value:
    """From left to right over all inputs; the mean is the sum over their number."""
    first, *others = op.inputs()
    total = first
    for other in others:
        total = op.add(_FOLDS[op.type](), total, other)
    if op.type == "Mean" and others:
        total = op.add(ew.Div(), total, op.number(1 + len(others), total, "count"))
    return total


@lift("Equal", since=7)
def lift_equal(op: OpView) -> Value:
    """a == b."""
    return op.add(ew.Equal(), op.input(0), op.input(1))


@lift("Less", since=7)
def lift_less(op: OpView) -> Value:
    """a < b."""
    return op.add(ew.Less(), op.input(0), op.input(1))


@lift("Greater", since=7)
def lift_greater(op: OpView) -> Value:
    """b < a."""
    return op.add(ew.Less(), op.input(1), op.input(0))


@lift("LessOrEqual", since=12)
def lift_less_or_equal(op: OpView) -> Value:
    """a <= b."""
    return op.add(ew.LessEqual(), op.input(0), op.input(1))


@lift("GreaterOrEqual", since=12)
def lift_greater_or_equal(op: OpView) -> Value:
    """b <= a."""
    return op.add(ew.LessEqual(), op.input(1), op.input(0))


@lift("And", since=7)
def lift_and(op: OpView) -> Value:
    """b where a holds, else false."""
    a, b = op.input(0), op.input(1)
    return op.add(ew.Where(), a, b, op.number(False, b, "false"))


@lift("Or", since=7)
def lift_or(op: OpView) -> Value:
    """True where a holds, else b."""
    a, b = op.input(0), op.input(1)
    return op.add(ew.Where(), a, op.number(True, b, "true"), b)


@lift("Xor", since=7)
def lift_xor(op: OpView) -> Value:
    """a != b of truth values."""
    return unequal(op, op.input(0), op.input(1))


@lift("Where", since=9)
def lift_where(op: OpView) -> Value:
    """a where the condition holds, else b."""
    return op.add(ew.Where(), op.input(0), op.input(1), op.input(2))


@lift("Pow", since=7)
def lift_pow(op: OpView) -> Value:
    """The type of the base is that of the result; whole numbers go through double precision."""
    base, exponent = op.input(0), op.input(1)
    wanted = base.type.dtype
    if wanted.is_float and exponent.type.dtype is not DType.F64:
        return op.add(ew.Pow(), base, cast(op, exponent, wanted))
    power = op.add(ew.Pow(), cast(op, base, DType.F64), cast(op, exponent, DType.F64))
    return cast(op, power, wanted)


@lift("Mod", since=10)
def lift_mod(op: OpView) -> Value:
    """The remainder with the sign of the divisor, or of the dividend with `fmod`."""
    like_c, a, b = op.attrs.flag("fmod", False), op.input(0), op.input(1)
    if a.type.dtype.is_float:
        if not like_c and op.opset < 28:
            raise op.error("Mod of floating point numbers", expected="fmod = 1")
        rest = _float_remainder(op, a, b)
    else:
        rest = op.add(ew.Sub(), a, op.add(ew.Mul(), op.add(ew.Div(), a, b), b))
    if like_c:
        return rest
    zero = op.number(0, rest, "zero")
    differ = unequal(op, op.add(ew.Less(), rest, zero), op.add(ew.Less(), b, zero))
    wrong = op.add(ew.Where(), op.add(ew.Equal(), rest, zero), op.number(False, differ, "false"), differ)
    return op.add(ew.Where(), wrong, op.add(ew.Add(), rest, b), rest)


def _float_remainder(op: OpView, a: Value, b: Value) -> Value:
    """a - b * trunc(a / b), and a itself where b is infinite.

    Exact for quotients that the type can count, which are all that networks have a use for.
    """
    quotient = op.add(ew.Div(), a, b)
    whole = op.add(ew.Mul(), op.add(ew.Sign(), quotient), op.add(ew.Floor(), op.add(ew.Abs(), quotient)))
    rest = op.add(ew.Sub(), a, op.add(ew.Mul(), whole, b))
    endless = op.add(ew.Equal(), op.add(ew.Abs(), b), op.number(math.inf, b, "inf"))
    finite = op.add(ew.Less(), op.add(ew.Abs(), a), op.number(math.inf, a, "inf"))
    kept = op.add(ew.Where(), endless, finite, op.number(False, finite, "false"))
    return op.add(ew.Where(), kept, a, rest)


@lift("PRelu", since=7)
def lift_prelu(op: OpView) -> Value:
    """x where x >= 0, else slope * x; the slope broadcasts to x."""
    x, slope = op.input(0), op.input(1)
    if op.written < 7 and slope.type.rank == 1 and x.type.rank > 1:
        # The converter leaves it as it was then: one number for each channel.
        slope = op.reshape(slope, (slope.type.elements, *(1,) * (x.type.rank - 2)))
    if broadcast_shapes(x.type.shape, slope.type.shape) != x.type.shape:
        raise op.error("the slope does not broadcast to x", expected=str(x.type), got=str(slope.type))
    full = (1,) * (x.type.rank - slope.type.rank) + slope.type.shape
    by_channel = all(size == 1 for axis, size in enumerate(full) if axis != 1)
    if x.type.dtype.is_float and by_channel:
        return op.add(ew.Prelu(), x, op.reshape(slope, (slope.type.elements,)))
    below = op.add(ew.Less(), x, op.number(0, x, "zero"))
    return op.add(ew.Where(), below, op.add(ew.Mul(), x, slope), x)
