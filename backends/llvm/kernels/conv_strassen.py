"""1 x 1 convolutions with seven products instead of eight, alone or with the global average behind them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.error_bounds import BUDGET
from sqzc.backends.llvm.family import Args, given
from sqzc.backends.llvm.kernels.conv_direct import ConvDirect
from sqzc.backends.llvm.kernels.conv_pool import ConvGlobalAverage, sum_of_pixels
from sqzc.backends.llvm.kernels.strassen_tile import StrassenTile, emit_left_operand, left_signs, pack_parts
from sqzc.backends.llvm.packing import pack_bias
from sqzc.backends.llvm.problems import ConvProblem, PoolProblem, conv_problem, fused_pool_problem
from sqzc.backends.llvm.schedules.conv_direct import choose as choose_direct
from sqzc.backends.llvm.schedules.conv_direct import predict as predict_direct
from sqzc.backends.llvm.schedules.conv_strassen import (
    StrassenSchedule,
    choose,
    oc_tiles,
    operand_bytes,
    part_of,
    prepared_bytes,
    scratch_layout,
)
from sqzc.backends.llvm.selecting import expected_problem
from sqzc.backends.llvm.strassen_error import strassen_error
from sqzc.backends.llvm.strassen_math import PRODUCTS, Action, Multiply, Ready, Sum, part_indices, phases
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target

# What must be gained over the direct form before the sums of weights are kept in memory.
LEAST_GAIN = 0.03


def pays(p: ConvProblem, target: Target) -> bool:
    """Whether seven products and their sums are predicted to beat eight products."""
    found = choose(p, target)
    if found is None:
        return False
    return found[1] < (1 - LEAST_GAIN) * predict_direct(p, choose_direct(p, target), target)


@dataclass(frozen=True)
class ConvStrassen:
    """A 1 x 1 convolution whose input channels and pixels divide into halves.

    `always` takes every convolution that it can compute, not only those where it is predicted to be faster than the
    direct form. Weights whose error would break the budget are left to that.
    """

    always: bool = False

    name: ClassVar[str] = "conv2d.strassen"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        selection = ConvDirect().select(graph, node, target)
        if selection is None or len(selection.reads) > 1 or not self.takes(node, target):
            return None
        return replace(selection, kernel=self.name)

    def takes(self, node: Node, target: Target) -> bool:
        """Whether it can run a node, should, and keeps the error in its budget."""
        return self.wanted(node, target) and error_of(node, target) <= BUDGET

    def wanted(self, node: Node, target: Target) -> bool:
        """Whether it can run a node and should."""
        p = expected_problem(node, target)
        return choose(p, target) is not None if self.always else pays(p, target)

    def refusal(self, node: Node, target: Target) -> str:
        """The error that is too large, where nothing else stands in the way."""
        selection = ConvDirect().select(Graph(), node, target)
        if selection is None or len(selection.reads) > 1 or not self.wanted(node, target):
            return ""
        error = error_of(node, target)
        return f"{error:.1e}" if error > BUDGET else ""

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return finish(conv_problem(program, step), step, arrays, target)

    def items(self, program: Program, step: Step) -> int:
        return items(conv_problem(program, step), step)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Store(e, conv_problem(program, step), StrassenSchedule.from_fields(step.schedule), args).emit()

    def prepare(self, e: Emitter, program: Program, step: Step, constants: tuple[Val, ...], prepared: Val) -> None:
        """The left operands, one channel tile after the other."""
        prepare(e, conv_problem(program, step), step, constants, prepared)


@dataclass(frozen=True)
class ConvStrassenAverage(ConvStrassen):
    """A 1 x 1 convolution of which only the average over all pixels is wanted."""

    name: ClassVar[str] = "conv2d.strassen+avg_pool2d"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        selection = ConvGlobalAverage().select(graph, node, target)
        if selection is None or not self.takes(node, target):
            return None
        return replace(selection, kernel=self.name)

    def refusal(self, node: Node, target: Target) -> str:
        """Nothing: the form without an average is asked next, and says it."""
        return ""

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        p = conv_problem(program, step)
        pool = fused_pool_problem(program, step, p)
        _Average(e, p, StrassenSchedule.from_fields(step.schedule), args, pool).emit()


def error_of(node: Node, target: Target) -> float:
    """The error of the levels that are predicted to be fastest, as a share of the results."""
    found = choose(expected_problem(node, target), target)
    assert found is not None
    return strassen_error(node.inputs[1].data, found[0].levels, target.vector_lanes)


def finish(p: ConvProblem, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
    """Schedule, packed parts, bias, the signs of parts in left operands, and memory."""
    s = given(step, StrassenSchedule)
    if s is None:
        found = choose(p, target)
        assert found is not None
        s = found[0]
    rows = 2**s.levels * part_of(p, s.levels).oc
    bias = pack_bias(arrays.get("b"), p.oc, p.y_block)
    packed = {
        "w": pack_parts(arrays["w"], p, s),
        "b": np.pad(bias, (0, rows - bias.size)),
        "signs": left_signs(s.levels),
    }
    return Finished(s.to_fields(), packed, scratch_layout(p, s).total, prepared_bytes(p, s))


def items(p: ConvProblem, step: Step) -> int:
    """One item is a tile of channels in all parts, over all pixels."""
    return p.n * oc_tiles(p, StrassenSchedule.from_fields(step.schedule))


def prepare(e: Emitter, p: ConvProblem, step: Step, constants: tuple[Val, ...], prepared: Val) -> None:
    """The left operands of all channel tiles, in the order in which they are used."""
    s = StrassenSchedule.from_fields(step.schedule)
    size, inner, tiles = operand_bytes(p, s), PRODUCTS ** (s.levels - 1), oc_tiles(p, s)

    def one(index: Val, _: list[Val]) -> list[Val]:
        outer, tile, number = e.split_many(index, (PRODUCTS, tiles, inner))
        parts = e.at(constants[0], e.mul_add(tile, 4**s.levels * size))
        signs = e.at(constants[2], e.mul_add(e.mul_add(outer, inner, number), 4 * 4**s.levels))
        emit_left_operand(e, s.levels, size, parts, signs, e.at(prepared, e.mul_add(index, size)))
        return []

    e.loop(0, PRODUCTS * tiles * inner, 1, one)


class _Strassen:
    """What storing and averaging share: the walk over images, products and channel tiles."""

    def __init__(self, e: Emitter, p: ConvProblem, s: StrassenSchedule, args: Args) -> None:
        self.e, self.p, self.s, self.args = e, p, s, args
        self.tile = StrassenTile(e, p, s)
        self.part = part_of(p, s.levels)
        self.places = list(part_indices(s.levels))

    def emit(self) -> None:
        e, args, tiles = self.e, self.args, self.tile.tiles
        last = e.b.udiv(e.b.add(args.end, e.i64(tiles - 1)), e.i64(tiles))
        e.loop(e.b.udiv(args.begin, e.i64(tiles)), last, 1, self.image)

    def image(self, image: Val, _: list[Val]) -> list[Val]:
        """The channel tiles of one image that are among the items."""
        e, p, args = self.e, self.p, self.args
        x = e.at(args.reads[0], e.mul_add(image, 4 * p.x.image, 4 * p.x.origin))
        before = e.mul_add(image, self.tile.tiles)
        begin, end = e.b.sub(args.begin, before), e.b.sub(args.end, before)
        begin = e.b.select(e.b.icmp_signed("<", begin, e.i64(0)), e.i64(0), begin)
        end = e.b.select(e.b.icmp_signed("<", end, e.i64(self.tile.tiles)), end, e.i64(self.tile.tiles))
        for outer, actions in phases(self.s.levels):
            self.tile.make_right_operands(outer, x, args.scratch)

            def one(tile: Val, _: list[Val], actions: list[Action] = actions) -> list[Val]:
                for action in actions:
                    self.act(action, image, tile)
                return []

            e.loop(begin, end, 1, one)
        return []

    def act(self, action: Action, image: Val, tile: Val) -> None:
        """One action for one channel tile."""
        args = self.args
        if isinstance(action, Multiply):
            parts, _, signs = args.constants
            left = self.tile.left_operand(action.product, tile, parts, signs, args.scratch, args.prepared)
            self.tile.multiply(action, tile, left, args.scratch)
        elif isinstance(action, Sum):
            self.tile.add(action, tile, args.scratch)
        else:
            row, column = self.places[action.part]
            self.take(image, tile, (row, column), self.tile.slot(args.scratch, action.part, tile))

    def take(self, image: Val, tile: Val, place: tuple[int, int], slot: Val) -> None:
        """The part in a row and column is done for a channel tile."""
        raise NotImplementedError

    def first(self, tile: Val) -> Val:
        """The first block of a channel tile; the last tile may share blocks with the one before."""
        return self.e.clamp_last(tile, self.s.oc_vecs, self.part.oc_blocks)

    def number(self, first: Val, row: int, k: int) -> Val:
        """The channel block number of vector k of a channel tile of a row of parts."""
        return self.e.b.add(first, self.e.i64(row * self.part.oc_blocks + k))

    def where_it_exists(self, row: int, number: Val) -> AbstractContextManager[None]:
        """Runs a block unless the channel block was only added to make the parts equal."""
        if (row + 1) * self.part.oc_blocks <= self.p.oc_blocks:
            return nullcontext()
        return self.e.when(self.e.b.icmp_signed("<", number, self.e.i64(self.p.oc_blocks)))

    def finished(self, value: Val, number: Val) -> Val:
        """act(value + bias)."""
        e, p = self.e, self.p
        bias = e.load(e.at(self.args.constants[1], e.mul_add(number, 4 * e.lanes)))
        return finish_vector(e, e.b.fadd(value, bias), p.act, p.oc, number)


class _Store(_Strassen):
    def take(self, image: Val, tile: Val, place: tuple[int, int], slot: Val) -> None:
        e, p, part = self.e, self.p, self.part
        (row, column), first = place, self.first(tile)
        y = e.at(self.args.writes[0], e.mul_add(image, 4 * p.y.image, 4 * p.y.origin))
        vector = 4 * e.lanes
        for k in range(self.s.oc_vecs):
            number = self.number(first, row, k)
            with self.where_it_exists(row, number):
                plane = e.at(y, e.mul_add(number, 4 * p.y.plane))

                def pixel(j: Val, _: list[Val], k: int = k, number: Val = number, plane: Val = plane) -> list[Val]:
                    value = e.load(e.at(slot, e.mul_add(j, vector, k * part.ow * vector)))
                    h, w = e.split(e.b.add(j, e.i64(column * part.ow)), p.ow)
                    to = e.at(plane, e.mul_add(h, 4 * p.y.row, e.mul_add(w, 4 * p.y.pixel)))
                    e.store(self.finished(value, number), to)
                    return []

                e.loop(0, part.ow, 1, pixel)


class _Average(_Strassen):
    def __init__(self, e: Emitter, p: ConvProblem, s: StrassenSchedule, args: Args, pool: PoolProblem) -> None:
        super().__init__(e, p, s, args)
        self.pool = pool
        # The columns of parts in the order in which they come, for each row.
        order = [
            self.places[action.part]
            for _, actions in phases(s.levels)
            for action in actions
            if isinstance(action, Ready)
        ]
        self.columns = {row: [column for r, column in order if r == row] for row, _ in order}

    def take(self, image: Val, tile: Val, place: tuple[int, int], slot: Val) -> None:
        e, p, pool, part, vector = self.e, self.p, self.pool, self.part, 4 * self.e.lanes
        (row, column), first, layout = place, self.first(tile), self.tile.layout
        y = e.at(self.args.writes[0], e.mul_add(image, 4 * pool.y.image, 4 * pool.y.origin))
        # Sums over the parts grow in scratch and not where the mean will be: channel tiles may have blocks in common.
        sums = e.at(self.args.scratch, e.mul_add(tile, layout.sum, layout.sums + row * self.tile.tiles * layout.sum))
        for k in range(self.s.oc_vecs):
            number = self.number(first, row, k)
            values = e.at(slot, k * part.ow * vector)
            total = sum_of_pixels(e, values, part.ow, partial(self.finished, number=number))
            if column != self.columns[row][0]:
                total = e.b.fadd(e.load(sums, k * vector), total)
            if column != self.columns[row][-1]:
                e.store(total, sums, k * vector)
                continue
            with self.where_it_exists(row, number):
                mean = e.b.fmul(total, e.splat(1.0 / (p.oh * p.ow)))
                e.store(mean, e.at(y, e.mul_add(number, 4 * pool.y.plane)))
