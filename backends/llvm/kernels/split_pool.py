"""Convolutions in parts of bfloat16 with the maximum pool that follows them.

An image is taken in strips as wide as a block, from top to bottom, so that the rows which windows of the pool want stay
in the first-level cache. A row of the pool is made as soon as all rows of its windows are there, channel block by
channel block between the products of later rows. Where windows overlap, so do strips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqzc.backends.llvm.emit import I64, Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.kernels.pool import clamp_index, largest, tap_index
from sqzc.backends.llvm.kernels.split_code import Block, Rows, Task, Walk
from sqzc.backends.llvm.kernels.split_store import StoreCode
from sqzc.backends.llvm.problems import ConvProblem, PoolProblem
from sqzc.backends.llvm.schedules.conv_split import SplitSchedule, scratch_layout
from sqzc.backends.llvm.schedules.tile_unit import ROW_BYTES
from sqzc.backends.llvm.vector_math import keeps_order
from sqzc.ir.ops.activation import NONE


def outputs_of(pool: PoolProblem, s: SplitSchedule) -> int:
    """Outputs of the pool beside each other whose windows a strip has."""
    return min((s.px_tiles * s.rows - int(pool.op.kernel[1])) // int(pool.op.stride[1]) + 1, pool.ow)


def strips_of(pool: PoolProblem, s: SplitSchedule) -> int:
    """Strips of an image; the last one is moved back to end with it."""
    return -(-pool.ow // outputs_of(pool, s))


def ring_rows(pool: PoolProblem) -> int:
    """Rows that are wanted at a time: those of a window, of the next one, and the one that is stored meanwhile."""
    return int(pool.op.kernel[0]) + int(pool.op.stride[0]) + 1


def ring_bytes(pool: PoolProblem, s: SplitSchedule) -> int:
    """The rows of a strip, [row][channel block][pixel], and two counts."""
    return ring_rows(pool) * s.oc_tiles * s.px_tiles * s.rows * ROW_BYTES + ROW_BYTES


class PoolCode(StoreCode):
    """max_pool2d(conv2d(x)); an item is a row of the pool in a strip of a group of channel blocks."""

    def __init__(self, e: Emitter, p: ConvProblem, s: SplitSchedule, args: Args, pool: PoolProblem) -> None:
        super().__init__(e, p, s, args)
        self.pool = pool
        self.counts = e.at(args.scratch, scratch_layout(p, s).total)
        self.ring = e.at(self.counts, ROW_BYTES)
        self.slots, self.line = ring_rows(pool), s.oc_tiles * self.pixels * ROW_BYTES
        self.walks, self.planes = [Walk(self.line, ROW_BYTES, True)], [self.pixels * ROW_BYTES]
        self.outputs, self.strips = outputs_of(pool, s), strips_of(pool, s)
        self.x = replace(self.x, steady=True)
        reach = (pool.ow - 1) * int(pool.op.stride[1]) + int(pool.op.kernel[1])
        # Whether no window hangs over the left or right edge.
        self.inside = pool.op.pads[1] == 0 and reach <= p.ow
        # The larger of two activations is the activation of the larger; it is cheaper behind the pool.
        late = keeps_order(p.act)
        self.act, self.late_act = (NONE, p.act) if late else (p.act, NONE)

    def emit(self) -> None:
        e, height = self.e, self.pool.oh
        self.unit.configure(self.args.constants[2])
        first = e.b.udiv(self.args.begin, e.i64(height))
        last = e.b.udiv(e.b.add(self.args.end, e.i64(height - 1)), e.i64(height))
        e.loop(first, last, 1, self.strip)
        self.unit.release()

    def strip(self, number: Val, _: list[Val]) -> list[Val]:
        """The rows of the range that one strip has."""
        e, p, s, pool = self.e, self.p, self.s, self.pool
        self.image, group, strip = e.split_many(number, (p.n, self.groups, self.strips))
        self.oc = e.clamp_last(group, s.oc_tiles, p.oc_blocks)
        self.output = e.clamp_last(strip, self.outputs, pool.ow)
        left = tap_index(e, pool, self.output, 0, 1)
        self.left = clamp_index(e, left, p.ow - self.pixels + 1)
        before, height = e.mul_add(number, pool.oh), e.i64(pool.oh)
        first, self.stop = e.b.sub(self.args.begin, before), e.b.sub(self.args.end, before)
        first = e.b.select(e.b.icmp_signed(">", first, e.i64(0)), first, e.i64(0))
        self.stop = e.b.select(e.b.icmp_signed("<", self.stop, height), self.stop, height)
        self.begin = clamp_index(e, tap_index(e, pool, first, 0, 0), p.oh)
        last = tap_index(e, pool, e.b.sub(self.stop, e.i64(1)), pool.op.kernel[0] - 1, 0)
        self.end = e.b.add(clamp_index(e, last, p.oh), e.i64(1))
        e.store(e.mul_add(first, s.oc_tiles), self.counts, 0, align=8)
        e.store(e.i64(0), self.counts, 8, align=8)
        self.enter()
        e.loop(self.begin, self.end, 1, self.visit)
        self.leave()
        self.pieces_until(e.mul_add(self.stop, s.oc_tiles))
        return []

    # -- blocks, which are rows of the strip --------------------------------------------------------------------------

    def at(self, number: Val) -> Block:
        """A row of the strip at hand."""
        return Block(self.image, self.oc, self.left, number, number)

    def source(self, block: Block, turn: Val) -> Rows:
        """The windows of a row."""
        e, walk = self.e, self.x
        start = e.mul_add(block.number, walk.row, e.mul_add(block.first, walk.step))
        return Rows(walk, e.at(self.window(block.image), start), self.ring)

    def results(self, k: int, block: Block) -> Rows:
        """The row's place in the ring."""
        e = self.e
        slot = e.b.urem(block.number, e.i64(self.slots))
        return Rows(self.walks[k], e.at(self.ring, e.mul_add(slot, self.line)), self.ring)

    def visit(self, index: Val, _: list[Val]) -> list[Val]:
        """One row; then it is known what rows of the pool those before it are enough for."""
        e, op = self.e, self.pool.op
        super().visit(index, [])
        kernel, stride, above = op.kernel[0], op.stride[0], op.pads[0]
        ready = self.rows_below(e.b.add(index, e.i64(above + stride - kernel)))
        e.store(e.mul_add(ready, self.s.oc_tiles), self.counts, 8, align=8)
        # What the next row would overwrite has to be done with.
        gone = self.rows_below(e.b.add(index, e.i64(above + stride - self.slots)))
        gone = e.b.select(e.b.icmp_signed("<", gone, ready), gone, ready)
        self.pieces_until(e.mul_add(gone, self.s.oc_tiles))
        return []

    def rows_below(self, position: Val) -> Val:
        """position // stride, within 0 and the rows of the range."""
        e = self.e
        rows = e.b.sdiv(position, e.i64(self.pool.op.stride[0]))
        rows = e.b.select(e.b.icmp_signed("<", position, e.i64(0)), e.i64(0), rows)
        return e.b.select(e.b.icmp_signed("<", rows, self.stop), rows, self.stop)

    # -- pieces: rows of the pool of one channel block ----------------------------------------------------------------

    def background(self) -> Callable[[Val | int], list[Task]]:
        """Pieces of the pool beside the results, as many as there are for a row."""
        finish = super().background()
        pieces = -(-self.s.oc_tiles // (int(self.pool.op.stride[0]) * self.chunks))

        def tasks(chunk: Val | int) -> list[Task]:
            mixed = finish(chunk)
            for k in reversed(range(pieces)):
                mixed.insert(k * len(mixed) // pieces, self.next_piece)
            return mixed

        return tasks

    def next_piece(self) -> None:
        """The next piece, if its rows are there."""
        e = self.e
        number, ready = (e.load(self.counts, at, lanes=1, element=I64, align=8) for at in (0, 8))
        with e.when(e.b.icmp_signed("<", number, ready)):
            self.piece(number)
            e.store(e.b.add(number, e.i64(1)), self.counts, 0, align=8)

    def pieces_until(self, stop: Val) -> None:
        """All pieces before `stop` that are left."""
        e = self.e
        start = e.load(self.counts, 0, lanes=1, element=I64, align=8)

        def piece(number: Val, _: list[Val]) -> list[Val]:
            self.piece(number)
            return []

        e.loop(start, stop, 1, piece)
        e.store(e.b.select(e.b.icmp_signed("<", start, stop), stop, start), self.counts, 0, align=8)

    def piece(self, number: Val) -> None:
        """A row of outputs of the strip: maxima of whole columns first, then across columns."""
        e, p, pool = self.e, self.p, self.pool
        i, k = e.split(number, self.s.oc_tiles)
        lines = []
        for u in range(pool.op.kernel[0]):
            row = e.b.urem(clamp_index(e, tap_index(e, pool, i, u, 0), p.oh), e.i64(self.slots))
            lines.append(e.at(self.ring, e.mul_add(row, self.line, e.mul_add(k, self.planes[0]))))
        oc = e.b.add(self.oc, k)
        place = e.mul_add(self.image, 4 * pool.y.image, e.mul_add(oc, 4 * pool.y.plane, 4 * pool.y.origin))
        place = e.mul_add(i, 4 * pool.y.row, e.mul_add(self.output, 4 * pool.y.pixel, place))
        y = e.at(self.args.writes[0], place)
        left = tap_index(e, pool, self.output, 0, 1)
        shift = e.mul_add(e.b.sub(left, self.left), ROW_BYTES)
        inner = [e.at(line, shift) for line in lines]
        columns: dict[int, Val] = {}

        def column(number: int) -> Val:
            if number not in columns:
                taps = [e.load(line, number * ROW_BYTES) for line in inner] if self.inside else outer(number)
                columns[number] = largest(e, taps)
            return columns[number]

        def outer(number: int) -> list[Val]:
            # A tap beyond an edge is the pixel at the edge, which the window has anyhow.
            place = e.b.sub(clamp_index(e, e.b.add(left, e.i64(number)), p.ow), self.left)
            return [e.load(e.at(line, e.mul_add(place, ROW_BYTES))) for line in lines]

        for t in range(self.outputs):
            first = t * pool.op.stride[1]
            value = largest(e, [column(first + v) for v in range(pool.op.kernel[1])])
            e.store(finish_vector(e, value, self.late_act, p.oc, oc), y, 4 * t * pool.y.pixel)
            e.fence()
