"""Ops that choose elements by their size: argmax, argmin, topk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from sqzc.backends.llvm.control import repeat_while
from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.kernels.reduce import ReduceShape, locate, reduce_shape
from sqzc.backends.llvm.numbers import Numbers, computes
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.shape import ArgMax, ArgReduce, TopK
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class ArgExtreme:
    """Position of the largest or smallest element along an axis; NaN neither beats nor is beaten."""

    name: ClassVar[str] = "arg_extreme"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, ArgReduce) or not computes(node.inputs[0].type.dtype):
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,), images=False)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished({"lanes": target.vector_lanes})

    def items(self, program: Program, step: Step) -> int:
        return self._shape(program, step).items

    def _shape(self, program: Program, step: Step) -> ReduceShape:
        op = step.ops[0]
        assert isinstance(op, ArgReduce)
        shape = reduce_shape(program, step, (op.axis,), int(step.schedule["lanes"]))
        return shape if shape.along_kept else replace(shape, width=1)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        shape, op = self._shape(program, step), step.ops[0]
        assert isinstance(op, ArgReduce)
        if not shape.kept.elements:
            return
        numbers, positions = Numbers(e, shape.kept.views[0].dtype), Numbers(e, DType.I64)
        beats = numbers.less_equal if op.last else numbers.less
        stride = shape.reduced.strides[0][-1] * numbers.bytes

        def item(index: Val, _: list[Val]) -> list[Val]:
            x, y = locate(e, shape, args.reads[0], args.writes[0], index, positions.bytes)

            def step_on(k: Val, state: list[Val]) -> list[Val]:
                best, at = state
                value = numbers.load(e.at(x, e.mul_add(k, stride)), shape.width)
                better = beats(best, value) if isinstance(op, ArgMax) else beats(value, best)
                return [e.b.select(better, value, best), e.b.select(better, e.spread(k, shape.width), at)]

            start = [numbers.load(x, shape.width), positions.splat(0, shape.width)]
            positions.store(e.loop(1, shape.reduced.sizes[-1], 1, step_on, start)[1], y)
            return []

        e.loop(args.begin, args.end, 1, item)


class TopKRows:
    """The k best of each row in order, by insertion into the result: n steps, k more for each that gets in."""

    name: ClassVar[str] = "topk"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, TopK) or not computes(node.inputs[0].type.dtype):
            return None
        return Selection(self.name, (node,), (node.inputs[0],), tuple(node.outputs), images=False)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished()

    def items(self, program: Program, step: Step) -> int:
        return math.prod(program.buffers[step.reads[0]].type.shape[:-1])

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        op, type_ = step.ops[0], program.buffers[step.reads[0]].type
        assert isinstance(op, TopK)
        numbers, size = Numbers(e, type_.dtype), type_.shape[-1]
        wide = Numbers(e, DType.I64)

        def item(row: Val, _: list[Val]) -> list[Val]:
            x = e.at(args.reads[0], e.mul_add(row, size * numbers.bytes))
            values = e.at(args.writes[0], e.mul_add(row, op.k * numbers.bytes))
            places = e.at(args.writes[1], e.mul_add(row, op.k * wide.bytes))

            def consider(i: Val, _: list[Val]) -> list[Val]:
                value = numbers.load(e.at(x, e.mul_add(i, numbers.bytes)))
                full = e.b.icmp_signed(">=", i, e.i64(op.k))
                last = e.b.select(full, e.i64(op.k - 1), i)
                # While the list is short there is no worst entry: the place of the new one is then its end.
                worst = numbers.load(e.at(values, e.mul_add(last, numbers.bytes)))
                beaten = _better(numbers, op.largest, value, worst)
                with e.when(e.b.or_(e.b.not_(full), beaten)):
                    _insert(e, numbers, op.largest, values, places, last, value, i)
                return []

            e.loop(0, size, 1, consider)
            return []

        e.loop(args.begin, args.end, 1, item)


def _better(numbers: Numbers, largest: bool, a: Val, c: Val) -> Val:
    """Whether a stands strictly before c. NaN counts as larger than every number."""
    b = numbers.b
    high, low = (a, c) if largest else (c, a)
    return b.or_(numbers.less(low, high), b.and_(numbers.is_nan(high), b.not_(numbers.is_nan(low))))


def _insert(
    e: Emitter, numbers: Numbers, largest: bool, values: Val, places: Val, last: Val, value: Val, index: Val
) -> None:
    """Moves the entries that `value` beats one place down, beginning at place `last`, and puts it before them."""
    wide = Numbers(e, DType.I64)

    def before(position: Val) -> tuple[Val, Val]:
        earlier = e.b.sub(position, e.i64(1))
        return e.at(values, e.mul_add(earlier, numbers.bytes)), e.at(places, e.mul_add(earlier, wide.bytes))

    def goes_up(state: list[Val]) -> Val:
        # Place 0 has no entry before it; its own is loaded instead and not used.
        inside = e.b.icmp_signed(">", state[0], e.i64(0))
        safe = e.b.select(inside, state[0], e.i64(1))
        other = numbers.load(before(safe)[0])
        return e.b.and_(inside, _better(numbers, largest, value, other))

    def shift(state: list[Val]) -> list[Val]:
        from_value, from_place = before(state[0])
        numbers.store(numbers.load(from_value), e.at(from_value, numbers.bytes))
        wide.store(wide.load(from_place), e.at(from_place, wide.bytes))
        return [e.b.sub(state[0], e.i64(1))]

    place = repeat_while(e, goes_up, shift, [last])[0]
    numbers.store(value, e.at(values, e.mul_add(place, numbers.bytes)))
    wide.store(index, e.at(places, e.mul_add(place, wide.bytes)))
