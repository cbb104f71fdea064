"""Grouped convolution of channel-blocked images whose groups consist of whole blocks.

Each group is a direct convolution of its own channels, with the same register tile and schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.family import Args, given
from sqzc.backends.llvm.kernels.conv_tile import ConvTile
from sqzc.backends.llvm.packing import pack_bias, pack_conv
from sqzc.backends.llvm.problems import ConvProblem, conv_problem
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule, choose, extent
from sqzc.backends.llvm.selecting import conv_arrays, conv_facts
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import NO_BORDER, Geometry, Program, Step
from sqzc.target import Target


class ConvGrouped:
    """conv2d with group > 1, input and output channels of a group both multiples of the block."""

    name: ClassVar[str] = "conv2d.grouped"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        if not isinstance(op, Conv2d) or op.group == 1 or node.output.type.dtype is not DType.F32:
            return None
        x, w, y = node.inputs[0], node.inputs[1], node.output
        lanes = target.vector_lanes
        residual, bias = node.operand("residual"), node.operand("bias")
        images = [x, y] if residual is None else [x, y, residual]
        whole = w.type.shape[1] % lanes == 0 and (w.type.shape[0] // op.group) % lanes == 0
        constant = w.is_constant and (bias is None or bias.is_constant)
        if not whole or not constant or any(v.type.layout.block != lanes for v in images):
            return None
        reads = (x,) if residual is None else (x, residual)
        borders = (op.pads, *(NO_BORDER for _ in reads[1:]))
        return Selection(self.name, (node,), reads, (y,), conv_arrays(node), borders, conv_facts(node))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        s = given(step, DirectSchedule) or choose(one_group(p), target)
        groups = np.split(arrays["w"], p.group)
        packed = np.concatenate([pack_conv(w, p.lanes, p.y_block, s.oc_vecs) for w in groups])
        return Finished(s.to_fields(), {"w": packed, "b": pack_bias(arrays.get("b"), p.oc, p.y_block)})

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), DirectSchedule.from_fields(step.schedule)
        height, width = extent(p, bool(s.flat))
        bands = -(-width // s.cols) if s.flat else -(-height // s.rows)
        return p.n * p.group * -(-one_group(p).oc_blocks // s.oc_vecs) * bands

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Grouped(e, conv_problem(program, step), DirectSchedule.from_fields(step.schedule), args).emit()


def one_group(p: ConvProblem) -> ConvProblem:
    """The convolution of one group."""
    return replace(p, ic=p.ic // p.group, oc=p.oc // p.group, group=1)


class _Grouped:
    def __init__(self, e: Emitter, p: ConvProblem, s: DirectSchedule, args: Args) -> None:
        self.e, self.s, self.args, self.groups = e, s, args, p.group
        self.p = one_group(p)
        self.tile = ConvTile(e, self.p, s)
        self.tiles = -(-self.p.oc_blocks // s.oc_vecs)

    def emit(self) -> None:
        e, p, s = self.e, self.p, self.s
        height, width = extent(p, bool(s.flat))
        bands = -(-width // s.cols) if s.flat else -(-height // s.rows)

        def item(index: Val, _: list[Val]) -> list[Val]:
            image, group, tile, band = e.split_many(index, (p.n, self.groups, self.tiles, bands))
            first = e.clamp_last(tile, s.oc_vecs, p.oc_blocks)
            block = e.mul_add(group, p.oc_blocks, first)
            weights = e.at(self.args.constants[0], e.mul_add(e.mul_add(group, self.tiles, tile), self.tile.bytes))
            bias = e.at(self.args.constants[1], e.mul_add(block, self.tile.vector))
            x = self.tile.source(self.args.reads[0], image)
            x = e.at(x, e.mul_add(group, 4 * (p.ic // p.lanes) * p.x.plane))

            def columns(number: Val, _: list[Val]) -> list[Val]:
                top = e.i64(0) if s.flat else e.clamp_last(band, s.rows, height)
                left = e.clamp_last(number, s.cols, width)
                sums = self.tile.sums(self.tile.window(x, top, left), weights, bias, s.rows, s.cols)
                self.store(sums, image, block, top, left)
                return []

            if s.flat:
                columns(band, [])
            else:
                e.loop(0, -(-width // s.cols), 1, columns)
            return []

        e.loop(self.args.begin, self.args.end, 1, item)

    def pixel(self, pointer: Val, g: Geometry, image: Val, block: Val, top: Val, left: Val) -> Val:
        """A pixel of a channel block."""
        e = self.e
        inside = e.mul_add(top, 4 * g.row, e.mul_add(left, 4 * g.pixel, 4 * g.origin))
        return e.at(pointer, e.mul_add(image, 4 * g.image, e.mul_add(block, 4 * g.plane, inside)))

    def store(self, sums: list[list[Val]], image: Val, block: Val, top: Val, left: Val) -> None:
        """Residual, activation, out."""
        e, p, s = self.e, self.p, self.s
        out = self.pixel(self.args.writes[0], p.y, image, block, top, left)
        extra = None if p.r is None else self.pixel(self.args.reads[1], p.r, image, block, top, left)
        for k, values in enumerate(sums):
            for index, value in enumerate(values):
                i, j = divmod(index, s.cols)
                if extra is not None and p.r is not None:
                    value = e.b.fadd(value, e.load(extra, 4 * (k * p.r.plane + i * p.r.row + j * p.r.pixel)))
                value = finish_vector(e, value, p.act, p.oc, e.i64(k))
                e.store(value, out, 4 * (k * p.y.plane + i * p.y.row + j * p.y.pixel))
