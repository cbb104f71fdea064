"""Elementary functions on float64 vectors, in generated code alone: no libm at run time.

As in `vector_math`, polynomials are given by their coefficients from the constant upward; errors are relative, against
numpy, and 1 ULP is 2^-52.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from llvmlite import ir

from sqzc.backends.llvm.emit import F64, I64, Emitter, Val
from sqzc.ir.ops.activation import Activation

_MANTISSA = 52
_BIAS = 1023
# ln 2 in two parts: the first has few enough bits for its product with an exponent to be exact.
_LN2 = (0.6931471803691238, 1.9082149292705877e-10)


def lanes(value: Val) -> int:
    """Lanes of a value; 1 for a scalar."""
    return value.type.count if isinstance(value.type, ir.VectorType) else 1


def real(value: float, x: Val) -> Val:
    """`value` in every lane, as many as x has."""
    scalar, count = ir.Constant(F64, value), lanes(x)
    return scalar if count == 1 else ir.Constant(ir.VectorType(F64, count), [scalar] * count)


def whole(value: int, x: Val) -> Val:
    """A 64-bit integer in every lane, as many as x has."""
    scalar, count = ir.Constant(I64, value), lanes(x)
    return scalar if count == 1 else ir.Constant(ir.VectorType(I64, count), [scalar] * count)


def _is_nan(e: Emitter, x: Val) -> Val:
    return e.b.fcmp_unordered("uno", x, x)


def _less(e: Emitter, a: Val, c: Val) -> Val:
    return e.b.fcmp_ordered("<", a, c)


def polynomial(e: Emitter, x: Val, coefficients: Sequence[float]) -> Val:
    """sum of coefficients[i] * x^i by Horner's rule."""
    result = real(coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        result = e.fma(result, x, real(coefficient, x))
    return result


def copy_sign(e: Emitter, size: Val, sign: Val) -> Val:
    """`size` with the sign of `sign`."""
    ints = e.vec(lanes(size), I64)
    top, rest = whole(-(1 << 63), size), whole((1 << 63) - 1, size)
    bits = e.b.or_(e.b.and_(e.b.bitcast(size, ints), rest), e.b.and_(e.b.bitcast(sign, ints), top))
    return e.b.bitcast(bits, size.type)


def _power_of_two(e: Emitter, n: Val, like: Val) -> Val:
    bits = e.b.shl(e.b.add(n, whole(_BIAS, like)), whole(_MANTISSA, like))
    return e.b.bitcast(bits, like.type)


# -- exponentials -----------------------------------------------------------------------------------------------------


def _reduce(e: Emitter, x: Val) -> tuple[Val, Val]:
    """(n as integers, r) with x = n ln 2 + r and |r| <= ln(2) / 2."""
    n = e.math("rint", e.b.fmul(x, real(1.0 / math.log(2.0), x)))
    r = e.fma(n, real(-_LN2[0], x), x)
    return e.b.fptosi(n, e.vec(lanes(x), I64)), e.fma(n, real(-_LN2[1], x), r)


def exp(e: Emitter, x: Val) -> Val:
    """e^x to 2 ULP; 0 below -745, inf above 709.8, NaN for NaN."""
    clamped = e.minimum(real(710.0, x), e.maximum(real(-746.0, x), x))
    n, r = _reduce(e, clamped)
    power = polynomial(e, r, [1.0 / math.factorial(k) for k in range(14)])
    # In two halves, so that results in the denormal range come out right.
    half = e.b.ashr(n, whole(1, x))
    result = e.b.fmul(e.b.fmul(power, _power_of_two(e, half, x)), _power_of_two(e, e.b.sub(n, half), x))
    return e.b.select(_is_nan(e, x), x, result)


def expm1_below_zero(e: Emitter, x: Val) -> Val:
    """e^x - 1 to 3 ULP for x <= 0, also close to zero; NaN for NaN."""
    # e^-40 vanishes beside 1.
    n, r = _reduce(e, e.maximum(real(-40.0, x), x))
    scale = _power_of_two(e, n, x)
    tail = polynomial(e, r, [1.0 / math.factorial(k) for k in range(2, 15)])
    minus_one = e.fma(e.b.fmul(tail, r), r, r)
    result = e.fma(scale, minus_one, e.b.fsub(scale, real(1.0, x)))
    return e.b.select(_is_nan(e, x), x, result)


def sigmoid(e: Emitter, x: Val) -> Val:
    """1 / (1 + e^-x)."""
    one = real(1.0, x)
    return e.b.fdiv(one, e.b.fadd(one, exp(e, e.b.fneg(x))))


def tanh(e: Emitter, x: Val) -> Val:
    """(1 - t) / (1 + t) with t = e^(-2|x|), and the sign of x."""
    below = expm1_below_zero(e, e.b.fmul(e.math("fabs", x), real(-2.0, x)))
    return copy_sign(e, e.b.fdiv(e.b.fneg(below), e.b.fadd(below, real(2.0, x))), x)


# -- logarithms -------------------------------------------------------------------------------------------------------


def log(e: Emitter, x: Val) -> Val:
    """Natural logarithm to 2 ULP; -inf at zero, NaN below, inf at inf.

    x = m 2^n with m between sqrt(1/2) and sqrt(2); log m = 2 artanh(s) with s = (m - 1) / (m + 1), by its series.
    """
    b, ints = e.b, e.vec(lanes(x), I64)
    tiny = _less(e, x, real(2.0**-1022, x))
    bits = b.bitcast(b.select(tiny, b.fmul(x, real(2.0**54, x)), x), ints)
    # Subtracting the bits of sqrt(1/2) puts the border between exponents there.
    exponent = b.ashr(b.sub(bits, whole(0x3FE6A09E667F3BCD, x)), whole(_MANTISSA, x))
    mantissa = b.bitcast(b.sub(bits, b.shl(exponent, whole(_MANTISSA, x))), x.type)
    n = b.fsub(b.sitofp(exponent, x.type), b.select(tiny, real(54.0, x), real(0.0, x)))
    f = b.fsub(mantissa, real(1.0, x))
    s = b.fdiv(f, b.fadd(f, real(2.0, x)))
    z = b.fmul(s, s)
    # 2 s = f - s f exactly, so that only corrections are rounded before the last additions.
    series = b.fmul(z, polynomial(e, z, [2.0 / (2 * k + 3) for k in range(10)]))
    correction = b.fmul(s, b.fsub(f, series))
    fine = b.fsub(b.fmul(n, real(_LN2[1], x)), correction)
    result = e.fma(n, real(_LN2[0], x), b.fadd(fine, f))
    result = b.select(b.fcmp_ordered("==", x, real(0.0, x)), real(-math.inf, x), result)
    result = b.select(_less(e, x, real(0.0, x)), real(math.nan, x), result)
    unchanged = b.or_(_is_nan(e, x), b.fcmp_ordered("==", x, real(math.inf, x)))
    return b.select(unchanged, x, result)


def log1p(e: Emitter, x: Val) -> Val:
    """log(1 + x) for x >= 0; the rounding of 1 + x is made good."""
    one = real(1.0, x)
    rounded = e.b.fadd(one, x)
    lost = e.b.fsub(x, e.b.fsub(rounded, one))
    return e.b.fadd(log(e, rounded), e.b.fdiv(lost, rounded))


def softplus(e: Emitter, x: Val) -> Val:
    """max(x, 0) + log(1 + e^-|x|)."""
    return e.b.fadd(e.maximum(real(0.0, x), x), log1p(e, exp(e, e.b.fneg(e.math("fabs", x)))))


def power(e: Emitter, a: Val, c: Val) -> Val:
    """a^c with C's special cases, to 2^-50 times the size of c log a, or exact where both are small whole numbers."""
    b = e.b
    size, zero, one = e.math("fabs", a), real(0.0, a), real(1.0, a)
    infinity = real(math.inf, a)
    result = exp(e, b.fmul(log(e, size), c))
    is_whole = b.fcmp_ordered("==", e.math("rint", c), c)
    # Whole powers of whole numbers that a double holds are whole: the nearest one is meant.
    counted = b.and_(b.and_(is_whole, b.fcmp_ordered(">=", c, zero)), b.fcmp_ordered("==", e.math("rint", a), a))
    counted = b.and_(counted, _less(e, result, real(2.0**46, a)))
    result = b.select(counted, e.math("rint", result), result)
    half = b.fmul(c, real(0.5, a))
    odd = b.and_(is_whole, b.fcmp_unordered("!=", e.math("rint", half), half))
    ints = e.vec(lanes(a), I64)
    negative = b.icmp_signed("<", b.bitcast(a, ints), whole(0, a))
    result = b.select(b.and_(odd, negative), b.fneg(result), result)
    real_root = b.or_(is_whole, b.fcmp_ordered("==", size, infinity))
    undefined = b.and_(_less(e, a, zero), b.not_(real_root))
    result = b.select(undefined, real(math.nan, a), result)
    # 1^inf and (-1)^inf.
    unit = b.and_(b.fcmp_ordered("==", size, one), b.fcmp_ordered("==", e.math("fabs", c), infinity))
    trivial = b.or_(b.or_(b.fcmp_ordered("==", c, zero), b.fcmp_ordered("==", a, one)), unit)
    return b.select(trivial, one, result)


# -- arc tangent ------------------------------------------------------------------------------------------------------


def atan(e: Emitter, x: Val) -> Val:
    """Arc tangent to 3 ULP.

    |x| is brought below 1 by pi / 2 - atan(1 / x) and below tan(pi / 16) by atan x = 2 atan(x / (1 + sqrt(1 + x^2))),
    twice; then its series.
    """
    b, one = e.b, real(1.0, x)
    size = e.math("fabs", x)
    large = b.fcmp_ordered(">", size, one)
    t = b.select(large, b.fdiv(one, size), size)
    for _ in range(2):
        t = b.fdiv(t, b.fadd(one, e.math("sqrt", e.fma(t, t, one))))
    z = b.fmul(t, t)
    tail = polynomial(e, z, [(-1.0) ** k / (2 * k + 1) for k in range(1, 13)])
    angle = b.fmul(real(4.0, x), e.fma(b.fmul(tail, z), t, t))
    angle = b.select(large, b.fsub(real(math.pi / 2, x), angle), angle)
    return b.select(_is_nan(e, x), x, copy_sign(e, angle, x))


# -- as activations ---------------------------------------------------------------------------------------------------


def _clip(e: Emitter, x: Val, lo: float, hi: float) -> Val:
    if lo > -math.inf:
        x = e.maximum(real(lo, x), x)
    return x if hi == math.inf else e.minimum(real(hi, x), x)


def _elu(e: Emitter, x: Val, alpha: float) -> Val:
    zero = real(0.0, x)
    below = e.b.fmul(real(alpha, x), expm1_below_zero(e, e.minimum(zero, x)))
    return e.b.select(e.b.fcmp_ordered(">", x, zero), x, below)


def _hard_sigmoid(e: Emitter, x: Val, alpha: float, beta: float) -> Val:
    return _clip(e, e.fma(x, real(alpha, x), real(beta, x)), 0.0, 1.0)


def _gelu_tanh(e: Emitter, x: Val) -> Val:
    cube = e.b.fmul(e.b.fmul(x, x), x)
    inner = e.b.fmul(e.fma(cube, real(0.044715, x), x), real(math.sqrt(2.0 / math.pi), x))
    return e.b.fmul(e.b.fmul(x, real(0.5, x)), e.b.fadd(tanh(e, inner), real(1.0, x)))


def _sign(e: Emitter, x: Val) -> Val:
    zero = real(0.0, x)
    above = e.b.select(e.b.fcmp_ordered(">", x, zero), real(1.0, x), x)
    return e.b.select(_less(e, x, zero), real(-1.0, x), above)


def _leaky_relu(e: Emitter, x: Val, alpha: float) -> Val:
    return e.b.select(_less(e, x, real(0.0, x)), e.b.fmul(x, real(alpha, x)), x)


_FUNCTIONS: dict[str, Callable[..., Val]] = {
    "relu": lambda e, x: e.maximum(real(0.0, x), x),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": lambda e, x, alpha, gamma: e.b.fmul(real(gamma, x), _elu(e, x, alpha)),
    "clip": _clip,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "swish": lambda e, x: e.b.fmul(x, sigmoid(e, x)),
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": lambda e, x: e.b.fmul(x, _hard_sigmoid(e, x, 1.0 / 6.0, 0.5)),
    "gelu_tanh": _gelu_tanh,
    "softplus": softplus,
    "softsign": lambda e, x: e.b.fdiv(x, e.b.fadd(real(1.0, x), e.math("fabs", x))),
    "exp": exp,
    "log": log,
    "sqrt": lambda e, x: e.math("sqrt", x),
    "abs": lambda e, x: e.math("fabs", x),
    "neg": lambda e, x: e.b.fneg(x),
    "reciprocal": lambda e, x: e.b.fdiv(real(1.0, x), x),
    "floor": lambda e, x: e.math("floor", x),
    "ceil": lambda e, x: e.math("ceil", x),
    "round": lambda e, x: e.math("rint", x),
    "sign": _sign,
    "atan": atan,
}
"""All unary ops but `erf`, `gelu`, `sin` and `cos`, which have no double precision form here."""


def has_function(name: str) -> bool:
    """Whether there is code for the unary op `name` on float64."""
    return name in _FUNCTIONS


def apply_function(e: Emitter, x: Val, act: Activation) -> Val:
    """act(x), lane by lane."""
    return _FUNCTIONS[act.fn](e, x, *act.params)
