"""Max and average pools over channel-blocked images; one vector is one pixel of one channel block."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

from sqzc.backends.llvm.emit import F32, Emitter, Val
from sqzc.backends.llvm.family import Args, given
from sqzc.backends.llvm.problems import PoolProblem, pool_problem
from sqzc.backends.llvm.schedules.pool import PoolSchedule, choose, inner_columns
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import AvgPool2d, MaxPool2d
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target

# Parts of the rows of an image, at most, and rows of a part, at least.
PARTS = 4
LEAST_ROWS = 4


def _blocked(node: Node, target: Target) -> bool:
    blocks = {node.inputs[0].type.layout.block, node.output.type.layout.block}
    return blocks == {target.vector_lanes} and node.output.type.dtype is DType.F32


class MaxPoolBlocked:
    """Largest value of each window; a tap outside the image reads the nearest pixel inside, which is in the window."""

    name: ClassVar[str] = "max_pool2d.blocked"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        if not isinstance(op, MaxPool2d) or op.dilation != (1, 1) or not _blocked(node, target):
            return None
        if any(pad >= size for pad, size in zip(op.pads, op.kernel * 2, strict=True)):
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        s = given(step, PoolSchedule) or choose(pool_problem(program, step), target)
        return Finished(s.to_fields())

    def items(self, program: Program, step: Step) -> int:
        p = pool_problem(program, step)
        return items_of(p)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        p, s = pool_problem(program, step), PoolSchedule.from_fields(step.schedule)

        def item(index: Val, _: list[Val]) -> list[Val]:
            x, y, i = _row(e, p, args, index)
            rows = [
                e.at(x, e.mul_add(clamp_index(e, tap_index(e, p, i, u, 0), p.ih), 4 * p.x.row))
                for u in range(p.op.kernel[0])
            ]
            emit_max_row(e, p, s.cols, rows, y)
            return []

        e.loop(args.begin, args.end, 1, item)


def row_parts(p: PoolProblem) -> tuple[int, int]:
    """Parts of an image, whose rows are computed of all channels before the next ones, and rows of each.

    A thread's share then is a number of rows, as it is of the convolutions before, and what they have made is still in
    its own cache.
    """
    rows = -(-p.oh // min(PARTS, max(1, p.oh // LEAST_ROWS)))
    return -(-p.oh // rows), rows


def items_of(p: PoolProblem) -> int:
    """Rows of all channel blocks; the last part may have its last row several times."""
    parts, rows = row_parts(p)
    return p.n * parts * p.blocks * rows


def _row(e: Emitter, p: PoolProblem, args: Args, index: Val) -> tuple[Val, Val, Val]:
    """Pointers to the channel block of x and to the output row, and the row's number."""
    parts, rows = row_parts(p)
    image, part, block, i = e.split_many(index, (p.n, parts, p.blocks, rows))
    i = e.mul_add(part, rows, i)
    if parts * rows > p.oh:
        i = e.b.select(e.b.icmp_signed("<", i, e.i64(p.oh)), i, e.i64(p.oh - 1))
    x = e.at(args.reads[0], e.mul_add(image, 4 * p.x.image, e.mul_add(block, 4 * p.x.plane, 4 * p.x.origin)))
    y = e.at(args.writes[0], e.mul_add(image, 4 * p.y.image, e.mul_add(block, 4 * p.y.plane, 4 * p.y.origin)))
    return x, e.at(y, e.mul_add(i, 4 * p.y.row)), i


def tap_index(e: Emitter, p: PoolProblem, position: Val, offset: int, axis: int) -> Val:
    """Input coordinate of a tap of the window at an output position."""
    return e.mul_add(position, p.op.stride[axis], offset * p.op.dilation[axis] - p.op.pads[axis])


def clamp_index(e: Emitter, index: Val, size: int) -> Val:
    """The nearest of 0 .. size - 1."""
    low = e.b.select(e.b.icmp_signed("<", index, e.i64(0)), e.i64(0), index)
    return e.b.select(e.b.icmp_signed(">", low, e.i64(size - 1)), e.i64(size - 1), low)


def emit_max_row(
    e: Emitter, p: PoolProblem, cols: int, rows: list[Val], y: Val, finish: Callable[[Val], Val] = lambda v: v
) -> None:
    """One row of outputs at `y` from pointers to the input rows of its windows; `finish` is applied to each result."""
    first, last = inner_columns(p)
    for j in [*range(first), *range(last, p.ow)]:
        _store_edge(e, p, rows, y, j, finish)
    if last <= first:
        return
    count = min(cols, last - first)

    def tile(t: Val, _: list[Val]) -> list[Val]:
        j = e.clamp_last(t, count, last - first)
        _store_tile(e, p, rows, y, e.b.add(j, e.i64(first)), count, finish)
        return []

    e.loop(0, -(-(last - first) // count), 1, tile)


def _store_edge(e: Emitter, p: PoolProblem, rows: list[Val], y: Val, j: int, finish: Callable[[Val], Val]) -> None:
    columns = {min(max(j * p.op.stride[1] + v - p.op.pads[1], 0), p.iw - 1) for v in range(p.op.kernel[1])}
    taps = [e.load(row, 4 * column * p.x.pixel) for column in sorted(columns) for row in rows]
    e.store(finish(largest(e, taps)), y, 4 * j * p.y.pixel)


def _store_tile(
    e: Emitter, p: PoolProblem, rows: list[Val], y: Val, j: Val, count: int, finish: Callable[[Val], Val]
) -> None:
    """`count` neighbouring outputs: maxima of whole columns first, then across columns."""
    shift = e.mul_add(tap_index(e, p, j, 0, 1), 4 * p.x.pixel)
    moved = [e.at(row, shift) for row in rows]
    stride, kernel = p.op.stride[1], p.op.kernel[1]
    columns: dict[int, Val] = {}
    out = e.at(y, e.mul_add(j, 4 * p.y.pixel))
    for t in range(count):
        window = range(t * stride, t * stride + kernel)
        for number in window:
            if number not in columns:
                columns[number] = largest(e, [e.load(row, 4 * number * p.x.pixel) for row in moved])
        e.store(finish(largest(e, [columns[number] for number in window])), out, 4 * t * p.y.pixel)


def largest(e: Emitter, values: list[Val]) -> Val:
    """The largest, NaN if any is.

    MAXPS gives its second operand when one is NaN, so only a NaN in the first one gets lost. One comparison finds that
    for two values, and merges into the mask of the next maximum.
    """
    best, *rest = values
    while len(rest) > 1:
        ordered = e.b.fcmp_ordered("ord", best, rest[0])
        best = e.b.select(ordered, e.maximum(e.maximum(best, rest[0]), rest[1]), e.splat(math.nan))
        rest = rest[2:]
    for value in rest:
        best = e.b.select(e.b.fcmp_ordered("ord", best, best), e.maximum(best, value), best)
    return best


class AvgPoolBlocked:
    """Mean of each window over the taps inside the image, or over all taps when padding counts."""

    name: ClassVar[str] = "avg_pool2d.blocked"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, AvgPool2d) or not _blocked(node, target):
            return None
        if node.op.dilation != (1, 1) or any(p >= k for p, k in zip(node.op.pads, node.op.kernel * 2, strict=True)):
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished(PoolSchedule(1).to_fields())

    def items(self, program: Program, step: Step) -> int:
        p = pool_problem(program, step)
        return items_of(p)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        p = pool_problem(program, step)

        def item(index: Val, _: list[Val]) -> list[Val]:
            x, y, i = _row(e, p, args, index)

            def column(j: Val, _: list[Val]) -> list[Val]:
                e.store(_mean(e, p, x, i, j), e.at(y, e.mul_add(j, 4 * p.y.pixel)))
                return []

            e.loop(0, p.ow, 1, column)
            return []

        e.loop(args.begin, args.end, 1, item)


def _range(e: Emitter, p: PoolProblem, position: Val, axis: int) -> tuple[Val, Val, Val]:
    """First and past-the-last input coordinate of a window, clipped to the image; and how many taps are averaged."""
    size, kernel = (p.ih, p.iw)[axis], p.op.kernel[axis]
    start = tap_index(e, p, position, 0, axis)
    stop = e.b.add(start, e.i64(kernel))
    low = e.b.select(e.b.icmp_signed("<", start, e.i64(0)), e.i64(0), start)
    high = e.b.select(e.b.icmp_signed(">", stop, e.i64(size)), e.i64(size), stop)
    assert isinstance(p.op, AvgPool2d)
    if not p.op.count_include_pad:
        return low, high, e.b.sub(high, low)
    if p.op.count_overhang:
        return low, high, e.i64(kernel)
    edge = e.i64(size + p.op.pads[axis + 2])
    return low, high, e.b.sub(e.b.select(e.b.icmp_signed(">", stop, edge), edge, stop), start)


CHAINS = 4


def _mean(e: Emitter, p: PoolProblem, x: Val, i: Val, j: Val) -> Val:
    top, bottom, count_h = _range(e, p, i, 0)
    left, right, count_w = _range(e, p, j, 1)
    # Four sums at once: one alone would wait for the latency of every addition.
    whole = e.b.add(left, e.b.mul(e.b.sdiv(e.b.sub(right, left), e.i64(CHAINS)), e.i64(CHAINS)))

    def row(u: Val, sums: list[Val]) -> list[Val]:
        line = e.at(x, e.mul_add(u, 4 * p.x.row))

        def four(v: Val, inner: list[Val]) -> list[Val]:
            at = e.at(line, e.mul_add(v, 4 * p.x.pixel))
            return [e.b.fadd(inner[k], e.load(at, 4 * k * p.x.pixel)) for k in range(CHAINS)]

        def one(v: Val, inner: list[Val]) -> list[Val]:
            return [e.b.fadd(inner[0], e.load(e.at(line, e.mul_add(v, 4 * p.x.pixel)))), *inner[1:]]

        return e.loop(whole, right, 1, one, e.loop(left, whole, CHAINS, four, sums))

    sums = e.loop(top, bottom, 1, row, [e.splat(0.0)] * CHAINS)
    total = e.b.fadd(e.b.fadd(sums[0], sums[1]), e.b.fadd(sums[2], sums[3]))
    count = e.b.sitofp(e.b.mul(count_h, count_w), F32)
    return e.b.fdiv(total, e.spread(count))
