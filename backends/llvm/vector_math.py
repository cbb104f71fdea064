"""Elementary functions on float32 vectors, in generated code alone: no libm at run time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from llvmlite import ir

from sqzc.backends.llvm.emit import I32, Emitter, Val
from sqzc.diagnostics import UnsupportedError
from sqzc.ir.ops.activation import Activation


def _lanes(value: Val) -> int:
    return value.type.count if isinstance(value.type, ir.VectorType) else 1


def exp(e: Emitter, x: Val) -> Val:
    """e^x to 2 ULP; 0 below -104, inf above 88.8, NaN for NaN.

    x = n ln 2 + r with |r| <= ln(2)/2; e^r by a Taylor polynomial of degree 7 (remainder below 2^-27 there), times
    2^n in two halves so that results in the denormal range come out right.
    """
    lanes = _lanes(x)
    low, high = e.splat(-104.0, lanes), e.splat(89.0, lanes)
    clamped = e.minimum(high, e.maximum(low, x))
    n = e.math("rint", e.b.fmul(clamped, e.splat(1.0 / math.log(2.0), lanes)))
    # ln 2 in two parts: the first has few enough bits for n * part to be exact.
    coarse = 0.693359375
    r = e.fma(n, e.splat(-coarse, lanes), clamped)
    r = e.fma(n, e.splat(-(math.log(2.0) - coarse), lanes), r)
    poly = e.splat(1.0 / math.factorial(7), lanes)
    for degree in range(6, -1, -1):
        poly = e.fma(poly, r, e.splat(1.0 / math.factorial(degree), lanes))
    ints = e.b.fptosi(n, e.vec(lanes, I32))
    one = _int_splat(1, lanes)
    half = e.b.ashr(ints, one)
    result = e.b.fmul(e.b.fmul(poly, _power_of_two(e, half, lanes)), _power_of_two(e, e.b.sub(ints, half), lanes))
    return e.b.select(e.b.fcmp_unordered("uno", x, x), x, result)


def _int_splat(value: int, lanes: int) -> Val:
    scalar = ir.Constant(I32, value)
    return scalar if lanes == 1 else ir.Constant(ir.VectorType(I32, lanes), [scalar] * lanes)


def _power_of_two(e: Emitter, n: Val, lanes: int) -> Val:
    bits = e.b.shl(e.b.add(n, _int_splat(127, lanes)), _int_splat(23, lanes))
    return e.b.bitcast(bits, e.vec(lanes))


def apply_activation(e: Emitter, x: Val, act: Activation) -> Val:
    """act(x), lane by lane."""
    if not act:
        return x
    if act.fn not in _FUNCTIONS:
        raise UnsupportedError(f"the LLVM backend has no activation '{act.fn}'")
    return _FUNCTIONS[act.fn](e, x, *act.params)


def keeps_zero(act: Activation) -> bool:
    """Whether act(0) is 0."""
    if act.fn == "clip":
        return act.params[0] <= 0.0 <= act.params[1]
    return act.fn in {"none", "relu", "leaky_relu", "elu", "selu", "tanh", "swish", "hard_swish", "gelu", "abs", "neg"}


def relu(e: Emitter, x: Val) -> Val:
    """max(x, 0); NaN stays NaN because MAXPS gives its second operand then."""
    return e.maximum(e.splat(0.0, _lanes(x)), x)


def clip(e: Emitter, x: Val, lo: float, hi: float) -> Val:
    """min(max(x, lo), hi); NaN stays NaN."""
    lanes = _lanes(x)
    if not np.isneginf(lo):
        x = e.maximum(e.splat(lo, lanes), x)
    return x if np.isposinf(hi) else e.minimum(e.splat(hi, lanes), x)


def leaky_relu(e: Emitter, x: Val, alpha: float) -> Val:
    """x where x >= 0, else alpha * x."""
    lanes = _lanes(x)
    return e.b.select(e.b.fcmp_ordered("<", x, e.splat(0.0, lanes)), e.b.fmul(x, e.splat(alpha, lanes)), x)


def sigmoid(e: Emitter, x: Val) -> Val:
    """1 / (1 + e^-x)."""
    one = e.splat(1.0, _lanes(x))
    return e.b.fdiv(one, e.b.fadd(one, exp(e, e.b.fneg(x))))


_FUNCTIONS: dict[str, Callable[..., Val]] = {"relu": relu, "clip": clip, "leaky_relu": leaky_relu, "sigmoid": sigmoid}
