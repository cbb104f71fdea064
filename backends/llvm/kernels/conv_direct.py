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


class ConvDirect:
    """y[oc] += w[oc, ic, u, v] * x[ic, i*s + u, j*s + v] with a register tile of channels x pixels."""

    name: ClassVar[str] = "conv2d.direct"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        if not isinstance(op, Conv2d) or op.group != 1 or node.output.type.layout.block != target.vector_lanes:
            return None
        if node.output.type.dtype is not DType.F32:
            return None
        x, w = node.inputs[0], node.inputs[1]
        bias = node.operand("bias")
        constant = w.is_constant and (bias is None or bias.is_constant)
        if not constant or x.type.layout.block not in (0, target.vector_lanes):
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
        )

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        s = given(step, DirectSchedule) or choose(p, target)
        packed = {
            "w": pack_conv(arrays["w"], p.lanes, p.y_block, s.oc_vecs),
            "b": pack_bias(arrays.get("b"), p.oc, p.y_block),
        }
        return Finished(s.to_fields(), packed)

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), DirectSchedule.from_fields(step.schedule)
        return p.n * oc_tiles_of(p, s) * _bands(p, s)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Direct(e, conv_problem(program, step), DirectSchedule.from_fields(step.schedule), args).emit()


def oc_tiles_of(p: ConvProblem, s: DirectSchedule) -> int:
    """Tiles of output channels."""
    return -(-p.oc_blocks // s.oc_vecs)


def _bands(p: ConvProblem, s: DirectSchedule) -> int:
    """Groups of rows; a flat image is cut along its one row."""
    height, width = extent(p, bool(s.flat))
    return -(-width // s.cols) if s.flat else -(-height // s.rows)


class _Direct:
    def __init__(self, e: Emitter, p: ConvProblem, s: DirectSchedule, args: Args) -> None:
        self.e, self.p, self.s, self.args = e, p, s, args
        self.tile = ConvTile(e, p, s)

    def emit(self) -> None:
        self.e.loop(self.args.begin, self.args.end, 1, self.item)

    def item(self, index: Val, _: list[Val]) -> list[Val]:
        """One band of rows of one channel tile."""
        e, p, s = self.e, self.p, self.s
        oc_tiles, bands = oc_tiles_of(p, s), _bands(p, s)
        if s.order == "oc":
            image, tile, band = e.split_many(index, (p.n, oc_tiles, bands))
        else:
            image, band, tile = e.split_many(index, (p.n, bands, oc_tiles))
        height, width = extent(p, bool(s.flat))
        oc = e.clamp_last(tile, s.oc_vecs, p.oc_blocks)
        weights = e.at(self.args.constants[0], e.mul_add(tile, self.tile.bytes))
        bias = e.at(self.args.constants[1], e.mul_add(oc, self.tile.vector))
        x = self.tile.source(self.args.reads[0], image)
        y = self.plane(self.args.writes[0], p.y, image, oc)
        r = None if p.r is None else self.plane(self.args.reads[1], p.r, image, oc)
        if s.flat:
            self.store(x, y, r, e.i64(0), e.clamp_last(band, s.cols, width), weights, bias, oc)
            return []
        top = e.clamp_last(band, s.rows, height)

        def columns(column: Val, _: list[Val]) -> list[Val]:
            self.store(x, y, r, top, e.clamp_last(column, s.cols, width), weights, bias, oc)
            return []

        e.loop(0, -(-width // s.cols), 1, columns)
        return []

    def plane(self, pointer: Val, g: Geometry, image: Val, oc: Val) -> Val:
        """Pixel (0, 0) of a channel block of an image."""
        e = self.e
        return e.at(pointer, e.mul_add(image, 4 * g.image, e.mul_add(oc, 4 * g.plane, 4 * g.origin)))

    def store(self, x: Val, y: Val, r: Val | None, top: Val, left: Val, weights: Val, bias: Val, oc: Val) -> None:
        """One register tile: reduction, residual, activation, out."""
        e, p, s = self.e, self.p, self.s
        out = self.pixel(y, p.y, top, left)
        extra = None if r is None or p.r is None else self.pixel(r, p.r, top, left)
        sums = self.tile.sums(self.tile.window(x, top, left), weights, bias, s.rows, s.cols)
        for k, blocks in enumerate(sums):
            for index, value in enumerate(blocks):
                i, j = divmod(index, s.cols)
                if extra is not None and p.r is not None:
                    value = e.b.fadd(value, e.load(extra, 4 * (k * p.r.plane + i * p.r.row + j * p.r.pixel)))
                value = finish_vector(e, value, p.act, p.oc, e.b.add(oc, e.i64(k)))
                e.store(value, out, 4 * (k * p.y.plane + i * p.y.row + j * p.y.pixel))

    def pixel(self, pointer: Val, g: Geometry, top: Val, left: Val) -> Val:
        """The pointer moved to a pixel."""
        e = self.e
        return e.at(pointer, e.b.add(e.mul_add(top, 4 * g.row), e.mul_add(left, 4 * g.pixel)))
