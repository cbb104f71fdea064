"""Convolution 3 x 3, stride 1, by Winograd's minimal filtering.

For a band of image tiles: transform the data once; then per tile of output channels transform the filters, multiply
position by position, and transform back. Filters are expanded here and not at compile time: read raw they are a quarter
of the bytes, which costs less than the extra arithmetic as soon as they come from beyond the second-level cache, and the
library stays small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.packing import pack_bias, pack_conv
from sqzc.backends.llvm.problems import ConvProblem, conv_problem
from sqzc.backends.llvm.schedules.conv_winograd import (
    WinogradSchedule,
    choose,
    grid,
    scratch_layout,
)
from sqzc.backends.llvm.selecting import conv_arrays, conv_facts
from sqzc.backends.llvm.winograd_math import FORMS, two_dimensional
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Conv2d
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import NO_BORDER, Program, Step
from sqzc.target import Target


class VectorAlgebra:
    """Vector code as a number system of `winograd_math`."""

    def __init__(self, e: Emitter) -> None:
        self.e = e

    def add(self, a: Val, c: Val) -> Val:
        """a + c."""
        return self.e.b.fadd(a, c)

    def sub(self, a: Val, c: Val) -> Val:
        """a - c."""
        return self.e.b.fsub(a, c)

    def scale(self, a: Val, factor: float) -> Val:
        """a * factor."""
        return self.e.b.fmul(a, self.e.splat(factor))

    def muladd(self, a: Val, factor: float, c: Val) -> Val:
        """a * factor + c."""
        return self.e.fma(a, self.e.splat(factor), c)


class ConvWinograd:
    """Channel-blocked 3 x 3 stride 1 convolution with fewer multiplications."""

    name: ClassVar[str] = "conv2d.winograd"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        if not isinstance(op, Conv2d) or op.group != 1 or op.stride != (1, 1) or op.dilation != (1, 1):
            return None
        x, w, y = node.inputs[0], node.inputs[1], node.output
        blocked = x.type.layout.block == y.type.layout.block == target.vector_lanes
        if not blocked or not w.is_constant or w.type.shape[2:] != (3, 3) or min(y.type.shape[2:]) < 4:
            return None
        if x.type.shape[1] < target.vector_lanes:
            return None
        residual = node.operand("residual")
        reads = (x,) if residual is None else (x, residual)
        if residual is not None and residual.type.layout != y.type.layout:
            return None
        borders = (op.pads, *(NO_BORDER for _ in reads[1:]))
        return Selection(
            self.name, (node,), reads, (y,), conv_arrays(node), borders, conv_facts(node), cost=float(node.macs) / 3
        )

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        s = choose(p, target)
        # [oc tile][ic block][3][3][ic lane][oc] -> [oc tile][ic][3][3][oc]
        packed = pack_conv(arrays["w"], p.lanes, p.y_block, s.oc_vecs)
        tiles, ic_blocks, _, _, lanes, width = packed.shape
        filters = packed.transpose(0, 1, 4, 2, 3, 5).reshape(tiles, ic_blocks * lanes, 9, width)
        bias = pack_bias(arrays.get("b"), p.oc, p.y_block)
        # A block of zeros follows the bias: what accumulators start from at all positions but one.
        start = np.concatenate([bias, np.zeros(s.oc_vecs * p.y_block, np.float32)])
        constants = {"w": np.ascontiguousarray(filters), "b": start}
        return Finished(s.to_fields(), constants, scratch_layout(p, s, target.vector_lanes).total)

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), WinogradSchedule.from_fields(step.schedule)
        return p.n * -(-grid(p, s.m)[0] // s.band) * -(-p.oc_blocks // s.oc_vecs)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Winograd(e, conv_problem(program, step), WinogradSchedule.from_fields(step.schedule), args).emit()


class _Winograd:
    def __init__(self, e: Emitter, p: ConvProblem, s: WinogradSchedule, args: Args) -> None:
        self.e, self.p, self.s, self.args = e, p, s, args
        self.form = FORMS[s.m]
        self.f = VectorAlgebra(e)
        self.vector = 4 * e.lanes
        self.rows, self.columns = grid(p, s.m)
        self.bands = -(-self.rows // s.band)
        self.oc_tiles = -(-p.oc_blocks // s.oc_vecs)
        self.count = s.band * self.columns
        self.layout = scratch_layout(p, s, e.lanes)
        self.v = args.scratch
        self.u = e.at(args.scratch, self.layout.u_start)
        self.products = e.at(args.scratch, self.layout.m_start)

    def emit(self) -> None:
        self.e.loop(self.args.begin, self.args.end, 1, self.item)

    def item(self, index: Val, _: list[Val]) -> list[Val]:
        """One tile of output channels over one band."""
        e, p, s = self.e, self.p, self.s
        image, band, tile = e.split_many(index, (p.n, self.bands, self.oc_tiles))
        first = e.clamp_last(band, s.band, self.rows)
        fresh = e.b.or_(e.b.icmp_signed("==", tile, e.i64(0)), e.b.icmp_signed("==", index, self.args.begin))
        with e.when(fresh):
            self.transform_data(image, first)
        oc = e.clamp_last(tile, s.oc_vecs, p.oc_blocks)
        self.transform_filters(tile)
        y = e.at(self.args.writes[0], e.mul_add(image, 4 * p.y.image, e.mul_add(oc, 4 * p.y.plane, 4 * p.y.origin)))
        r = None
        if p.r is not None:
            r = e.at(self.args.reads[1], e.mul_add(image, 4 * p.r.image, e.mul_add(oc, 4 * p.r.plane, 4 * p.r.origin)))

        def block(number: Val, _: list[Val]) -> list[Val]:
            start = e.clamp_last(number, s.tiles, self.count)
            self.multiply(start, oc)
            self.transform_output(first, start, oc, y, r)
            return []

        e.loop(0, -(-self.count // s.tiles), 1, block)
        return []

    # -- data ---------------------------------------------------------------------------------------------------------

    def transform_data(self, image: Val, first: Val) -> None:
        """V = B^T d B for every tile of the band; tiles at the far edges are moved back inside."""
        e, p, s = self.e, self.p, self.s
        top, left, _, _ = p.pads
        origin = p.x.origin - top * p.x.row - left * p.x.pixel
        base = e.at(self.args.reads[0], e.mul_add(image, 4 * p.x.image, 4 * origin))

        def row(i: Val, _: list[Val]) -> list[Val]:
            h = e.clamp_last(e.b.add(first, i), s.m, p.oh)
            line = e.at(base, e.mul_add(h, 4 * p.x.row))

            def column(j: Val, _: list[Val]) -> list[Val]:
                w = e.clamp_last(j, s.m, p.ow)
                corner = e.at(line, e.mul_add(w, 4 * p.x.pixel))
                out = e.at(self.v, e.mul_add(e.mul_add(i, self.columns, j), 4 * self.form.size * p.ic_padded))

                def channels(c: Val, _: list[Val]) -> list[Val]:
                    self.one_tile(e.at(corner, e.mul_add(c, 4 * p.x.plane)), e.at(out, e.mul_add(c, self.vector)))
                    return []

                e.loop(0, p.ic_padded // p.lanes, 1, channels)
                return []

            e.loop(0, self.columns, 1, column)
            return []

        e.loop(0, s.band, 1, row)

    def one_tile(self, source: Val, target: Val) -> None:
        """The transform of one tile of one channel block."""
        e, p, size = self.e, self.p, self.form.size
        data = [[e.load(source, 4 * (i * p.x.row + j * p.x.pixel)) for j in range(size)] for i in range(size)]
        for i, line in enumerate(two_dimensional(self.f, self.form.data, data)):
            for j, value in enumerate(line):
                e.store(value, target, i * self.layout.v_row + 4 * j * p.ic_padded)

    # -- filters ------------------------------------------------------------------------------------------------------

    def transform_filters(self, tile: Val) -> None:
        """U = G g G^T for the channel tile."""
        e, p, s, size = self.e, self.p, self.s, self.form.size
        width = s.oc_vecs * self.vector
        source = e.at(self.args.constants[0], e.mul_add(tile, p.ic_padded * 9 * width))

        def channel(c: Val, _: list[Val]) -> list[Val]:
            raw, out = e.at(source, e.mul_add(c, 9 * width)), e.at(self.u, e.mul_add(c, size * width))

            def vector(k: Val, _: list[Val]) -> list[Val]:
                at = e.mul_add(k, self.vector)
                start, to = e.at(raw, at), e.at(out, at)
                taps = [[e.load(start, (3 * u + v) * width) for v in range(3)] for u in range(3)]
                for i in range(size):
                    for j in range(size):
                        e.prefetch(to, i * self.layout.u_row + (j + size) * width, write=True)
                for i, line in enumerate(two_dimensional(self.f, self.form.filter, taps)):
                    for j, value in enumerate(line):
                        e.store(value, to, i * self.layout.u_row + j * width)
                return []

            e.loop(0, s.oc_vecs, 1, vector)
            return []

        e.loop(0, p.ic_padded, 1, channel)

    # -- products -----------------------------------------------------------------------------------------------------

    def multiply(self, start: Val, oc: Val) -> None:
        """M = sum over ic of V * U for `tiles` tiles from `start`."""
        e, p, s, size = self.e, self.p, self.s, self.form.size
        width = s.oc_vecs * self.vector
        unit = self.form.unit * (self.form.size + 1)
        bias = e.at(self.args.constants[1], e.mul_add(oc, self.vector))
        zeros = e.at(self.args.constants[1], p.oc_blocks * self.vector)
        v = e.at(self.v, e.mul_add(start, 4 * size * p.ic_padded))

        def position(index: Val, _: list[Val]) -> list[Val]:
            begin = e.b.select(e.b.icmp_signed("==", index, e.i64(unit)), bias, zeros)
            starts = [e.load(begin, k * self.vector) for k in range(s.oc_vecs)]
            sums = [starts[k] for k in range(s.oc_vecs) for _ in range(s.tiles)]
            i, j = e.split(index, size)
            rows = e.at(v, e.mul_add(i, self.layout.v_row, e.mul_add(j, 4 * p.ic_padded)))
            filters = e.at(self.u, e.mul_add(i, self.layout.u_row, e.mul_add(j, width)))

            def channels(c: Val, carried: list[Val]) -> list[Val]:
                u, *inner = carried
                at = e.at(rows, e.mul_add(c, self.vector))
                for lane in range(p.lanes):
                    weights = [e.load(u, lane * size * width + k * self.vector) for k in range(s.oc_vecs)]
                    for t in range(s.tiles):
                        pixel = e.broadcast(at, 4 * (t * size * p.ic_padded + lane))
                        for k in range(s.oc_vecs):
                            inner[k * s.tiles + t] = e.fma(weights[k], pixel, inner[k * s.tiles + t])
                return [e.at(u, p.lanes * size * width), *inner]

            sums = e.loop(0, p.ic_padded // p.lanes, 1, channels, [filters, *sums])[1:]
            out = e.at(self.products, e.mul_add(i, self.layout.m_row, e.mul_add(j, self.layout.m_step)))
            for k in range(s.oc_vecs):
                for t in range(s.tiles):
                    e.store(sums[k * s.tiles + t], out, (t * s.oc_vecs + k) * self.vector)
            return []

        e.loop(0, self.form.size**2, 1, position)

    # -- output -------------------------------------------------------------------------------------------------------

    def transform_output(self, first: Val, start: Val, oc: Val, y: Val, r: Val | None) -> None:
        """y = act(A^T M A + residual) for the tiles of one register tile."""
        e, p, s = self.e, self.p, self.s

        def one(t: Val, _: list[Val]) -> list[Val]:
            i, j = e.split(e.b.add(start, t), self.columns)
            h = e.clamp_last(e.b.add(first, i), s.m, p.oh)
            w = e.clamp_last(j, s.m, p.ow)
            source = e.at(self.products, e.mul_add(t, s.oc_vecs * self.vector))
            out = e.at(y, e.b.add(e.mul_add(h, 4 * p.y.row), e.mul_add(w, 4 * p.y.pixel)))
            extra = None
            if r is not None and p.r is not None:
                extra = e.at(r, e.b.add(e.mul_add(h, 4 * p.r.row), e.mul_add(w, 4 * p.r.pixel)))

            def vector(k: Val, _: list[Val]) -> list[Val]:
                block = e.b.add(oc, k)
                shifted = None
                if extra is not None and p.r is not None:
                    shifted = e.at(extra, e.mul_add(k, 4 * p.r.plane))
                self.one_output(
                    e.at(source, e.mul_add(k, self.vector)), e.at(out, e.mul_add(k, 4 * p.y.plane)), shifted, block
                )
                return []

            e.loop(0, s.oc_vecs, 1, vector)
            return []

        e.loop(0, s.tiles, 1, one)

    def one_output(self, source: Val, out: Val, extra: Val | None, block: Val) -> None:
        """One tile of one channel block, back in the image."""
        e, p, size = self.e, self.p, self.form.size
        products = [
            [e.load(source, i * self.layout.m_row + j * self.layout.m_step) for j in range(size)] for i in range(size)
        ]
        for i, line in enumerate(two_dimensional(self.f, self.form.output, products)):
            for j, value in enumerate(line):
                if extra is not None and p.r is not None:
                    value = e.b.fadd(value, e.load(extra, 4 * (i * p.r.row + j * p.r.pixel)))
                value = finish_vector(e, value, p.act, p.oc, block)
                e.store(value, out, 4 * (i * p.y.row + j * p.y.pixel))
