"""The functions of angles and their hyperbolic relatives that are a few IR ops."""

from __future__ import annotations

from sqzc.frontends.onnx.ops_elementwise import cast
from sqzc.frontends.onnx.table import OpView, lift
from sqzc.ir import Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops import extra_trigonometry as tr
from sqzc.ir.types import DType


@lift("Tan", since=7)
def lift_tan(op: OpView) -> Value:
    """sin / cos."""
    x = op.input(0)
    return op.add(ew.Div(), op.add(tr.Sin(), x), op.add(tr.Cos(), x))


@lift("Asin", since=7)
def lift_asin(op: OpView) -> Value:
    """atan(x / sqrt((1 - x)(1 + x)))."""
    x = op.input(0)
    one = op.number(1, x, "one")
    square = op.add(ew.Mul(), op.add(ew.Sub(), one, x), op.add(ew.Add(), one, x))
    return op.add(tr.Atan(), op.add(ew.Div(), x, op.add(ew.Sqrt(), square)))


@lift("Acos", since=7)
def lift_acos(op: OpView) -> Value:
    """2 atan(sqrt((1 - x) / (1 + x)))."""
    x = op.input(0)
    one = op.number(1, x, "one")
    ratio = op.add(ew.Div(), op.add(ew.Sub(), one, x), op.add(ew.Add(), one, x))
    return op.add(ew.Mul(), op.add(tr.Atan(), op.add(ew.Sqrt(), ratio)), op.number(2, x, "two"))


def _cosh(op: OpView, x: Value) -> Value:
    total = op.add(ew.Add(), op.add(ew.Exp(), x), op.add(ew.Exp(), op.add(ew.Neg(), x)))
    return op.add(ew.Mul(), total, op.number(0.5, x, "half"))


@lift("Cosh", since=9)
def lift_cosh(op: OpView) -> Value:
    """(e^x + e^-x) / 2."""
    return _cosh(op, op.input(0))


@lift("Sinh", since=9)
def lift_sinh(op: OpView) -> Value:
    """tanh x cosh x, which is good near 0 too."""
    x = op.input(0)
    return op.add(ew.Mul(), op.add(ew.Tanh(), x), _cosh(op, x))


@lift("Asinh", since=9)
def lift_asinh(op: OpView) -> Value:
    """log(|x| + sqrt(x^2 + 1)) with the sign of x, in double precision."""
    x = cast(op, op.input(0), DType.F64)
    size = op.add(ew.Abs(), x)
    root = op.add(ew.Sqrt(), op.add(ew.Add(), op.add(ew.Mul(), x, x), op.number(1, x, "one")))
    y = op.add(ew.Mul(), op.add(ew.Sign(), x), op.add(ew.Log(), op.add(ew.Add(), size, root)))
    return cast(op, _itself_near_zero(op, x, y), op.input(0).type.dtype)


def _itself_near_zero(op: OpView, x: Value, y: Value) -> Value:
    """x where it is below 1e-5: there the sum of 1 and x has lost more of x than the function differs from it."""
    near = op.add(ew.Less(), op.add(ew.Abs(), x), op.number(1e-5, x, "near"))
    return op.add(ew.Where(), near, x, y)


@lift("Acosh", since=9)
def lift_acosh(op: OpView) -> Value:
    """log(x + sqrt(x^2 - 1)), in double precision."""
    x = cast(op, op.input(0), DType.F64)
    root = op.add(ew.Sqrt(), op.add(ew.Sub(), op.add(ew.Mul(), x, x), op.number(1, x, "one")))
    y = op.add(ew.Log(), op.add(ew.Add(), x, root))
    return cast(op, y, op.input(0).type.dtype)


@lift("Atanh", since=9)
def lift_atanh(op: OpView) -> Value:
    """log((1 + x) / (1 - x)) / 2, in double precision."""
    x = cast(op, op.input(0), DType.F64)
    one = op.number(1, x, "one")
    ratio = op.add(ew.Div(), op.add(ew.Add(), one, x), op.add(ew.Sub(), one, x))
    y = op.add(ew.Mul(), op.add(ew.Log(), ratio), op.number(0.5, x, "half"))
    return cast(op, _itself_near_zero(op, x, y), op.input(0).type.dtype)
