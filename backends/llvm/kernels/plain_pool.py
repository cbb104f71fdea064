"""Pools with every option, in every layout.

Row-major images: the rows of a window are combined over the whole width first, into scratch padded with what changes
nothing, then neighbouring columns. Channel-blocked images: a vector is one pixel, windows are clipped to the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.images import Image, fill
from sqzc.backends.llvm.numbers import Numbers, computes
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import AvgPool2d, MaxPool2d, Pool2d
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


def tap_counts(op: AvgPool2d, size: int, length: int, axis: int) -> Array:
    """For each output position along an axis, the taps that a mean divides by; float32."""
    before, after = op.pads[axis], op.pads[axis + 2]
    taps = op.dilation[axis] * np.arange(op.kernel[axis])
    at = op.stride[axis] * np.arange(length)[:, None] - before + taps
    if not op.count_include_pad:
        counted = (at >= 0) & (at < size)
    elif op.count_overhang:
        counted = np.ones_like(at, bool)
    else:
        counted = at < size + after
    return np.asarray(counted.sum(axis=1), np.float32)


class _Pool:
    """What both layouts share."""

    op_type: ClassVar[type[Pool2d]]
    name: ClassVar[str]

    def blocked(self) -> bool:
        """Whether the family is for channel-blocked images."""
        raise NotImplementedError

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        x, y = node.inputs[0].type if node.inputs else None, node.outputs[0].type
        if not isinstance(node.op, self.op_type) or x is None or not computes(y.dtype) or x.layout != y.layout:
            return None
        if x.layout.is_plain == self.blocked():
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        op, x, y = step.ops[0], program.buffers[step.reads[0]].type, program.buffers[step.writes[0]].type
        constants = {}
        if isinstance(op, AvgPool2d):
            counts = [tap_counts(op, x.shape[axis + 2], y.shape[axis + 2], axis) for axis in (0, 1)]
            constants = {"rows": counts[0].astype(y.dtype.numpy), "columns": counts[1].astype(y.dtype.numpy)}
        return Finished({}, constants, 0 if self.blocked() else _row_elements(op, x.shape[3]) * x.dtype.item_bytes)


def _row_elements(op: object, width: int) -> int:
    """Elements of a combined row: the image between its padding, and what the last windows hang over."""
    assert isinstance(op, Pool2d)
    _, left, _, right = op.pads
    return width + left + right + op.stride[1] + (op.kernel[1] - 1) * op.dilation[1]


def _combine(e: Emitter, op: object, numbers: Numbers) -> tuple[Callable[[Val, Val], Val], Callable[[int], Val]]:
    """How two taps combine, and what changes nothing."""
    if isinstance(op, MaxPool2d):
        return numbers.maximum, numbers.lowest
    return numbers.add, lambda lanes: numbers.splat(0, lanes)


class _PoolRows(_Pool):
    def blocked(self) -> bool:
        return False

    def items(self, program: Program, step: Step) -> int:
        n, c, h, w = program.buffers[step.writes[0]].type.shape
        return n * c * h if w else 0

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        op = step.ops[0]
        assert isinstance(op, Pool2d)
        x, y = Image.of(program, step.reads[0]), Image.of(program, step.writes[0])
        numbers = Numbers(e, y.type.dtype)
        size, (_, _, ih, iw), (_, c, oh, ow) = numbers.bytes, x.type.shape, y.type.shape
        combine, neutral = _combine(e, op, numbers)
        count = _row_elements(op, iw)

        def item(index: Val, _: list[Val]) -> list[Val]:
            image, channel, i = e.split_many(index, (y.type.shape[0], c, oh))
            fill(e, numbers, args.scratch, neutral(1), count)
            plane = x.plane(e, args.reads[0], image, channel)
            inner = e.at(args.scratch, op.pads[1] * size)

            def tap_row(u: Val, _: list[Val]) -> list[Val]:
                r = e.mul_add(i, op.stride[0], e.mul_add(u, op.dilation[0], -op.pads[0]))
                with e.when(e.b.icmp_unsigned("<", r, e.i64(ih))):
                    _into_row(e, numbers, e.at(plane, e.mul_add(r, x.row_bytes)), inner, iw, combine)
                return []

            e.loop(0, op.kernel[0], 1, tap_row)
            line = e.at(y.plane(e, args.writes[0], image, channel), e.mul_add(i, y.row_bytes))
            rows = numbers.load(e.at(args.constants[0], e.mul_add(i, size))) if args.constants else None

            def column(j: Val, lanes: int) -> None:
                start = e.at(args.scratch, e.mul_add(j, op.stride[1] * size))
                total = numbers.load(start, lanes)
                for v in range(1, op.kernel[1]):
                    total = combine(total, numbers.load(e.at(start, v * op.dilation[1] * size), lanes))
                if rows is not None:
                    columns = numbers.load(e.at(args.constants[1], e.mul_add(j, size)), lanes)
                    total = e.b.fdiv(total, e.b.fmul(columns, e.spread(rows, lanes)))
                numbers.store(total, e.at(line, e.mul_add(j, size)))

            _along(e, ow, e.lanes if op.stride[1] == 1 else 1, column)
            return []

        e.loop(args.begin, args.end, 1, item)


def _along(e: Emitter, count: int, lanes: int, body: Callable[[Val, int], None]) -> None:
    """body(position, lanes) so that 0..count is covered; the last vector may overlap the one before."""
    while lanes > count:
        lanes //= 2

    def step(index: Val, _: list[Val]) -> list[Val]:
        body(e.clamp_last(index, lanes, count), lanes)
        return []

    e.loop(0, -(-count // lanes), 1, step)


def _into_row(
    e: Emitter, numbers: Numbers, source: Val, target: Val, count: int, combine: Callable[[Val, Val], Val]
) -> None:
    """target[j] = combine(target[j], source[j]); every element once."""
    lanes = e.lanes if count >= e.lanes else 1

    def step(width: int) -> Callable[[Val, list[Val]], list[Val]]:
        def chunk(j: Val, _: list[Val]) -> list[Val]:
            at = e.mul_add(j, numbers.bytes)
            pointer = e.at(target, at)
            numbers.store(combine(numbers.load(pointer, width), numbers.load(e.at(source, at), width)), pointer)
            return []

        return chunk

    whole = count // lanes * lanes
    e.loop(0, whole, lanes, step(lanes))
    e.loop(whole, count, 1, step(1))


class _PoolBlocks(_Pool):
    def blocked(self) -> bool:
        return True

    def items(self, program: Program, step: Step) -> int:
        n, c, h, w = program.buffers[step.writes[0]].type.shape
        return n * -(-c // program.buffers[step.writes[0]].type.layout.block) * h if w else 0

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        op = step.ops[0]
        assert isinstance(op, Pool2d)
        x, y = Image.of(program, step.reads[0]), Image.of(program, step.writes[0])
        numbers = Numbers(e, y.type.dtype)
        combine, neutral = _combine(e, op, numbers)
        n, c, oh, ow = y.type.shape
        block, blocks = y.block, -(-c // y.block)

        def item(index: Val, _: list[Val]) -> list[Val]:
            image, group, i = e.split_many(index, (n, blocks, oh))
            first = e.mul_add(group, block)
            source = x.plane(e, args.reads[0], image, first)
            line = e.at(y.plane(e, args.writes[0], image, first), e.mul_add(i, y.row_bytes))
            # Windows without a tap inside must not put anything into the lanes past the channels.
            left = e.b.sub(e.i64(c), first)
            inside = e.first_lanes(left, block) if c % block else None

            def column(j: Val, _: list[Val]) -> list[Val]:
                total = _window(e, numbers, op, x, source, i, j, combine, neutral(block))
                if args.constants:
                    rows = numbers.load(e.at(args.constants[0], e.mul_add(i, numbers.bytes)))
                    columns = numbers.load(e.at(args.constants[1], e.mul_add(j, numbers.bytes)))
                    total = e.b.fdiv(total, e.spread(e.b.fmul(rows, columns), block))
                if inside is not None:
                    total = e.b.select(inside, total, numbers.splat(0, block))
                numbers.store(total, e.at(line, e.mul_add(j, y.pixel_bytes)))
                return []

            e.loop(0, ow, 1, column)
            return []

        e.loop(args.begin, args.end, 1, item)


def _window(
    e: Emitter, numbers: Numbers, op: Pool2d, x: Image, plane: Val, i: Val, j: Val,
    combine: Callable[[Val, Val], Val], neutral: Val,
) -> Val:  # fmt: skip
    """All taps of one window, combined; those outside the image count as neutral."""
    _, _, ih, iw = x.type.shape

    def row(u: Val, state: list[Val]) -> list[Val]:
        r = e.mul_add(i, op.stride[0], e.mul_add(u, op.dilation[0], -op.pads[0]))
        row_inside = e.b.icmp_unsigned("<", r, e.i64(ih))

        def tap(v: Val, inner: list[Val]) -> list[Val]:
            q = e.mul_add(j, op.stride[1], e.mul_add(v, op.dilation[1], -op.pads[1]))
            inside = e.b.and_(row_inside, e.b.icmp_unsigned("<", q, e.i64(iw)))
            # A tap outside reads pixel 0 and does not use it.
            at = e.b.select(inside, e.mul_add(r, x.row_bytes, e.mul_add(q, x.pixel_bytes)), e.i64(0))
            value = numbers.load(e.at(plane, at), x.block)
            return [combine(inner[0], e.b.select(inside, value, neutral))]

        return e.loop(0, op.kernel[1], 1, tap, state)

    return e.loop(0, op.kernel[0], 1, row, [neutral])[0]


class MaxPoolRows(_PoolRows):
    """Largest value of each window, row-major, of any type of numbers."""

    name: ClassVar[str] = "max_pool2d.rows"
    op_type = MaxPool2d


class AvgPoolRows(_PoolRows):
    """Mean of each window, row-major."""

    name: ClassVar[str] = "avg_pool2d.rows"
    op_type = AvgPool2d


class MaxPoolBlocks(_PoolBlocks):
    """Largest value of each window, channel-blocked."""

    name: ClassVar[str] = "max_pool2d.blocks"
    op_type = MaxPool2d


class AvgPoolBlocks(_PoolBlocks):
    """Mean of each window, channel-blocked."""

    name: ClassVar[str] = "avg_pool2d.blocks"
    op_type = AvgPool2d
