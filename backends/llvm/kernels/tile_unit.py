"""Units that multiply tiles of bfloat16 (AMX), and the parts of float32 that they are fed with.

Each number is split into three parts of eight bits, x = x0 + x1 + x2, which is exact, and of the nine products of parts
the six are made that matter: what is left out is below the rounding of a float32 (G. Henry, P. T. P. Tang and A.
Heinecke, Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations, 2019). The units
add in float32. Six of their products take less time than one of the vector units.

As with Strassen's form, an infinity becomes NaN on the way, because its parts are infinity minus itself; numbers below
2^-110 lose their last parts, because the units take denormal ones for zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from llvmlite import ir

from sqzc.backends.llvm.emit import I8, I32, I64, PTR, VOID, Emitter, Val
from sqzc.backends.llvm.schedules.tile_unit import PARTS, ROW_BYTES, TILE_ROWS, Term, registers_of
from sqzc.ir.constant import Array

I16 = ir.IntType(16)


class TileShape(Protocol):
    """What schedules say of their sums in tile registers."""

    @property
    def px_tiles(self) -> int:
        """Tiles of pixels."""
        ...

    @property
    def oc_tiles(self) -> int:
        """Channel blocks."""
        ...

    @property
    def rows(self) -> int:
        """Rows of a tile of pixels."""
        ...


def tile_shapes(s: TileShape) -> Array:
    """The operand of LDTILECFG: palette 1, bytes of a row and rows of each tile register."""
    shapes = np.zeros(64, np.uint8)
    shapes[0] = 1
    sums, data, weights = registers_of(s.px_tiles, s.oc_tiles)
    for register in range(sums + data + weights):
        shapes[16 + 2 * register] = ROW_BYTES
        shapes[48 + register] = TILE_ROWS if register >= sums + data else s.rows
    return shapes


# -- parts ------------------------------------------------------------------------------------------------------------


def parts_of(e: Emitter, x: Val, *, nearest: bool) -> list[Val]:
    """The bits of three float32 whose lower halves are zero and whose sum is x.

    Each is the nearest number of eight bits to what is left, or else the next one towards zero, which takes two
    instructions less; then all have the sign of x.
    """
    integers = ir.VectorType(I32, e.lanes)
    found = []
    for _ in range(PARTS - 1):
        bits = e.b.bitcast(x, integers)
        if nearest:
            bits = e.b.add(bits, splat_bits(e, 0x8000))
        bits = e.b.and_(bits, splat_bits(e, -0x10000))
        found.append(bits)
        x = e.b.fsub(x, e.b.bitcast(bits, x.type))
    return [*found, e.b.bitcast(x, integers)]


def splat_bits(e: Emitter, value: int) -> Val:
    """A whole number of 32 bits in every lane."""
    return ir.Constant(ir.VectorType(I32, e.lanes), [ir.Constant(I32, value)] * e.lanes)


def store_pair(e: Emitter, low: Val, high: Val, target: Val, offset: int = 0) -> None:
    """The upper halves of two vectors of bits, in pairs of lanes."""
    integers = ir.VectorType(I32, e.lanes)
    # The bits of the first where the last has ones, and all of the second. A shuffle of half lanes, which code
    # generation would make of plain operators, takes three steps on one port.
    choose = e.intrinsic("llvm.x86.avx512.pternlog.d.512", integers, [integers, integers, integers, I32])
    shifted = e.b.lshr(low, splat_bits(e, 16))
    pairs = e.b.call(choose, [high, shifted, splat_bits(e, -0x10000), ir.Constant(I32, 0b11101100)])
    e.store(pairs, target, offset)


def store_pairs(e: Emitter, first: Val, second: Val, target: Val, step: int, *, nearest: bool) -> None:
    """The parts of two vectors, in pairs of lanes, `step` bytes from one part to the next."""
    both = zip(parts_of(e, first, nearest=nearest), parts_of(e, second, nearest=nearest), strict=True)
    for k, (low, high) in enumerate(both):
        store_pair(e, low, high, target, k * step)


# -- tile registers ---------------------------------------------------------------------------------------------------


class TileUnit:
    """Instructions of AMX; registers are numbers. `shape` says what they are for, as in `tile_shapes`."""

    def __init__(self, e: Emitter, shape: TileShape) -> None:
        self.e, self.shape = e, shape

    def configure(self, shapes: Val) -> None:
        """Sets the shapes of all registers."""
        self._call("ldtilecfg", [PTR], [shapes])

    def release(self) -> None:
        """Back to no registers, so that the system need not save them."""
        self._call("tilerelease", [], [])

    def zero(self, register: int) -> None:
        """All elements zero."""
        self._call("tilezero", [I8], [self._number(register)])

    def load(self, register: int, source: Val, stride: int = ROW_BYTES) -> None:
        """The rows from memory."""
        self._call("tileloadd64", [I8, PTR, I64], [self._number(register), source, self.e.i64(stride)])

    def store(self, register: int, target: Val, stride: int = ROW_BYTES) -> None:
        """The rows to memory."""
        self._call("tilestored64", [I8, PTR, I64], [self._number(register), target, self.e.i64(stride)])

    def multiply(self, sums: int, data: int, weights: int) -> None:
        """sums += data x weights."""
        self._call("tdpbf16ps", [I8] * 3, [self._number(number) for number in (sums, data, weights)])

    def multiply_all(
        self,
        data: Sequence[Val],
        data_step: int,
        weights: Sequence[Val],
        weight_step: int,
        terms: Sequence[Term],
        spare: int = 0,
    ) -> Iterator[None]:
        """Adds the products of `terms` of every tile of data with every tile of weights to the sums; pauses after each.

        Sums of data tile i and weight tile j are in register i * oc_tiles + j. Pointers are to part 0, and steps lead
        to the other parts. Where a shape has more tiles on one side than registers, they take turns. The first `spare`
        tiles of data are left out, and there may be fewer than the shape has.
        """
        shape = self.shape
        sums, own, others = registers_of(shape.px_tiles, shape.oc_tiles)
        held = (-1, -1)
        for term in terms:
            for side, (tiles, start, turns, step) in enumerate(
                (
                    (data, sums, own < shape.px_tiles, data_step),
                    (weights, sums + own, others < shape.oc_tiles, weight_step),
                )
            ):
                if not turns and held[side] != term[side]:
                    for k, tile in enumerate(tiles):
                        if side == 0 and k < spare:
                            continue
                        self.load(start + k, self.e.at(tile, term[side] * step))
            held = term
            for i, tile in enumerate(data):
                if i < spare:
                    continue
                if own < shape.px_tiles:
                    self.load(sums + i % own, self.e.at(tile, term[0] * data_step))
                for j, other in enumerate(weights):
                    if others < shape.oc_tiles:
                        self.load(sums + own + j % others, self.e.at(other, term[1] * weight_step))
                    self.multiply(i * shape.oc_tiles + j, sums + i % own, sums + own + j % others)
                    yield

    def _number(self, register: int) -> Val:
        return ir.Constant(I8, register)

    def _call(self, name: str, types: Sequence[Val], values: Sequence[Val]) -> None:
        self.e.b.call(self.e.intrinsic(f"llvm.x86.{name}", VOID, types), values)
