"""Winograd convolutions whose products are made by tile units (AMX), in float32 by parts of bfloat16.

What is multiplied position by position is a matrix product of image tiles x input channels by input x output channels.
Transforms are those of `conv_winograd`, splitting is that of `conv_split`, also in that a tile holds two channel blocks
side by side. Where one block is left, a tile holds two of its parts instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from llvmlite import ir

from sqzc.backends.llvm.algebra import VectorAlgebra
from sqzc.backends.llvm.emit import PTR, Emitter, Val
from sqzc.backends.llvm.family import Args, given
from sqzc.backends.llvm.kernels.conv_winograd import ConvWinograd, WinogradCode
from sqzc.backends.llvm.kernels.tile_unit import TileUnit, parts_of, splat_bits, tile_shapes
from sqzc.backends.llvm.packing import pack_bias, pack_conv
from sqzc.backends.llvm.problems import ConvProblem, conv_problem
from sqzc.backends.llvm.schedules.conv_split import plain_cycles
from sqzc.backends.llvm.schedules.conv_winograd import choose as choose_vectors
from sqzc.backends.llvm.schedules.conv_winograd import grid
from sqzc.backends.llvm.schedules.conv_winograd import predict as predict_vectors
from sqzc.backends.llvm.schedules.conv_winograd_split import (
    WinogradSplitSchedule,
    choose,
    depth_of,
    far_filters,
    group_bytes,
    groups_of,
    position_bytes,
    predict,
    prepared_bytes,
    scratch_layout,
)
from sqzc.backends.llvm.schedules.tile_unit import LONE_TERMS, PARTS, ROW_BYTES, TERMS, TILE_ROWS, WEIGHT_TILE
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
        return cost < vectors and (self.always or cost < plain_cycles(p, target))

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
        """The parts of all filters, transformed, group after group."""
        p, s = conv_problem(program, step), WinogradSplitSchedule.from_fields(step.schedule)

        def group(index: Val, _: list[Val]) -> list[Val]:
            oc = e.clamp_last(index, s.oc_tiles, p.oc_blocks)
            split_filters(e, p, s, constants[0], oc, e.at(prepared, e.mul_add(index, group_bytes(p, s))))
            return []

        e.loop(0, groups_of(p, s), 1, group)


def pack_filters(w: Array, p: ConvProblem) -> Array:
    """[oc block][ic][3 x 3][oc lane] from [oc, ic, 3, 3]; the channels of a pair of blocks alternate."""
    packed = pack_conv(np.asarray(w, np.float32), p.lanes, p.y_block, 1)
    blocks, ic_blocks, _, _, lanes, width = packed.shape
    channels = packed.transpose(0, 1, 4, 2, 3, 5).reshape(blocks, ic_blocks, lanes, 9, width)
    paired = ic_blocks // 2 * 2
    pairs = channels[:, :paired].reshape(blocks, paired // 2, 2, lanes, 9, width).swapaxes(2, 3)
    parts = [part.reshape(blocks, -1, 9, width) for part in (pairs, channels[:, paired:])]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def split_filters(e: Emitter, p: ConvProblem, s: WinogradSplitSchedule, weights: Val, oc: Val, target: Val) -> None:
    """The parts of U = G g G^T of a group from channel block `oc`: [position][oc block][tile of a channel pair]."""
    form, f, depth = FORMS[s.m], VectorAlgebra(e), depth_of(p)
    taps = 9 * 4 * e.lanes
    source = e.at(weights, e.mul_add(oc, p.ic_padded * taps))

    def rows(blocks: int, first: int, pairs: int) -> None:
        def row(index: Val, _: list[Val]) -> list[Val]:
            block, pair, number = e.split_many(index, (s.oc_tiles, pairs, TILE_ROWS))
            pair = e.b.add(pair, e.i64(first))
            at = e.mul_add(block, p.ic_padded * taps, e.mul_add(pair, 2 * TILE_ROWS * taps))
            raw = e.at(source, e.b.add(at, e.mul_add(number, blocks * taps)))
            at = e.mul_add(block, depth.weight_tiles * WEIGHT_TILE, e.mul_add(pair, PARTS * WEIGHT_TILE))
            out = e.at(target, e.b.add(at, e.mul_add(number, ROW_BYTES)))
            grids = [
                [[e.load(raw, k * taps + (3 * u + v) * 4 * e.lanes) for v in range(3)] for u in range(3)]
                for k in range(blocks)
            ]
            lines = zip(*(two_dimensional(f, form.filter, grid) for grid in grids), strict=True)
            for i, line in enumerate(lines):
                for j, values in enumerate(zip(*line, strict=True)):
                    to = e.at(out, (i * form.size + j) * position_bytes(p, s))
                    for k, (low, high) in enumerate(filter_parts(e, values)):
                        e.store(beside(e, low, high), to, k * WEIGHT_TILE)
                e.fence()
            return []

        e.loop(0, s.oc_tiles * pairs * TILE_ROWS, 1, row)

    if depth.pairs:
        rows(2, 0, depth.pairs)
    if depth.single:
        rows(1, depth.pairs, 1)


def filter_parts(e: Emitter, values: Sequence[Val]) -> list[tuple[Val, Val]]:
    """What the tiles of weights hold side by side: the parts of two filters, or those of one twice."""
    parts = [parts_of(e, value, nearest=True) for value in values]
    if len(parts) == 2:
        return list(zip(*parts, strict=True))
    ((first, second, third),) = parts
    return [(first, first), (second, second), (third, first)]


def data_parts(e: Emitter, values: Sequence[Val]) -> list[tuple[Val, Val]]:
    """What the tiles of data hold side by side: the parts of two vectors, or the first of one with the others."""
    parts = [parts_of(e, value, nearest=False) for value in values]
    if len(parts) == 2:
        return list(zip(*parts, strict=True))
    ((first, second, third),) = parts
    return [(first, second), (first, third)]


def beside(e: Emitter, low: Val, high: Val) -> Val:
    """The upper halves of the lanes of both, those of `low` in the lower halves."""
    return e.b.or_(e.b.lshr(low, splat_bits(e, 16)), e.b.and_(high, splat_bits(e, -0x10000)))


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
        self.depth = depth_of(p)
        self.part = self.count * ROW_BYTES
        self.block_bytes = self.depth.weight_tiles * WEIGHT_TILE
        self.v = args.scratch
        self.u = e.at(args.scratch, self.own.u_start)
        self.products = e.at(args.scratch, self.own.m_start)
        self.unit = TileUnit(e, s)
        # Filters that do not stay in the second-level cache are prefetched a position ahead, by each block of tiles for
        # each pair of channel blocks as many lines.
        tiles = -(-self.count // s.rows)
        shares = -(-tiles // s.px_tiles) * (self.depth.pairs + self.depth.single)
        self.far_lines = -(-position_bytes(p, s) // 64 // shares) if far_filters(p, s, e.target) else 0

    def emit(self) -> None:
        self.unit.configure(self.args.constants[2])
        super().emit()
        self.unit.release()

    def make(self, tile: Val, first: Val, oc: Val, y: Val, r: Val | None) -> None:
        """Products on tile units, then the output of all tiles of the band."""
        self.multiply_all(self.filters(tile, oc))
        self.transform_output(first, self.e.i64(0), self.count, oc, y, r)

    def filters(self, group: Val, oc: Val) -> Val:  # type: ignore[override]
        """The parts of the filters of a group from channel block `oc`: prepared ones, else made now in scratch."""
        e, p, s, args = self.e, self.p, self.tiles, self.args
        missing = e.b.icmp_unsigned("==", args.prepared, ir.Constant(PTR, None))
        with e.when(missing):
            split_filters(e, p, s, args.constants[0], oc, self.u)
        return e.b.select(missing, self.u, e.at(args.prepared, e.mul_add(group, group_bytes(p, s))))

    # -- data ---------------------------------------------------------------------------------------------------------

    def transform_data(self, image: Val, first: Val) -> None:
        """The parts of V = B^T d B for every tile of the band; tiles at the far edges are moved back inside."""
        e, p, s = self.e, self.p, self.tiles
        top, left, _, _ = p.pads
        origin = p.x.origin - top * p.x.row - left * p.x.pixel
        base = e.at(self.args.reads[0], e.mul_add(image, 4 * p.x.image, 4 * origin))

        def tile(t: Val, _: list[Val]) -> list[Val]:
            i, j = e.split(t, self.columns)
            h, w = e.clamp_last(e.b.add(first, i), s.m, p.oh), e.clamp_last(j, s.m, p.ow)
            corner = e.at(base, e.mul_add(h, 4 * p.x.row, e.mul_add(w, 4 * p.x.pixel)))
            row = e.at(self.v, e.mul_add(t, ROW_BYTES))

            def pair(c: Val, _: list[Val]) -> list[Val]:
                source = e.at(corner, e.mul_add(c, 8 * p.x.plane))
                sides = [e.at(source, side * 4 * p.x.plane) for side in (0, 1)]
                self.transform_blocks(sides, e.at(row, e.mul_add(c, PARTS * self.part)))
                return []

            pairs = self.depth.pairs
            e.loop(0, pairs, 1, pair)
            if self.depth.single:
                self.transform_blocks([e.at(corner, pairs * 8 * p.x.plane)], e.at(row, pairs * PARTS * self.part))
            return []

        e.loop(0, self.count, 1, tile)

    def transform_blocks(self, sources: Sequence[Val], target: Val) -> None:
        """The transform of one tile of a pair of channel blocks, or of a single one, in parts."""
        e, p, size = self.e, self.p, self.form.size
        grids = [
            [[e.load(source, 4 * (i * p.x.row + j * p.x.pixel)) for j in range(size)] for i in range(size)]
            for source in sources
        ]
        lines = zip(*(two_dimensional(self.f, self.form.data, grid) for grid in grids), strict=True)
        for i, line in enumerate(lines):
            for j, values in enumerate(zip(*line, strict=True)):
                at = (i * size + j) * self.own.v_step
                for k, (low, high) in enumerate(data_parts(e, values)):
                    e.store(beside(e, low, high), target, at + k * self.part)
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
        e, s, depth = self.e, self.tiles, self.depth
        places = [(i, j) for i in range(len(starts)) for j in range(s.oc_tiles)]
        for i, j in places:
            self.unit.zero(i * s.oc_tiles + j)
        v = e.at(self.v, e.mul_add(number, self.own.v_step))
        rows = [e.at(v, e.mul_add(start, ROW_BYTES)) for start in starts]
        u = e.at(filters, e.mul_add(number, position_bytes(self.p, s)))
        near = e.mul_add(share, (depth.pairs + depth.single) * 64 * self.far_lines, position_bytes(self.p, s))

        def step(c: Val, terms: Sequence[tuple[int, int]]) -> None:
            at = e.mul_add(c, PARTS * self.part)
            ahead = e.at(u, e.b.add(near, e.mul_add(c, 64 * self.far_lines)))
            own = e.at(u, e.mul_add(c, PARTS * WEIGHT_TILE))
            self.add_products([e.at(row, at) for row in rows], own, terms, ahead)

        def pair(c: Val, _: list[Val]) -> list[Val]:
            step(c, TERMS)
            return []

        e.loop(0, depth.pairs, 1, pair)
        if depth.single:
            step(e.i64(depth.pairs), LONE_TERMS)
        out = e.at(self.products, e.mul_add(number, self.own.m_step))
        for i, j in places:
            to = e.at(out, e.mul_add(starts[i], s.oc_tiles * self.vector, j * self.vector))
            self.unit.store(i * s.oc_tiles + j, to, s.oc_tiles * self.vector)

    def add_products(self, rows: Sequence[Val], filters: Val, terms: Sequence[tuple[int, int]], ahead: Val) -> None:
        """Adds the products of a pair of input channel blocks, or of a single one; between them lines are prefetched.

        `rows` are the first tiles of data, `ahead` is what comes next of the filters.
        """
        e, s = self.e, self.tiles
        own = [e.at(filters, j * self.block_bytes) for j in range(s.oc_tiles)]
        count = len(terms) * len(rows) * s.oc_tiles
        for made, _ in enumerate(self.unit.multiply_all(rows, self.part, own, WEIGHT_TILE, terms)):
            for line in range(made * self.far_lines // count, (made + 1) * self.far_lines // count):
                e.prefetch(ahead, 64 * line, locality=2)

    def sums(self, source: Val, block: Val) -> list[list[Val]]:
        """M of one tile of one channel block, and the bias at the position that is added to all results."""
        found = super().sums(source, block)
        bias = self.e.load(self.e.at(self.args.constants[1], self.e.mul_add(block, self.vector)))
        unit = self.form.unit
        found[unit][unit] = self.e.b.fadd(found[unit][unit], bias)
        return found
