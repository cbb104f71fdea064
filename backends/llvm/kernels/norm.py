"""Normalisations over neighbours: instance norm, local response, softmax over axes that are no neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.kernels.reduce import ReduceShape, fold, fold_tail, locate, reduce_shape
from sqzc.backends.llvm.numbers import Numbers, across, lanes_of
from sqzc.backends.llvm.vector_math import exp
from sqzc.backends.llvm.vector_pow import power
from sqzc.backends.llvm.views import Nest, View, contiguous, view_of
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import InstanceNorm, Lrn, Softmax
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class InstanceNormPlanes:
    """(x - mean) / sqrt(var + eps) * scale + bias for each image and channel; two passes for the variance."""

    name: ClassVar[str] = "instance_norm"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, InstanceNorm) or node.output.type.dtype is not DType.F32:
            return None
        return Selection(self.name, (node,), tuple(node.inputs), (node.output,), images=False)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished()

    def items(self, program: Program, step: Step) -> int:
        shape = program.buffers[step.writes[0]].type.shape
        return shape[0] * shape[1] if 0 not in shape else 0

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        op, shape = step.ops[0], program.buffers[step.writes[0]].type.shape
        assert isinstance(op, InstanceNorm)
        size = math.prod(shape[2:])

        def item(index: Val, _: list[Val]) -> list[Val]:
            _, channel = e.split(index, shape[1])
            start = e.mul_add(index, 4 * size)
            x, y = e.at(args.reads[0], start), e.at(args.writes[0], start)
            scale, bias = (e.load(e.at(p, e.mul_add(channel, 4)), 0, 1) for p in args.reads[1:])
            count = e.splat(size, 1)
            mean = e.b.fdiv(_row_sum(e, x, size, lambda value: value), count)

            def square(value: Val) -> Val:
                centred = e.b.fsub(value, e.spread(mean, lanes_of(value)))
                return e.b.fmul(centred, centred)

            variance = e.b.fdiv(_row_sum(e, x, size, square), count)
            factor = e.b.fdiv(scale, e.math("sqrt", e.b.fadd(variance, e.splat(op.eps, 1))))

            def scaled(at: Val, lanes: int) -> None:
                centred = e.b.fsub(e.load(e.at(x, at), 0, lanes), e.spread(mean, lanes))
                e.store(e.fma(centred, e.spread(factor, lanes), e.spread(bias, lanes)), e.at(y, at))

            _along_row(e, size, scaled)
            return []

        e.loop(args.begin, args.end, 1, item)


def _row_sum(e: Emitter, x: Val, size: int, fn: Callable[[Val], Val]) -> Val:
    """The sum of fn(x[i]) over a contiguous row."""
    row = contiguous(DType.F32, (size,))
    shape = ReduceShape(Nest.over([View(DType.F32, (), ())] * 2), Nest.over([row]), _fitting(e, size), False)
    numbers = Numbers(e, DType.F32)

    def take(state: Val, value: Val) -> Val:
        return e.b.fadd(state, fn(value))

    total = across(e, fold(e, shape, x, numbers, e.splat(0.0, shape.width), take, e.b.fadd), e.b.fadd)
    return fold_tail(e, shape, x, numbers, total, take) if shape.width > 1 else total


def _along_row(e: Emitter, size: int, body: Callable[[Val, int], None]) -> None:
    """body(byte distance, lanes) so that a row is covered; the last vector may overlap the one before."""
    lanes = _fitting(e, size)

    def chunk(index: Val, _: list[Val]) -> list[Val]:
        body(e.mul_add(e.clamp_last(index, lanes, size), 4), lanes)
        return []

    e.loop(0, -(-size // lanes), 1, chunk)


def _fitting(e: Emitter, size: int) -> int:
    lanes = e.lanes
    while lanes > size:
        lanes //= 2
    return max(lanes, 1)


class LocalResponse:
    """x / (bias + alpha / size * sum of squares over neighbouring channels)^beta."""

    name: ClassVar[str] = "lrn"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, Lrn) or node.output.type.dtype is not DType.F32:
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,), images=False)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished()

    def items(self, program: Program, step: Step) -> int:
        n, c, h, w = program.buffers[step.writes[0]].type.shape
        return n * c if h * w else 0

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        op = step.ops[0]
        assert isinstance(op, Lrn)
        _, c, h, w = program.buffers[step.writes[0]].type.shape
        plane = 4 * h * w
        if not plane:
            return

        def item(index: Val, _: list[Val]) -> list[Val]:
            image, channel = e.split(index, c)
            x = e.at(args.reads[0], e.mul_add(image, c * plane))
            first = _at_least(e, e.b.sub(channel, e.i64((op.size - 1) // 2)), 0)
            last = _at_most(e, e.b.add(channel, e.i64(op.size // 2 + 1)), c)

            def chunk(at: Val, lanes: int) -> None:
                pixel = e.at(x, at)

                def neighbour(k: Val, total: list[Val]) -> list[Val]:
                    value = e.load(e.at(pixel, e.mul_add(k, plane)), 0, lanes)
                    return [e.fma(value, value, total[0])]

                total = e.loop(first, last, 1, neighbour, [e.splat(0.0, lanes)])[0]
                scale = e.fma(total, e.splat(op.alpha / op.size, lanes), e.splat(op.bias, lanes))
                value = e.load(e.at(pixel, e.mul_add(channel, plane)), 0, lanes)
                result = e.b.fdiv(value, _to_beta(e, scale, op.beta))
                e.store(result, e.at(args.writes[0], e.b.add(e.mul_add(index, plane), at)))

            _along_row(e, h * w, chunk)
            return []

        e.loop(args.begin, args.end, 1, item)


def _at_least(e: Emitter, index: Val, low: int) -> Val:
    return e.b.select(e.b.icmp_signed("<", index, e.i64(low)), e.i64(low), index)


def _at_most(e: Emitter, index: Val, high: int) -> Val:
    return e.b.select(e.b.icmp_signed(">", index, e.i64(high)), e.i64(high), index)


def _to_beta(e: Emitter, x: Val, beta: float) -> Val:
    """x^beta; the exponents that networks use need square roots at most."""
    if beta == 1.0:
        return x
    if beta == 0.5:
        return e.math("sqrt", x)
    if beta == 0.75:
        root = e.math("sqrt", x)
        return e.b.fmul(root, e.math("sqrt", root))
    return power(e, x, e.splat(beta, lanes_of(x)))


class SoftmaxAxes:
    """exp(x - max) over its sum, for axes that are no neighbours."""

    name: ClassVar[str] = "softmax.axes"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, Softmax) or node.output.type.dtype is not DType.F32:
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,), images=False)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished({"lanes": target.vector_lanes})

    def items(self, program: Program, step: Step) -> int:
        shape = self._shape(program, step)
        return shape.items if shape.reduced.elements else 0

    def _shape(self, program: Program, step: Step) -> ReduceShape:
        op = step.ops[0]
        assert isinstance(op, Softmax)
        shape = reduce_shape(program, step, op.axes, int(step.schedule["lanes"]))
        kept = [axis for axis in range(program.buffers[step.reads[0]].type.rank) if axis not in op.axes]
        # Unlike a reduction's, the result lies as x does.
        x = view_of(program, step.reads[0]).permuted(kept)
        return replace(shape, kept=Nest.over([x, x]), width=shape.width if shape.along_kept else 1)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        shape = self._shape(program, step)
        if not shape.items or not shape.reduced.elements:
            return
        numbers, lanes = Numbers(e, DType.F32), shape.width

        def item(index: Val, _: list[Val]) -> list[Val]:
            x, y = locate(e, shape, args.reads[0], args.writes[0], index)
            peak = fold(e, shape, x, numbers, numbers.lowest(lanes), numbers.maximum, numbers.maximum)

            def powers(state: Val, value: Val) -> Val:
                return e.b.fadd(state, exp(e, e.b.fsub(value, peak)))

            total = fold(e, shape, x, numbers, e.splat(0.0, lanes), powers, e.b.fadd)

            def level(axis: int, at: Val) -> None:
                if axis == len(shape.reduced.sizes):
                    value = exp(e, e.b.fsub(e.load(e.at(x, at), 0, lanes), peak))
                    e.store(e.b.fdiv(value, total), e.at(y, at))
                    return

                def step_on(k: Val, _: list[Val]) -> list[Val]:
                    level(axis + 1, e.b.add(at, e.mul_add(k, 4 * shape.reduced.strides[0][axis])))
                    return []

                e.loop(0, shape.reduced.sizes[axis], 1, step_on)

            level(0, e.i64(0))
            return []

        e.loop(args.begin, args.end, 1, item)
