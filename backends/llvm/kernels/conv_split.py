"""Convolutions in float32 on units that multiply tiles of bfloat16 (AMX), by parts of three.

A window is taken as a row of units, taps x blocks of input channels, and a convolution as a matrix product of pixels x
units by units x output channels. A tile of data is pixels x a chunk of two units, whose channels lie beside each other
in pairs, so that packing takes no shuffle; where the last chunk has one unit only, pairs of its parts take the place.
A tile of sums is pixels x one block of output channels, as images have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.family import Args, Family, given
from sqzc.backends.llvm.kernels.conv_direct import ConvDirect
from sqzc.backends.llvm.kernels.conv_pool import ConvGlobalAverage, ConvMaxPool, sum_of_pixels
from sqzc.backends.llvm.kernels.split_code import Block, SplitCode, split_weights
from sqzc.backends.llvm.kernels.split_pool import PoolCode, ring_bytes, strips_of
from sqzc.backends.llvm.kernels.split_store import StoreCode
from sqzc.backends.llvm.kernels.tile_unit import tile_shapes
from sqzc.backends.llvm.packing import pack_bias
from sqzc.backends.llvm.problems import ConvProblem, PoolProblem, conv_problem, fused_pool_problem
from sqzc.backends.llvm.schedules.conv_direct import choose as choose_direct
from sqzc.backends.llvm.schedules.conv_direct import predict as predict_direct
from sqzc.backends.llvm.schedules.conv_split import (
    Candidates,
    SplitSchedule,
    candidates,
    choose,
    chunks_of,
    groups_of,
    predict,
    prepared_bytes,
    scratch_layout,
    segments_of,
    strip_candidates,
    whole_candidates,
)
from sqzc.backends.llvm.schedules.tile_unit import ROW_BYTES, UNIT
from sqzc.backends.llvm.selecting import expected_problem
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


def pays(p: ConvProblem, target: Target, among: Candidates = candidates) -> bool:
    """Whether one of the candidates is predicted to be faster than vectors."""
    s = choose(p, target, among)
    return s is not None and predict(p, s, target) < predict_direct(p, choose_direct(p, target), target)


@dataclass(frozen=True)
class ConvSplit:
    """y = act(w x + b + r) for every pixel, stored. `always` takes all that it can compute."""

    always: bool = False

    name: ClassVar[str] = "conv2d.split"
    shares_code: ClassVar[bool] = True
    on_vectors: ClassVar[Family] = ConvDirect()

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not target.tile_products:
            return None
        selection = self.on_vectors.select(graph, node, target)
        if selection is None or not self.takes(expected_problem(node, target), target):
            return None
        return replace(selection, kernel=self.name)

    def candidates(self) -> Candidates:
        """The schedules that it has."""
        return candidates

    def takes(self, p: ConvProblem, target: Target) -> bool:
        """Whether it can run a problem, and should."""
        possible = next(self.candidates()(p, target), None) is not None
        return possible and (self.always or pays(p, target, self.candidates()))

    def scratch(self, program: Program, step: Step, p: ConvProblem, s: SplitSchedule) -> int:
        """Bytes of a thread's scratch."""
        return scratch_layout(p, s).total

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        s = given(step, SplitSchedule) or choose(p, target, self.candidates())
        assert s is not None
        packed = {
            "w": pack_pairs(arrays["w"], p),
            "b": pack_bias(arrays.get("b"), p.oc, p.y_block),
            "tiles": tile_shapes(s),
            "units": unit_offsets(p),
        }
        return Finished(s.to_fields(), packed, self.scratch(program, step, p, s), prepared_bytes(p))

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), SplitSchedule.from_fields(step.schedule)
        return p.n * groups_of(p, s) * segments_of(p, s) * s.span

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        StoreCode(e, conv_problem(program, step), SplitSchedule.from_fields(step.schedule), args).emit()

    def prepare(self, e: Emitter, program: Program, step: Step, constants: tuple[Val, ...], prepared: Val) -> None:
        """The parts of all weights."""
        p = conv_problem(program, step)
        split_weights(e, p, e.i64(p.oc_blocks), constants[0], prepared)


@dataclass(frozen=True)
class ConvSplitAverage(ConvSplit):
    """A convolution of which only the average over all pixels is wanted."""

    name: ClassVar[str] = "conv2d.split+avg_pool2d"
    shares_code: ClassVar[bool] = True
    on_vectors: ClassVar[Family] = ConvGlobalAverage()

    def candidates(self) -> Candidates:
        return whole_candidates

    def scratch(self, program: Program, step: Step, p: ConvProblem, s: SplitSchedule) -> int:
        return scratch_layout(p, s, whole=True).total

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), SplitSchedule.from_fields(step.schedule)
        return p.n * groups_of(p, s)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        p = conv_problem(program, step)
        pool = fused_pool_problem(program, step, p)
        _Average(e, p, SplitSchedule.from_fields(step.schedule), args, pool).emit()


@dataclass(frozen=True)
class ConvSplitMaxPool(ConvSplit):
    """A convolution with the maximum pool behind it; the image between them is never stored whole."""

    name: ClassVar[str] = "conv2d.split+max_pool2d"
    shares_code: ClassVar[bool] = True
    on_vectors: ClassVar[Family] = ConvMaxPool()

    def candidates(self) -> Candidates:
        return strip_candidates

    def scratch(self, program: Program, step: Step, p: ConvProblem, s: SplitSchedule) -> int:
        return scratch_layout(p, s).total + ring_bytes(fused_pool_problem(program, step, p), s)

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), SplitSchedule.from_fields(step.schedule)
        pool = fused_pool_problem(program, step, p)
        return p.n * groups_of(p, s) * strips_of(pool, s) * pool.oh

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        p = conv_problem(program, step)
        pool = fused_pool_problem(program, step, p)
        PoolCode(e, p, SplitSchedule.from_fields(step.schedule), args, pool).emit()


def pack_pairs(w: Array, p: ConvProblem) -> Array:
    """[oc block][chunk][unit lane][which of two units][oc lane] from [oc, ic, kh, kw], zeros past the channels.

    Units of channel-blocked images are [kh][kw][ic block], those of row-major ones go through [ic][kh][kw].
    """
    chunks = chunks_of(p)
    w = np.asarray(w, np.float32)
    if p.x_block:
        w = np.pad(w, [(0, 0), (0, p.ic_padded - w.shape[1]), (0, 0), (0, 0)]).transpose(0, 2, 3, 1)
    padded = np.zeros((p.oc_blocks * p.y_block, chunks * 2 * UNIT), np.float32)
    padded[: w.shape[0], : w[0].size] = w.reshape(w.shape[0], -1)
    pairs = padded.reshape(p.oc_blocks, p.y_block, chunks, 2, UNIT)
    return np.ascontiguousarray(pairs.transpose(0, 2, 4, 3, 1))


def unit_offsets(p: ConvProblem) -> Array:
    """Bytes from a window's first pixel to both units of each chunk, [chunk][2] int64; a lone one is there twice.

    Of a channel-blocked image; where those of a row-major one begin is in the code.
    """
    blocks = range(p.ic_padded // p.lanes) if p.x_block else ()
    taps = [u * p.dh * p.x.row + v * p.dw * p.x.pixel for u in range(p.kh) for v in range(p.kw)]
    units = [4 * (tap + block * p.x.plane) for tap in taps for block in blocks]
    return np.array(units + units[-1:] * (len(units) % 2), np.int64).reshape(-1, 2)


class _Average(SplitCode):
    """The average over all pixels, whose sums are kept until the last one."""

    whole = True

    def __init__(self, e: Emitter, p: ConvProblem, s: SplitSchedule, args: Args, pool: PoolProblem) -> None:
        super().__init__(e, p, s, args)
        self.pool = pool

    def keep(self, block: Block, spare: int) -> None:
        """Sums go to their pixels; those of the last block finish the group."""
        e, p, s = self.e, self.p, self.s
        sums = e.at(self.args.scratch, e.mul_add(block.first, ROW_BYTES, self.layout.sums))
        for i in range(spare, s.px_tiles):
            for j in range(s.oc_tiles):
                self.unit.store(i * s.oc_tiles + j, e.at(sums, (j * p.oh * p.ow + i * s.rows) * ROW_BYTES))
        with e.when(e.b.icmp_signed("==", block.number, e.i64(self.blocks - 1))):
            self.take(block)

    def take(self, block: Block) -> None:
        """The averages of a group."""
        e, p, pool = self.e, self.p, self.pool
        y = e.at(self.args.writes[0], e.mul_add(block.image, 4 * pool.y.image, 4 * pool.y.origin))
        pixels = p.oh * p.ow
        for k in range(self.s.oc_tiles):
            number = e.b.add(block.oc, e.i64(k))
            bias = e.load(e.at(self.args.constants[1], e.mul_add(number, ROW_BYTES)))

            def finish(value: Val, number: Val = number, bias: Val = bias) -> Val:
                return finish_vector(e, e.b.fadd(value, bias), p.act, p.oc, number)

            sums = e.at(self.args.scratch, self.layout.sums + k * pixels * ROW_BYTES)
            mean = e.b.fmul(sum_of_pixels(e, sums, pixels, finish), e.splat(1.0 / pixels))
            e.store(mean, e.at(y, e.mul_add(number, 4 * pool.y.plane)))
