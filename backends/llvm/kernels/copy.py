"""Moving images between layouts and into bordered buffers, and clearing borders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.shape import Relayout
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Geometry, Program, Step
from sqzc.target import Target


class CopyImage:
    """y = x for images of 4-byte elements in any two layouts and borders."""

    name: ClassVar[str] = "copy.image"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, Relayout) or node.output.type.dtype.item_bytes != 4:
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished()

    def items(self, program: Program, step: Step) -> int:
        plan = _copy_of(program, step)
        return plan.n * plan.groups * plan.lines

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        plan = _copy_of(program, step)
        code = _Copy(e, plan, args)
        e.loop(args.begin, args.end, 1, code.item)


# Pixels of one work item where rows follow each other without a gap.
SPAN = 1024


@dataclass(frozen=True)
class _Plan:
    """A copy as `lines` runs of `span` pixels in each of `groups` channel blocks.

    Where both images are gapless a line is a piece of the whole plane, else a row; the last piece is moved back.
    """

    n: int
    c: int
    x_block: int
    y_block: int
    x: Geometry
    y: Geometry
    length: int
    span: int
    flat: bool

    @property
    def block(self) -> int:
        """Channels that are moved together: those of the larger block."""
        return max(self.x_block, self.y_block)

    @property
    def groups(self) -> int:
        """Channel blocks."""
        return -(-self.c // self.block)

    @property
    def lines(self) -> int:
        """Runs of pixels in a channel block."""
        return -(-self.length // self.span) if self.flat else self.length


def _copy_of(program: Program, step: Step) -> _Plan:
    source, target = program.buffers[step.reads[0]], program.buffers[step.writes[0]]
    x, y = program.geometry(source.name), program.geometry(target.name)
    n, c, h, w = target.type.shape
    flat = all(g.row == w * g.pixel and g.plane == h * g.row for g in (x, y))
    length, span = (h * w, min(h * w, SPAN)) if flat else (h, w)
    return _Plan(n, c, source.type.layout.block or 1, target.type.layout.block or 1, x, y, length, span, flat)


class _Copy:
    def __init__(self, e: Emitter, plan: _Plan, args: Args) -> None:
        self.e, self.p, self.args = e, plan, args

    def item(self, index: Val, _: list[Val]) -> list[Val]:
        """One run of pixels of one channel block."""
        e, p = self.e, self.p
        image, group, line = e.split_many(index, (p.n, p.groups, p.lines))
        x = self.start(self.args.reads[0], p.x, p.x_block, image, group, line)
        y = self.start(self.args.writes[0], p.y, p.y_block, image, group, line)
        # Blocks of other sizes than the vector's do not transpose in registers.
        swaps = p.span >= e.lanes and {p.x_block, p.y_block} == {1, e.lanes}
        if p.x_block == p.y_block and p.span * p.block >= e.lanes:
            _copy_row(e, x, y, p.span * p.block)
        elif p.c % p.block == 0 or p.groups == 1:
            self.channels(x, y, p.c - (p.groups - 1) * p.block, swaps)
        else:
            last = e.b.icmp_signed("==", group, e.i64(p.groups - 1))
            with e.b.if_else(last) as (partial, whole):
                with partial:
                    self.channels(x, y, p.c % p.block, swaps)
                with whole:
                    self.channels(x, y, p.block, swaps)
        return []

    def start(self, pointer: Val, g: Geometry, block: int, image: Val, group: Val, line: Val) -> Val:
        """The first pixel of a run, in the first channel of the block."""
        e, p = self.e, self.p
        planes = e.mul_add(group, 4 * g.plane * (p.block // block))
        if p.flat:
            run = e.mul_add(e.clamp_last(line, p.span, p.length), 4 * g.pixel)
        else:
            run = e.mul_add(line, 4 * g.row)
        return e.at(pointer, e.b.add(e.mul_add(image, 4 * g.image, 4 * g.origin), e.b.add(planes, run)))

    def channels(self, x: Val, y: Val, count: int, swaps: bool) -> None:
        """`count` channels of a block; lanes past them become zero."""
        if swaps and self.p.y_block > 1:
            self.into_block(x, y, count)
        elif swaps:
            self.out_of_block(x, y, count)
        else:
            self.one_by_one(x, y, count)

    def into_block(self, x: Val, y: Val, count: int) -> None:
        """Row-major to blocked: squares of lanes x lanes are transposed in registers."""
        e, p = self.e, self.p

        def square(number: Val, _: list[Val]) -> list[Val]:
            at = e.clamp_last(number, e.lanes, p.span)
            source, to = e.at(x, e.mul_add(at, 4)), e.at(y, e.mul_add(at, 4 * p.y.pixel))
            rows = [e.load(source, 4 * k * p.x.plane) if k < count else e.splat(0.0) for k in range(e.lanes)]
            for j, pixel in enumerate(transpose(e, rows)):
                e.store(pixel, to, 4 * j * p.y.pixel)
            return []

        e.loop(0, -(-p.span // e.lanes), 1, square)

    def out_of_block(self, x: Val, y: Val, count: int) -> None:
        """Blocked to row-major, the same way."""
        e, p = self.e, self.p

        def square(number: Val, _: list[Val]) -> list[Val]:
            at = e.clamp_last(number, e.lanes, p.span)
            source, to = e.at(x, e.mul_add(at, 4 * p.x.pixel)), e.at(y, e.mul_add(at, 4))
            rows = transpose(e, [e.load(source, 4 * j * p.x.pixel) for j in range(e.lanes)])
            for k in range(count):
                e.store(rows[k], to, 4 * k * p.y.plane)
            return []

        e.loop(0, -(-p.span // e.lanes), 1, square)

    def one_by_one(self, x: Val, y: Val, count: int) -> None:
        """Any blocks: element after element."""
        e, p = self.e, self.p

        def offset(g: Geometry, block: int, k: int) -> int:
            return 4 * (k // block * g.plane + k % block)

        def pixel(j: Val, _: list[Val]) -> list[Val]:
            source, to = e.at(x, e.mul_add(j, 4 * p.x.pixel)), e.at(y, e.mul_add(j, 4 * p.y.pixel))
            for k in range(p.block if p.y_block > 1 else count):
                value = e.load(source, offset(p.x, p.x_block, k), 1) if k < count else e.splat(0.0, 1)
                e.store(value, to, offset(p.y, p.y_block, k))
            return []

        e.loop(0, p.span, 1, pixel)


def transpose(e: Emitter, rows: list[Val]) -> list[Val]:
    """Vector j of lane i from vector i of lane j, for as many vectors as they have lanes.

    Zipping vector i with vector i + n/2 moves one bit of the vector's number into the lane's; after log2(n) rounds they
    have changed places.
    """
    count = len(rows)
    half = count // 2
    low = [lane for i in range(half) for lane in (i, i + count)]
    high = [lane + half for lane in low]
    size = 1
    while size < count:
        rows = [e.shuffle(rows[i], rows[i + half], picks) for i in range(half) for picks in (low, high)]
        size *= 2
    return rows


def _copy_row(e: Emitter, source: Val, to: Val, count: int) -> None:
    """`count` consecutive floats, at least one vector of them."""

    def chunk(index: Val, _: list[Val]) -> list[Val]:
        at = e.b.mul(e.clamp_last(index, e.lanes, count), e.i64(4))
        e.store(e.load(e.at(source, at)), e.at(to, at))
        return []

    e.loop(0, -(-count // e.lanes), 1, chunk)


class ClearBorder:
    """Zeros into the border of an image; the inside is left alone."""

    name: ClassVar[str] = "border.clear"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        return None

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished()

    def items(self, program: Program, step: Step) -> int:
        y = program.buffers[step.writes[0]].type
        return y.shape[0] * -(-y.shape[1] // (y.layout.block or 1))

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        buffer = program.buffers[step.writes[0]]
        y = program.geometry(buffer.name)
        top, left, bottom, right = buffer.border
        _, _, h, w = buffer.type.shape
        width = y.row

        def item(plane: Val, _: list[Val]) -> list[Val]:
            # Images follow each other without a gap, so planes are numbered through.
            base = e.at(args.writes[0], e.mul_add(plane, 4 * y.plane))
            _zero(e, base, top * width + left * y.pixel)

            def row(i: Val, _: list[Val]) -> list[Val]:
                at = e.at(base, e.mul_add(i, 4 * width, 4 * (top * width + (left + w) * y.pixel)))
                _zero(e, at, (right + left) * y.pixel)
                return []

            e.loop(0, h - 1, 1, row)
            end = (top + h) * width - right * y.pixel
            _zero(e, e.at(base, 4 * end), bottom * width + right * y.pixel)
            return []

        e.loop(args.begin, args.end, 1, item)


def _zero(e: Emitter, pointer: Val, count: int) -> None:
    if count >= e.lanes:
        zero = e.splat(0.0)

        def chunk(index: Val, _: list[Val]) -> list[Val]:
            e.store(zero, e.at(pointer, e.b.mul(e.clamp_last(index, e.lanes, count), e.i64(4))))
            return []

        e.loop(0, -(-count // e.lanes), 1, chunk)
        return
    for index in range(count):
        e.store(e.splat(0.0, 1), pointer, 4 * index)
