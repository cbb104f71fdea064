"""Convolution 3 x 3, stride 1, by Winograd's minimal filtering.

For a band of image tiles: transform the data once; then per tile of output channels transform the filters, multiply
position by position, and transform back.

Transformed filters have four times the bytes of the raw ones. They are not stored in the library: making them when a
handle is made takes well under a millisecond for networks of a few million parameters, less than reading them from a
file. Where nothing was prepared they are made on the way, one tile of channels at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from llvmlite import ir

from sqzc.backends.llvm.algebra import VectorAlgebra
from sqzc.backends.llvm.emit import PTR, Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.error_bounds import BUDGET, winograd_error
from sqzc.backends.llvm.family import Args, given
from sqzc.backends.llvm.packing import pack_bias, pack_conv
from sqzc.backends.llvm.problems import ConvProblem, conv_problem
from sqzc.backends.llvm.schedules.conv_split import plain_cycles
from sqzc.backends.llvm.schedules.conv_winograd import (
    WinogradSchedule,
    choose,
    grid,
    predict,
    prepared_bytes,
    scratch_layout,
)
from sqzc.backends.llvm.selecting import conv_arrays, conv_facts, expected_problem
from sqzc.backends.llvm.winograd_math import FORMS, two_dimensional
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import NO_BORDER, Program, Step
from sqzc.target import Target

# The fact by which a selection excludes forms that are larger and lose too much.
LARGEST_FORM = "largest_form"


@dataclass(frozen=True)
class ConvWinograd:
    """Channel-blocked 3 x 3 stride 1 convolution with fewer multiplications.

    `forms` are the F(m, 3) to choose from; if `bounded`, those of them whose rounding error keeps the budget with the
    weights at hand. `always` takes every convolution that it can compute, not only those where it is
    predicted to be faster than the direct form.
    """

    forms: tuple[int, ...] = (4, 2)
    always: bool = False
    bounded: bool = True

    name: ClassVar[str] = "conv2d.winograd"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        selection = self.possible(node, target)
        if selection is None or not self.pays(node, target, self.forms):
            return None
        forms = self.admitted(node)
        if forms == self.forms:
            return selection
        if not forms or not self.pays(node, target, forms):
            return None
        return replace(selection, facts={**selection.facts, LARGEST_FORM: max(forms)})

    def possible(self, node: Node, target: Target) -> Selection | None:
        """The selection where it can compute the node at all."""
        op = node.op
        if not isinstance(op, Conv2d) or op.group != 1 or op.stride != (1, 1) or op.dilation != (1, 1):
            return None
        x, w, y = node.inputs[0], node.inputs[1], node.output
        blocked = x.type.layout.block == y.type.layout.block == target.vector_lanes
        bias = node.operand("bias")
        constant = w.is_constant and (bias is None or bias.is_constant)
        if not blocked or not constant or w.type.shape[2:] != (3, 3) or min(y.type.shape[2:]) < 4:
            return None
        if x.type.shape[1] < target.vector_lanes or x.type.dtype is not DType.F32:
            return None
        residual = node.operand("residual")
        reads = (x,) if residual is None else (x, residual)
        if residual is not None and residual.type.layout != y.type.layout:
            return None
        borders = (op.pads, *(NO_BORDER for _ in reads[1:]))
        return Selection(self.name, (node,), reads, (y,), conv_arrays(node), borders, conv_facts(node))

    def pays(self, node: Node, target: Target, forms: tuple[int, ...]) -> bool:
        """Whether one of the forms is to be taken: it is predicted to be faster than the direct form, or asked for."""
        if self.always:
            return True
        p = expected_problem(node, target)
        return predict(p, choose(p, target, forms), target) < plain_cycles(p, target)

    def admitted(self, node: Node) -> tuple[int, ...]:
        """The forms whose rounding error keeps the budget, as do those smaller than one that does."""
        if not self.bounded:
            return self.forms
        largest = next((m for m in sorted(self.forms)[::-1] if winograd_error(node.inputs[1].data, m) <= BUDGET), 0)
        return tuple(m for m in self.forms if m <= largest)

    def refusal(self, node: Node, target: Target) -> str:
        """The forms, with their error, that the weights forbid where one would be taken otherwise; empty for none."""
        if not self.bounded or self.possible(node, target) is None or not self.pays(node, target, self.forms):
            return ""
        forbidden = [m for m in self.forms if m not in self.admitted(node)]
        return " ".join(f"f{m}:{winograd_error(node.inputs[1].data, m):.1e}" for m in forbidden)

    def forms_of(self, step: Step) -> tuple[int, ...]:
        """The forms that a step may use."""
        return tuple(m for m in self.forms if m <= int(step.facts.get(LARGEST_FORM, m)))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        s = given(step, WinogradSchedule) or choose(p, target, self.forms_of(step))
        # [oc tile][ic block][3][3][ic lane][oc] -> [oc tile][ic][3][3][oc]
        packed = pack_conv(arrays["w"], p.lanes, p.y_block, s.oc_vecs)
        tiles, ic_blocks, _, _, lanes, width = packed.shape
        filters = packed.transpose(0, 1, 4, 2, 3, 5).reshape(tiles, ic_blocks * lanes, 9, width)
        bias = pack_bias(arrays.get("b"), p.oc, p.y_block)
        # A block of zeros follows the bias: what accumulators start from at all positions but one.
        start = np.concatenate([bias, np.zeros(s.oc_vecs * p.y_block, np.float32)])
        constants = {"w": np.ascontiguousarray(filters), "b": start}
        scratch = scratch_layout(p, s, target.vector_lanes).total
        return Finished(s.to_fields(), constants, scratch, prepared_bytes(p, s))

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), WinogradSchedule.from_fields(step.schedule)
        return p.n * -(-grid(p, s.m)[0] // s.band) * -(-p.oc_blocks // s.oc_vecs)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        WinogradCode(e, conv_problem(program, step), WinogradSchedule.from_fields(step.schedule), args).emit()

    def prepare(self, e: Emitter, program: Program, step: Step, constants: tuple[Val, ...], prepared: Val) -> None:
        """All filters, transformed, one channel tile after the other."""
        p, s = conv_problem(program, step), WinogradSchedule.from_fields(step.schedule)
        size = FORMS[s.m].size
        layout = scratch_layout(p, s, e.lanes)

        def tile(index: Val, _: list[Val]) -> list[Val]:
            target = e.at(prepared, e.mul_add(index, size**2 * layout.u_step))
            transform_filters(e, p, s, constants[0], index, target)
            return []

        e.loop(0, -(-p.oc_blocks // s.oc_vecs), 1, tile)


def transform_filters(e: Emitter, p: ConvProblem, s: WinogradSchedule, weights: Val, tile: Val, target: Val) -> None:
    """U = G g G^T for one channel tile."""
    form, f = FORMS[s.m], VectorAlgebra(e)
    vector = 4 * e.lanes
    width = s.oc_vecs * vector
    step = scratch_layout(p, s, e.lanes).u_step
    source = e.at(weights, e.mul_add(tile, p.ic_padded * 9 * width))

    def channel(c: Val, _: list[Val]) -> list[Val]:
        raw, out = e.at(source, e.mul_add(c, 9 * width)), e.at(target, e.mul_add(c, width))

        def one(k: Val, _: list[Val]) -> list[Val]:
            at = e.mul_add(k, vector)
            start, to = e.at(raw, at), e.at(out, at)
            taps = [[e.load(start, (3 * u + v) * width) for v in range(3)] for u in range(3)]
            for i, line in enumerate(two_dimensional(f, form.filter, taps)):
                for j, value in enumerate(line):
                    e.store(value, to, (i * form.size + j) * step)
                e.fence()
            return []

        e.loop(0, s.oc_vecs, 1, one)
        return []

    e.loop(0, p.ic_padded, 1, channel)


class WinogradCode:
    """Emits the convolution; what makes the products can be another class's."""

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
        y = e.at(self.args.writes[0], e.mul_add(image, 4 * p.y.image, e.mul_add(oc, 4 * p.y.plane, 4 * p.y.origin)))
        r = None
        if p.r is not None:
            r = e.at(self.args.reads[1], e.mul_add(image, 4 * p.r.image, e.mul_add(oc, 4 * p.r.plane, 4 * p.r.origin)))
        self.make(tile, first, oc, y, r)
        return []

    def make(self, tile: Val, first: Val, oc: Val, y: Val, r: Val | None) -> None:
        """Products and output of a tile of output channels, whose first block is `oc`."""
        filters = self.filters(tile)
        if self.s.order == "tile":
            self.by_tile(filters, first, oc, y, r)
        else:
            self.by_position(filters, first, oc, y, r)

    def filters(self, tile: Val) -> Val:
        """The transformed filters of a channel tile: prepared ones, else made now in scratch."""
        e, p, s = self.e, self.p, self.s
        if not s.prepared:
            transform_filters(e, p, s, self.args.constants[0], tile, self.u)
            return self.u
        missing = e.b.icmp_unsigned("==", self.args.prepared, ir.Constant(PTR, None))
        with e.when(missing):
            transform_filters(e, p, s, self.args.constants[0], tile, self.u)
        own = e.at(self.args.prepared, e.mul_add(tile, self.form.size**2 * self.layout.u_step))
        return e.b.select(missing, self.u, own)

    def by_tile(self, filters: Val, first: Val, oc: Val, y: Val, r: Val | None) -> None:
        """Each register tile through all positions and out."""
        e, s = self.e, self.s

        def block(number: Val, _: list[Val]) -> list[Val]:
            start = e.clamp_last(number, s.tiles, self.count)

            def position(index: Val, _: list[Val]) -> list[Val]:
                self.multiply(start, oc, index, filters, self.products)
                return []

            e.loop(0, self.form.size**2, 1, position)
            self.transform_output(first, start, s.tiles, oc, y, r)
            return []

        e.loop(0, -(-self.count // s.tiles), 1, block)

    def by_position(self, filters: Val, first: Val, oc: Val, y: Val, r: Val | None) -> None:
        """All image tiles through one position after the other, then everything out."""
        e, s = self.e, self.s
        width = s.oc_vecs * self.vector

        def position(index: Val, _: list[Val]) -> list[Val]:
            def block(number: Val, _: list[Val]) -> list[Val]:
                start = e.clamp_last(number, s.tiles, self.count)
                self.multiply(start, oc, index, filters, e.at(self.products, e.mul_add(start, width)), number)
                return []

            e.loop(0, -(-self.count // s.tiles), 1, block)
            return []

        e.loop(0, self.form.size**2, 1, position)
        self.transform_output(first, e.i64(0), self.count, oc, y, r)

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
        after = 4 * size * p.ic_padded
        for i, line in enumerate(two_dimensional(self.f, self.form.data, data)):
            for j, value in enumerate(line):
                at = i * self.layout.v_row + 4 * j * p.ic_padded
                e.prefetch(target, at + after, write=True)
                e.store(value, target, at)
            e.fence()

    # -- filters ------------------------------------------------------------------------------------------------------

    def multiply(self, start: Val, oc: Val, index: Val, filters: Val, products: Val, block: Val | None = None) -> None:
        """M = sum over ic of V * U at one position for `tiles` tiles from `start`.

        With `block`, the number of the register tile, it brings in its share of the next position's filters.
        """
        e, p, s, size = self.e, self.p, self.s, self.form.size
        width = s.oc_vecs * self.vector
        i, j = e.split(index, size)
        bias = e.at(self.args.constants[1], e.mul_add(oc, self.vector))
        zeros = e.at(self.args.constants[1], p.oc_blocks * self.vector)
        begin = e.b.select(e.b.icmp_signed("==", index, e.i64(self.form.unit * (size + 1))), bias, zeros)
        starts = [e.load(begin, k * self.vector) for k in range(s.oc_vecs)]
        sums = [starts[k] for k in range(s.oc_vecs) for _ in range(s.tiles)]
        v = e.at(self.v, e.mul_add(start, 4 * size * p.ic_padded))
        rows = e.at(v, e.mul_add(i, self.layout.v_row, e.mul_add(j, 4 * p.ic_padded)))
        own = e.at(filters, e.mul_add(index, self.layout.u_step))
        blocks = -(-self.count // s.tiles)
        lines = -(-p.lanes * width // blocks // 64)
        ahead = own
        if block is not None:
            ahead = e.at(own, e.mul_add(block, p.ic_padded // p.lanes * lines * 64, self.layout.u_step))

        def channels(c: Val, carried: list[Val]) -> list[Val]:
            u, *inner = carried
            at = e.at(rows, e.mul_add(c, self.vector))
            near = e.at(ahead, e.mul_add(c, lines * 64))
            for lane in range(p.lanes):
                if block is not None:
                    for line in range(lane, lines, p.lanes):
                        e.prefetch(near, 64 * line)
                weights = [e.load(u, lane * width + k * self.vector) for k in range(s.oc_vecs)]
                for t in range(s.tiles):
                    pixel = e.broadcast(at, 4 * (t * size * p.ic_padded + lane))
                    for k in range(s.oc_vecs):
                        inner[k * s.tiles + t] = e.fma(weights[k], pixel, inner[k * s.tiles + t])
            return [e.at(u, p.lanes * width), *inner]

        sums = e.loop(0, p.ic_padded // p.lanes, 1, channels, [own, *sums])[1:]
        out = e.at(products, e.mul_add(index, self.layout.m_step))
        for k in range(s.oc_vecs):
            for t in range(s.tiles):
                e.store(sums[k * s.tiles + t], out, (t * s.oc_vecs + k) * self.vector)

    # -- output -------------------------------------------------------------------------------------------------------

    def transform_output(self, first: Val, start: Val, count: int, oc: Val, y: Val, r: Val | None) -> None:
        """y = act(A^T M A + residual) for `count` image tiles from `start`."""
        e, p, s = self.e, self.p, self.s

        def place(t: Val) -> tuple[Val, Val]:
            i, j = e.split(e.b.add(start, t), self.columns)
            return e.clamp_last(e.b.add(first, i), s.m, p.oh), e.clamp_last(j, s.m, p.ow)

        def target(h: Val, w: Val) -> Val:
            return e.at(y, e.b.add(e.mul_add(h, 4 * p.y.row), e.mul_add(w, 4 * p.y.pixel)))

        def one(t: Val, _: list[Val]) -> list[Val]:
            h, w = place(t)
            unmoved = e.b.icmp_signed("!=", h, e.i64(p.oh - s.m))
            source = e.at(self.products, e.mul_add(t, s.oc_vecs * self.vector))
            out, following = target(h, w), target(*place(e.b.add(t, e.i64(1))))
            extra = None
            if r is not None and p.r is not None:
                extra = e.at(r, e.b.add(e.mul_add(h, 4 * p.r.row), e.mul_add(w, 4 * p.r.pixel)))

            def vector(k: Val, _: list[Val]) -> list[Val]:
                block = e.b.add(oc, k)
                # The lines of the next tile are owned by the time they are written.
                ahead = e.at(following, e.mul_add(k, 4 * p.y.plane))
                for i in range(s.m):
                    for j in range(s.m):
                        e.prefetch(ahead, 4 * (i * p.y.row + j * p.y.pixel), write=True)
                shifted = None
                if extra is not None and p.r is not None:
                    shifted = e.at(extra, e.mul_add(k, 4 * p.r.plane))
                at, to = e.at(source, e.mul_add(k, self.vector)), e.at(out, e.mul_add(k, 4 * p.y.plane))
                self.one_output(at, to, shifted, block, unmoved)
                return []

            e.loop(0, s.oc_vecs, 1, vector)
            return []

        e.loop(0, count, 1, one)

    def one_output(self, source: Val, out: Val, extra: Val | None, block: Val, unmoved: Val) -> None:
        """One tile of one channel block, back in the image.

        A tile that was moved back inside shares rows with the tile above. It leaves them alone (`unmoved` is
        false): its sums are rounded otherwise, and the tile above may be another thread's.
        """
        e, p = self.e, self.p
        shared = self.rows * self.s.m - p.oh
        products = self.sums(source, block)
        for i, line in enumerate(two_dimensional(self.f, self.form.output, products)):
            with e.when(unmoved) if i < shared else nullcontext():
                for j, value in enumerate(line):
                    if extra is not None and p.r is not None:
                        value = e.b.fadd(value, e.load(extra, 4 * (i * p.r.row + j * p.r.pixel)))
                    value = finish_vector(e, value, p.act, p.oc, block)
                    e.store(value, out, 4 * (i * p.y.row + j * p.y.pixel))
            e.fence()

    def sums(self, source: Val, block: Val) -> list[list[Val]]:
        """M of one tile of one channel block, with the bias in it."""
        size = self.form.size
        return [[self.e.load(source, (i * size + j) * self.layout.m_step) for j in range(size)] for i in range(size)]
