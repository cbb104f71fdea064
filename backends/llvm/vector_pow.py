"""a to the power b on float32 vectors, computed in double precision so that the result is good to 1 ULP."""

from __future__ import annotations

import math

from llvmlite import ir

from sqzc.backends.llvm.emit import F64, I64, Emitter, Val
from sqzc.backends.llvm.numbers import lanes_of

_MANTISSA = 52
_BIAS = 1023


def power(e: Emitter, a: Val, c: Val) -> Val:
    """a^c with C's special cases: 1 for c = 0 and for a = 1, NaN for a negative a with a fractional c."""
    b = e.b
    size = e.math("fabs", a)
    zero, one, infinity = (_f32(e, v, a) for v in (0.0, 1.0, math.inf))
    wide = e.vec(lanes_of(a), F64)
    exponent = b.fmul(_log(e, b.fpext(size, wide)), b.fpext(c, wide))
    result = b.fptrunc(_exp(e, exponent), a.type)
    whole = b.fcmp_ordered("==", e.math("rint", c), c)
    half = b.fmul(c, _f32(e, 0.5, a))
    odd = b.and_(whole, b.fcmp_unordered("!=", e.math("rint", half), half))
    result = b.select(b.and_(odd, _negative(e, a)), b.fneg(result), result)
    real_root = b.or_(whole, b.fcmp_ordered("==", size, infinity))
    undefined = b.and_(b.fcmp_ordered("<", a, zero), b.not_(real_root))
    result = b.select(undefined, _f32(e, math.nan, a), result)
    # 1^inf and (-1)^inf.
    unit = b.and_(b.fcmp_ordered("==", size, one), b.fcmp_ordered("==", e.math("fabs", c), infinity))
    trivial = b.or_(b.or_(b.fcmp_ordered("==", c, zero), b.fcmp_ordered("==", a, one)), unit)
    return b.select(trivial, one, result)


def _f32(e: Emitter, value: float, like: Val) -> Val:
    return e.splat(value, lanes_of(like))


def _f64(value: float, lanes: int) -> Val:
    scalar = ir.Constant(F64, value)
    return scalar if lanes == 1 else ir.Constant(ir.VectorType(F64, lanes), [scalar] * lanes)


def _i64(value: int, lanes: int) -> Val:
    scalar = ir.Constant(I64, value)
    return scalar if lanes == 1 else ir.Constant(ir.VectorType(I64, lanes), [scalar] * lanes)


def _negative(e: Emitter, a: Val) -> Val:
    """Whether the sign bit is set."""
    lanes = lanes_of(a)
    word = ir.IntType(32)
    zero = ir.Constant(word, 0)
    zeros = zero if lanes == 1 else ir.Constant(ir.VectorType(word, lanes), [zero] * lanes)
    return e.b.icmp_signed("<", e.b.bitcast(a, e.vec(lanes, word)), zeros)


def _horner(e: Emitter, x: Val, coefficients: list[float]) -> Val:
    lanes = lanes_of(x)
    result = _f64(coefficients[-1], lanes)
    for coefficient in reversed(coefficients[:-1]):
        result = e.fma(result, x, _f64(coefficient, lanes))
    return result


def _log(e: Emitter, x: Val) -> Val:
    """Natural logarithm of non-negative doubles that came from float32, to 1e-11; -inf at zero, inf at inf."""
    b, lanes = e.b, lanes_of(x)
    bits = b.bitcast(x, e.vec(lanes, I64))
    # The bits of sqrt(1/2), so that the mantissa is between sqrt(1/2) and sqrt(2).
    shifted = b.sub(bits, _i64(0x3FE6A09E667F3BCD, lanes))
    exponent = b.ashr(shifted, _i64(_MANTISSA, lanes))
    mantissa = b.bitcast(b.sub(bits, b.shl(exponent, _i64(_MANTISSA, lanes))), x.type)
    # Exponents are small: 32 bits convert faster.
    n = b.sitofp(b.trunc(exponent, e.vec(lanes, ir.IntType(32))), x.type)
    f = b.fsub(mantissa, _f64(1.0, lanes))
    s = b.fdiv(f, b.fadd(f, _f64(2.0, lanes)))
    series = _horner(e, b.fmul(s, s), [2.0 / (2 * k + 1) for k in range(8)])
    result = e.fma(n, _f64(math.log(2.0), lanes), b.fmul(s, series))
    result = b.select(b.fcmp_ordered("==", x, _f64(0.0, lanes)), _f64(-math.inf, lanes), result)
    special = b.or_(b.fcmp_unordered("uno", x, x), b.fcmp_ordered("==", x, _f64(math.inf, lanes)))
    return b.select(special, x, result)


def _exp(e: Emitter, x: Val) -> Val:
    """e^x to 1e-11 for results in the range of float32; 0 or something above that range elsewhere."""
    b, lanes = e.b, lanes_of(x)
    clamped = e.minimum(_f64(200.0, lanes), e.maximum(_f64(-200.0, lanes), x))
    n = e.math("rint", b.fmul(clamped, _f64(1.0 / math.log(2.0), lanes)))
    r = e.fma(n, _f64(-math.log(2.0), lanes), clamped)
    value = _horner(e, r, [1.0 / math.factorial(k) for k in range(11)])
    ints = b.sext(b.fptosi(n, e.vec(lanes, ir.IntType(32))), e.vec(lanes, I64))
    scale = b.bitcast(b.shl(b.add(ints, _i64(_BIAS, lanes)), _i64(_MANTISSA, lanes)), x.type)
    return b.select(b.fcmp_unordered("uno", x, x), x, b.fmul(value, scale))
