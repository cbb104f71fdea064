"""Direct convolution into channel-blocked images.

The input is channel-blocked with the same block, or row-major (few channels). All reads lie inside the image and its
zero border, so there are no edge cases: tiles that would hang over the right or bottom edge are moved back and
recompute some pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.packing import pack_bias, pack_conv
from sqzc.backends.llvm.problems import ConvProblem, conv_problem
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule, choose, extent
from sqzc.backends.llvm.selecting import conv_arrays, conv_facts
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Conv2d
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import NO_BORDER, Program, Step
from sqzc.target import Target

# Taps of a row-major input unrolled in one loop body; more only grows the code.
MAX_UNROLLED_TAPS = 16


class ConvDirect:
    """y[oc] += w[oc, ic, u, v] * x[ic, i*s + u, j*s + v] with a register tile of channels x pixels."""

    name: ClassVar[str] = "conv2d.direct"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        if not isinstance(op, Conv2d) or op.group != 1 or node.output.type.layout.block != target.vector_lanes:
            return None
        x, w = node.inputs[0], node.inputs[1]
        if not w.is_constant or x.type.layout.block not in (0, target.vector_lanes):
            return None
        residual = node.operand("residual")
        reads = (x,) if residual is None else (x, residual)
        if residual is not None and residual.type.layout != node.output.type.layout:
            return None
        borders = (op.pads, *(NO_BORDER for _ in reads[1:]))
        return Selection(
            self.name,
            (node,),
            reads,
            (node.output,),
            conv_arrays(node),
            borders,
            conv_facts(node),
            cost=float(node.macs),
        )

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        s = choose(p, target)
        packed = {
            "w": pack_conv(arrays["w"], p.lanes, p.y_block, s.oc_vecs),
            "b": pack_bias(arrays.get("b"), p.oc, p.y_block),
        }
        return Finished(s.to_fields(), packed)

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), DirectSchedule.from_fields(step.schedule)
        return p.n * _oc_tiles(p, s) * _bands(p, s)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Direct(e, conv_problem(program, step), DirectSchedule.from_fields(step.schedule), args).emit()


def _oc_tiles(p: ConvProblem, s: DirectSchedule) -> int:
    return -(-p.oc_blocks // s.oc_vecs)


def _bands(p: ConvProblem, s: DirectSchedule) -> int:
    """Groups of rows; a flat image is cut along its one row."""
    height, width = extent(p, bool(s.flat))
    return -(-width // s.cols) if s.flat else -(-height // s.rows)


class _Direct:
    def __init__(self, e: Emitter, p: ConvProblem, s: DirectSchedule, args: Args) -> None:
        self.e, self.p, self.s, self.args = e, p, s, args
        self.vector = 4 * e.lanes
        self.tile_bytes = p.ic_padded * p.kh * p.kw * s.oc_vecs * self.vector

    def emit(self) -> None:
        self.e.loop(self.args.begin, self.args.end, 1, self.item)

    def item(self, index: Val, _: list[Val]) -> list[Val]:
        """One band of rows of one channel tile."""
        e, p, s = self.e, self.p, self.s
        oc_tiles, bands = _oc_tiles(p, s), _bands(p, s)
        if s.order == "oc":
            image, tile, band = e.split_many(index, (p.n, oc_tiles, bands))
        else:
            image, band, tile = e.split_many(index, (p.n, bands, oc_tiles))
        height, width = extent(p, bool(s.flat))
        oc = e.clamp_last(tile, s.oc_vecs, p.oc_blocks)
        weights = e.at(self.args.constants[0], e.mul_add(tile, self.tile_bytes))
        bias = e.at(self.args.constants[1], e.mul_add(oc, self.vector))
        x = e.at(self.args.reads[0], e.mul_add(image, 4 * p.x.image, 4 * (p.x.origin - self.pad_offset())))
        y = e.at(self.args.writes[0], e.mul_add(image, 4 * p.y.image, e.mul_add(oc, 4 * p.y.plane, 4 * p.y.origin)))
        r = None
        if p.r is not None:
            r = e.at(self.args.reads[1], e.mul_add(image, 4 * p.r.image, e.mul_add(oc, 4 * p.r.plane, 4 * p.r.origin)))
        if s.flat:
            start = e.clamp_last(band, s.cols, width)
            self.tile(self.shifted(x, y, r, e.i64(0), start), weights, bias, oc)
        else:
            top = e.clamp_last(band, s.rows, height)

            def columns(column: Val, _: list[Val]) -> list[Val]:
                left = e.clamp_last(column, s.cols, width)
                self.tile(self.shifted(x, y, r, top, left), weights, bias, oc)
                return []

            e.loop(0, -(-width // s.cols), 1, columns)
        return []

    def pad_offset(self) -> int:
        top, left, _, _ = self.p.pads
        return top * self.p.x.row + left * self.p.x.pixel

    def shifted(self, x: Val, y: Val, r: Val | None, top: Val, left: Val) -> tuple[Val, Val, Val | None]:
        """The pointers moved to output pixel (top, left)."""
        e, p = self.e, self.p
        moved = e.at(x, e.b.add(e.mul_add(top, 4 * p.sh * p.x.row), e.mul_add(left, 4 * p.sw * p.x.pixel)))
        out = e.at(y, e.b.add(e.mul_add(top, 4 * p.y.row), e.mul_add(left, 4 * p.y.pixel)))
        if r is None or p.r is None:
            return moved, out, None
        return moved, out, e.at(r, e.b.add(e.mul_add(top, 4 * p.r.row), e.mul_add(left, 4 * p.r.pixel)))

    def tile(self, pointers: tuple[Val, Val, Val | None], weights: Val, bias: Val, oc: Val) -> None:
        """One register tile: bias in, reduction, activation, out."""
        e, p, s = self.e, self.p, self.s
        x, y, r = pointers
        pixels = [(i, j) for i in range(s.rows) for j in range(s.cols)]
        starts = [e.load(bias, k * self.vector) for k in range(s.oc_vecs)]
        accumulators = [starts[k] for k in range(s.oc_vecs) for _ in pixels]
        accumulators = self.reduce(x, weights, accumulators, pixels)
        for k in range(s.oc_vecs):
            for index, (i, j) in enumerate(pixels):
                value = accumulators[k * len(pixels) + index]
                if r is not None and p.r is not None:
                    offset = 4 * (k * p.r.plane + i * p.r.row + j * p.r.pixel)
                    value = e.b.fadd(value, e.load(r, offset))
                block = e.b.add(oc, e.i64(k))
                value = finish_vector(e, value, p.act, p.oc, block)
                e.store(value, y, 4 * (k * p.y.plane + i * p.y.row + j * p.y.pixel))

    def reduce(self, x: Val, weights: Val, accumulators: list[Val], pixels: list[tuple[int, int]]) -> list[Val]:
        """The sum over channel blocks and taps; loops carry the weight pointer, which only ever moves forward."""
        e, p, s = self.e, self.p, self.s
        unroll_taps = p.lanes == 1 and p.kh * p.kw <= MAX_UNROLLED_TAPS
        step = p.lanes * s.oc_vecs * self.vector

        def tap(at: Val, w: Val, sums: list[Val], shift: int = 0, w_shift: int = 0) -> list[Val]:
            return self.multiply(at, shift, w, w_shift, sums, pixels)

        def channel(index: Val, carried: list[Val]) -> list[Val]:
            w, *sums = carried
            plane = e.at(x, e.mul_add(index, 4 * p.x.plane))
            if unroll_taps:
                for u in range(p.kh):
                    for v in range(p.kw):
                        shift = 4 * (u * p.dh * p.x.row + v * p.dw * p.x.pixel)
                        sums = tap(plane, w, sums, shift, (u * p.kw + v) * step)
                return [e.at(w, p.kh * p.kw * step), *sums]

            def row(u: Val, inner: list[Val]) -> list[Val]:
                line = e.at(plane, e.mul_add(u, 4 * p.dh * p.x.row))

                def column(v: Val, state: list[Val]) -> list[Val]:
                    at = e.at(line, e.mul_add(v, 4 * p.dw * p.x.pixel))
                    return [e.at(state[0], step), *tap(at, state[0], state[1:])]

                return e.loop(0, p.kw, 1, column, inner)

            return e.loop(0, p.kh, 1, row, [w, *sums])

        return e.loop(0, p.ic_padded // p.lanes, 1, channel, [weights, *accumulators])[1:]

    def multiply(
        self, x: Val, shift: int, w: Val, w_shift: int, sums: list[Val], pixels: list[tuple[int, int]]
    ) -> list[Val]:
        """One tap: every input lane times its row of weights, into all accumulators."""
        e, p, s = self.e, self.p, self.s
        sums = list(sums)
        for lane in range(p.lanes):
            base = w_shift + lane * s.oc_vecs * self.vector
            rows = [e.load(w, base + k * self.vector, align=self.vector) for k in range(s.oc_vecs)]
            for index, (i, j) in enumerate(pixels):
                offset = shift + 4 * (i * p.sh * p.x.row + j * p.sw * p.x.pixel + lane)
                pixel = e.broadcast(x, offset)
                for k in range(s.oc_vecs):
                    at = k * len(pixels) + index
                    sums[at] = e.fma(rows[k], pixel, sums[at])
        return sums
