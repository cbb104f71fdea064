"""The parts of Strassen's algorithm that storing and averaging share: operands, products and sums of parts.

The products of the outermost level come one after the other. For each the right operands (data) within it are made,
and used by all channel tiles before the next; the left ones (weights) were made when a handle was made and lie in the
order of use. Sums grow in slots of scratch, each a part's pixels of one channel tile.
"""

from __future__ import annotations

import itertools

import numpy as np
from llvmlite import ir

from sqzc.backends.llvm.algebra import Numbers, VectorAlgebra
from sqzc.backends.llvm.emit import PTR, VOID, Emitter, Val
from sqzc.backends.llvm.kernels.conv_tile import ConvTile
from sqzc.backends.llvm.packing import pack_conv, pad_axis
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_strassen import (
    StrassenSchedule,
    oc_tiles,
    operand_bytes,
    part_of,
    schedule_of_part,
    scratch_layout,
    widths,
)
from sqzc.backends.llvm.strassen_math import (
    PRODUCTS,
    Multiply,
    Sum,
    left_operands,
    part_indices,
    right_operands,
)
from sqzc.ir.constant import Array


def pack_parts(w: Array, p: ConvProblem, s: StrassenSchedule) -> Array:
    """[oc tile][part][ic][oc in tile] from [oc, ic, 1, 1]; all parts have equally many channels."""
    part, count = part_of(p, s.levels), 4**s.levels
    w = pad_axis(np.asarray(w, np.float32), 1, p.lanes)
    w = np.pad(w, [(0, 2**s.levels * part.oc - w.shape[0]), (0, 0), (0, 0), (0, 0)])
    packed = [
        pack_conv(w[row * part.oc :][: part.oc, column * part.ic :][:, : part.ic], p.lanes, p.y_block, s.oc_vecs)
        for row, column in part_indices(s.levels)
    ]
    assert len(packed) == count
    return np.ascontiguousarray(np.stack(packed, axis=1))


def left_signs(levels: int) -> Array:
    """[product][part]: how often, and with which sign, a part of A is in the left operand of a product."""
    units = np.eye(4**levels, dtype=np.float32)
    return np.ascontiguousarray(np.stack(left_operands(Numbers(), list(units))))


def emit_left_operand(e: Emitter, levels: int, size: int, parts: Val, signs: Val, target: Val) -> None:
    """One left operand of `size` bytes from the parts of a channel tile and its row of `left_signs`."""
    factors = [e.broadcast(signs, 4 * k) for k in range(4**levels)]

    def one(index: Val, _: list[Val]) -> list[Val]:
        at = e.b.mul(index, e.i64(4 * e.lanes))
        source = e.at(parts, at)
        total = e.b.fmul(e.load(source), factors[0])
        for k in range(1, 4**levels):
            total = e.fma(e.load(source, k * size), factors[k], total)
        e.store(total, e.at(target, at))
        return []

    e.loop(0, size // (4 * e.lanes), 1, one)


class StrassenTile:
    """Emits what a `recombination` is made of."""

    def __init__(self, e: Emitter, p: ConvProblem, s: StrassenSchedule) -> None:
        self.e, self.p, self.s = e, p, s
        self.part = part_of(p, s.levels)
        self.vector = 4 * e.lanes
        self.layout = scratch_layout(p, s)
        self.size = operand_bytes(p, s)
        self.inner = PRODUCTS ** (s.levels - 1)
        self.tiles = oc_tiles(p, s)
        # The next product's left operand is brought nearer in equal shares by all channel blocks of all register tiles.
        rounds = sum(count for _, count in widths(p, s)) * (self.part.ic_padded // p.lanes)
        self.far_lines = -(-self.size // 64 // rounds)
        self.products = {fresh: self._product(fresh) for fresh in (True, False)}
        self.sums = {count: self._sum(count) for count in (2, 3)}

    # -- operands -----------------------------------------------------------------------------------------------------

    def make_right_operands(self, outer: int, x: Val, target: Val) -> None:
        """The right operands within product `outer` of the outermost level, of an image whose pixel 0 is at `x`."""
        e, p, part = self.e, self.p, self.part
        blocks = part.ic_padded // p.lanes
        wanted = range(outer * self.inner, (outer + 1) * self.inner)

        def block(c: Val, _: list[Val]) -> list[Val]:
            source, out = e.at(x, e.mul_add(c, 4 * p.x.plane)), e.at(target, e.mul_add(c, 4 * part.x.plane))

            def pixel(j: Val, _: list[Val]) -> list[Val]:
                places = []
                for column in range(2**self.s.levels):
                    row, left = e.split(e.b.add(j, e.i64(column * part.ow)), p.ow)
                    places.append(e.at(source, e.mul_add(row, 4 * p.x.row, e.mul_add(left, 4 * p.x.pixel))))
                # Code generation drops the loads and sums that no wanted operand needs.
                data = [
                    e.load(places[column], 4 * row * blocks * p.x.plane) for row, column in part_indices(self.s.levels)
                ]
                operands = right_operands(VectorAlgebra(e), data)
                to = e.at(out, e.mul_add(j, self.vector))
                for at, number in enumerate(wanted):
                    # Owned by the time the next pixel is stored.
                    e.prefetch(to, at * 4 * part.x.image + self.vector, write=True)
                    e.store(operands[number], to, at * 4 * part.x.image)
                return []

            e.loop(0, part.ow, 1, pixel)
            return []

        e.loop(0, blocks, 1, block)

    def left_operand(self, number: int, tile: Val, parts: Val, signs: Val, scratch: Val, prepared: Val) -> Val:
        """A left operand of a channel tile: the prepared one, else made now in scratch."""
        e = self.e
        made = e.at(scratch, self.layout.left)
        missing = e.b.icmp_unsigned("==", prepared, ir.Constant(PTR, None))
        with e.when(missing):
            own = e.at(parts, e.mul_add(tile, 4**self.s.levels * self.size))
            emit_left_operand(e, self.s.levels, self.size, own, e.at(signs, 4 * 4**self.s.levels * number), made)
        outer, inner = divmod(number, self.inner)
        first = e.mul_add(tile, self.inner * self.size, (outer * self.tiles * self.inner + inner) * self.size)
        return e.b.select(missing, made, e.at(prepared, first))

    # -- products and sums of parts -----------------------------------------------------------------------------------

    def _function(self, name: str, arguments: int) -> tuple[Val, Emitter]:
        """A function of pointers, not copied into its callers: their code would not fit the instruction cache."""
        e = self.e
        function = ir.Function(e.module, ir.FunctionType(VOID, [PTR] * arguments), f"{e.b.function.name}.{name}")
        function.linkage = "internal"
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        return function, Emitter(ir.IRBuilder(function.append_basic_block("entry")), e.target)

    def _product(self, fresh: bool) -> Val:
        """(right, left, source, target): target = source + left x right; without source when `fresh`."""
        function, e = self._function("product" if fresh else "product_to", 3 if fresh else 4)
        right, left, *slots = function.args
        plane = self.part.ow * self.vector
        following = e.at(left, self.size)
        blocks = self.part.ic_padded // self.p.lanes
        first = tiles = 0
        for width, count in widths(self.p, self.s):
            places = list(itertools.product(range(self.s.oc_vecs), range(width)))
            tile = ConvTile(e, self.part, schedule_of_part(self.s, width))

            def one(
                number: Val,
                _: list[Val],
                tile: ConvTile = tile,
                width: int = width,
                places: list[tuple[int, int]] = places,
                first: int = first,
                tiles: int = tiles,
            ) -> list[Val]:
                pixel = e.mul_add(number, width * self.vector, first * self.vector)
                if fresh:
                    sums = [e.splat(0.0)] * len(places)
                else:
                    source = e.at(slots[0], pixel)
                    sums = [e.load(source, k * plane + j * self.vector) for k, j in places]
                share = e.mul_add(number, blocks * self.far_lines * 64, tiles * blocks * self.far_lines * 64)
                far = e.at(following, share), self.far_lines
                sums = tile.accumulate(e.at(right, pixel), left, sums, 1, width, far=far)
                target = e.at(slots[-1], pixel)
                for (k, j), value in zip(places, sums, strict=True):
                    e.store(value, target, k * plane + j * self.vector)
                return []

            e.loop(0, count, 1, one)
            first, tiles = first + width * count, tiles + count
        e.b.ret_void()
        return function

    def _sum(self, count: int) -> Val:
        """(source, ..., target): target = the sum of `count` slots."""
        function, e = self._function(f"sum{count}", count + 1)

        def one(index: Val, _: list[Val]) -> list[Val]:
            at = e.mul_add(index, self.vector)
            values = [e.load(e.at(source, at)) for source in function.args[:count]]
            total = values[0]
            for value in values[1:]:
                total = e.b.fadd(total, value)
            e.store(total, e.at(function.args[count], at))
            return []

        e.loop(0, self.s.oc_vecs * self.part.ow, 1, one)
        e.b.ret_void()
        return function

    def slot(self, scratch: Val, number: int, tile: Val) -> Val:
        """Where a channel tile's slot lies."""
        layout = self.layout
        return self.e.at(scratch, self.e.mul_add(tile, layout.slot, layout.slots + number * self.tiles * layout.slot))

    def multiply(self, action: Multiply, tile: Val, left: Val, scratch: Val) -> None:
        """One product, added to a slot."""
        e = self.e
        right = e.at(scratch, action.product % self.inner * 4 * self.part.x.image)
        sources = () if action.source is None else (self.slot(scratch, action.source, tile),)
        target = self.slot(scratch, action.target, tile)
        e.b.call(self.products[action.source is None], [right, left, *sources, target])

    def add(self, action: Sum, tile: Val, scratch: Val) -> None:
        """One sum of slots."""
        slots = [self.slot(scratch, number, tile) for number in (*action.sources, action.target)]
        self.e.b.call(self.sums[len(action.sources)], slots)
