"""Arithmetic on every element type of the IR, lane by lane, with the meaning that the op declarations give it.

Truth values are bytes 0 and 1 in memory and in registers; conditions (i1) exist between a comparison and its use.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from llvmlite import ir

from sqzc.backends.llvm.emit import F32, F64, I8, I32, I64, Emitter, Val, f32_const
from sqzc.ir.types import DType

_ELEMENTS = {
    DType.F32: F32,
    DType.F64: F64,
    DType.F16: ir.HalfType(),
    DType.I64: I64,
    DType.I32: I32,
    DType.I16: ir.IntType(16),
    DType.I8: I8,
    DType.U64: I64,
    DType.U32: I32,
    DType.U16: ir.IntType(16),
    DType.U8: I8,
    DType.BOOL: I8,
}


def element(dtype: DType) -> Val:
    """The LLVM type of one element."""
    return _ELEMENTS[dtype]


def lanes_of(value: Val) -> int:
    """Lanes of a value; 1 for a scalar."""
    return value.type.count if isinstance(value.type, ir.VectorType) else 1


def computes(dtype: DType) -> bool:
    """Whether there is arithmetic for the type: half precision is only moved, and truth values only compared."""
    return dtype not in (DType.F16, DType.BOOL)


def integer_range(dtype: DType) -> tuple[int, int]:
    """Lowest and highest value of an integer type."""
    assert not dtype.is_float, f"{dtype.value} is no integer type"
    if dtype.is_unsigned:
        return 0, 1 if dtype is DType.BOOL else (1 << 8 * dtype.item_bytes) - 1
    half = 1 << (8 * dtype.item_bytes - 1)
    return -half, half - 1


class Numbers:
    """The arithmetic of one element type."""

    def __init__(self, e: Emitter, dtype: DType) -> None:
        self.e, self.b, self.dtype = e, e.b, dtype
        self.is_float = dtype.is_float
        self.signed = not dtype.is_unsigned
        self.element = element(dtype)
        self.bytes = dtype.item_bytes

    # -- memory -------------------------------------------------------------------------------------------------------

    def load(self, pointer: Val, lanes: int = 1) -> Val:
        """Consecutive elements."""
        return self.e.load(pointer, 0, lanes, self.element, align=self.bytes)

    def store(self, value: Val, pointer: Val) -> None:
        """Stores consecutive elements."""
        self.e.store(value, pointer, align=self.bytes)

    # -- constants ----------------------------------------------------------------------------------------------------

    def splat(self, value: float, lanes: int = 1) -> Val:
        """`value` in every lane; integers take whole numbers."""
        scalar = f32_const(value) if self.dtype is DType.F32 else ir.Constant(self.element, self._literal(value))
        return scalar if lanes == 1 else ir.Constant(ir.VectorType(self.element, lanes), [scalar] * lanes)

    def _literal(self, value: float) -> float | int:
        return float(value) if self.is_float else int(value)

    def lowest(self, lanes: int = 1) -> Val:
        """What every number is at least."""
        return self.splat(-math.inf if self.is_float else integer_range(self.dtype)[0], lanes)

    def highest(self, lanes: int = 1) -> Val:
        """What every number is at most."""
        return self.splat(math.inf if self.is_float else integer_range(self.dtype)[1], lanes)

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def add(self, a: Val, c: Val) -> Val:
        """a + c; integers wrap around."""
        return self.b.fadd(a, c) if self.is_float else self.b.add(a, c)

    def sub(self, a: Val, c: Val) -> Val:
        """a - c; integers wrap around."""
        return self.b.fsub(a, c) if self.is_float else self.b.sub(a, c)

    def mul(self, a: Val, c: Val) -> Val:
        """a * c; integers wrap around."""
        return self.b.fmul(a, c) if self.is_float else self.b.mul(a, c)

    def mul_add(self, a: Val, c: Val, d: Val) -> Val:
        """a * c + d, rounded once where the target can."""
        return self.e.fma(a, c, d) if self.is_float else self.b.add(self.b.mul(a, c), d)

    def div(self, a: Val, c: Val) -> Val:
        """a / c; integers truncate toward zero, one divided by zero is zero, and the overflow of -min wraps around."""
        if self.is_float:
            return self.b.fdiv(a, c)
        lanes = lanes_of(a)
        zero, one = self.splat(0, lanes), self.splat(1, lanes)
        by_zero = self.equal(c, zero)
        if not self.signed:
            return self.b.select(by_zero, zero, self.b.udiv(a, self.b.select(by_zero, one, c)))
        # The processor traps on both x / 0 and min / -1.
        negated = self.equal(c, self.splat(-1, lanes))
        unsafe = self.b.or_(by_zero, negated)
        quotient = self.b.sdiv(a, self.b.select(unsafe, one, c))
        return self.b.select(by_zero, zero, self.b.select(negated, self.b.sub(zero, a), quotient))

    def neg(self, a: Val) -> Val:
        """-a; integers wrap around."""
        return self.b.fneg(a) if self.is_float else self.b.sub(self.splat(0, lanes_of(a)), a)

    def abs(self, a: Val) -> Val:
        """|a|; the lowest integer stays itself."""
        if self.is_float:
            return self.e.math("fabs", a)
        if not self.signed:
            return a
        return self.b.select(self.less(a, self.splat(0, lanes_of(a))), self.neg(a), a)

    def sign(self, a: Val) -> Val:
        """-1, 0 or 1; NaN stays NaN."""
        lanes = lanes_of(a)
        zero = self.splat(0, lanes)
        rest = self.b.select(self.less(zero, a), self.splat(1, lanes), a if self.is_float else zero)
        return self.b.select(self.less(a, zero), self.splat(-1, lanes), rest) if self.signed else rest

    # -- order --------------------------------------------------------------------------------------------------------

    def equal(self, a: Val, c: Val) -> Val:
        """The condition a == c; false for NaN."""
        return self.b.fcmp_ordered("==", a, c) if self.is_float else self.b.icmp_signed("==", a, c)

    def less(self, a: Val, c: Val) -> Val:
        """The condition a < c; false for NaN."""
        return self._compare("<", a, c)

    def less_equal(self, a: Val, c: Val) -> Val:
        """The condition a <= c; false for NaN."""
        return self._compare("<=", a, c)

    def _compare(self, sign: str, a: Val, c: Val) -> Val:
        if self.is_float:
            return self.b.fcmp_ordered(sign, a, c)
        return (self.b.icmp_signed if self.signed else self.b.icmp_unsigned)(sign, a, c)

    def is_nan(self, a: Val) -> Val:
        """The condition that a is no number; constant false for integers."""
        if self.is_float:
            return self.b.fcmp_unordered("uno", a, a)
        lanes = lanes_of(a)
        false = ir.Constant(ir.IntType(1), 0)
        return false if lanes == 1 else ir.Constant(ir.VectorType(ir.IntType(1), lanes), [false] * lanes)

    def maximum(self, a: Val, c: Val) -> Val:
        """The larger; NaN if either is."""
        larger = self.b.select(self.less(c, a), a, c)
        return self.b.select(self.is_nan(a), a, larger) if self.is_float else larger

    def minimum(self, a: Val, c: Val) -> Val:
        """The smaller; NaN if either is."""
        smaller = self.b.select(self.less(a, c), a, c)
        return self.b.select(self.is_nan(a), a, smaller) if self.is_float else smaller

    # -- conversion ---------------------------------------------------------------------------------------------------

    def truth(self, condition: Val) -> Val:
        """A condition as the byte that memory holds."""
        return self.b.zext(condition, self.e.vec(lanes_of(condition), I8))

    def condition(self, a: Val) -> Val:
        """Whether a is not zero; NaN is not."""
        zero = self.splat(0, lanes_of(a))
        return self.b.fcmp_unordered("!=", a, zero) if self.is_float else self.b.icmp_signed("!=", a, zero)

    def convert(self, a: Val, to: DType) -> Val:
        """a in another element type: toward zero to an integer, of which what does not fit gives an unspecified one."""
        if to is self.dtype:
            return a
        if to is DType.BOOL:
            return self.truth(self.condition(a))
        type_ = self.e.vec(lanes_of(a), element(to))
        if self.is_float:
            return self._from_float(a, to, type_)
        if to.is_float:
            return (self.b.sitofp if self.signed else self.b.uitofp)(a, type_)
        if to.item_bytes == self.bytes:
            return a
        if to.item_bytes < self.bytes:
            return self.b.trunc(a, type_)
        return (self.b.sext if self.signed else self.b.zext)(a, type_)

    def _from_float(self, a: Val, to: DType, type_: Val) -> Val:
        if to.is_float:
            return (self.b.fpext if to.item_bytes > self.bytes else self.b.fptrunc)(a, type_)
        if to is DType.U64:
            return self._to_u64(a)
        # Narrow integers by way of i32, so that 300.0 wraps around as it does in C instead of being anything.
        wide = self.e.vec(lanes_of(a), I64 if to in (DType.I64, DType.U32) else I32)
        whole = self.b.fptosi(a, wide)
        return whole if wide == type_ else self.b.trunc(whole, type_)

    def _to_u64(self, a: Val) -> Val:
        """What a signed integer cannot hold is converted less 2^63; numbers below zero wrap around."""
        lanes = lanes_of(a)
        middle = self.splat(2.0**63, lanes)
        large = self.b.fcmp_ordered(">=", a, middle)
        whole = self.b.fptosi(self.b.select(large, self.b.fsub(a, middle), a), self.e.vec(lanes, I64))
        top = Numbers(self.e, DType.I64).splat(-(1 << 63), lanes)
        return self.b.select(large, self.b.xor(whole, top), whole)


Combine = Callable[[Val, Val], Val]


def across(e: Emitter, value: Val, combine: Combine) -> Val:
    """All lanes of a value combined into a scalar, halves first."""
    width = lanes_of(value)
    while width > 1:
        half = width // 2
        low, high = e.shuffle(value, value, range(half)), e.shuffle(value, value, range(half, width))
        if half == 1:
            low, high = (e.b.extract_element(part, e.i64(0)) for part in (low, high))
        value, width = combine(low, high), half
    return value
