"""Elementary functions on float32 vectors, in generated code alone: no libm at run time.

Polynomials are given by their coefficients from the constant upward. Error bounds are relative and were measured
against double precision over the whole range (tests/differential); 1 ULP is 2^-23.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir

from sqzc.backends.llvm.emit import I32, Emitter, Val
from sqzc.backends.llvm.vector_trig import atan, cos, sin
from sqzc.diagnostics import UnsupportedError
from sqzc.ir.ops.activation import Activation

LN2 = math.log(2.0)
# ln 2 in two parts: the first has few enough bits for its product with an exponent to be exact.
LN2_COARSE = 0.693359375
LN2_FINE = LN2 - LN2_COARSE


def _lanes(value: Val) -> int:
    return value.type.count if isinstance(value.type, ir.VectorType) else 1


def _like(e: Emitter, value: float, x: Val) -> Val:
    return e.splat(value, _lanes(x))


def _int_splat(value: int, lanes: int) -> Val:
    scalar = ir.Constant(I32, value)
    return scalar if lanes == 1 else ir.Constant(ir.VectorType(I32, lanes), [scalar] * lanes)


def _power_of_two(e: Emitter, n: Val, lanes: int) -> Val:
    bits = e.b.shl(e.b.add(n, _int_splat(127, lanes)), _int_splat(23, lanes))
    return e.b.bitcast(bits, e.vec(lanes))


def is_nan(e: Emitter, x: Val) -> Val:
    """The condition that x is no number."""
    return e.b.fcmp_unordered("uno", x, x)


def polynomial(e: Emitter, x: Val, coefficients: Sequence[float]) -> Val:
    """sum of coefficients[i] * x^i by Horner's rule."""
    result = _like(e, coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        result = e.fma(result, x, _like(e, coefficient, x))
    return result


def _copy_sign(e: Emitter, size: Val, sign: Val) -> Val:
    lanes = _lanes(size)
    ints = e.vec(lanes, I32)
    top, rest = _int_splat(-(1 << 31), lanes), _int_splat((1 << 31) - 1, lanes)
    bits = e.b.or_(e.b.and_(e.b.bitcast(size, ints), rest), e.b.and_(e.b.bitcast(sign, ints), top))
    return e.b.bitcast(bits, size.type)


# -- exponentials -----------------------------------------------------------------------------------------------------


def _reduce(e: Emitter, x: Val) -> tuple[Val, Val, Val]:
    """(n, r, n as integers) with x = n ln 2 + r and |r| <= ln(2) / 2."""
    n = e.math("rint", e.b.fmul(x, _like(e, 1.0 / LN2, x)))
    r = e.fma(n, _like(e, -LN2_COARSE, x), x)
    r = e.fma(n, _like(e, -LN2_FINE, x), r)
    return n, r, e.b.fptosi(n, e.vec(_lanes(x), I32))


def exp(e: Emitter, x: Val) -> Val:
    """e^x to 2 ULP; 0 below -104, inf above 88.8, NaN for NaN.

    e^r by a Taylor polynomial of degree 7 (remainder below 2^-27), times 2^n in two halves so that results in the
    denormal range come out right.
    """
    lanes = _lanes(x)
    clamped = e.minimum(_like(e, 89.0, x), e.maximum(_like(e, -104.0, x), x))
    _, r, ints = _reduce(e, clamped)
    power = polynomial(e, r, [1.0 / math.factorial(k) for k in range(8)])
    half = e.b.ashr(ints, _int_splat(1, lanes))
    result = e.b.fmul(e.b.fmul(power, _power_of_two(e, half, lanes)), _power_of_two(e, e.b.sub(ints, half), lanes))
    return e.b.select(is_nan(e, x), x, result)


def expm1_below_zero(e: Emitter, x: Val) -> Val:
    """e^x - 1 to 3 ULP for x <= 0, also close to zero; NaN for NaN."""
    lanes = _lanes(x)
    # e^-18 vanishes beside 1.
    _, r, ints = _reduce(e, e.maximum(_like(e, -18.0, x), x))
    scale = _power_of_two(e, ints, lanes)
    tail = polynomial(e, r, [1.0 / math.factorial(k) for k in range(2, 9)])
    minus_one = e.fma(e.b.fmul(tail, r), r, r)
    result = e.fma(scale, minus_one, e.b.fsub(scale, _like(e, 1.0, x)))
    return e.b.select(is_nan(e, x), x, result)


def sigmoid(e: Emitter, x: Val) -> Val:
    """1 / (1 + e^-x)."""
    one = _like(e, 1.0, x)
    return e.b.fdiv(one, e.b.fadd(one, exp(e, e.b.fneg(x))))


def tanh(e: Emitter, x: Val) -> Val:
    """(1 - t) / (1 + t) with t = e^(-2|x|), and the sign of x; 4 ULP."""
    size = e.math("fabs", x)
    below = expm1_below_zero(e, e.b.fmul(size, _like(e, -2.0, x)))
    result = e.b.fdiv(e.b.fneg(below), e.b.fadd(below, _like(e, 2.0, x)))
    return _copy_sign(e, result, x)


# -- logarithms -------------------------------------------------------------------------------------------------------


def log(e: Emitter, x: Val) -> Val:
    """Natural logarithm to 2 ULP; -inf at zero, NaN below, inf at inf.

    x = m 2^n with m between sqrt(1/2) and sqrt(2); log m = 2 artanh(s) with s = (m - 1) / (m + 1), by its series.
    """
    lanes = _lanes(x)
    smallest = _like(e, 2.0**-126, x)
    tiny = e.b.fcmp_ordered("<", x, smallest)
    scaled = e.b.select(tiny, e.b.fmul(x, _like(e, 2.0**24, x)), x)
    bits = e.b.bitcast(scaled, e.vec(lanes, I32))
    # Subtracting the bits of sqrt(1/2) puts the border between exponents there.
    shifted = e.b.sub(bits, _int_splat(0x3F3504F3, lanes))
    exponent = e.b.ashr(shifted, _int_splat(23, lanes))
    mantissa = e.b.bitcast(e.b.sub(bits, e.b.shl(exponent, _int_splat(23, lanes))), x.type)
    n = e.b.sitofp(exponent, x.type)
    n = e.b.fsub(n, e.b.select(tiny, _like(e, 24.0, x), _like(e, 0.0, x)))
    f = e.b.fsub(mantissa, _like(e, 1.0, x))
    s = e.b.fdiv(f, e.b.fadd(f, _like(e, 2.0, x)))
    z = e.b.fmul(s, s)
    # 2 s = f - s f exactly, so that only corrections are rounded before the last addition.
    series = e.b.fmul(z, polynomial(e, z, [2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9]))
    correction = e.b.fmul(s, e.b.fsub(f, series))
    fine = e.b.fsub(e.b.fmul(n, _like(e, LN2_FINE, x)), correction)
    result = e.fma(n, _like(e, LN2_COARSE, x), e.b.fadd(fine, f))
    result = e.b.select(e.b.fcmp_ordered("==", x, _like(e, 0.0, x)), _like(e, -math.inf, x), result)
    result = e.b.select(e.b.fcmp_ordered("<", x, _like(e, 0.0, x)), _like(e, math.nan, x), result)
    unchanged = e.b.or_(is_nan(e, x), e.b.fcmp_ordered("==", x, _like(e, math.inf, x)))
    return e.b.select(unchanged, x, result)


def log1p(e: Emitter, x: Val) -> Val:
    """log(1 + x) for x >= 0; the rounding of 1 + x is made good."""
    one = _like(e, 1.0, x)
    rounded = e.b.fadd(one, x)
    lost = e.b.fsub(x, e.b.fsub(rounded, one))
    return e.b.fadd(log(e, rounded), e.b.fdiv(lost, rounded))


def softplus(e: Emitter, x: Val) -> Val:
    """max(x, 0) + log(1 + e^-|x|)."""
    return e.b.fadd(relu(e, x), log1p(e, exp(e, e.b.fneg(e.math("fabs", x)))))


# -- the error function -----------------------------------------------------------------------------------------------

# erf(x) / x in x^2, minimax on [0, 1] to 1.3e-9; and log(1 - erf(x)) on [1, 4] so that the error of erf is 1e-9.
_ERF = (
    1.1283791065216064, -0.3761262595653534, 0.1128358542919159, -0.026853810995817184, 0.005188327748328447,
    -0.0008010191959328949, 7.853856368456036e-05,
)  # fmt: skip
_LOG_ERFC = (
    -0.00035370515173038797, -1.1270400957040005, -0.6382255755710246, -0.10303745941558978, 0.021805362907476797,
    -0.0029396187547508527, 0.00018557520955996064,
)  # fmt: skip


def erf(e: Emitter, x: Val) -> Val:
    """The Gauss error function to 3 ULP."""
    size = e.math("fabs", x)
    near = e.b.fmul(x, polynomial(e, e.b.fmul(x, x), _ERF))
    clamped = e.minimum(_like(e, 4.0, x), size)
    far = e.b.fsub(_like(e, 1.0, x), exp(e, polynomial(e, clamped, _LOG_ERFC)))
    return e.b.select(e.b.fcmp_ordered("<", size, _like(e, 1.0, x)), near, _copy_sign(e, far, x))


def gelu(e: Emitter, x: Val) -> Val:
    """x * (1 + erf(x / sqrt 2)) / 2."""
    inner = erf(e, e.b.fmul(x, _like(e, math.sqrt(0.5), x)))
    return e.b.fmul(e.b.fmul(x, _like(e, 0.5, x)), e.b.fadd(inner, _like(e, 1.0, x)))


def gelu_tanh(e: Emitter, x: Val) -> Val:
    """x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2."""
    cube = e.b.fmul(e.b.fmul(x, x), x)
    inner = e.b.fmul(e.fma(cube, _like(e, 0.044715, x), x), _like(e, math.sqrt(2.0 / math.pi), x))
    return e.b.fmul(e.b.fmul(x, _like(e, 0.5, x)), e.b.fadd(tanh(e, inner), _like(e, 1.0, x)))


# -- simple activations -----------------------------------------------------------------------------------------------


def keeps_order(act: Activation) -> bool:
    """Whether a >= b gives act(a) >= act(b), so that the function commutes with a maximum."""
    return act.fn in {"none", "relu", "clip"}


def relu(e: Emitter, x: Val) -> Val:
    """max(x, 0); NaN stays NaN because MAXPS gives its second operand then."""
    return e.maximum(_like(e, 0.0, x), x)


def clip(e: Emitter, x: Val, lo: float, hi: float) -> Val:
    """min(max(x, lo), hi); NaN stays NaN."""
    if not np.isneginf(lo):
        x = e.maximum(_like(e, lo, x), x)
    return x if np.isposinf(hi) else e.minimum(_like(e, hi, x), x)


def leaky_relu(e: Emitter, x: Val, alpha: float) -> Val:
    """x where x >= 0, else alpha * x."""
    return e.b.select(e.b.fcmp_ordered("<", x, _like(e, 0.0, x)), e.b.fmul(x, _like(e, alpha, x)), x)


def elu(e: Emitter, x: Val, alpha: float) -> Val:
    """x where x > 0, else alpha * (e^x - 1)."""
    zero = _like(e, 0.0, x)
    below = e.b.fmul(_like(e, alpha, x), expm1_below_zero(e, e.minimum(zero, x)))
    return e.b.select(e.b.fcmp_ordered(">", x, zero), x, below)


def selu(e: Emitter, x: Val, alpha: float, gamma: float) -> Val:
    """gamma * elu(x)."""
    return e.b.fmul(_like(e, gamma, x), elu(e, x, alpha))


def swish(e: Emitter, x: Val) -> Val:
    """x * sigmoid(x)."""
    return e.b.fmul(x, sigmoid(e, x))


def hard_sigmoid(e: Emitter, x: Val, alpha: float, beta: float) -> Val:
    """max(0, min(1, alpha * x + beta))."""
    return clip(e, e.fma(x, _like(e, alpha, x), _like(e, beta, x)), 0.0, 1.0)


def hard_swish(e: Emitter, x: Val) -> Val:
    """x * max(0, min(1, x / 6 + 1/2))."""
    return e.b.fmul(x, hard_sigmoid(e, x, 1.0 / 6.0, 0.5))


def softsign(e: Emitter, x: Val) -> Val:
    """x / (1 + |x|)."""
    return e.b.fdiv(x, e.b.fadd(_like(e, 1.0, x), e.math("fabs", x)))


def reciprocal(e: Emitter, x: Val) -> Val:
    """1 / x."""
    return e.b.fdiv(_like(e, 1.0, x), x)


def sign(e: Emitter, x: Val) -> Val:
    """-1, 0 or 1; NaN stays NaN."""
    zero = _like(e, 0.0, x)
    above = e.b.select(e.b.fcmp_ordered(">", x, zero), _like(e, 1.0, x), x)
    return e.b.select(e.b.fcmp_ordered("<", x, zero), _like(e, -1.0, x), above)


def _intrinsic(name: str) -> Callable[..., Val]:
    return lambda e, x: e.math(name, x)


_FUNCTIONS: dict[str, Callable[..., Val]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": selu,
    "clip": clip,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "swish": swish,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": hard_swish,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "softplus": softplus,
    "softsign": softsign,
    "exp": exp,
    "log": log,
    "sqrt": _intrinsic("sqrt"),
    "erf": erf,
    "abs": _intrinsic("fabs"),
    "neg": lambda e, x: e.b.fneg(x),
    "reciprocal": reciprocal,
    "floor": _intrinsic("floor"),
    "ceil": _intrinsic("ceil"),
    "round": _intrinsic("rint"),
    "sign": sign,
    "sin": sin,
    "cos": cos,
    "atan": atan,
}

_MOVE_ZERO = frozenset({"sigmoid", "hard_sigmoid", "softplus", "exp", "log", "reciprocal", "cos"})


def has_activation(name: str) -> bool:
    """Whether there is code for the unary op `name` on float32."""
    return name in _FUNCTIONS


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
    return act.fn not in _MOVE_ZERO
