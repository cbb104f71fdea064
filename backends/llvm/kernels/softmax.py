"""Softmax over a contiguous run of elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.vector_math import exp
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Softmax
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target

Body = Callable[[Val, list[Val]], Sequence[Val]]


def runs(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(outer, length, inner) where the axes are neighbours: element (o, k, i) lies at (o * length + k) * inner + i."""
    first, last = min(axes), max(axes)
    if sorted(axes) != list(range(first, last + 1)):
        return None
    return math.prod(shape[:first]), math.prod(shape[first : last + 1]), math.prod(shape[last + 1 :])


class SoftmaxRows:
    """exp(x - max) over its sum, row by row; a row may be strided."""

    name: ClassVar[str] = "softmax.rows"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op, x = node.op, node.inputs[0].type
        if not isinstance(op, Softmax) or x.dtype is not DType.F32 or runs(x.shape, op.axes) is None:
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,), images=False)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished()

    def items(self, program: Program, step: Step) -> int:
        outer, _, inner = self._runs(program, step)
        return outer * inner

    def _runs(self, program: Program, step: Step) -> tuple[int, int, int]:
        op = step.ops[0]
        assert isinstance(op, Softmax)
        found = runs(program.buffers[step.reads[0]].type.shape, op.axes)
        assert found is not None
        return found

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _, length, inner = self._runs(program, step)

        def item(index: Val, _: list[Val]) -> list[Val]:
            outer, rest = e.split(index, inner)
            start = e.mul_add(outer, 4 * length * inner, e.mul_add(rest, 4))
            x, y = e.at(args.reads[0], start), e.at(args.writes[0], start)
            lanes = e.lanes if inner == 1 and length >= e.lanes else 1
            _row(e, x, y, length, 4 * inner, lanes)
            return []

        e.loop(args.begin, args.end, 1, item)


def _row(e: Emitter, x: Val, y: Val, length: int, stride: int, lanes: int) -> None:
    whole = length // lanes * lanes

    def top(index: Val, best: list[Val]) -> list[Val]:
        value = e.load(e.at(x, e.b.mul(index, e.i64(stride))), 0, lanes)
        return [_larger(e, best[0], value)]

    best = e.loop(0, whole, lanes, top, [e.splat(-math.inf, lanes)])[0]
    peak = _across(e, best, lanes, lambda a, c: _larger(e, a, c))
    peak = e.loop(
        whole, length, 1, lambda i, b: [_larger(e, b[0], e.load(e.at(x, e.b.mul(i, e.i64(stride))), 0, 1))], [peak]
    )[0]

    def shifted(width: int) -> Body:
        def body(index: Val, total: list[Val]) -> list[Val]:
            at = e.b.mul(index, e.i64(stride))
            value = exp(e, e.b.fsub(e.load(e.at(x, at), 0, width), e.spread(peak, width)))
            e.store(value, e.at(y, at))
            return [e.b.fadd(total[0], value)]

        return body

    sums = e.loop(0, whole, lanes, shifted(lanes), [e.splat(0.0, lanes)])[0]
    total = _across(e, sums, lanes, e.b.fadd)
    total = e.loop(whole, length, 1, shifted(1), [total])[0]

    def divide(width: int) -> Body:
        def body(index: Val, _: list[Val]) -> list[Val]:
            at = e.at(y, e.b.mul(index, e.i64(stride)))
            e.store(e.b.fdiv(e.load(at, 0, width), e.spread(total, width)), at)
            return []

        return body

    e.loop(0, whole, lanes, divide(lanes))
    e.loop(whole, length, 1, divide(1))


def _larger(e: Emitter, a: Val, c: Val) -> Val:
    return e.b.select(e.b.fcmp_unordered("uno", a, a), a, e.maximum(a, c))


def _across(e: Emitter, value: Val, lanes: int, combine: Callable[[Val, Val], Val]) -> Val:
    """All lanes combined into a scalar, halves first."""
    width = lanes
    while width > 1:
        half = width // 2
        low = e.shuffle(value, value, range(half))
        high = e.shuffle(value, value, range(half, width))
        if half == 1:
            low, high = (e.b.extract_element(v, e.i64(0)) for v in (low, high))
        value = combine(low, high)
        width = half
    return value
