"""Depthwise convolution of channel-blocked images: every channel has one filter of its own.

A vector is one pixel of one channel block, for input, weight and sum alike. Reads lie inside the image and its zero
border; tiles that would hang over the edge are moved back and recompute some pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.packing import pack_bias, pad_axis
from sqzc.backends.llvm.problems import ConvProblem, conv_problem
from sqzc.backends.llvm.schedules.depthwise import DepthwiseSchedule, choose, pixels_of_row
from sqzc.backends.llvm.selecting import conv_arrays, conv_facts
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import NO_BORDER, Geometry, Program, Step
from sqzc.target import Target


class Depthwise:
    """y[c] = sum of w[c, u, v] * x[c, i * sh + u * dh, j * sw + v * dw] with a register tile of pixels."""

    name: ClassVar[str] = "conv2d.depthwise"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        if not isinstance(op, Conv2d) or node.output.type.dtype is not DType.F32:
            return None
        x, w, y = node.inputs[0], node.inputs[1], node.output
        residual = node.operand("residual")
        images = [x, y] if residual is None else [x, y, residual]
        one_each = op.group == x.type.shape[1] == y.type.shape[1] > 1
        if not one_each or not w.is_constant or any(v.type.layout.block != target.vector_lanes for v in images):
            return None
        bias = node.operand("bias")
        if bias is not None and not bias.is_constant:
            return None
        reads = (x,) if residual is None else (x, residual)
        borders = (op.pads, *(NO_BORDER for _ in reads[1:]))
        return Selection(self.name, (node,), reads, (y,), conv_arrays(node), borders, conv_facts(node))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        packed = {"w": pack_depthwise(arrays["w"], p.y_block), "b": pack_bias(arrays.get("b"), p.oc, p.y_block)}
        return Finished(choose(p, target).to_fields(), packed)

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), DepthwiseSchedule.from_fields(step.schedule)
        return p.n * p.oc_blocks * -(-p.oh // s.rows)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Depthwise(e, conv_problem(program, step), DepthwiseSchedule.from_fields(step.schedule), args).emit()


def pack_depthwise(w: Array, block: int) -> Array:
    """[channel block][kh][kw][channel lane] from [channels, 1, kh, kw]; zeros for lanes past the channels."""
    channels, _, kh, kw = w.shape
    padded = pad_axis(np.asarray(w, np.float32).reshape(channels, kh, kw), 0, block)
    return np.ascontiguousarray(padded.reshape(-1, block, kh, kw).transpose(0, 2, 3, 1))


class _Depthwise:
    def __init__(self, e: Emitter, p: ConvProblem, s: DepthwiseSchedule, args: Args) -> None:
        self.e, self.p, self.s, self.args = e, p, s, args
        self.vector = 4 * e.lanes
        self.pixels = [(i, j) for i in range(s.rows) for j in range(s.cols)]

    def emit(self) -> None:
        e, p, s, args = self.e, self.p, self.s, self.args
        bands = -(-p.oh // s.rows)

        def item(index: Val, _: list[Val]) -> list[Val]:
            image, block, band = e.split_many(index, (p.n, p.oc_blocks, bands))
            top = e.clamp_last(band, s.rows, p.oh)
            weights = e.at(args.constants[0], e.mul_add(block, p.kh * p.kw * self.vector))
            bias = e.load(e.at(args.constants[1], e.mul_add(block, self.vector)))
            x = self.line(args.reads[0], p.x, image, block, e.mul_add(top, p.sh))
            x = e.at(x, -4 * (p.pads[0] * p.x.row + p.pads[1] * p.x.pixel))
            y = self.line(args.writes[0], p.y, image, block, top)
            r = None if p.r is None else self.line(args.reads[1], p.r, image, block, top)

            def tile(number: Val, _: list[Val]) -> list[Val]:
                left = e.clamp_last(number, s.cols, p.ow)
                sums = self.reduce(e.at(x, e.mul_add(left, 4 * p.sw * p.x.pixel)), weights, bias)
                self.store(sums, y, r, left, block)
                return []

            e.loop(0, -(-p.ow // s.cols), 1, tile)
            return []

        e.loop(args.begin, args.end, 1, item)

    def line(self, pointer: Val, g: Geometry, image: Val, block: Val, row: Val) -> Val:
        """The first pixel of a row of a channel block."""
        e = self.e
        at = e.mul_add(image, 4 * g.image, e.mul_add(block, 4 * g.plane, e.mul_add(row, 4 * g.row, 4 * g.origin)))
        return e.at(pointer, at)

    def reduce(self, x: Val, weights: Val, bias: Val) -> list[Val]:
        """One accumulator a pixel; a loop over the filter's rows, its columns unrolled."""
        e, p = self.e, self.p
        row = self.kept_row if self.s.kept else self.row_by_taps

        def filter_row(u: Val, sums: list[Val]) -> list[Val]:
            return row(e.at(x, e.mul_add(u, 4 * p.dh * p.x.row)), e.at(weights, e.mul_add(u, p.kw * self.vector)), sums)

        return e.loop(0, p.kh, 1, filter_row, [bias] * len(self.pixels))

    def row_by_taps(self, line: Val, taps: Val, sums: list[Val]) -> list[Val]:
        """Tap after tap into all sums; every product reads its pixel."""
        e, p = self.e, self.p
        for v in range(p.kw):
            # Neighbouring windows share pixels: the barrier keeps them from being held in registers between taps.
            e.fence()
            weight = e.load(taps, v * self.vector)
            shift = v * p.dw * p.x.pixel
            sums = [
                e.fma(e.load(line, 4 * (shift + i * p.sh * p.x.row + j * p.sw * p.x.pixel)), weight, total)
                for (i, j), total in zip(self.pixels, sums, strict=True)
            ]
        return sums

    def kept_row(self, line: Val, taps: Val, sums: list[Val]) -> list[Val]:
        """Pixel after pixel into the sums of all windows that it is in, with the weights at hand."""
        e, p, s = self.e, self.p, self.s
        e.fence()
        sums = list(sums)
        weights = [e.load(taps, v * self.vector) for v in range(p.kw)]
        for i in range(s.rows):
            for column, meetings in pixels_of_row(p, s.cols).items():
                # One at a time: pixels read ahead would take registers from the sums.
                e.fence()
                pixel = e.load(line, 4 * (i * p.sh * p.x.row + column * p.x.pixel))
                for j, v in meetings:
                    at = i * s.cols + j
                    sums[at] = e.fma(pixel, weights[v], sums[at])
        return sums

    def store(self, sums: list[Val], y: Val, r: Val | None, left: Val, block: Val) -> None:
        """Residual, activation, out."""
        e, p = self.e, self.p
        out = e.at(y, e.mul_add(left, 4 * p.y.pixel))
        extra = e.at(r, e.mul_add(left, 4 * p.r.pixel)) if r is not None and p.r is not None else None
        for (i, j), value in zip(self.pixels, sums, strict=True):
            if extra is not None and p.r is not None:
                value = e.b.fadd(value, e.load(extra, 4 * (i * p.r.row + j * p.r.pixel)))
            e.store(finish_vector(e, value, p.act, p.oc, block), out, 4 * (i * p.y.row + j * p.y.pixel))
