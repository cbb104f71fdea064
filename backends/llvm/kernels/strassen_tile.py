"""One level of Strassen's algorithm around the register tile of 1 x 1 convolutions.

C = A B in halves of output channels (rows of A), input channels and pixels (columns of B), seven products instead of
eight (V. Strassen, Gaussian Elimination is not Optimal, 1969; the form with 15 sums is S. Winograd's):

    S1 = A21 + A22   S2 = S1 - A11    S3 = A11 - A21   S4 = A12 - S2
    T1 = B12 - B11   T2 = B22 - T1    T3 = B22 - B12   T4 = B21 - T2
    C11 = A11 B11 + A12 B21           U2 = A11 B11 + S2 T2       U3 = U2 + S3 T3
    C21 = U3 + A22 T4                 C22 = U3 + S1 T1           C12 = U2 + S1 T1 + S4 B22

All products of a register tile are summed where they are wanted, so the sums on the side of C cost a few loads and
stores a tile and no matrix is stored. The S are made from the weights once, when a handle is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from llvmlite import ir

from sqzc.backends.llvm.emit import I64, PTR, VOID, Emitter, Val
from sqzc.backends.llvm.kernels.conv_tile import ConvTile
from sqzc.backends.llvm.packing import pack_conv, pad_axis
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_strassen import (
    StrassenSchedule,
    half,
    half_blocks,
    pixels,
    rows_and_width,
    schedule_of_half,
)
from sqzc.ir.constant import Array

# Places in memory of the packed quarters of A and of the sums.
A11, A12, A21, A22 = range(4)
S1, S2, S3, S4 = range(4)
T1, T2, T3, T4 = range(4)
PRODUCTS = 7

Finish = Callable[[int, int, list[list[Val]]], None]


def pack_quarters(w: Array, p: ConvProblem, s: StrassenSchedule) -> Array:
    """[oc tile][A11, A12, A21, A22][ic][oc in tile] from [oc, ic, 1, 1]; both halves of oc are equally many tiles."""
    block, rows = p.y_block, half_blocks(p) * p.y_block
    w = pad_axis(np.asarray(w, np.float32), 1, p.lanes)
    upper, lower = w[:rows], pad_axis(w[rows:], 0, block)
    lower = np.pad(lower, [(0, rows - lower.shape[0]), (0, 0), (0, 0), (0, 0)])
    middle = w.shape[1] // 2
    quarters = [part[:, k : k + middle] for part in (upper, lower) for k in (0, middle)]
    packed = [pack_conv(quarter, p.lanes, block, s.oc_vecs) for quarter in quarters]
    return np.ascontiguousarray(np.stack(packed, axis=1))


def tile_bytes(p: ConvProblem, s: StrassenSchedule, vector: int) -> int:
    """Bytes of one channel tile of a quarter of A, or of a sum of them."""
    return p.ic_padded // 2 * s.oc_vecs * vector


def sum_weights(e: Emitter, size: int, quarters: Val, target: Val) -> None:
    """S1 to S4 of one channel tile from its quarters, each of `size` bytes."""

    def one(index: Val, _: list[Val]) -> list[Val]:
        at = e.b.mul(index, e.i64(4 * e.lanes))
        a11, a12, a21, a22 = (e.load(e.at(quarters, at), k * size) for k in range(4))
        s1 = e.b.fadd(a21, a22)
        s2 = e.b.fsub(s1, a11)
        for k, value in enumerate((s1, s2, e.b.fsub(a11, a21), e.b.fsub(a12, s2))):
            e.store(value, e.at(target, at), k * size)
        return []

    e.loop(0, size // (4 * e.lanes), 1, one)


class StrassenTile:
    """Emits the sums S and T and, tile by tile, the four quarters of C."""

    def __init__(self, e: Emitter, p: ConvProblem, s: StrassenSchedule) -> None:
        self.e, self.p, self.s = e, p, s
        self.part = half(p)
        self.vector = 4 * e.lanes
        self.count = s.oc_vecs * s.cols
        self.t_plane = pixels(p) * p.lanes
        self.t_bytes = 4 * self.t_plane * (p.ic_padded // p.lanes // 2)
        self.bytes = tile_bytes(p, s, self.vector)
        # Both quarters and sums of the next channel tile, spread over all channel blocks of all products of this one.
        rounds = PRODUCTS * (pixels(p) // s.cols) * (self.part.ic_padded // p.lanes)
        self.far_lines = -(-8 * self.bytes // 64 // rounds)
        self.function = self.product()

    @staticmethod
    def layout(p: ConvProblem, s: StrassenSchedule, vector: int) -> tuple[int, int, int, int]:
        """Starts of T, S and the saved accumulators in scratch, and its size."""
        t = 4 * 4 * pixels(p) * p.ic_padded // 2
        tile = tile_bytes(p, s, vector)
        return 0, t, t + 4 * tile, t + 4 * tile + 4 * s.oc_vecs * s.cols * vector

    # -- sums ---------------------------------------------------------------------------------------------------------

    def sum_data(self, x: Val, target: Val) -> None:
        """T1 to T4 of an image whose pixel 0 is at `x`."""
        e, p = self.e, self.p
        _, width = rows_and_width(p)
        right = 4 * (p.oh // 2) * p.x.row
        below = 4 * (p.ic_padded // p.lanes // 2) * p.x.plane

        def block(c: Val, _: list[Val]) -> list[Val]:
            source = e.at(x, e.mul_add(c, 4 * p.x.plane))
            out = e.at(target, e.mul_add(c, 4 * self.t_plane))

            def pixel(j: Val, _: list[Val]) -> list[Val]:
                row, column = e.split(j, width)
                at = e.at(source, e.mul_add(row, 4 * p.x.row, e.mul_add(column, 4 * p.x.pixel)))
                b11, b12, b21, b22 = (e.load(at, offset) for offset in (0, right, below, below + right))
                t1 = e.b.fsub(b12, b11)
                t2 = e.b.fsub(b22, t1)
                to = e.at(out, e.mul_add(j, self.vector))
                for k, value in enumerate((t1, t2, e.b.fsub(b22, b12), e.b.fsub(b21, t2))):
                    e.store(value, to, k * self.t_bytes)
                return []

            e.loop(0, pixels(p), 1, pixel)
            return []

        e.loop(0, p.ic_padded // p.lanes // 2, 1, block)

    def prepared(self, scratch: Val, prepared: Val, quarters: Val, tile: Val) -> Val:
        """S1 to S4 of a channel tile: prepared ones, else made now in `scratch`."""
        e = self.e
        missing = e.b.icmp_unsigned("==", prepared, ir.Constant(PTR, None))
        with e.when(missing):
            sum_weights(e, self.bytes, quarters, scratch)
        return e.b.select(missing, scratch, e.at(prepared, e.mul_add(tile, 4 * self.bytes)))

    # -- products -----------------------------------------------------------------------------------------------------

    def product(self) -> Val:
        """Adds a product to memory: (image, bytes between its channel blocks, weights, accumulators, far).

        `far` is where the next channel tile's weights lie that are brought nearer meanwhile.

        Seven copies of the loop in one body would not fit the caches of the instruction fetch.
        """
        e, name = self.e, f"{self.e.b.function.name}.product"
        function = ir.Function(e.module, ir.FunctionType(VOID, [PTR, I64, PTR, PTR, PTR]), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        inner = Emitter(ir.IRBuilder(function.append_basic_block("entry")), e.target)
        x, plane, weights, memory, far = function.args
        tile = ConvTile(inner, self.part, schedule_of_half(self.s))
        sums = [inner.load(memory, index * self.vector) for index in range(self.count)]
        for index, value in enumerate(tile.accumulate(x, weights, sums, 1, self.s.cols, plane, (far, self.far_lines))):
            inner.store(value, memory, index * self.vector)
        inner.b.ret_void()
        return function

    def emit(
        self, x: Val, t: Val, quarters: Val, sums: Val, saved: Val, place: tuple[Val, Val], finish: Finish
    ) -> None:
        """The four tiles of C at a row and column of each half; `finish(channel half, pixel half, values)` takes them.

        `x` is pixel 0 of the image, `t` the T sums, `quarters` and `sums` the channel tile's, `saved` room for four
        tiles.
        """
        e, p = self.e, self.p
        row, column = place
        number_of_pixel = e.mul_add(row, rows_and_width(p)[1], column)
        at = e.at(x, e.mul_add(row, 4 * p.x.row, e.mul_add(column, 4 * p.x.pixel)))
        below, right = 4 * (p.ic_padded // p.lanes // 2) * p.x.plane, 4 * (p.oh // 2) * p.x.row
        summed = e.at(t, e.mul_add(number_of_pixel, self.vector))
        call = e.mul_add(e.b.udiv(number_of_pixel, e.i64(self.s.cols)), PRODUCTS)
        number = itertools.count()

        def far() -> Val:
            """This call's share of the next channel tile, which lies behind this one."""
            step = 64 * self.far_lines * (self.part.ic_padded // p.lanes)
            at = e.mul_add(e.b.add(call, e.i64(next(number))), step)
            size = e.i64(4 * self.bytes)
            first = e.b.icmp_signed("<", at, size)
            return e.b.select(first, e.at(e.at(quarters, size), at), e.at(sums, at))

        tiles = [e.at(saved, k * self.count * self.vector) for k in range(4)]

        def image(weights: Val, a: int, shift: int, tile: Val) -> None:
            e.b.call(self.function, [e.at(at, shift), e.i64(4 * p.x.plane), e.at(weights, a * self.bytes), tile, far()])

        def data(weights: Val, a: int, number: int, tile: Val) -> None:
            source = e.at(summed, number * self.t_bytes)
            e.b.call(self.function, [source, e.i64(4 * self.t_plane), e.at(weights, a * self.bytes), tile, far()])

        u, c, p5 = tiles[:3]
        self.put([e.splat(0.0)] * self.count, u, p5)
        image(quarters, A11, 0, u)
        self.put(self.get(u), c)
        image(quarters, A12, below, c)
        finish(0, 0, self.split(self.get(c)))
        data(sums, S2, T2, u)
        self.put(self.get(u), c)
        data(sums, S3, T3, c)
        data(sums, S1, T1, p5)
        both = [e.b.fadd(a, b) for a, b in zip(self.get(c), self.get(p5), strict=True)]
        finish(1, 1, self.split(both))
        data(quarters, A22, T4, c)
        finish(1, 0, self.split(self.get(c)))
        self.put([e.b.fadd(a, b) for a, b in zip(self.get(u), self.get(p5), strict=True)], u)
        image(sums, S4, below + right, u)
        finish(0, 1, self.split(self.get(u)))

    def put(self, values: list[Val], *tiles: Val) -> None:
        """Stores a register tile."""
        for tile in tiles:
            for index, value in enumerate(values):
                self.e.store(value, tile, index * self.vector)

    def get(self, tile: Val) -> list[Val]:
        """Loads a register tile."""
        return [self.e.load(tile, index * self.vector) for index in range(self.count)]

    def split(self, values: list[Val]) -> list[list[Val]]:
        """[channel block][pixel] from a flat list."""
        cols = self.s.cols
        return [values[k * cols : (k + 1) * cols] for k in range(self.s.oc_vecs)]
