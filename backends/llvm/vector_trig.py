"""Sine, cosine and arc tangent on float32 vectors, computed in double precision and rounded once.

An angle is taken to within pi / 4 of a whole number of quarter turns: below 2^18 by subtracting them, above by
multiplying its 24 significant bits with those 64 bits of 2 / pi that matter for the remainder of whole turns.
"""

from __future__ import annotations

import math

from llvmlite import ir

from sqzc.backends.llvm import vector_math64 as wide
from sqzc.backends.llvm.emit import F64, I32, I64, Emitter, Val
from sqzc.backends.llvm.vector_math64 import lanes, polynomial, real, whole

_SMALL = 2.0**18
# pi / 2 in parts whose first two have few enough bits for their products with small integers to be exact.
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
# 2 / pi after the binary point, 64 bits each, behind as many zeros.
_TWO_OVER_PI = (0, 0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041)


def _by_subtraction(e: Emitter, x: Val) -> tuple[Val, Val]:
    """(n, r) with x = n pi / 2 + r for doubles from 0 to 2^18."""
    n = e.math("rint", e.b.fmul(x, real(2.0 / math.pi, x)))
    r = x
    for part in _HALF_PI:
        r = e.fma(n, real(-part, x), r)
    return e.b.fptosi(n, e.vec(lanes(x), I64)), r


def _window(e: Emitter, start: Val, like: Val) -> Val:
    """64 bits of _TWO_OVER_PI from bit `start` on, 0 to 191."""
    b = e.b
    word, shift = b.lshr(start, whole(6, like)), b.and_(start, whole(63, like))

    def pick(first: int) -> Val:
        choice = whole(_signed(_TWO_OVER_PI[first]), like)
        for k in (1, 2):
            here = b.icmp_signed("==", word, whole(k, like))
            beyond = _TWO_OVER_PI[first + k] if first + k < len(_TWO_OVER_PI) else 0
            choice = b.select(here, whole(_signed(beyond), like), choice)
        return choice

    high = b.shl(pick(0), shift)
    # A shift by 64 has no meaning, so one place is shifted first.
    low = b.lshr(b.lshr(pick(1), whole(1, like)), b.sub(whole(63, like), shift))
    return b.or_(high, low)


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def _by_multiplication(e: Emitter, size: Val, like: Val) -> tuple[Val, Val]:
    """(n modulo 4, r) for float32 sizes of at least 2^18; anything for infinity and NaN."""
    b, long = e.b, e.vec(lanes(like), I64)
    bits = b.zext(b.bitcast(size, e.vec(lanes(like), I32)), long)
    exponent = b.lshr(bits, whole(23, like))
    significand = b.or_(b.and_(bits, whole((1 << 23) - 1, like)), whole(1 << 23, like))
    # size = significand 2^(exponent - 150); bits of 2 / pi that make whole turns with it are left out.
    start = b.and_(b.sub(exponent, whole(150 - 62, like)), whole(255, like))
    quarters = b.mul(significand, _window(e, start, like))
    n = b.lshr(b.add(quarters, whole(1 << 61, like)), whole(62, like))
    rest = b.sub(quarters, b.shl(n, whole(62, like)))
    return n, b.fmul(b.sitofp(rest, like.type), real(math.pi / 2 * 2.0**-62, like))


def _sine(e: Emitter, r: Val) -> Val:
    """sin r for |r| <= pi / 4 by its series."""
    z = e.b.fmul(r, r)
    tail = polynomial(e, z, [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(1, 7)])
    return e.fma(e.b.fmul(tail, z), r, r)


def _cosine(e: Emitter, r: Val) -> Val:
    """cos r for |r| <= pi / 4 by its series."""
    return polynomial(e, e.b.fmul(r, r), [(-1.0) ** k / math.factorial(2 * k) for k in range(8)])


def _turned(e: Emitter, x: Val, shift: int) -> Val:
    """sin(|x| + shift pi / 2) in double precision; NaN where x is no finite number."""
    b = e.b
    size = e.math("fabs", x)
    long = b.fpext(size, e.vec(lanes(x), F64))
    small = b.fcmp_ordered("<", long, real(_SMALL, long))
    near, far = _by_subtraction(e, b.select(small, long, real(0.0, long))), _by_multiplication(e, size, long)
    n, r = (b.select(small, one, other) for one, other in zip(near, far, strict=True))
    turns = b.add(n, whole(shift, long))
    is_odd = b.icmp_signed("!=", b.and_(turns, whole(1, long)), whole(0, long))
    is_low = b.icmp_signed("!=", b.and_(turns, whole(2, long)), whole(0, long))
    value = b.select(is_odd, _cosine(e, r), _sine(e, r))
    value = b.select(is_low, b.fneg(value), value)
    finite = b.fcmp_ordered("<", long, real(math.inf, long))
    return b.select(finite, value, real(math.nan, long))


def sin(e: Emitter, x: Val) -> Val:
    """Sine to 1 ULP (but where it is below 1e-6 for angles above 2^18); NaN at the infinities."""
    value = e.b.fptrunc(_turned(e, x, 0), x.type)
    return e.b.select(_is_negative(e, x), e.b.fneg(value), value)


def _is_negative(e: Emitter, x: Val) -> Val:
    """Whether the sign bit is set, so that the sine of -0 is -0."""
    word = e.vec(lanes(x), I32)
    zero = ir.Constant(word, None) if isinstance(word, ir.VectorType) else ir.Constant(word, 0)
    return e.b.icmp_signed("<", e.b.bitcast(x, word), zero)


def cos(e: Emitter, x: Val) -> Val:
    """Cosine; as `sin`."""
    return e.b.fptrunc(_turned(e, x, 1), x.type)


def atan(e: Emitter, x: Val) -> Val:
    """Arc tangent to 1 ULP."""
    return e.b.fptrunc(wide.atan(e, e.b.fpext(x, e.vec(lanes(x), F64))), x.type)
