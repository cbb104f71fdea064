"""Transposed convolution for every layout: each output row is summed in scratch, then stored.

Column j of the uncut result (before the padding is taken off) is element j // sw of phase j % sw in scratch, so that
one tap adds a whole input row to consecutive elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.images import Image, fill
from sqzc.backends.llvm.numbers import Numbers, computes
from sqzc.backends.llvm.vector_math import apply_activation
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import ConvTranspose2d
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class ConvTransposeRows:
    """Reads are x, w and, if there is one, the bias; none needs to be constant."""

    name: ClassVar[str] = "conv_transpose2d.rows"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, ConvTranspose2d):
            return None
        dtype = node.output.type.dtype
        if not computes(dtype) or (node.op.act and dtype is not DType.F32):
            return None
        return Selection(self.name, (node,), tuple(node.inputs), (node.output,))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        op = step.ops[0]
        assert isinstance(op, ConvTranspose2d)
        size = program.buffers[step.writes[0]].type.dtype.item_bytes
        return Finished({}, scratch=op.stride[1] * _phase(program, step) * size)

    def items(self, program: Program, step: Step) -> int:
        n, m, h, _ = program.buffers[step.writes[0]].type.shape
        return n * m * h

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Transpose(e, program, step, args).emit()


def _phase(program: Program, step: Step) -> int:
    """Elements of one phase of an uncut row; also covers what output padding adds."""
    op = step.ops[0]
    assert isinstance(op, ConvTranspose2d)
    width, out = program.buffers[step.reads[0]].type.shape[3], program.buffers[step.writes[0]].type.shape[3]
    kw = program.buffers[step.reads[1]].type.shape[3]
    reached = (width - 1) * op.stride[1] + (kw - 1) * op.dilation[1] + 1
    return -(-max(reached, out + op.pads[1]) // op.stride[1])


class _Transpose:
    def __init__(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        op = step.ops[0]
        assert isinstance(op, ConvTranspose2d)
        self.e, self.args, self.op = e, args, op
        self.x, self.y = Image.of(program, step.reads[0]), Image.of(program, step.writes[0])
        self.w = Image.of(program, step.reads[1])
        self.numbers = Numbers(e, self.y.type.dtype)
        self.size = self.numbers.bytes
        self.phase = _phase(program, step)
        self.per_input = self.x.type.shape[1] // op.group
        self.per_output = self.w.type.shape[1]

    def emit(self) -> None:
        e = self.e
        n, m, h, _ = self.y.type.shape

        def item(index: Val, _: list[Val]) -> list[Val]:
            image, channel, i = e.split_many(index, (n, m, h))
            fill(e, self.numbers, self.args.scratch, self.numbers.splat(0), self.op.stride[1] * self.phase)
            group, inside = e.split(channel, self.per_output)

            def add_channel(k: Val, _: list[Val]) -> list[Val]:
                c = e.mul_add(group, self.per_input, k)
                self.add_rows(self.x.plane(e, self.args.reads[0], image, c), self.filter(c, inside), i)
                return []

            e.loop(0, self.per_input, 1, add_channel)
            self.store(image, channel, i)
            return []

        e.loop(self.args.begin, self.args.end, 1, item)

    def filter(self, c: Val, m: Val) -> Val:
        """The filter of an input and an output channel."""
        e, g = self.e, self.w.geometry
        at = e.mul_add(c, g.image * self.size, e.mul_add(m, g.plane * self.size, g.origin * self.size))
        return e.at(self.args.reads[1], at)

    def add_rows(self, plane: Val, taps: Val, i: Val) -> None:
        """Adds every input row that reaches output row i."""
        e, op = self.e, self.op
        kh, height = self.w.type.shape[2], self.x.type.shape[2]

        def tap_row(u: Val, _: list[Val]) -> list[Val]:
            # The row q of x with q * sh + u * dh - top == i; shifted up so that the division is of no negative number.
            shift = (kh - 1) * op.dilation[0]
            lift = -(-shift // op.stride[0])
            numerator = e.b.sub(e.b.add(i, e.i64(op.pads[0] + lift * op.stride[0])), e.mul_add(u, op.dilation[0]))
            lifted, rest = e.split(numerator, op.stride[0])
            q = e.b.sub(lifted, e.i64(lift))
            inside = e.b.icmp_unsigned("<", q, e.i64(height))
            with e.when(e.b.and_(inside, e.b.icmp_signed("==", rest, e.i64(0)))):
                row = e.at(plane, e.mul_add(q, self.x.row_bytes))
                self.add_row(row, e.at(taps, e.mul_add(u, self.w.row_bytes)))
            return []

        e.loop(0, kh, 1, tap_row)

    def add_row(self, row: Val, taps: Val) -> None:
        """Adds one input row through all columns of the filter."""
        e, op = self.e, self.op

        def tap(v: Val, _: list[Val]) -> list[Val]:
            weight = self.numbers.load(e.at(taps, e.mul_add(v, self.w.pixel_bytes)))
            q, phase = e.split(e.mul_add(v, op.dilation[1]), op.stride[1])
            target = e.at(self.args.scratch, e.mul_add(phase, self.phase * self.size, e.mul_add(q, self.size)))
            self.multiply_into(row, target, weight)
            return []

        e.loop(0, self.w.type.shape[3], 1, tap)

    def multiply_into(self, row: Val, target: Val, weight: Val) -> None:
        """target[j] += weight * row[j] over the input's width: whole vectors, then ever shorter ones."""
        e, width = self.e, self.x.type.shape[3]
        done, lanes = 0, e.lanes if self.x.geometry.pixel == 1 else 1
        while done < width:
            stop = done + (width - done) // lanes * lanes
            spread = e.spread(weight, lanes)

            def chunk(j: Val, _: list[Val], lanes: int = lanes, spread: Val = spread) -> list[Val]:
                to = e.at(target, e.mul_add(j, self.size))
                pixel = self.numbers.load(e.at(row, e.mul_add(j, self.x.pixel_bytes)), lanes)
                self.numbers.store(self.numbers.mul_add(pixel, spread, self.numbers.load(to, lanes)), to)
                return []

            e.loop(done, stop, lanes, chunk)
            done, lanes = stop, lanes // 2

    def store(self, image: Val, channel: Val, i: Val) -> None:
        """Bias, activation, out; the padding is left behind."""
        e, op = self.e, self.op
        bias = self.numbers.splat(0)
        if len(self.args.reads) > 2:
            bias = self.numbers.load(e.at(self.args.reads[2], e.mul_add(channel, self.size)))
        line = e.at(self.y.plane(e, self.args.writes[0], image, channel), e.mul_add(i, self.y.row_bytes))
        width = self.y.type.shape[3]
        lanes = e.lanes if op.stride[1] == 1 and self.y.geometry.pixel == 1 else 1
        while lanes > width:
            lanes //= 2

        def column(index: Val, _: list[Val]) -> list[Val]:
            j = e.clamp_last(index, lanes, width)
            q, phase = e.split(e.b.add(j, e.i64(op.pads[1])), op.stride[1])
            at = e.mul_add(phase, self.phase * self.size, e.mul_add(q, self.size))
            value = self.numbers.add(self.numbers.load(e.at(self.args.scratch, at), lanes), e.spread(bias, lanes))
            value = apply_activation(e, value, op.act)
            self.numbers.store(value, e.at(line, e.mul_add(j, self.y.pixel_bytes)))
            return []

        e.loop(0, -(-width // lanes), 1, column)
        if self.y.spare_lanes:
            with e.when(e.b.icmp_signed("==", channel, e.i64(self.y.type.shape[1] - 1))):
                self.y.clear_spare_lanes(e, self.numbers, self.args.writes[0], image, i)
