"""Convolution for every layout, group, stride and dilation, with weights that need not be constant.

Vectors run along the width. Rows that need padding, have a stride or lie in blocks are first copied to scratch with
zeros around them, their columns sorted by the stride: column q of phase f is the padded row's q * stride + f. So every
tap of every convolution reads consecutive elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.images import Image, fill
from sqzc.backends.llvm.numbers import Numbers, computes
from sqzc.backends.llvm.phases import LARGEST_STRIDE, Phases, copy_phases
from sqzc.backends.llvm.schedules.conv_rows import RowsProblem, RowsSchedule, choose, phase_gap, row_gap
from sqzc.backends.llvm.vector_math import apply_activation
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target

UNROLLED_TAPS = 8


class ConvRows:
    """The convolution that takes what no other one takes; reads are x, w, bias and residual as far as there are."""

    name: ClassVar[str] = "conv2d.rows"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, Conv2d):
            return None
        dtype = node.output.type.dtype
        if not computes(dtype) or (node.op.act and dtype is not DType.F32):
            return None
        return Selection(self.name, (node,), tuple(node.inputs), (node.output,))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = _problem(program, step)
        s = choose(p, target)
        # The staging vector follows the rows.
        scratch = (s.buffer_elements(p) + s.width) * p.item_bytes
        return Finished(s.to_fields(), scratch=scratch)

    def items(self, program: Program, step: Step) -> int:
        p, s = _problem(program, step), RowsSchedule.from_fields(step.schedule)
        op = step.ops[0]
        assert isinstance(op, Conv2d)
        images = program.buffers[step.writes[0]].type.shape[0]
        return images * op.group * -(-p.oh // s.band) * -(-p.ow // s.span)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Rows(e, program, step, args).emit()


def _problem(program: Program, step: Step) -> RowsProblem:
    op = step.ops[0]
    assert isinstance(op, Conv2d)
    x, y = Image.of(program, step.reads[0]), Image.of(program, step.writes[0])
    _, ic, _, iw = x.type.shape
    _, oc, oh, ow = y.type.shape
    kh, kw = program.buffers[step.reads[1]].type.shape[2:]
    direct = op.stride[1] == 1 and op.pads == (0, 0, 0, 0) and x.geometry.pixel == 1
    images = [y] if len(step.reads) < 4 else [y, Image.of(program, step.reads[3])]
    gapless = x.geometry.row == iw and all(i.geometry.row == ow and i.geometry.pixel == 1 for i in images)
    flat = direct and (kh, kw, op.stride[0]) == (1, 1, 1) and gapless
    if flat:
        oh, ow = 1, oh * ow
    return RowsProblem(
        ic // op.group, oc // op.group, oh, ow, kh, kw, *op.stride, *op.dilation, x.bytes, direct, flat
    )  # fmt: skip


class _Rows:
    def __init__(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        self.e, self.args = e, args
        op = step.ops[0]
        assert isinstance(op, Conv2d)
        self.op = op
        self.p, self.s = _problem(program, step), RowsSchedule.from_fields(step.schedule)
        self.x, self.y = Image.of(program, step.reads[0]), Image.of(program, step.writes[0])
        self.w = Image.of(program, step.reads[1])
        self.r = Image.of(program, step.reads[3]) if len(step.reads) > 3 else None
        self.numbers = Numbers(e, self.y.type.dtype)
        self.size = self.numbers.bytes
        # Columns of a tile, where its vectors begin (the last may overlap the one before), and lanes in use.
        self.tile = min(self.s.width * self.s.vecs, self.s.span)
        self.offsets = [min(j * self.s.width, max(self.tile - self.s.width, 0)) for j in range(self.s.vecs)]
        self.count = min(self.s.width, self.p.ow)
        self.staging = e.at(args.scratch, self.s.buffer_elements(self.p) * self.size)
        g = self.x.geometry
        p, s = self.p, self.s
        _, _, height, width = self.x.type.shape
        columns = height * width if p.flat else width
        self.phases = Phases(columns, op.pads[1], p.sw, phase_gap(p), s.phase(p), s.width)
        # Distances of the rows that taps read, in bytes: from one in memory to the next, and to those of the next
        # output row and of the filter's next row.
        self.row_gap = row_gap(p) if s.copied else 1
        self.row_step = (self.phases.elements if s.copied else g.row) * self.size
        self.down, self.dilated = (d // self.row_gap * self.row_step for d in (p.sh, p.dh))
        self.channel_step = self.row_step * s.copied_rows(p) if s.copied else g.plane * self.size

    def emit(self) -> None:
        e, p, s = self.e, self.p, self.s
        bands, spans = -(-p.oh // s.band), -(-p.ow // s.span)
        images = self.y.type.shape[0]

        def item(index: Val, _: list[Val]) -> list[Val]:
            image, group, band, span = e.split_many(index, (images, self.op.group, bands, spans))
            top, left = e.clamp_last(band, s.band, p.oh), e.clamp_last(span, s.span, p.ow)
            source = self.copy(image, group, top) if s.copied else self.in_place(image, group, top, left)

            def channels(tile: Val, _: list[Val]) -> list[Val]:
                oc = e.clamp_last(tile, s.ocs, p.oc)

                def rows(number: Val, _: list[Val]) -> list[Val]:
                    row = e.clamp_last(number, s.rows, s.band)
                    self.columns(source, image, e.mul_add(group, p.oc, oc), top, row, left)
                    return []

                e.loop(0, -(-s.band // s.rows), 1, rows)
                return []

            e.loop(0, -(-p.oc // s.ocs), 1, channels)
            self.clear_spare(image, group, top)
            return []

        e.loop(self.args.begin, self.args.end, 1, item)

    def clear_spare(self, image: Val, group: Val, top: Val) -> None:
        e = self.e
        if not self.y.spare_lanes:
            return
        with e.when(e.b.icmp_signed("==", group, e.i64(self.op.group - 1))):

            def row(i: Val, _: list[Val]) -> list[Val]:
                self.y.clear_spare_lanes(e, self.numbers, self.args.writes[0], image, e.b.add(top, i))
                return []

            e.loop(0, self.s.band, 1, row)

    # -- input --------------------------------------------------------------------------------------------------------

    def in_place(self, image: Val, group: Val, top: Val, left: Val) -> Val:
        """The input of output pixel (top, left), first channel of the group."""
        e, p = self.e, self.p
        plane = self.x.plane(e, self.args.reads[0], image, e.mul_add(group, p.ic))
        return e.at(plane, e.mul_add(top, p.sh * self.x.row_bytes, e.mul_add(left, self.size)))

    def copy(self, image: Val, group: Val, top: Val) -> Val:
        """Copies the rows that a band reads; the start of the copy."""
        e, p = self.e, self.p

        def channel(c: Val, _: list[Val]) -> list[Val]:
            plane = self.x.plane(e, self.args.reads[0], image, e.mul_add(group, p.ic, c))
            copies = e.at(self.args.scratch, e.mul_add(c, self.channel_step))

            def row(r: Val, _: list[Val]) -> list[Val]:
                target = e.at(copies, e.mul_add(r, self.row_step))
                i = e.mul_add(top, p.sh, e.mul_add(r, self.row_gap, -self.op.pads[0]))
                self.copy_row(plane, i, target)
                return []

            e.loop(0, self.s.copied_rows(p), 1, row)
            return []

        e.loop(0, p.ic, 1, channel)
        return self.args.scratch

    def copy_row(self, plane: Val, i: Val, target: Val) -> None:
        """Row i of a channel, zeros where the image has no such row."""
        e, x = self.e, self.x
        inside = e.b.icmp_unsigned("<", i, e.i64(x.type.shape[2]))
        row = e.at(plane, e.mul_add(i, x.row_bytes))
        zeros = partial(fill, e, self.numbers, target, self.numbers.splat(0), self.phases.elements)
        if x.geometry.pixel == 1 and self.p.sw <= LARGEST_STRIDE:
            with e.b.if_else(inside) as (there, beside):
                with there:
                    copy_phases(e, self.numbers, self.phases, row, target)
                with beside:
                    zeros()
        else:
            zeros()
            with e.when(inside):
                self.copy_columns(row, target)

    def copy_columns(self, row: Val, target: Val) -> None:
        """A row's elements one by one."""
        e, to, left = self.e, self.phases, self.op.pads[1]
        # Columns past the last window are of no use, and would not fit.
        used = min(to.size, to.columns * to.stride - left)

        def column(j: Val, _: list[Val]) -> list[Val]:
            q, phase = e.split(e.b.add(j, e.i64(left)), to.stride)
            at = e.mul_add(e.split(phase, to.gap)[0], to.columns * self.size, e.mul_add(q, self.size))
            self.numbers.store(self.numbers.load(e.at(row, e.mul_add(j, self.x.pixel_bytes))), e.at(target, at))
            return []

        e.loop(-left % to.gap, used, to.gap, column)

    # -- output -------------------------------------------------------------------------------------------------------

    def columns(self, source: Val, image: Val, oc: Val, top: Val, row: Val, left: Val) -> None:
        """All columns of `rows` output rows of one tile of channels."""
        e, s = self.e, self.s
        start = e.at(source, e.mul_add(row, self.down))
        outputs = [self.y.plane(e, self.args.writes[0], image, e.b.add(oc, e.i64(k))) for k in range(s.ocs)]
        extras = (
            [self.r.plane(e, self.args.reads[3], image, e.b.add(oc, e.i64(k))) for k in range(s.ocs)] if self.r else []
        )
        line = e.b.add(top, row)

        def tile(number: Val, _: list[Val]) -> list[Val]:
            column = e.clamp_last(number, self.tile, s.span)
            sums = self.reduce(e.at(start, e.mul_add(column, self.size)), oc)
            self.store(sums, outputs, extras, line, e.b.add(left, column))
            return []

        e.loop(0, -(-s.span // self.tile), 1, tile)

    def reduce(self, start: Val, oc: Val) -> list[Val]:
        """Accumulators [channel][row][vector], begun with the bias."""
        e, p, s = self.e, self.p, self.s
        g = self.w.geometry
        weights = e.at(self.args.reads[1], e.mul_add(oc, g.image * self.size, g.origin * self.size))
        sums = []
        for k in range(s.ocs):
            first = self.numbers.splat(0, s.width)
            if len(self.args.reads) > 2:
                bias = self.numbers.load(e.at(self.args.reads[2], e.mul_add(oc, self.size, k * self.size)))
                first = e.spread(bias, s.width)
            sums += [first] * (s.rows * s.vecs)

        def channel(c: Val, state: list[Val]) -> list[Val]:
            plane = e.at(start, e.mul_add(c, self.channel_step))
            filters = e.at(weights, e.mul_add(c, g.plane * self.size))

            def row(u: Val, state: list[Val]) -> list[Val]:
                line = e.at(plane, e.mul_add(u, self.dilated))
                taps = e.at(filters, e.mul_add(u, g.row * self.size))
                if p.kw > UNROLLED_TAPS:
                    return e.loop(0, p.kw, 1, lambda v, inner: self.tap(line, taps, v, inner), state)
                for v in range(p.kw):
                    e.fence()
                    state = self.tap(line, taps, e.i64(v), state, v)
                return state

            return e.loop(0, p.kh, 1, row, state)

        return e.loop(0, p.ic, 1, channel, sums)

    def tap(self, line: Val, taps: Val, v: Val, sums: list[Val], known: int | None = None) -> list[Val]:
        """One tap of one input channel into all accumulators; `known` is its column where that is a constant."""
        e, p, s = self.e, self.p, self.s
        sums = list(sums)
        if known is not None:
            q, phase = divmod(known * p.dw, p.sw)
            line = e.at(line, (phase // self.phases.gap * self.phases.columns + q) * self.size)
            taps = e.at(taps, known * self.w.geometry.pixel * self.size)
        else:
            quotient, rest = e.split(e.mul_add(v, p.dw), p.sw)
            number = e.split(rest, self.phases.gap)[0]
            line = e.at(line, e.mul_add(number, self.phases.columns * self.size, e.mul_add(quotient, self.size)))
            taps = e.at(taps, e.mul_add(v, self.w.geometry.pixel * self.size))
        pixels = [
            self.numbers.load(e.at(line, i * self.down + j * self.size), s.width)
            for i in range(s.rows)
            for j in self.offsets
        ]
        for k in range(s.ocs):
            weight = e.spread(self.numbers.load(e.at(taps, k * self.w.geometry.image * self.size)), s.width)
            for index, pixel in enumerate(pixels):
                at = k * len(pixels) + index
                sums[at] = self.numbers.mul_add(pixel, weight, sums[at])
        return sums

    def store(self, sums: list[Val], outputs: list[Val], extras: list[Val], top: Val, left: Val) -> None:
        """Residual, activation, out."""
        e, s = self.e, self.s
        index = 0
        for k in range(s.ocs):
            for i in range(s.rows):
                for j in self.offsets:
                    value = sums[index]
                    index += 1
                    if self.r is not None:
                        at = self.pixel(self.r, extras[k], top, i, left, j)
                        extra = self.r.load(e, self.numbers, at, s.width, self.count, self.staging)
                        value = self.numbers.add(value, extra)
                    value = apply_activation(e, value, self.op.act)
                    at = self.pixel(self.y, outputs[k], top, i, left, j)
                    self.y.store(e, self.numbers, value, at, self.count, self.staging)

    def pixel(self, image: Image, plane: Val, top: Val, i: int, left: Val, j: int) -> Val:
        e = self.e
        at = e.mul_add(left, image.pixel_bytes, i * image.row_bytes + j * image.pixel_bytes)
        return e.at(plane, e.mul_add(top, image.row_bytes, at))
