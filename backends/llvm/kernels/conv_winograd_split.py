"""Winograd convolutions whose products are made by tile units (AMX), in float32 by parts of bfloat16.

What is multiplied position by position is a matrix product of image tiles x input channels by input x output channels.
Transforms are those of `conv_winograd`, splitting is that of `conv_split`; the channels of a pair lie beside each other
in one block here, so that each block is transformed and stored alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from llvmlite import ir

from sqzc.backends.llvm.algebra import VectorAlgebra
from sqzc.backends.llvm.emit import PTR, Emitter, Val
from sqzc.backends.llvm.family import Args, given
from sqzc.backends.llvm.kernels.conv_split import I16, TileUnit, parts_of, store_pairs, tile_shapes
from sqzc.backends.llvm.kernels.conv_winograd import ConvWinograd, WinogradCode
from sqzc.backends.llvm.packing import pack_bias, pack_conv
from sqzc.backends.llvm.problems import ConvProblem, conv_problem
from sqzc.backends.llvm.schedules.conv_direct import choose as choose_direct
from sqzc.backends.llvm.schedules.conv_direct import predict as predict_direct
from sqzc.backends.llvm.schedules.conv_split import PARTS, ROW_BYTES, TERMS, TILE_ROWS, WEIGHT_TILE, chunks_of
from sqzc.backends.llvm.schedules.conv_winograd import choose as choose_vectors
from sqzc.backends.llvm.schedules.conv_winograd import grid
from sqzc.backends.llvm.schedules.conv_winograd import predict as predict_vectors
from sqzc.backends.llvm.schedules.conv_winograd_split import (
    WinogradSplitSchedule,
    block_bytes,
    choose,
    far_filters,
    groups_of,
    predict,
    prepared_bytes,
    scratch_layout,
)
from sqzc.backends.llvm.selecting import expected_problem
from sqzc.backends.llvm.winograd_math import FORMS, two_dimensional
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


@dataclass(frozen=True)
class ConvWinogradSplit(ConvWinograd):
    """`ConvWinograd` on tile units: the same forms, the same bound of their error, other products.

    `always` takes what the form on vectors would take anyhow, where tile units are faster; `wherever` also where they
    are not.
    """

    wherever: bool = False

    name: ClassVar[str] = "conv2d.winograd_split"
    shares_code: ClassVar[bool] = True

    @classmethod
    def beside(cls, vectors: ConvWinograd) -> ConvWinogradSplit:
        """The same choice of forms on tile units."""
        if isinstance(vectors, cls):
            return vectors
        return cls(vectors.forms, vectors.always, vectors.bounded)

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        return super().select(graph, node, target) if target.tile_products else None

    def pays(self, node: Node, target: Target, forms: tuple[int, ...]) -> bool:
        """Whether one of the forms is predicted to be faster on tile units than on vectors and than the direct form."""
        p = expected_problem(node, target)
        s = choose(p, target, forms)
        if s is None or self.wherever:
            return s is not None
        cost = predict(p, s, target)
        vectors = predict_vectors(p, choose_vectors(p, target, forms), target)
        return cost < vectors and (self.always or cost < predict_direct(p, choose_direct(p, target), target))

    def refusal(self, node: Node, target: Target) -> str:
        """Nothing: the form on vectors is asked next, and says it."""
        return ""

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        s = given(step, WinogradSplitSchedule) or choose(p, target, self.forms_of(step))
        assert s is not None
        bias = pack_bias(arrays.get("b"), p.oc, p.y_block)
        constants = {"w": pack_filters(arrays["w"], p), "b": bias, "tiles": tile_shapes(s)}
        return Finished(s.to_fields(), constants, scratch_layout(p, s).total, prepared_bytes(p, s))

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), WinogradSplitSchedule.from_fields(step.schedule)
        return p.n * -(-grid(p, s.m)[0] // s.band) * groups_of(p, s)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Parts(e, conv_problem(program, step), WinogradSplitSchedule.from_fields(step.schedule), args).emit()

    def prepare(self, e: Emitter, program: Program, step: Step, constants: tuple[Val, ...], prepared: Val) -> None:
        """The parts of all filters, transformed."""
        p, s = conv_problem(program, step), WinogradSplitSchedule.from_fields(step.schedule)
        split_filters(e, p, s.m, p.oc_blocks, constants[0], prepared)


def pack_filters(w: Array, p: ConvProblem) -> Array:
    """[oc block][ic][3 x 3][oc lane] from [oc, ic, 3, 3], zeros past the channels, ic up to whole chunks."""
    w = np.asarray(w, np.float32)
    w = np.pad(w, [(0, 0), (0, chunks_of(p) * 2 * p.lanes - w.shape[1]), (0, 0), (0, 0)])
    packed = pack_conv(w, p.lanes, p.y_block, 1)
    blocks, ic_blocks, _, _, lanes, width = packed.shape
    return np.ascontiguousarray(packed.transpose(0, 1, 4, 2, 3, 5).reshape(blocks, ic_blocks * lanes, 9, width))


def split_filters(e: Emitter, p: ConvProblem, m: int, blocks: int, weights: Val, target: Val) -> None:
    """The parts of U = G g G^T for so many channel blocks: [block][position][chunk][part] tiles."""
    form, f, chunks = FORMS[m], VectorAlgebra(e), chunks_of(p)
    vector = 4 * e.lanes
    position = chunks * PARTS * WEIGHT_TILE

    def row(index: Val, _: list[Val]) -> list[Val]:
        block, chunk, number = e.split_many(index, (blocks, chunks, TILE_ROWS))
        source = e.at(weights, e.mul_add(index, 2 * 9 * vector))
        out = e.at(target, e.mul_add(block, block_bytes(p, m), e.mul_add(chunk, PARTS * WEIGHT_TILE)))
        out = e.at(out, e.mul_add(number, ROW_BYTES))
        taps = [
            [[e.load(source, (9 * which + 3 * u + v) * vector) for v in range(3)] for u in range(3)] for which in (0, 1)
        ]
        lines = zip(*(two_dimensional(f, form.filter, one) for one in taps), strict=True)
        for i, (first, second) in enumerate(lines):
            for j, pair in enumerate(zip(first, second, strict=True)):
                store_pairs(e, *pair, e.at(out, (i * form.size + j) * position), WEIGHT_TILE, nearest=True)
            e.fence()
        return []

    e.loop(0, blocks * chunks * TILE_ROWS, 1, row)


class _Parts(WinogradCode):
    def __init__(self, e: Emitter, p: ConvProblem, s: WinogradSplitSchedule, args: Args) -> None:
        self.e, self.p, self.s, self.args = e, p, s, args  # type: ignore[assignment]
        self.tiles = s
        self.form = FORMS[s.m]
        self.f = VectorAlgebra(e)
        self.vector = 4 * e.lanes
        self.rows, self.columns = grid(p, s.m)
        self.bands = -(-self.rows // s.band)
        self.oc_tiles = groups_of(p, s)
        self.count = s.band * self.columns
        self.own = scratch_layout(p, s)
        self.layout = self.own  # type: ignore[assignment]
        self.chunks = chunks_of(p)
        self.part = self.count * ROW_BYTES
        self.v = args.scratch
        self.u = e.at(args.scratch, self.own.u_start)
        self.products = e.at(args.scratch, self.own.m_start)
        self.unit = TileUnit(e)
        # Filters that do not stay in the second-level cache are prefetched a position ahead.
        tiles = -(-self.count // s.rows)
        shares = -(-tiles // s.px_tiles) * self.chunks
        self.far_lines = -(-self.chunks * PARTS * WEIGHT_TILE // 64 // shares) if far_filters(p, s, e.target) else 0

    def emit(self) -> None:
        self.unit.configure(self.args.constants[2])
        super().emit()
        self.unit.release()

    def make(self, tile: Val, first: Val, oc: Val, y: Val, r: Val | None) -> None:
        """Products on tile units, then the output of all tiles of the band."""
        self.multiply_all(self.filters(oc))
        self.transform_output(first, self.e.i64(0), self.count, oc, y, r)

    def filters(self, oc: Val) -> Val:
        """The parts of the filters of a group from channel block `oc`: prepared ones, else made now in scratch."""
        e, p, s, args = self.e, self.p, self.tiles, self.args
        missing = e.b.icmp_unsigned("==", args.prepared, ir.Constant(PTR, None))
        with e.when(missing):
            raw = e.at(args.constants[0], e.mul_add(oc, self.chunks * 2 * TILE_ROWS * 9 * self.vector))
            split_filters(e, p, s.m, s.oc_tiles, raw, self.u)
        return e.b.select(missing, self.u, e.at(args.prepared, e.mul_add(oc, block_bytes(p, s.m))))

    # -- data ---------------------------------------------------------------------------------------------------------

    def transform_data(self, image: Val, first: Val) -> None:
        """The parts of V = B^T d B for every tile of the band; tiles at the far edges are moved back inside."""
        e, p, s = self.e, self.p, self.tiles
        top, left, _, _ = p.pads
        blocks = p.ic_padded // p.lanes
        origin = p.x.origin - top * p.x.row - left * p.x.pixel
        base = e.at(self.args.reads[0], e.mul_add(image, 4 * p.x.image, 4 * origin))

        def tile(t: Val, _: list[Val]) -> list[Val]:
            i, j = e.split(t, self.columns)
            h, w = e.clamp_last(e.b.add(first, i), s.m, p.oh), e.clamp_last(j, s.m, p.ow)
            corner = e.at(base, e.mul_add(h, 4 * p.x.row, e.mul_add(w, 4 * p.x.pixel)))
            row = e.at(self.v, e.mul_add(t, ROW_BYTES))

            def block(c: Val, _: list[Val]) -> list[Val]:
                chunk, half = e.split(c, 2)
                out = e.at(row, e.mul_add(chunk, PARTS * self.part, e.mul_add(half, ROW_BYTES // 2)))
                self.one_tile(e.at(corner, e.mul_add(c, 4 * p.x.plane)), out)
                return []

            e.loop(0, blocks, 1, block)
            if blocks % 2:
                # What the last chunk has no block for is multiplied too.
                rest = e.at(row, (self.chunks - 1) * PARTS * self.part + ROW_BYTES // 2)
                nothing = ir.Constant(ir.VectorType(I16, e.lanes), None)
                for position in range(self.form.size**2):
                    for k in range(PARTS):
                        e.store(nothing, rest, position * self.own.v_step + k * self.part)
            return []

        e.loop(0, self.count, 1, tile)

    def one_tile(self, source: Val, target: Val) -> None:
        """The transform of one tile of one channel block, in parts of half a row each."""
        e, p, size = self.e, self.p, self.form.size
        data = [[e.load(source, 4 * (i * p.x.row + j * p.x.pixel)) for j in range(size)] for i in range(size)]
        halves = ir.VectorType(I16, 2 * e.lanes)
        upper = [2 * lane + 1 for lane in range(e.lanes)]
        for i, line in enumerate(two_dimensional(self.f, self.form.data, data)):
            for j, value in enumerate(line):
                at = (i * size + j) * self.own.v_step
                for k, bits in enumerate(parts_of(e, value, nearest=False)):
                    words = e.b.bitcast(bits, halves)
                    e.store(e.shuffle(words, words, upper), target, at + k * self.part)
            e.fence()

    # -- products -----------------------------------------------------------------------------------------------------

    def multiply_all(self, filters: Val) -> None:
        """M at all positions for all tiles of the band."""
        e, s = self.e, self.tiles
        tiles = -(-self.count // s.rows)
        whole = tiles // s.px_tiles * s.px_tiles

        def position(number: Val, _: list[Val]) -> list[Val]:
            def block(px_tiles: int) -> Callable[[Val, list[Val]], list[Val]]:
                def at(t: Val, _: list[Val]) -> list[Val]:
                    starts = [e.clamp_last(e.b.add(t, e.i64(i)), s.rows, self.count) for i in range(px_tiles)]
                    self.block(number, e.b.udiv(t, e.i64(s.px_tiles)), starts, filters)
                    return []

                return at

            e.loop(0, whole, s.px_tiles, block(s.px_tiles))
            e.loop(whole, tiles, 1, block(1))
            return []

        e.loop(0, self.form.size**2, 1, position)

    def block(self, number: Val, share: Val, starts: list[Val], filters: Val) -> None:
        """One position of the tiles that start at image tiles `starts` x all channel blocks of the group.

        `share` numbers the blocks of a position, each of which brings in as much of the next one's filters.
        """
        e, s, unit = self.e, self.tiles, self.unit
        data, weights = s.px_tiles * s.oc_tiles, s.px_tiles * s.oc_tiles + s.px_tiles
        places = [(i, j) for i in range(len(starts)) for j in range(s.oc_tiles)]
        for i, j in places:
            unit.zero(i * s.oc_tiles + j)
        v = e.at(self.v, e.mul_add(number, self.own.v_step))
        rows = [e.at(v, e.mul_add(start, ROW_BYTES)) for start in starts]
        u = e.at(filters, e.mul_add(number, self.chunks * PARTS * WEIGHT_TILE))
        lines = self.far_lines

        def chunk(c: Val, _: list[Val]) -> list[Val]:
            shift, own = e.mul_add(c, PARTS * self.part), e.at(u, e.mul_add(c, PARTS * WEIGHT_TILE))
            near = e.at(u, e.mul_add(e.mul_add(share, self.chunks, c), 64 * lines, self.chunks * PARTS * WEIGHT_TILE))
            for line in range(lines):
                for j in range(s.oc_tiles):
                    e.prefetch(near, j * block_bytes(self.p, s.m) + 64 * line, locality=2)
            held = (-1, -1)
            for term in TERMS:
                if term[0] != held[0]:
                    for i, row in enumerate(rows):
                        unit.load(data + i, e.at(e.at(row, shift), term[0] * self.part))
                if term[1] != held[1]:
                    for j in range(s.oc_tiles):
                        at = j * block_bytes(self.p, s.m) + term[1] * WEIGHT_TILE
                        unit.load(weights + j, e.at(own, at))
                held = term
                for i, j in places:
                    unit.multiply(i * s.oc_tiles + j, data + i, weights + j)
            return []

        e.loop(0, self.chunks, 1, chunk)
        out = e.at(self.products, e.mul_add(number, self.own.m_step))
        for i, j in places:
            to = e.at(out, e.mul_add(starts[i], s.oc_tiles * self.vector, j * self.vector))
            unit.store(i * s.oc_tiles + j, to, s.oc_tiles * self.vector)

    def sums(self, source: Val, block: Val) -> list[list[Val]]:
        """M of one tile of one channel block, and the bias at the position that is added to all results."""
        found = super().sums(source, block)
        bias = self.e.load(self.e.at(self.args.constants[1], self.e.mul_add(block, self.vector)))
        unit = self.form.unit
        found[unit][unit] = self.e.b.fadd(found[unit][unit], bias)
        return found
