"""Reductions over any set of axes: one number from many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.numbers import Numbers, across, computes
from sqzc.backends.llvm.views import Nest, contiguous, view_of
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.shape import Reduce
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target

CHAINS = 4
"""Sums that run beside each other along one axis: one alone would wait for the latency of every addition."""


@dataclass(frozen=True)
class ReduceShape:
    """Loops of a reduction: kept axes with strides of x and y, reduced axes with strides of x; sizes outermost first.

    `width` lanes are handled at once, `along_kept` as neighbouring results, else as neighbouring elements of one sum.
    """

    kept: Nest
    reduced: Nest
    width: int
    along_kept: bool

    @property
    def items(self) -> int:
        """One work item a result, or a vector of results."""
        if not self.along_kept:
            return self.kept.elements
        return self.kept.elements // self.kept.sizes[-1] * -(-self.kept.sizes[-1] // self.width)


def reduce_shape(program: Program, step: Step, axes: tuple[int, ...], lanes: int) -> ReduceShape:
    """The loops for x reduced over `axes`."""
    x = view_of(program, step.reads[0])
    rank = len(x.shape)
    inside = [axis for axis in range(rank) if axis in axes]
    outside = [axis for axis in range(rank) if axis not in axes]
    kept_x = x.permuted(outside)
    # The result is row-major whatever its keepdims.
    kept = Nest.over([contiguous(x.dtype, kept_x.shape), kept_x])
    reduced = Nest.over([x.permuted(inside)])
    if kept.strides[1][-1] == 1 and kept.strides[0][-1] == 1 and kept.sizes[-1] >= lanes:
        return ReduceShape(kept, reduced, lanes, True)
    straight = reduced.strides[0][-1] == 1 and reduced.sizes[-1] >= lanes
    return ReduceShape(kept, reduced, lanes if straight else 1, False)


@dataclass(frozen=True)
class _Rule:
    """How values combine, and what to begin with."""

    start: Callable[[Numbers, int], Val]
    combine: Callable[[Numbers, Val, Val], Val]


_SUM = _Rule(lambda n, lanes: n.splat(0, lanes), lambda n, a, c: n.add(a, c))
_RULES = {
    "reduce_sum": _SUM,
    "reduce_mean": _SUM,
    "reduce_prod": _Rule(lambda n, lanes: n.splat(1, lanes), lambda n, a, c: n.mul(a, c)),
    "reduce_max": _Rule(lambda n, lanes: n.lowest(lanes), lambda n, a, c: n.maximum(a, c)),
    "reduce_min": _Rule(lambda n, lanes: n.highest(lanes), lambda n, a, c: n.minimum(a, c)),
}


class ReduceAxes:
    """y = the combination of all elements along the axes. Schedule: `lanes` of the vectors."""

    name: ClassVar[str] = "reduce"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, Reduce) or node.op.name not in _RULES or not computes(node.output.type.dtype):
            return None
        # The result is written as if it had no gaps.
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,), images=False)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished({"lanes": target.vector_lanes})

    def items(self, program: Program, step: Step) -> int:
        return self._shape(program, step).items

    def _shape(self, program: Program, step: Step) -> ReduceShape:
        op = step.ops[0]
        assert isinstance(op, Reduce)
        return reduce_shape(program, step, op.axes, int(step.schedule["lanes"]))

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        shape, op = self._shape(program, step), step.ops[0]
        if not shape.kept.elements:
            return
        dtype = shape.kept.views[0].dtype
        # A mean of integers is one division of the exact sum.
        inner = DType.F64 if op.name == "reduce_mean" and not dtype.is_float else dtype
        numbers, work, rule = Numbers(e, dtype), Numbers(e, inner), _RULES[op.name]

        def item(index: Val, _: list[Val]) -> list[Val]:
            x, y = locate(e, shape, args.reads[0], args.writes[0], index)

            def take(state: Val, value: Val) -> Val:
                return rule.combine(work, state, numbers.convert(value, inner))

            def join(a: Val, c: Val) -> Val:
                return rule.combine(work, a, c)

            lanes = shape.width
            total = fold(e, shape, x, numbers, rule.start(work, lanes), take, join)
            if lanes > 1 and not shape.along_kept:
                total = fold_tail(e, shape, x, numbers, across(e, total, join), take)
            if op.name == "reduce_mean":
                count = work.splat(shape.reduced.elements, lanes if shape.along_kept else 1)
                total = e.b.fdiv(total, count)
            numbers.store(work.convert(total, dtype), y)
            return []

        e.loop(args.begin, args.end, 1, item)


def locate(e: Emitter, shape: ReduceShape, x: Val, y: Val, index: Val, y_bytes: int | None = None) -> tuple[Val, Val]:
    """The first element of x and the result of one work item."""
    kept, dtype = shape.kept, shape.kept.views[0].dtype
    size = dtype.item_bytes
    sizes = list(kept.sizes)
    if shape.along_kept:
        sizes[-1] = -(-sizes[-1] // shape.width)
    positions = e.split_many(index, sizes)
    if shape.along_kept:
        positions[-1] = e.clamp_last(positions[-1], shape.width, kept.sizes[-1])
    x = e.at(x, kept.views[1].offset * size)
    for position, from_x, from_y in zip(positions, kept.strides[1], kept.strides[0], strict=True):
        x = e.at(x, e.mul_add(position, from_x * size)) if from_x else x
        y = e.at(y, e.mul_add(position, from_y * (y_bytes or size))) if from_y else y
    return x, y


Take = Callable[[Val, Val], Val]


def fold(e: Emitter, shape: ReduceShape, x: Val, numbers: Numbers, start: Val, take: Take, join: Take) -> Val:
    """take(... take(start, x0) ..., xn) over the reduced axes, in vectors; a tail along the last axis is left out.

    Several such chains run at once where the axis is long, and are joined at the end.
    """
    sizes, strides = shape.reduced.sizes, shape.reduced.strides[0]
    lanes, size = shape.width, numbers.bytes
    step = 1 if shape.along_kept else lanes
    if not shape.reduced.elements:
        return start
    count = sizes[-1] // step
    chains = CHAINS if count >= 2 * CHAINS else 1

    def load(pointer: Val, position: Val) -> Val:
        return numbers.load(e.at(pointer, e.mul_add(position, step * strides[-1] * size)), lanes)

    def innermost(pointer: Val, states: list[Val]) -> list[Val]:
        def several(k: Val, inner: list[Val]) -> list[Val]:
            return [take(inner[i], load(pointer, e.b.add(k, e.i64(i)))) for i in range(chains)]

        states = e.loop(0, count // chains * chains, chains, several, states)
        return e.loop(
            count // chains * chains, count, 1,
            lambda k, inner: [take(inner[0], load(pointer, k)), *inner[1:]], states,
        )  # fmt: skip

    def level(axis: int, pointer: Val, states: list[Val]) -> list[Val]:
        if axis == len(sizes) - 1:
            return innermost(pointer, states)
        return e.loop(
            0, sizes[axis], 1,
            lambda k, inner: level(axis + 1, e.at(pointer, e.mul_add(k, strides[axis] * size)), inner), states,
        )  # fmt: skip

    states = level(0, x, [start] * chains)
    while len(states) > 1:
        states = [join(states[i], states[i + 1]) for i in range(0, len(states), 2)]
    return states[0]


def fold_tail(e: Emitter, shape: ReduceShape, x: Val, numbers: Numbers, total: Val, take: Take) -> Val:
    """The elements along the last reduced axis that fill no vector, one by one into a scalar."""
    sizes, strides = shape.reduced.sizes, shape.reduced.strides[0]
    size = numbers.bytes

    def level(axis: int, pointer: Val, state: list[Val]) -> list[Val]:
        def step(k: Val, inner: list[Val]) -> list[Val]:
            at = e.at(pointer, e.mul_add(k, strides[axis] * size))
            return [take(inner[0], numbers.load(at))] if axis == len(sizes) - 1 else level(axis + 1, at, inner)

        first = sizes[axis] // shape.width * shape.width if axis == len(sizes) - 1 else 0
        return e.loop(first, sizes[axis], 1, step, state)

    return level(0, x, [total])[0]
