"""Operators on one tensor that keep its shape: activations, elementary functions, casts, copies."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sqzc.frontends.onnx.table import OpView, Results, lift
from sqzc.frontends.onnx.tensors import require_dtype
from sqzc.ir import OpDef, Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops import extra_trigonometry as tr
from sqzc.ir.types import DType

# Operators that are one IR op, with how its attributes are read.
_UNARY: dict[str, Callable[[OpView], OpDef]] = {
    "Abs": lambda op: ew.Abs(),
    "Atan": lambda op: tr.Atan(),
    "Ceil": lambda op: ew.Ceil(),
    "Cos": lambda op: tr.Cos(),
    "Elu": lambda op: ew.Elu(alpha=op.attrs.real("alpha", 1.0)),
    "Erf": lambda op: ew.Erf(),
    "Exp": lambda op: ew.Exp(),
    "Floor": lambda op: ew.Floor(),
    "HardSigmoid": lambda op: ew.HardSigmoid(alpha=op.attrs.real("alpha", 0.2), beta=op.attrs.real("beta", 0.5)),
    "HardSwish": lambda op: ew.HardSwish(),
    "LeakyRelu": lambda op: ew.LeakyRelu(alpha=op.attrs.real("alpha", 0.01)),
    "Log": lambda op: ew.Log(),
    "Neg": lambda op: ew.Neg(),
    "Reciprocal": lambda op: ew.Reciprocal(),
    "Relu": lambda op: ew.Relu(),
    "Round": lambda op: ew.Round(),
    "Selu": lambda op: ew.Selu(
        alpha=op.attrs.real("alpha", 1.6732631921768188), gamma=op.attrs.real("gamma", 1.0507010221481323)
    ),
    "Sigmoid": lambda op: ew.Sigmoid(),
    "Sign": lambda op: ew.Sign(),
    "Sin": lambda op: tr.Sin(),
    "Softplus": lambda op: ew.Softplus(),
    "Softsign": lambda op: ew.Softsign(),
    "Sqrt": lambda op: ew.Sqrt(),
    "Tanh": lambda op: ew.Tanh(),
}


# What was not there from the first operator set on.
_SINCE = {"Atan": 7, "Cos": 7, "Erf": 9, "HardSwish": 14, "Round": 11, "Sign": 9, "Sin": 7}


def _register() -> None:
    for name in _UNARY:
        lift(name, since=_SINCE.get(name, 1))(lift_unary)


def lift_unary(op: OpView) -> Value:
    """One IR op."""
    return op.add(_UNARY[op.type](op), op.input(0))


_register()


@lift("Identity", since=1)
def lift_identity(op: OpView) -> Value:
    """The tensor itself."""
    return op.input(0)


@lift("Gelu", since=20)
def lift_gelu(op: OpView) -> Value:
    """The exact form, or the approximation by tanh."""
    kind = op.attrs.text("approximate", "none", ("none", "tanh"))
    return op.add(ew.Gelu() if kind == "none" else ew.GeluTanh(), op.input(0))


@lift("Celu", since=12)
def lift_celu(op: OpView) -> Value:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1)): elu of x / alpha, times alpha."""
    alpha, x = op.attrs.real("alpha", 1.0), op.input(0)
    if not alpha > 0:
        raise op.unsupported(f"Celu with alpha {alpha:g}")
    if alpha == 1.0:
        return op.add(ew.Elu(), x)
    scaled = op.add(ew.Div(), x, op.number(alpha, x, "alpha"))
    return op.add(ew.Mul(), op.add(ew.Elu(), scaled), op.number(alpha, x, "alpha"))


@lift("ThresholdedRelu", since=10)
def lift_thresholded_relu(op: OpView) -> Value:
    """x where x > alpha, else 0."""
    x = op.input(0)
    above = op.add(ew.Less(), op.number(op.attrs.real("alpha", 1.0), x, "alpha"), x)
    return op.add(ew.Where(), above, x, op.number(0, x, "zero"))


@lift("Mish", since=18)
def lift_mish(op: OpView) -> Value:
    """x * tanh(softplus(x))."""
    x = op.input(0)
    return op.add(ew.Mul(), x, op.add(ew.Tanh(), op.add(ew.Softplus(), x)))


@lift("Swish", since=24)
def lift_swish(op: OpView) -> Value:
    """x * sigmoid(alpha * x)."""
    alpha, x = op.attrs.real("alpha", 1.0), op.input(0)
    if alpha == 1.0:
        return op.add(ew.Swish(), x)
    scaled = op.add(ew.Mul(), x, op.number(alpha, x, "alpha"))
    return op.add(ew.Mul(), x, op.add(ew.Sigmoid(), scaled))


@lift("Shrink", since=9)
def lift_shrink(op: OpView) -> Value:
    """x + bias below -lambd, x - bias above lambd, 0 between."""
    lambd, bias, x = op.attrs.real("lambd", 0.5), op.attrs.real("bias", 0.0), op.input(0)
    if not x.type.dtype.is_float:
        raise op.unsupported(f"Shrink of {x.type.dtype.value}")
    below = op.add(ew.Less(), x, op.number(-lambd, x, "-lambd"))
    above = op.add(ew.Less(), op.number(lambd, x, "lambd"), x)
    middle = op.add(ew.Where(), above, op.add(ew.Sub(), x, op.number(bias, x, "bias")), op.number(0, x, "zero"))
    return op.add(ew.Where(), below, op.add(ew.Add(), x, op.number(bias, x, "bias")), middle)


def unequal(op: OpView, a: Value, b: Value) -> Value:
    """a != b."""
    return negated(op, op.add(ew.Equal(), a, b))


def negated(op: OpView, truth: Value) -> Value:
    """Not of truth values."""
    return op.add(ew.Equal(), truth, op.number(False, truth, "false"))


@lift("Not", since=1)
def lift_not(op: OpView) -> Value:
    """Not of truth values."""
    return negated(op, op.input(0))


@lift("IsNaN", since=9)
def lift_is_nan(op: OpView) -> Value:
    """NaN alone differs from itself."""
    x = op.input(0)
    return unequal(op, x, x)


@lift("IsInf", since=10)
def lift_is_inf(op: OpView) -> Value:
    """Either infinity, or one of them."""
    negative, positive = op.attrs.flag("detect_negative", True), op.attrs.flag("detect_positive", True)
    x = op.input(0)
    if negative and positive:
        return op.add(ew.Equal(), op.add(ew.Abs(), x), op.number(math.inf, x, "inf"))
    if not negative and not positive:
        return op.filled(False, DType.BOOL, x.type.shape)
    return op.add(ew.Equal(), x, op.number(math.inf if positive else -math.inf, x, "inf"))


@lift("Cast", since=6)
def lift_cast(op: OpView) -> Value:
    """To the element type of `to`."""
    op.attrs.flag("saturate", True)  # of eight-bit floats only
    _rounding(op)
    return cast(op, op.input(0), require_dtype(op.attrs.integer("to", 0), "the result of Cast"))


@lift("CastLike", since=15)
def lift_cast_like(op: OpView) -> Value:
    """To the element type of the second input."""
    op.attrs.flag("saturate", True)
    _rounding(op)
    return cast(op, op.input(0), op.input(1).type.dtype)


def _rounding(op: OpView) -> None:
    op.attrs.text("round_mode", "up")  # of float8e8m0 only


def cast(op: OpView, x: Value, to: DType) -> Value:
    """x in another element type, or itself."""
    return x if x.type.dtype is to else op.add(ew.Cast(to=to), x)


@lift("Clip", since=6)
def lift_clip_attributes(op: OpView) -> Value:
    """Bounds as attributes."""
    lo, hi = op.attrs.real("min", -math.inf), op.attrs.real("max", math.inf)
    highest = float(np.finfo(np.float32).max)
    # The documented defaults: they are no bounds.
    return op.add(
        ew.Clip(lo=-math.inf if lo <= -highest else lo, hi=math.inf if hi >= highest else hi),
        op.input(0),
    )


@lift("Clip", since=11)
def lift_clip(op: OpView) -> Value:
    """Bounds as inputs, each optional; below the lower bound goes before above the upper one."""
    x = op.input(0)
    attrs: dict[str, float] = {}
    rest: list[tuple[type[ew.Binary], Value]] = []
    for index, (name, ir) in enumerate((("lo", ew.Maximum), ("hi", ew.Minimum)), 1):
        bound = op.optional(index)
        if bound is None:
            continue
        number = _exact_bound(bound)
        if number is None or rest:
            rest.append((ir, bound))
        else:
            attrs[name] = number
    if attrs or not rest:
        x = op.add(ew.Clip(**attrs), x)
    for ir, bound in rest:
        x = op.add(ir(), x, op.reshape(bound, ()))
    return x


def _exact_bound(bound: Value) -> float | None:
    """A bound that is known and that a double holds exactly; the ends of an integer type are no bounds."""
    if not bound.is_constant or bound.type.elements != 1:
        return None
    number = bound.data.ravel()[0]
    if number.dtype.kind == "f":
        return float(number)
    info = np.iinfo(number.dtype)
    if int(number) in (info.min, info.max):
        return math.copysign(math.inf, int(number) or -1)
    return float(number) if int(float(number)) == int(number) else None


@lift("Dropout", since=7)
def lift_dropout(op: OpView) -> Results:
    """Nothing at inference; the mask, where somebody asks for it, is all true."""
    training = False
    ratio = op.attrs.real("ratio", 0.5)
    op.attrs.integer("seed", 0)
    if op.opset >= 12:
        ratio = op.known_number(1, "the ratio") if op.has(1) else 0.5
        training = bool(op.known_number(2, "the training mode")) if op.has(2) else False
    if training and ratio != 0:
        raise op.unsupported("Dropout in training mode")
    x = op.input(0)
    y = op.add(ew.Dropout(ratio=ratio), x)
    if not op.wants(1):
        return y
    return y, op.filled(True, DType.BOOL if op.opset >= 10 else x.type.dtype, x.type.shape)
