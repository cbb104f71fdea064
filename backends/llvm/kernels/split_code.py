"""The code of convolutions in parts of bfloat16: products of tiles, and between them the work of vector units.

A block is some tiles of pixels x a group of channel blocks, whose sums stay in tile registers while all chunks of input
channels and taps pass by. A product takes many cycles and nearly none of a core's issue slots, so other work is put
between products: the next chunk's data is split into parts, and the sums of the block before are finished and stored.
Neither is far enough away in plain order for a core to find it by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir

from sqzc.backends.llvm.emit import I1, I32, I64, PTR, Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.kernels.tile_unit import TileUnit, parts_of, splat_bits, store_pair, store_pairs
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_split import (
    OFFSETS_BYTES,
    SLOTS,
    Piece,
    SplitSchedule,
    blocks_of,
    chunks_of,
    far_weights,
    groups_of,
    lone,
    part_bytes,
    pieces_of,
    scratch_layout,
    segments_of,
    spare_tiles,
    terms_of,
)
from sqzc.backends.llvm.schedules.tile_unit import PARTS, ROW_BYTES, TILE_ROWS, UNIT, WEIGHT_TILE, Term
from sqzc.plan.program import Geometry

Task = Callable[[], None]
Reading = Callable[[Any], list[Val]]


@dataclass(frozen=True)
class Walk:
    """The pixels of a block in one image, `step` bytes apart in rows that are `row` apart; `steady` where rows follow
    each other without a gap.
    """

    row: int
    step: int
    steady: bool

    @classmethod
    def over(cls, g: Geometry, p: ConvProblem, stride: tuple[int, int]) -> Walk:
        """Output pixels, or the windows' first pixels for the stride of a convolution."""
        row, step = 4 * stride[0] * g.row, 4 * stride[1] * g.pixel
        return cls(row, step, p.oh == 1 or row == p.ow * step)


@dataclass(frozen=True)
class Block:
    """Where a block is: image, first channel block of its group, first pixel, and number among the blocks of its image
    and of its segment.
    """

    image: Val
    oc: Val
    first: Val
    place: Val
    number: Val


@dataclass(frozen=True)
class Rows:
    """The pixels of a block in one image: where they are counted from and, where rows are uneven, their offsets."""

    walk: Walk
    origin: Val
    table: Val

    def offset(self, e: Emitter, number: int | Val) -> int | Val:
        """Bytes from the origin to a pixel."""
        if self.walk.steady:
            return number * self.walk.step if isinstance(number, int) else e.mul_add(number, self.walk.step)
        at = e.at(self.table, 4 * number if isinstance(number, int) else e.mul_add(number, 4))
        return e.b.zext(e.load(at, lanes=1, element=I32), I64)


@dataclass(frozen=True)
class Work:
    """Tasks of several kinds to do between the products of a chunk, and how many tiles of data those leave out."""

    tasks: tuple[list[Task], ...]
    spare: int


def split_weights(e: Emitter, p: ConvProblem, blocks: Val, weights: Val, target: Val) -> None:
    """The parts of the weights of so many channel blocks: [block][chunk][part] tiles."""
    chunks = chunks_of(p)
    pairs = chunks - lone(p)

    def places(index: Val, count: int, start: int) -> tuple[Val, Val]:
        block, number, lane = e.split_many(index, (1, count, TILE_ROWS))
        tile = e.mul_add(block, chunks, e.b.add(number, e.i64(start)))
        source = e.at(weights, e.mul_add(e.mul_add(tile, TILE_ROWS, lane), 2 * ROW_BYTES))
        return source, e.at(target, e.mul_add(tile, PARTS * WEIGHT_TILE, e.mul_add(lane, ROW_BYTES)))

    def pair(index: Val, _: list[Val]) -> list[Val]:
        source, out = places(index, pairs, 0)
        # To the nearest, so that what is left out of products has either sign.
        store_pairs(e, e.load(source), e.load(source, ROW_BYTES), out, WEIGHT_TILE, nearest=True)
        return []

    def single(index: Val, _: list[Val]) -> list[Val]:
        source, out = places(index, 1, pairs)
        w = parts_of(e, e.load(source), nearest=True)
        for k, (low, high) in enumerate(((0, 0), (1, 1), (2, 0))):
            store_pair(e, w[low], w[high], out, k * WEIGHT_TILE)
        return []

    if pairs:
        e.loop(0, e.b.mul(blocks, e.i64(pairs * TILE_ROWS)), 1, pair)
    if lone(p):
        e.loop(0, e.b.mul(blocks, e.i64(TILE_ROWS)), 1, single)


def gather(e: Emitter, pixel: Val, pieces: Sequence[Piece]) -> Val:
    """A unit of a window of a row-major image, put together from runs of neighbours; zeros where there are none."""
    value = None
    for piece in pieces:
        # No more is read than there is; masks differ in the length of a run only, and small loads cross few lines.
        width = next(width for width in (4, 8, 16) if piece.count <= width)
        mask = ir.Constant(ir.VectorType(I1, width), [ir.Constant(I1, int(k < piece.count)) for k in range(width)])
        run = e.load_masked(e.at(pixel, piece.offset), mask, e.splat(0.0, width))
        run = e.shuffle(run, e.splat(0.0, width), [min(k, width) for k in range(UNIT)])
        value = run if value is None else put_after(e, value, run, piece.lane)
    assert value is not None
    return value


def put_after(e: Emitter, value: Val, run: Val, lane: int) -> Val:
    """The first lanes of one vector, then another; a shuffle operator might become masks, which few registers hold."""
    numbers = ir.VectorType(I32, UNIT)
    picks = [ir.Constant(I32, k if k < lane else UNIT + k - lane) for k in range(UNIT)]
    both = e.intrinsic("llvm.x86.avx512.vpermi2var.ps.512", value.type, [value.type, numbers, value.type])
    return e.b.call(both, [value, ir.Constant(numbers, picks), run])


class SplitCode:
    """What storing and averaging share: the walk over blocks, products, and the splitting of data."""

    whole = False

    def __init__(self, e: Emitter, p: ConvProblem, s: SplitSchedule, args: Args) -> None:
        self.e, self.p, self.s, self.args = e, p, s, args
        self.unit = TileUnit(e, s)
        self.layout = scratch_layout(p, s, whole=self.whole)
        self.chunks, self.blocks, self.groups = chunks_of(p), blocks_of(p, s), groups_of(p, s)
        self.pixels = s.px_tiles * s.rows
        self.group_bytes = self.chunks * PARTS * WEIGHT_TILE
        self.part = part_bytes(s)
        self.x = Walk.over(p.x, p, (p.sh, p.sw))
        self.spare = spare_tiles(p, s)
        # Blocks of an item.
        self.run = self.blocks if self.whole else 1

    def emit(self) -> None:
        e = self.e
        self.unit.configure(self.args.constants[2])
        with e.when(e.b.icmp_signed("<", self.args.begin, self.args.end)):
            self.begin, self.end = (e.mul_add(edge, self.run) for edge in (self.args.begin, self.args.end))
            self.enter()
            e.loop(self.begin, self.end, 1, self.visit)
            self.leave()
        self.unit.release()

    def enter(self) -> None:
        """Before the first block."""

    def leave(self) -> None:
        """After the last one."""

    def background(self) -> Callable[[Val | int], list[Task]]:
        """What else there is to do in a chunk, by its number, in a block that begins."""
        return lambda chunk: []

    def keep(self, block: Block, spare: int) -> None:
        """The sums of a block are in tile registers, but for those of its first `spare` tiles."""
        raise NotImplementedError

    # -- places -------------------------------------------------------------------------------------------------------

    def at(self, number: Val) -> Block:
        """A block by its number in the order of work; the last one of an image is moved back to end with it."""
        e, p, s = self.e, self.p, self.s
        sizes = (p.n, segments_of(p, s), self.groups, s.span)
        image, segment, group, number = e.split_many(number, sizes)
        place = e.mul_add(segment, s.span, number)
        # The last segment may have more blocks than there are.
        first, last = e.mul_add(place, self.pixels), e.i64(p.oh * p.ow - self.pixels)
        first = e.b.select(e.b.icmp_signed("<", first, last), first, last)
        return Block(image, e.clamp_last(group, s.oc_tiles, p.oc_blocks), first, place, number)

    def rows(self, walk: Walk, image: Val, first: Val, table: int, turn: Val | None = None) -> Rows:
        """The pixels of a block of an image; `table` and `turn` say where their offsets are."""
        e = self.e
        at = self.layout.offsets + table * OFFSETS_BYTES
        where = e.at(self.args.scratch, at if turn is None else e.mul_add(turn, OFFSETS_BYTES, at))
        return Rows(walk, e.at(image, e.mul_add(first, walk.step)) if walk.steady else image, where)

    def note(self, rows: Rows, first: Val) -> None:
        """Writes the offsets of the pixels from `first`, where rows are uneven."""
        e, walk = self.e, rows.walk
        if walk.steady:
            return
        start = e.spread(e.b.trunc(first, I32), TILE_ROWS)
        for tile in range(self.s.px_tiles):
            steps = [ir.Constant(I32, tile * self.s.rows + k) for k in range(TILE_ROWS)]
            numbers = e.b.add(start, ir.Constant(ir.VectorType(I32, TILE_ROWS), steps))
            h = e.b.udiv(numbers, splat_bits(e, self.p.ow))
            # h * row + w * step, where w = number - h * ow
            lines = e.b.mul(h, splat_bits(e, walk.row - self.p.ow * walk.step))
            offsets = e.b.add(lines, e.b.mul(numbers, splat_bits(e, walk.step)))
            e.store(offsets, rows.table, 4 * tile * self.s.rows)

    def source(self, block: Block, turn: Val) -> Rows:
        """The windows of a block, tap (0, 0) of channel block 0."""
        return self.rows(self.x, self.window(block.image), block.first, 0, self.e.b.and_(turn, self.e.i64(1)))

    def window(self, image: Val) -> Val:
        """The first pixel of an image's first window, in the border if there is padding."""
        e, p = self.e, self.p
        top, left, _, _ = p.pads
        start = p.x.origin - top * p.x.row - left * p.x.pixel
        return e.at(self.args.reads[0], e.mul_add(image, 4 * p.x.image, 4 * start))

    def slot(self, index: Val, chunk: Val | int) -> Val:
        """The parts of a chunk of a block; those past a block's last are the next one's first."""
        e = self.e
        turn = e.b.urem(e.mul_add(index, self.chunks, e.i64(chunk)), e.i64(SLOTS))
        return e.at(self.args.scratch, e.mul_add(turn, PARTS * self.part))

    # -- blocks -------------------------------------------------------------------------------------------------------

    def visit(self, index: Val, _: list[Val]) -> list[Val]:
        """One block."""
        e = self.e
        block = self.at(index)
        starting = e.b.icmp_signed("==", index, self.begin)
        entering = e.b.or_(starting, e.b.icmp_signed("==", block.number, e.i64(0)))
        with e.when(starting):
            self.open(block, index)
        following, last = e.b.add(index, e.i64(1)), e.b.sub(self.end, e.i64(1))
        ahead = self.at(e.b.select(e.b.icmp_signed("<", following, last), following, last))
        weights = self.weights(block.oc, entering)
        if not self.spare:
            self.compute(block, index, weights, ahead, 0)
            return []
        short = e.b.icmp_signed(">=", block.place, e.i64(self.blocks - 1))
        with e.when(e.b.not_(short)):
            self.compute(block, index, weights, ahead, 0)
        with e.when(short):
            self.compute(block, index, weights, ahead, self.spare)
        return []

    def compute(self, block: Block, index: Val, weights: Val, ahead: Block, spare: int) -> None:
        """A block without its first `spare` tiles, which the one before has."""
        self.products(block, index, weights, ahead, spare)
        self.keep(block, spare)

    def open(self, block: Block, index: Val) -> None:
        """Splits the first chunk, for which there are no products before."""
        e = self.e
        rows = self.source(block, index)
        self.note(rows, block.first)
        read, to = self.reading(rows, 0, alone=self.alone(0)), self.slot(index, 0)

        def row(number: Val, _: list[Val]) -> list[Val]:
            self.split_row(rows, read, to, number)
            return []

        e.loop(0, self.pixels, 1, row)

    def weights(self, oc: Val, entering: Val) -> Val:
        """The parts of the weights of a group: prepared ones, else made now in scratch."""
        e, args = self.e, self.args
        made = e.at(args.scratch, self.layout.weights)
        missing = e.b.icmp_unsigned("==", args.prepared, ir.Constant(PTR, None))
        with e.when(e.b.and_(missing, entering)):
            raw = e.at(args.constants[0], e.mul_add(oc, self.chunks * 2 * WEIGHT_TILE))
            split_weights(e, self.p, e.i64(self.s.oc_tiles), raw, made)
        return e.b.select(missing, made, e.at(args.prepared, e.mul_add(oc, self.group_bytes)))

    # -- chunks -------------------------------------------------------------------------------------------------------

    def alone(self, chunk: int) -> bool:
        """Whether a chunk has one unit only."""
        return lone(self.p) and chunk % self.chunks == self.chunks - 1

    def stretches(self, spare: int) -> Iterator[tuple[int, int]]:
        """Chunks start .. stop - 1 that run the same code: that are alike, as are those behind them."""
        if not self.p.x_block:
            yield from ((c, c + 1) for c in range(self.chunks))
            return
        kinds = [(self.alone(c), self.alone(c + 1), spare and c + 1 == self.chunks) for c in range(self.chunks)]
        start = 0
        for c in range(1, self.chunks + 1):
            if c == self.chunks or kinds[c] != kinds[start]:
                yield start, c
                start = c

    def products(self, block: Block, index: Val, weights: Val, ahead: Block, spare: int) -> None:
        """All chunks of a block; each splits the data of the next one, the last one that of the block `ahead`."""
        e, s = self.e, self.s
        for k in range(spare * s.oc_tiles, s.px_tiles * s.oc_tiles):
            self.unit.zero(k)
        others = self.background()
        own, following = self.source(block, index), self.source(ahead, e.b.add(index, e.i64(1)))
        self.note(following, ahead.first)

        def chunk(c: Val | int, kind: int) -> list[Val]:
            splits = self.splits(own, following, c, kind, self.slot(index, e.b.add(e.i64(c), e.i64(1))))
            # Of its own chunks a short block wants no more than it multiplies.
            splits = splits[spare * s.rows if kind + 1 < self.chunks else 0 :]
            parts, lines = self.slot(index, c), self.prefetches(c, weights, block)
            self.chunk(c, terms_of(self.p, kind), parts, weights, Work((splits, others(c), lines), spare))
            return []

        for start, stop in self.stretches(spare):
            if stop == start + 1:
                chunk(start, start)
            else:
                e.loop(start, stop, 1, lambda c, _, kind=start: chunk(c, kind))  # type: ignore[misc]

    def splits(self, own: Rows, following: Rows, c: Val | int, kind: int, to: Val) -> list[Task]:
        """The rows of the chunk after `c`, which is of the kind of chunk `kind`."""
        e, alone = self.e, self.alone(kind + 1)
        if isinstance(c, int):
            rows = own if c + 1 < self.chunks else following
            read = self.reading(rows, (c + 1) % self.chunks, alone=alone)
        else:
            last = e.b.icmp_signed("==", c, e.i64(self.chunks - 1))
            origin = e.b.select(last, following.origin, own.origin)
            rows = Rows(own.walk, origin, e.b.select(last, following.table, own.table))
            read = self.reading(rows, e.b.select(last, e.i64(0), e.b.add(c, e.i64(1))), alone=alone)
        return [partial(self.split_row, rows, read, to, number) for number in range(self.pixels)]

    def reading(self, rows: Rows, chunk: Val | int, *, alone: bool) -> Reading:
        """What reads the units of a chunk of a pixel by its offset."""
        e = self.e
        if not self.p.x_block:
            assert isinstance(chunk, int)
            units = [pieces_of(self.p, 2 * chunk + k) for k in range(2 - alone)]
            return lambda offset: [gather(e, e.at(rows.origin, offset), pieces) for pieces in units]
        table = e.at(self.args.constants[3], 16 * chunk if isinstance(chunk, int) else e.mul_add(chunk, 16))
        starts = [e.at(rows.origin, e.load(table, 8 * k, lanes=1, element=I64)) for k in range(2 - alone)]
        return lambda offset: [e.load(e.at(start, offset)) for start in starts]

    def split_row(self, rows: Rows, read: Reading, to: Val, number: int | Val) -> None:
        """The parts of one pixel of a chunk."""
        e = self.e
        out = e.at(to, ROW_BYTES * number if isinstance(number, int) else e.mul_add(number, ROW_BYTES))
        units = read(rows.offset(e, number))
        if len(units) == 2:
            store_pairs(e, units[0], units[1], out, self.part, nearest=False)
            return
        high, middle, low = parts_of(e, units[0], nearest=False)
        store_pair(e, high, middle, out)
        store_pair(e, high, low, out, self.part)

    def chunk(self, c: Val | int, terms: Sequence[Term], parts: Val, weights: Val, work: Work) -> None:
        """The products of one chunk, with tasks in between."""
        e, s = self.e, self.s
        data = [e.at(parts, i * s.rows * ROW_BYTES) for i in range(s.px_tiles)]
        own = e.at(weights, e.mul_add(e.i64(c), PARTS * WEIGHT_TILE))
        filters = [e.at(own, j * self.group_bytes) for j in range(s.oc_tiles)]
        count = len(terms) * (s.px_tiles - work.spare) * s.oc_tiles
        done = [0] * len(work.tasks)
        products = self.unit.multiply_all(data, self.part, filters, WEIGHT_TILE, terms, work.spare)
        for number, _ in enumerate(products, 1):
            for k, tasks in enumerate(work.tasks):
                upto = -(-len(tasks) * number // count)
                for task in tasks[done[k] : upto]:
                    e.fence()
                    task()
                done[k] = upto
            e.fence()

    def prefetches(self, c: Val | int, weights: Val, block: Block) -> list[Task]:
        """This chunk's share of the next group's weights, where they come from afar; one line each, as many at once
        would hold up loads.
        """
        e, s = self.e, self.s
        if not far_weights(self.p, e.target):
            return []
        shares = s.span * self.chunks
        lines = -(-self.group_bytes // 64 // shares)
        share = e.mul_add(block.number, self.chunks, e.i64(c))
        near = e.at(weights, e.mul_add(share, lines * 64, s.oc_tiles * self.group_bytes))
        places = [j * self.group_bytes + line * 64 for j in range(s.oc_tiles) for line in range(lines)]
        return [partial(e.prefetch, near, place, locality=2) for place in places]
