"""1 x 1 convolutions with seven products instead of eight, alone or with the global average behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.kernels.conv_direct import ConvDirect
from sqzc.backends.llvm.kernels.conv_pool import ConvGlobalAverage, tree_sum
from sqzc.backends.llvm.kernels.strassen_tile import StrassenTile, pack_quarters, sum_weights, tile_bytes
from sqzc.backends.llvm.packing import pack_bias
from sqzc.backends.llvm.problems import ConvProblem, PoolProblem, conv_problem, fused_pool_problem
from sqzc.backends.llvm.schedules.conv_direct import choose as choose_direct
from sqzc.backends.llvm.schedules.conv_direct import predict as predict_direct
from sqzc.backends.llvm.schedules.conv_strassen import StrassenSchedule, choose, half_blocks, rows_and_width
from sqzc.backends.llvm.selecting import expected_problem
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target

# What must be gained over the direct form before the sums of weights are kept in memory.
LEAST_GAIN = 0.03


def pays(p: ConvProblem, target: Target) -> bool:
    """Whether seven products and their sums are predicted to beat eight products.

    Another user of the input may yet give it a border, so tiles must also fit where rows lie apart.
    """
    found = choose(p, target)
    apart = replace(p, x=replace(p.x, row=p.x.row + p.x.pixel))
    if found is None or choose(apart, target) is None:
        return False
    return found[1] < (1 - LEAST_GAIN) * predict_direct(p, choose_direct(p, target), target)


class ConvStrassen:
    """A 1 x 1 convolution of a gapless image."""

    name: ClassVar[str] = "conv2d.strassen"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        selection = ConvDirect().select(graph, node, target)
        if selection is None or len(selection.reads) > 1 or not pays(expected_problem(node, target), target):
            return None
        return replace(selection, kernel=self.name)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return finish(conv_problem(program, step), arrays, target)

    def items(self, program: Program, step: Step) -> int:
        return items(conv_problem(program, step), step)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Store(e, conv_problem(program, step), StrassenSchedule.from_fields(step.schedule), args).emit()

    def prepare(self, e: Emitter, program: Program, step: Step, constants: tuple[Val, ...], prepared: Val) -> None:
        """The sums of weights, one channel tile after the other."""
        prepare(e, conv_problem(program, step), step, constants[0], prepared)


class ConvStrassenAverage(ConvStrassen):
    """A 1 x 1 convolution of which only the average over all pixels is wanted."""

    name: ClassVar[str] = "conv2d.strassen+avg_pool2d"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        selection = ConvGlobalAverage().select(graph, node, target)
        if selection is None or not pays(expected_problem(node, target), target):
            return None
        return replace(selection, kernel=self.name)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        p = conv_problem(program, step)
        pool = fused_pool_problem(program, step, p)
        _Average(e, p, StrassenSchedule.from_fields(step.schedule), args, pool).emit()


def finish(p: ConvProblem, arrays: Mapping[str, Array], target: Target) -> Finished:
    """Schedule, packed quarters, bias, and the memory for S and T."""
    found = choose(p, target)
    assert found is not None
    s, vector = found[0], target.vector_bytes
    rows = 2 * half_blocks(p) * p.y_block
    bias = pack_bias(arrays.get("b"), p.oc, p.y_block)
    quarters = pack_quarters(arrays["w"], p, s)
    packed = {"w": quarters, "b": np.pad(bias, (0, rows - bias.size))}
    return Finished(s.to_fields(), packed, StrassenTile.layout(p, s, vector)[3], quarters.nbytes)


def items(p: ConvProblem, step: Step) -> int:
    """One item is a tile of channels in both halves, over all pixels."""
    s = StrassenSchedule.from_fields(step.schedule)
    return p.n * -(-half_blocks(p) // s.oc_vecs)


def prepare(e: Emitter, p: ConvProblem, step: Step, weights: Val, prepared: Val) -> None:
    """S of all channel tiles."""
    s = StrassenSchedule.from_fields(step.schedule)
    size = tile_bytes(p, s, 4 * e.lanes)

    def one(index: Val, _: list[Val]) -> list[Val]:
        at = e.mul_add(index, 4 * size)
        sum_weights(e, size, e.at(weights, at), e.at(prepared, at))
        return []

    e.loop(0, -(-half_blocks(p) // s.oc_vecs), 1, one)


Memory = tuple[Val, Val, Val, Val]


class _Strassen:
    """What storing and averaging share: the walk over items and pixels."""

    def __init__(self, e: Emitter, p: ConvProblem, s: StrassenSchedule, args: Args) -> None:
        self.e, self.p, self.s, self.args = e, p, s, args
        self.tile = StrassenTile(e, p, s)
        self.starts = StrassenTile.layout(p, s, 4 * e.lanes)
        self.tiles = -(-half_blocks(p) // s.oc_vecs)

    def emit(self) -> None:
        self.e.loop(self.args.begin, self.args.end, 1, self.item)

    def item(self, index: Val, _: list[Val]) -> list[Val]:
        e, p, s, args = self.e, self.p, self.s, self.args
        image, tile = e.split(index, self.tiles)
        x = e.at(args.reads[0], e.mul_add(image, 4 * p.x.image, 4 * p.x.origin))
        t, sums, saved = (e.at(args.scratch, start) for start in self.starts[:3])
        fresh = e.b.or_(e.b.icmp_signed("==", tile, e.i64(0)), e.b.icmp_signed("==", index, args.begin))
        with e.when(fresh):
            self.tile.sum_data(x, t)
        quarters = e.at(args.constants[0], e.mul_add(tile, 4 * self.tile.bytes))
        sums = self.tile.prepared(sums, args.prepared, quarters, tile)
        first = e.clamp_last(tile, s.oc_vecs, half_blocks(p))
        blocks = [first, e.b.add(first, e.i64(half_blocks(p)))]
        self.columns(image, blocks, x, (t, quarters, sums, saved))
        return []

    def columns(self, image: Val, blocks: list[Val], x: Val, memory: Memory) -> None:
        raise NotImplementedError

    def walk(self, body: Callable[[tuple[Val, Val], list[Val]], list[Val]], carried: list[Val]) -> list[Val]:
        """Calls `body` for the row and column of every register tile of the upper half."""
        e = self.e
        rows, width = rows_and_width(self.p)

        def line(row: Val, values: list[Val]) -> list[Val]:
            return e.loop(0, width, self.s.cols, lambda column, inner: body((row, column), inner), values)

        return e.loop(0, rows, 1, line, carried)

    def finished(self, half: int, block: Val, k: int, values: list[Val]) -> list[Val]:
        """act(values + bias) of one channel block."""
        e, p = self.e, self.p
        number = e.b.add(block, e.i64(k))
        bias = e.load(e.at(self.args.constants[1], e.mul_add(number, 4 * e.lanes)))
        return [finish_vector(e, e.b.fadd(v, bias), p.act, p.oc, number) for v in values]

    def exists(self, half: int) -> bool:
        """Whether all blocks of a half are channels of the image, and none was added to make halves equal."""
        return half == 0 or self.p.oc_blocks % 2 == 0


class _Store(_Strassen):
    def columns(self, image: Val, blocks: list[Val], x: Val, memory: Memory) -> None:
        """All pixels of one channel tile, stored."""
        e, p = self.e, self.p
        y = e.at(self.args.writes[0], e.mul_add(image, 4 * p.y.image, 4 * p.y.origin))

        def tile(place: tuple[Val, Val], _: list[Val]) -> list[Val]:
            line = e.at(y, e.mul_add(place[0], 4 * p.y.row, e.mul_add(place[1], 4 * p.y.pixel)))

            def finish(half: int, lower: int, values: list[list[Val]]) -> None:
                out = e.at(line, lower * 4 * (p.oh // 2) * p.y.row)
                for k, vectors in enumerate(values):
                    number = e.b.add(blocks[half], e.i64(k))
                    done = self.finished(half, blocks[half], k, vectors)
                    to = e.at(out, e.mul_add(number, 4 * p.y.plane))
                    if self.exists(half):
                        self.store(done, to)
                        continue
                    with e.when(e.b.icmp_signed("<", number, e.i64(p.oc_blocks))):
                        self.store(done, to)

            self.tile.emit(x, *memory, place, finish)
            return []

        self.walk(tile, [])

    def store(self, values: list[Val], to: Val) -> None:
        for j, value in enumerate(values):
            self.e.store(value, to, 4 * j * self.p.y.pixel)


class _Average(_Strassen):
    def __init__(self, e: Emitter, p: ConvProblem, s: StrassenSchedule, args: Args, pool: PoolProblem) -> None:
        super().__init__(e, p, s, args)
        self.pool = pool

    def columns(self, image: Val, blocks: list[Val], x: Val, memory: Memory) -> None:
        """All pixels of one channel tile, summed."""
        e, p, s, pool = self.e, self.p, self.s, self.pool

        def tile(place: tuple[Val, Val], totals: list[Val]) -> list[Val]:
            totals = list(totals)

            def finish(half: int, right: int, values: list[list[Val]]) -> None:
                for k, vectors in enumerate(values):
                    at = half * s.oc_vecs + k
                    totals[at] = e.b.fadd(totals[at], tree_sum(e, self.finished(half, blocks[half], k, vectors)))

            self.tile.emit(x, *memory, place, finish)
            return totals

        totals = self.walk(tile, [e.splat(0.0)] * (2 * s.oc_vecs))
        y = e.at(self.args.writes[0], e.mul_add(image, 4 * pool.y.image, 4 * pool.y.origin))
        for half in (0, 1):
            for k in range(s.oc_vecs):
                number = e.b.add(blocks[half], e.i64(k))
                mean = e.b.fmul(totals[half * s.oc_vecs + k], e.splat(1.0 / (p.oh * p.ow)))
                to = e.at(y, e.mul_add(number, 4 * pool.y.plane))
                if self.exists(half):
                    e.store(mean, to)
                    continue
                with e.when(e.b.icmp_signed("<", number, e.i64(p.oc_blocks))):
                    e.store(mean, to)
