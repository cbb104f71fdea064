"""Direct convolution with the pool that follows it: the image between them is never stored whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.family import Args, given
from sqzc.backends.llvm.kernels.conv_direct import ConvDirect, oc_tiles_of
from sqzc.backends.llvm.kernels.conv_tile import ConvTile
from sqzc.backends.llvm.kernels.pool import MaxPoolBlocked, clamp_index, emit_max_row, tap_index
from sqzc.backends.llvm.packing import pack_bias, pack_conv
from sqzc.backends.llvm.problems import ConvProblem, PoolProblem, conv_problem, fused_pool_problem
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule, candidates, choose, predict
from sqzc.backends.llvm.schedules.conv_winograd import STORE_MISS
from sqzc.backends.llvm.schedules.pool import choose as choose_pool
from sqzc.backends.llvm.vector_math import keeps_order
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.activation import NONE
from sqzc.ir.ops.nn import AvgPool2d, MaxPool2d
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Geometry, Program, Step
from sqzc.target import Target


def fused_selection(graph: Graph, node: Node, target: Target, name: str) -> tuple[Selection, Node] | None:
    """The selection of a direct convolution and its only user, or None where one of them stands in the way."""
    chosen = ConvDirect().select(graph, node, target)
    if chosen is None or len(chosen.reads) > 1:
        return None
    user = graph.sole_user(node.output)
    if user is None:
        return None
    fused = replace(chosen, kernel=name, nodes=(node, user), writes=(user.output,))
    return fused, user


def ring_bytes(p: ConvProblem, pool: PoolProblem, s: DirectSchedule, target: Target) -> int:
    """The rows that a pool window needs, of one channel tile."""
    return pool.op.kernel[0] * s.oc_vecs * p.ow * target.vector_bytes


def row_candidates(p: ConvProblem, target: Target) -> Iterator[DirectSchedule]:
    """Every register tile of one row."""
    return (s for s in candidates(p, target, rows_apart=True) if s.rows == 1 and s.order == "oc")


def rows_price(p: ConvProblem, pool: PoolProblem, s: DirectSchedule, target: Target) -> float:
    """Cycles of the convolution without the pool, given that rows are better kept in the first-level cache."""
    far = ring_bytes(p, pool, s, target) > target.l1_bytes * 15 // 16
    return predict(p, s, target) + (p.n * p.oc_blocks * p.oh * p.ow * STORE_MISS if far else 0.0)


def choose_rows(p: ConvProblem, pool: PoolProblem, target: Target) -> DirectSchedule:
    """The register tile of one row with the lowest price."""
    return min(row_candidates(p, target), key=lambda s: rows_price(p, pool, s, target))


class ConvMaxPool:
    """max_pool2d(conv2d(x)) through a ring of rows per channel tile.

    A row of the convolution is computed when the first pool window needs it and overwritten when no later one does. A
    thread that starts in the middle computes the rows that its first window shares with the one before.
    """

    name: ClassVar[str] = "conv2d.direct+max_pool2d"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        found = fused_selection(graph, node, target, self.name)
        if found is None:
            return None
        selection, pool = found
        if not isinstance(pool.op, MaxPool2d) or MaxPoolBlocked().select(graph, pool, target) is None:
            return None
        # Windows that do not overlap, or that are as large as the image, gain nothing over separate kernels.
        return selection if max(pool.op.kernel) <= 5 else None

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        pool = fused_pool_problem(program, step, p)
        s = given(step, DirectSchedule) or choose_rows(p, pool, target)
        packed = {
            "w": pack_conv(arrays["w"], p.lanes, p.y_block, s.oc_vecs),
            "b": pack_bias(arrays.get("b"), p.oc, p.y_block),
        }
        return Finished(s.to_fields(), packed, ring_bytes(p, pool, s, target))

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), DirectSchedule.from_fields(step.schedule)
        return p.n * oc_tiles_of(p, s) * fused_pool_problem(program, step, p).oh

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        p = conv_problem(program, step)
        pool = fused_pool_problem(program, step, p)
        _ConvMaxPool(e, p, pool, DirectSchedule.from_fields(step.schedule), args).emit()


class _ConvMaxPool:
    def __init__(self, e: Emitter, p: ConvProblem, pool: PoolProblem, s: DirectSchedule, args: Args) -> None:
        self.e, self.p, self.s, self.args = e, p, s, args
        self.tile = ConvTile(e, p, s)
        self.plane = p.ow * e.lanes
        self.slot = s.oc_vecs * self.plane
        ring = Geometry(0, 0, self.plane, self.slot, e.lanes)
        self.pool = replace(pool, x=ring)
        # The larger of two activations is the activation of the larger; it is cheaper behind the pool.
        late = keeps_order(p.act)
        self.early_act, self.late_act = (NONE, p.act) if late else (p.act, NONE)
        self.cols = choose_pool(self.pool, e.target).cols

    def emit(self) -> None:
        e = self.e
        e.loop(self.args.begin, self.args.end, 1, self.item, [e.i64(-1), e.i64(0)])

    def item(self, index: Val, carried: list[Val]) -> list[Val]:
        """One row of the pool for one channel tile; carries which ring it is and how far the ring reaches."""
        e, p, s, pool = self.e, self.p, self.s, self.pool
        ring, reached = carried
        wanted, i = e.split(index, pool.oh)
        image, tile = e.split(wanted, oc_tiles_of(p, s))
        oc = e.clamp_last(tile, s.oc_vecs, p.oc_blocks)
        start = tap_index(e, pool, i, 0, 0)
        low = clamp_index(e, start, p.oh)
        high = e.b.add(clamp_index(e, e.b.add(start, e.i64(pool.op.kernel[0] - 1)), p.oh), e.i64(1))
        same = e.b.icmp_signed("==", ring, wanted)
        further = e.b.and_(same, e.b.icmp_signed(">", reached, low))
        self.fill(image, tile, oc, e.b.select(further, reached, low), high)
        out = e.at(
            self.args.writes[0], e.mul_add(image, 4 * pool.y.image, e.mul_add(i, 4 * pool.y.row, 4 * pool.y.origin))
        )
        self.reduce(start, oc, out)
        return [wanted, high]

    def fill(self, image: Val, tile: Val, oc: Val, first: Val, last: Val) -> None:
        """Rows first .. last - 1 of the convolution into their slots."""
        e, p, s = self.e, self.p, self.s
        weights = e.at(self.args.constants[0], e.mul_add(tile, self.tile.bytes))
        bias = e.at(self.args.constants[1], e.mul_add(oc, self.tile.vector))
        x = self.tile.source(self.args.reads[0], image)

        def row(r: Val, _: list[Val]) -> list[Val]:
            line = e.at(self.args.scratch, e.mul_add(e.b.urem(r, e.i64(self.pool.op.kernel[0])), 4 * self.slot))

            def columns(column: Val, _: list[Val]) -> list[Val]:
                left = e.clamp_last(column, s.cols, p.ow)
                out = e.at(line, e.mul_add(left, 4 * e.lanes))
                for k, values in enumerate(self.tile.sums(self.tile.window(x, r, left), weights, bias, 1, s.cols)):
                    for j, value in enumerate(values):
                        value = finish_vector(e, value, self.early_act, p.oc, e.b.add(oc, e.i64(k)))
                        e.store(value, out, 4 * (k * self.plane + j * e.lanes))
                return []

            e.loop(0, -(-p.ow // s.cols), 1, columns)
            return []

        e.loop(first, last, 1, row)

    def reduce(self, start: Val, oc: Val, out: Val) -> None:
        """The pool's row from the ring."""
        e, s, pool = self.e, self.s, self.pool
        slots = []
        for u in range(pool.op.kernel[0]):
            row = clamp_index(e, e.b.add(start, e.i64(u)), self.p.oh)
            slots.append(e.at(self.args.scratch, e.mul_add(e.b.urem(row, e.i64(pool.op.kernel[0])), 4 * self.slot)))

        def block(k: Val, _: list[Val]) -> list[Val]:
            number = e.b.add(oc, k)
            rows = [e.at(slot, e.mul_add(k, 4 * self.plane)) for slot in slots]
            y = e.at(out, e.mul_add(number, 4 * pool.y.plane))
            emit_max_row(e, pool, self.cols, rows, y, lambda v: finish_vector(e, v, self.late_act, self.p.oc, number))
            return []

        e.loop(0, s.oc_vecs, 1, block)


class ConvGlobalAverage:
    """avg_pool2d(conv2d(x)) over the whole image: sums stay in registers, no pixel is stored."""

    name: ClassVar[str] = "conv2d.direct+avg_pool2d"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        found = fused_selection(graph, node, target, self.name)
        if found is None:
            return None
        selection, pool = found
        whole = isinstance(pool.op, AvgPool2d) and pool.op.kernel == node.output.type.shape[2:]
        if not whole or pool.op.attrs["pads"] != (0, 0, 0, 0) or pool.op.attrs["dilation"] != (1, 1):
            return None
        return selection if pool.output.type.layout == node.output.type.layout else None

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        s = given(step, DirectSchedule) or replace(choose(p, target), order="oc")
        packed = {
            "w": pack_conv(arrays["w"], p.lanes, p.y_block, s.oc_vecs),
            "b": pack_bias(arrays.get("b"), p.oc, p.y_block),
        }
        return Finished(s.to_fields(), packed)

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), DirectSchedule.from_fields(step.schedule)
        return p.n * oc_tiles_of(p, s)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        p = conv_problem(program, step)
        pool = fused_pool_problem(program, step, p)
        _ConvAverage(e, p, pool, DirectSchedule.from_fields(step.schedule), args).emit()


class _ConvAverage:
    def __init__(self, e: Emitter, p: ConvProblem, pool: PoolProblem, s: DirectSchedule, args: Args) -> None:
        self.e, self.p, self.pool, self.s, self.args = e, p, pool, s, args
        self.tile = ConvTile(e, p, s)

    def emit(self) -> None:
        self.e.loop(self.args.begin, self.args.end, 1, self.item)

    def item(self, index: Val, _: list[Val]) -> list[Val]:
        """All pixels of one channel tile."""
        e, p, s, pool = self.e, self.p, self.s, self.pool
        image, tile = e.split(index, oc_tiles_of(p, s))
        oc = e.clamp_last(tile, s.oc_vecs, p.oc_blocks)
        weights = e.at(self.args.constants[0], e.mul_add(tile, self.tile.bytes))
        bias = e.at(self.args.constants[1], e.mul_add(oc, self.tile.vector))
        x = self.tile.source(self.args.reads[0], image)
        totals = [e.splat(0.0)] * s.oc_vecs
        height, width = (1, p.oh * p.ow) if s.flat else (p.oh, p.ow)
        # Tiles that overlap would count pixels twice, so what a whole number of them leaves over has tiles of its own.
        for top, rows in ((0, s.rows), (height // s.rows * s.rows, height % s.rows)):
            for left, cols in ((0, s.cols), (width // s.cols * s.cols, width % s.cols)):
                bottom = height // s.rows * s.rows if top == 0 else height
                right = width // s.cols * s.cols if left == 0 else width
                if rows and cols:
                    totals = self.region(x, weights, bias, oc, (top, bottom, rows), (left, right, cols), totals)
        y = e.at(
            self.args.writes[0], e.mul_add(image, 4 * pool.y.image, e.mul_add(oc, 4 * pool.y.plane, 4 * pool.y.origin))
        )
        for k, total in enumerate(totals):
            e.store(e.b.fmul(total, e.splat(1.0 / (p.oh * p.ow))), y, 4 * k * pool.y.plane)
        return []

    def region(
        self,
        x: Val,
        weights: Val,
        bias: Val,
        oc: Val,
        vertical: tuple[int, int, int],
        horizontal: tuple[int, int, int],
        totals: list[Val],
    ) -> list[Val]:
        """Adds a rectangle of pixels, a whole number of tiles, to the totals."""
        e, p = self.e, self.p
        rows, cols = vertical[2], horizontal[2]

        def row(top: Val, sums: list[Val]) -> list[Val]:
            def column(left: Val, sums: list[Val]) -> list[Val]:
                result = []
                values = self.tile.sums(self.tile.window(x, top, left), weights, bias, rows, cols)
                for k, pixels in enumerate(values):
                    done = [finish_vector(e, v, p.act, p.oc, e.b.add(oc, e.i64(k))) for v in pixels]
                    result.append(e.b.fadd(sums[k], tree_sum(e, done)))
                return result

            return e.loop(*horizontal, column, sums)

        return e.loop(*vertical, row, totals)


def tree_sum(e: Emitter, values: list[Val]) -> Val:
    """The sum in pairs: short chains, and a smaller error than one after the other."""
    while len(values) > 1:
        values = [e.b.fadd(*values[i : i + 2]) if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)]
    return values[0]


# Pixels that are summed in pairs before they join a total: short chains of additions and small errors.
PIXELS_AT_ONCE = 8


def sum_of_pixels(e: Emitter, values: Val, pixels: int, finish: Callable[[Val], Val]) -> Val:
    """The sum of `finish` of so many vectors that follow each other from `values`."""
    vector = 4 * e.lanes

    def add(at: Val, count: int, total: Val) -> Val:
        return e.b.fadd(total, tree_sum(e, [finish(e.load(at, j * vector)) for j in range(count)]))

    def group(j: Val, totals: list[Val]) -> list[Val]:
        return [add(e.at(values, e.mul_add(j, vector)), PIXELS_AT_ONCE, totals[0])]

    whole = pixels // PIXELS_AT_ONCE * PIXELS_AT_ONCE
    (total,) = e.loop(0, whole, PIXELS_AT_ONCE, group, [e.splat(0.0)])
    return add(e.at(values, whole * vector), pixels - whole, total) if pixels > whole else total
