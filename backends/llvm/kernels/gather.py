"""Slices of a tensor chosen by an index tensor at run time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from sqzc.backends.llvm.emit import I64, Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.kernels.move import as_bits
from sqzc.backends.llvm.numbers import Numbers
from sqzc.backends.llvm.views import contiguous
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.shape import Gather
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class GatherRows:
    """y[o, k, i] = x[o, index[k], i]. An index that is out of range reads the nearest slice in range.

    Generated code has no way to report bad data, and must not read outside its buffers.
    """

    name: ClassVar[str] = "gather"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, Gather):
            return None
        return Selection(self.name, (node,), tuple(node.inputs), (node.output,), images=False)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished()

    def _sizes(self, program: Program, step: Step) -> tuple[int, int, int, int]:
        """Slices before the axis, elements on it, indices, elements of one slice."""
        op = step.ops[0]
        assert isinstance(op, Gather)
        shape, index = (program.buffers[name].type for name in step.reads)
        axis = op.axis
        before, after = math.prod(shape.shape[:axis]), math.prod(shape.shape[axis + 1 :])
        return before, shape.shape[axis], index.elements, after

    def items(self, program: Program, step: Step) -> int:
        before, size, count, after = self._sizes(program, step)
        return before * count if size * after else 0

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        before, size, count, after = self._sizes(program, step)
        if not before * size * count * after:
            return
        x = as_bits(contiguous(program.buffers[step.reads[0]].type.dtype, (after,)))
        numbers = Numbers(e, x.dtype)
        lanes = e.lanes if after >= e.lanes else 1

        def item(index: Val, _: list[Val]) -> list[Val]:
            outer, k = e.split(index, count)
            wanted = e.b.load(e.at(args.reads[1], e.mul_add(k, 8)), typ=I64, align=8)
            chosen = _in_range(e, wanted, size)
            source = e.at(args.reads[0], e.mul_add(e.mul_add(outer, size, chosen), after * numbers.bytes))
            target = e.at(args.writes[0], e.mul_add(index, after * numbers.bytes))

            def chunk(j: Val, _: list[Val]) -> list[Val]:
                at = e.mul_add(e.clamp_last(j, lanes, after), numbers.bytes)
                numbers.store(numbers.load(e.at(source, at), lanes), e.at(target, at))
                return []

            e.loop(0, -(-after // lanes), 1, chunk)
            return []

        e.loop(args.begin, args.end, 1, item)


def _in_range(e: Emitter, index: Val, size: int) -> Val:
    """A negative index counts from the end; then clamped to 0..size - 1."""
    zero, last = e.i64(0), e.i64(size - 1)
    counted = e.b.select(e.b.icmp_signed("<", index, zero), e.b.add(index, e.i64(size)), index)
    low = e.b.select(e.b.icmp_signed("<", counted, zero), zero, counted)
    return e.b.select(e.b.icmp_signed(">", low, last), last, low)
