"""A thin layer over llvmlite's builder: vectors, pointers in bytes, counted loops in SSA form.

Each wrapper states its meaning in scalar terms; lanes are numbered from the lowest address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir

from sqzc.target import Target

Val = Any
I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()
PTR = ir.PointerType()
VOID = ir.VoidType()

NATURAL = 4


def f32_const(value: float) -> Val:
    """A float32 constant, rounded here so that LLVM prints it exactly; an infinity beyond the largest float32."""
    with np.errstate(over="ignore"):
        return ir.Constant(F32, float(np.float32(value)))


class Emitter:
    """Appends instructions to one function."""

    def __init__(self, builder: ir.IRBuilder, target: Target) -> None:
        self.b = builder
        self.target = target
        self.lanes = target.vector_lanes
        self.module: ir.Module = builder.module

    # -- constants and types ------------------------------------------------------------------------------------------

    def vec(self, lanes: int | None = None, element: Val = F32) -> Val:
        """A vector type; the target's width when `lanes` is None, a scalar for one lane."""
        count = self.lanes if lanes is None else lanes
        return element if count == 1 else ir.VectorType(element, count)

    def i64(self, value: int | Val) -> Val:
        """A 64-bit integer constant; a value passes through."""
        return ir.Constant(I64, value) if isinstance(value, int) else value

    def splat(self, value: float, lanes: int | None = None) -> Val:
        """`value` in every lane."""
        scalar = f32_const(value)
        type_ = self.vec(lanes)
        return scalar if type_ is F32 else ir.Constant(type_, [scalar] * type_.count)

    def spread(self, scalar: Val, lanes: int | None = None) -> Val:
        """A scalar value in every lane."""
        type_ = self.vec(lanes, scalar.type)
        if not isinstance(type_, ir.VectorType):
            return scalar
        undef = ir.Constant(type_, ir.Undefined)
        one = self.b.insert_element(undef, scalar, ir.Constant(I32, 0))
        return self.b.shuffle_vector(one, undef, ir.Constant(ir.VectorType(I32, type_.count), None))

    def shuffle(self, a: Val, c: Val, picks: Sequence[int]) -> Val:
        """Lane i is lane picks[i] of a and c put one after the other."""
        mask = ir.Constant(ir.VectorType(I32, len(picks)), [ir.Constant(I32, p) for p in picks])
        return self.b.shuffle_vector(a, c, mask)

    # -- memory -------------------------------------------------------------------------------------------------------

    def at(self, pointer: Val, offset: int | Val) -> Val:
        """The address `offset` bytes past `pointer`."""
        if isinstance(offset, int):
            if offset == 0:
                return pointer
            offset = self.i64(offset)
        return self.b.gep(pointer, [offset], inbounds=True, source_etype=I8)

    def load(self, pointer: Val, offset: int = 0, lanes: int | None = None, element: Val = F32, align: int = 4) -> Val:
        """`lanes` consecutive elements."""
        return self.b.load(self.at(pointer, offset), typ=self.vec(lanes, element), align=align)

    def store(self, value: Val, pointer: Val, offset: int = 0, align: int = 4) -> None:
        """Stores all lanes consecutively."""
        self.b.store(value, self.at(pointer, offset), align=align)

    def broadcast(self, pointer: Val, offset: int = 0, lanes: int | None = None) -> Val:
        """One float32 from memory in every lane."""
        return self.spread(self.load(pointer, offset, 1), lanes)

    def first_lanes(self, count: Val, lanes: int | None = None) -> Val:
        """Lane i is true where i < count (an i64)."""
        width = self.lanes if lanes is None else lanes
        if width == 1:
            return self.b.icmp_signed(">", count, self.i64(0))
        index = ir.Constant(ir.VectorType(I64, width), [ir.Constant(I64, i) for i in range(width)])
        return self.b.icmp_signed("<", index, self.spread(count, width))

    def load_masked(self, pointer: Val, mask: Val, fallback: Val, align: int = 4) -> Val:
        """Consecutive elements where the mask holds, the fallback's lane elsewhere; masked lanes are not touched."""
        type_ = fallback.type
        function = self.intrinsic(f"llvm.masked.load.{_suffix(type_)}.p0", type_, [PTR, I32, mask.type, type_])
        return self.b.call(function, [pointer, ir.Constant(I32, align), mask, fallback])

    def store_masked(self, value: Val, pointer: Val, mask: Val, align: int = 4) -> None:
        """Stores the lanes where the mask holds."""
        name = f"llvm.masked.store.{_suffix(value.type)}.p0"
        function = self.intrinsic(name, VOID, [value.type, PTR, I32, mask.type])
        self.b.call(function, [value, pointer, ir.Constant(I32, align), mask])

    def prefetch(self, pointer: Val, offset: int = 0, *, write: bool = False, locality: int = 3) -> None:
        """Asks for the line at `pointer` + `offset`; locality 3 is the first-level cache, 2 the second.

        `write` asks to own it: stores leave in order, so a store that misses holds up all behind it.
        """
        function = self.intrinsic("llvm.prefetch.p0", VOID, [PTR, I32, I32, I32])
        self.b.call(function, [self.at(pointer, offset), *(ir.Constant(I32, v) for v in (int(write), locality, 1))])

    def fence(self) -> None:
        """Keeps the code generator from moving loads across this point; emits nothing."""
        self.b.asm(ir.FunctionType(VOID, []), "", "~{memory}", (), True)

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def intrinsic(self, name: str, result: Val, args: Sequence[Val]) -> Val:
        """The declaration of an LLVM intrinsic in this module."""
        if name in self.module.globals:
            return self.module.globals[name]
        return ir.Function(self.module, ir.FunctionType(result, list(args)), name)

    def math(self, name: str, *args: Val) -> Val:
        """A floating point intrinsic such as `sqrt` or `fabs`, lane by lane."""
        type_ = args[0].type
        return self.b.call(self.intrinsic(f"llvm.{name}.{_suffix(type_)}", type_, [type_] * len(args)), args)

    def fma(self, a: Val, c: Val, d: Val) -> Val:
        """a * c + d, rounded once where the target can."""
        if self.target.has_fma:
            return self.math("fma", a, c, d)
        return self.b.fadd(self.b.fmul(a, c), d)

    def maximum(self, a: Val, c: Val) -> Val:
        """a where a > c, else c: c where either is NaN (one x86 MAXPS)."""
        return self.b.select(self.b.fcmp_ordered(">", a, c), a, c)

    def minimum(self, a: Val, c: Val) -> Val:
        """a where a < c, else c: c where either is NaN (one x86 MINPS)."""
        return self.b.select(self.b.fcmp_ordered("<", a, c), a, c)

    def mul_add(self, index: Val, scale: int, base: Val | int = 0) -> Val:
        """index * scale + base over 64-bit integers."""
        scaled = self.b.mul(index, self.i64(scale)) if scale != 1 else index
        return scaled if isinstance(base, int) and base == 0 else self.b.add(scaled, self.i64(base))

    def split(self, index: Val, inner: int) -> tuple[Val, Val]:
        """(index // inner, index % inner) for non-negative indices."""
        if inner == 1:
            return index, self.i64(0)
        return self.b.udiv(index, self.i64(inner)), self.b.urem(index, self.i64(inner))

    def split_many(self, index: Val, sizes: Sequence[int]) -> list[Val]:
        """Coordinates of a row-major index over `sizes`; the first coordinate is not bounded."""
        parts: list[Val] = []
        for size in reversed(sizes[1:]):
            index, rest = self.split(index, size)
            parts.append(rest)
        return [index, *reversed(parts)]

    # -- control ------------------------------------------------------------------------------------------------------

    def loop(
        self,
        start: int | Val,
        stop: int | Val,
        step: int,
        body: Callable[[Val, list[Val]], Sequence[Val]],
        carried: Sequence[Val] = (),
    ) -> list[Val]:
        """for i in range(start, stop, step): carried = body(i, carried); the final carried values.

        With constant bounds the first iteration is known to run and is not tested; a single iteration is no loop.
        """
        known = isinstance(start, int) and isinstance(stop, int)
        if known and start >= stop:
            return list(carried)
        if known and start + step >= stop:
            return list(body(self.i64(start), list(carried)))
        b = self.b
        before = b.block
        head = b.append_basic_block("loop")
        after = b.append_basic_block("done")
        first, last = self.i64(start), self.i64(stop)
        if known:
            b.branch(head)
        else:
            b.cbranch(b.icmp_signed("<", first, last), head, after)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(first, before)
        phis = []
        for value in carried:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            phis.append(phi)
        results = list(body(index, list(phis)))
        following = b.add(index, self.i64(step))
        b.cbranch(b.icmp_signed("<", following, last), head, after)
        tail = b.block
        index.add_incoming(following, tail)
        for phi, value in zip(phis, results, strict=True):
            phi.add_incoming(value, tail)
        b.position_at_end(after)
        if known:
            return results
        merged = []
        for old, new in zip(carried, results, strict=True):
            phi = b.phi(new.type)
            phi.add_incoming(old, before)
            phi.add_incoming(new, tail)
            merged.append(phi)
        return merged

    @contextmanager
    def when(self, condition: Val) -> Iterator[None]:
        """Runs the block where the condition holds."""
        then = self.b.append_basic_block("then")
        after = self.b.append_basic_block("after")
        self.b.cbranch(condition, then, after)
        self.b.position_at_end(then)
        yield
        self.b.branch(after)
        self.b.position_at_end(after)

    def clamp_last(self, index: Val, tile: int, size: int) -> Val:
        """Start of tile `index`, moved back so that the last tile ends at `size` (it overlaps its neighbour)."""
        start = self.mul_add(index, tile)
        if size % tile == 0:
            return start
        last = self.i64(size - tile)
        return self.b.select(self.b.icmp_signed("<", start, last), start, last)


def _suffix(type_: Val) -> str:
    scalar = type_.element if isinstance(type_, ir.VectorType) else type_
    names = {"float": "f32", "double": "f64", "half": "f16"}
    word = names.get(str(scalar), str(scalar))
    return f"v{type_.count}{word}" if isinstance(type_, ir.VectorType) else word
