"""Schedule of the convolution on units that multiply tiles of bfloat16 (AMX)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_direct import choose as choose_direct
from sqzc.backends.llvm.schedules.conv_direct import predict as predict_direct
from sqzc.backends.llvm.schedules.tile_unit import (
    FAR_BYTES_PER_CYCLE,
    LONE_TERMS,
    PARTS,
    ROW_BYTES,
    TERMS,
    TILE_REGISTERS,
    TILE_ROWS,
    UNIT,
    WEIGHT_TILE,
    Term,
    fits,
    product_cycles,
    registers_of,
)
from sqzc.diagnostics import ScheduleError
from sqzc.plan.program import Geometry
from sqzc.target import Target

# Cycles to split the two vectors of a row and store their parts, of a row of one vector, and to finish and store a
# vector of sums; the part of that, or of the products where they take less, which does not hide behind the other.
ROW_CYCLES = 10.0
LONE_ROW_CYCLES = 8.0
FINISH_CYCLES = 2.4
BESIDE = 0.33
# Bytes of weights that do not stay in the first-level cache between blocks, for every cycle that they add to products.
FAR_WEIGHTS_PER_CYCLE = 200
# Cycles of each piece of a row that is put together.
PIECE_CYCLES = 1.5
# Slots for parts: of a chunk that is multiplied and of the next one.
SLOTS = 2
# Blocks of an image, at most, of which the last one is worth computing in part.
SHORT_BLOCKS = 16
# Units of a row-major window, at most: code for each is made apart.
MOST_UNITS = 16
# What an image's offsets must stay within: they are kept in 32 bits.
MOST_BYTES = 1 << 31


@dataclass(frozen=True)
class SplitSchedule(Schedule):
    """Sums of a block of `px_tiles` tiles of `rows` pixels x `oc_tiles` channel blocks stay in tile registers.

    Data is split into parts while the products before it are made, again for every group of channel blocks: that is
    cheaper than to keep parts. `span` blocks of pixels are a segment, of which all groups are computed before the next.
    """

    px_tiles: int
    oc_tiles: int
    rows: int
    span: int

    def check(self, problem: ConvProblem, target: Target) -> None:
        """ScheduleError when the tiles do not fit the registers or the image."""
        pixels = problem.oh * problem.ow
        if not fits(self.px_tiles, self.oc_tiles):
            raise ScheduleError(
                f"sums of {self.px_tiles} x {self.oc_tiles} tiles",
                expected=f"at most {TILE_REGISTERS} tile registers",
                got=str(sum(registers_of(self.px_tiles, self.oc_tiles))),
            )
        if not 1 <= self.rows <= TILE_ROWS or self.px_tiles * self.rows > pixels:
            raise ScheduleError(f"{self.px_tiles} tiles of {self.rows} pixels", expected=f"at most {pixels} pixels")
        if not 1 <= self.oc_tiles <= problem.oc_blocks:
            raise ScheduleError(f"{self.oc_tiles} channel blocks", expected=f"within {problem.oc_blocks}")
        if not 1 <= self.span <= blocks_of(problem, self):
            raise ScheduleError(f"segments of {self.span} blocks", expected=f"at most {blocks_of(problem, self)}")


def applies(p: ConvProblem, target: Target) -> bool:
    """Whether it is a convolution of all channels, of blocks as wide as a tile's row, or of few row-major channels."""
    if not target.tile_products or p.group != 1 or p.y_block != TILE_ROWS:
        return False
    if p.x_block != TILE_ROWS and (p.x_block or p.dw != 1 or p.x.pixel != 1 or units_of(p) > MOST_UNITS):
        return False
    images = [p.x, p.y] if p.r is None else [p.x, p.y, p.r]
    return all(4 * image_span(g, p) < MOST_BYTES for g in images)


def image_span(g: Geometry, p: ConvProblem) -> int:
    """More elements than lie between any two of a channel block's that are read or written together."""
    return (p.ih + p.oh + p.kh * p.dh) * g.row + (p.iw + p.ow + p.kw * p.dw) * g.pixel


def units_of(p: ConvProblem) -> int:
    """Vectors that a window has: taps x input channel blocks, or all numbers of a row-major one beside each other."""
    if not p.x_block:
        return -(-p.ic * p.kh * p.kw // UNIT)
    return p.kh * p.kw * (p.ic_padded // p.lanes)


@dataclass(frozen=True)
class Piece:
    """`count` neighbours in a row-major image, `offset` bytes from a window's first pixel, that go to lanes from `lane`
    of a unit.
    """

    lane: int
    count: int
    offset: int


def pieces_of(p: ConvProblem, unit: int) -> tuple[Piece, ...]:
    """What a unit of a row-major window, [ic][kh][kw], is put together from."""
    found = []
    number, end = unit * UNIT, min((unit + 1) * UNIT, p.ic * p.kh * p.kw)
    while number < end:
        line, v = divmod(number, p.kw)
        channel, u = divmod(line, p.kh)
        count = min(p.kw - v, end - number)
        found.append(Piece(number % UNIT, count, 4 * (channel * p.x.plane + u * p.dh * p.x.row + v)))
        number += count
    return tuple(found)


def chunks_of(p: ConvProblem) -> int:
    """Pairs of units; the last one may have one unit only."""
    return -(-units_of(p) // 2)


def lone(p: ConvProblem) -> bool:
    """Whether the last chunk has one unit only."""
    return units_of(p) % 2 == 1


def terms_of(p: ConvProblem, chunk: int) -> tuple[Term, ...]:
    """The products of parts of a chunk."""
    return LONE_TERMS if lone(p) and chunk == chunks_of(p) - 1 else TERMS


def blocks_of(p: ConvProblem, s: SplitSchedule) -> int:
    """Blocks of `px_tiles` tiles of pixels; the last one is moved back to end with the image."""
    return -(-p.oh * p.ow // (s.px_tiles * s.rows))


def tiles_of(p: ConvProblem, s: SplitSchedule) -> int:
    """Tiles of pixels that are computed; where there are few blocks, the last one leaves out what others have."""
    return blocks_of(p, s) * s.px_tiles - spare_tiles(p, s)


def spare_tiles(p: ConvProblem, s: SplitSchedule) -> int:
    """Tiles that the last block leaves out, its first ones; none of many blocks, as that takes code of its own."""
    blocks = blocks_of(p, s)
    return blocks * s.px_tiles - -(-p.oh * p.ow // s.rows) if blocks <= SHORT_BLOCKS else 0


def groups_of(p: ConvProblem, s: SplitSchedule) -> int:
    """Groups of `oc_tiles` channel blocks."""
    return -(-p.oc_blocks // s.oc_tiles)


def segments_of(p: ConvProblem, s: SplitSchedule) -> int:
    """Segments of an image; the last one may compute the last block again."""
    return -(-blocks_of(p, s) // s.span)


def part_bytes(s: SplitSchedule) -> int:
    """One part of a chunk of the data of a block."""
    return s.px_tiles * s.rows * ROW_BYTES


def prepared_bytes(p: ConvProblem) -> int:
    """The parts of all weights, which a handle keeps: [oc block][chunk][part] tiles."""
    return p.oc_blocks * chunks_of(p) * PARTS * WEIGHT_TILE


@dataclass(frozen=True)
class Scratch:
    """Where things lie in a thread's scratch; all numbers are bytes.

    Parts of two chunks of data, [part][pixel], are at its start; then the sums of a block, or with `whole` of all
    pixels, [oc block][pixel]; offsets of the pixels of a block in each image, in the input of two blocks; what the
    block before has left to do; and a group's weights where none are prepared.
    """

    sums: int
    offsets: int
    pending: int
    weights: int
    total: int


# Bytes of a table of the offsets of a block's pixels, and how many there are; of the note of what is left to do.
OFFSETS_BYTES = 4 * TILE_ROWS * 4
TABLES = 4
PENDING_BYTES = 64


def scratch_layout(p: ConvProblem, s: SplitSchedule, *, whole: bool = False) -> Scratch:
    """The scratch of a schedule."""
    sums = SLOTS * PARTS * part_bytes(s)
    pixels = p.oh * p.ow if whole else s.px_tiles * s.rows
    offsets = sums + s.oc_tiles * pixels * ROW_BYTES
    pending = offsets + TABLES * OFFSETS_BYTES
    weights = pending + PENDING_BYTES
    return Scratch(sums, offsets, pending, weights, weights + s.oc_tiles * chunks_of(p) * PARTS * WEIGHT_TILE)


def far_weights(p: ConvProblem, target: Target) -> bool:
    """Whether the weights' parts do not stay in the second-level cache from one use to the next."""
    return prepared_bytes(p) > target.l2_bytes // 4


def candidates(p: ConvProblem, target: Target) -> Iterator[SplitSchedule]:
    """Every shape of sums, over the whole image and, where that is too large for the cache, segment by segment."""
    if not applies(p, target):
        return
    rows = min(p.oh * p.ow, TILE_ROWS)
    for px_tiles, oc_tiles in ((2, 2), (1, 4), (1, 3), (1, 2), (2, 1), (1, 1)):
        if oc_tiles > p.oc_blocks or px_tiles * rows > p.oh * p.ow:
            continue
        s = SplitSchedule(px_tiles, oc_tiles, rows, 1)
        blocks = blocks_of(p, s)
        yield replace(s, span=blocks)
        segments = -(-image_bytes(p) // (target.l2_bytes // 3))
        if 1 < segments <= blocks and groups_of(p, s) > 1 and prepared_bytes(p) <= target.l2_bytes // 2:
            yield replace(s, span=-(-blocks // segments))


def image_bytes(p: ConvProblem) -> int:
    """Of the input of one image, without borders."""
    return 4 * p.ic_padded * p.ih * p.iw


def predict(p: ConvProblem, s: SplitSchedule, target: Target) -> float:
    """Cycles of the whole convolution on one core."""
    chunks, weights = chunks_of(p), s.oc_tiles * PARTS * WEIGHT_TILE
    near = chunks * weights <= target.l1_bytes // 2

    def chunk(number: int, tiles: int) -> float:
        terms = terms_of(p, number)
        products = product_cycles(tiles, s.oc_tiles, terms) + (0.0 if near else weights / FAR_WEIGHTS_PER_CYCLE)
        between = tiles * s.rows * (LONE_ROW_CYCLES if terms is LONE_TERMS else ROW_CYCLES)
        if not p.x_block:
            between += tiles * s.rows * PIECE_CYCLES * sum(len(pieces_of(p, 2 * number + k)) for k in (0, 1))
        between += s.px_tiles * s.oc_tiles * s.rows * FINISH_CYCLES / chunks
        return max(products, between) + BESIDE * min(products, between)

    def block(tiles: int) -> float:
        if not p.x_block:
            return sum(chunk(number, tiles) for number in range(chunks))
        return (chunks - 1) * chunk(0, tiles) + chunk(chunks - 1, tiles)

    blocks, groups, segments = blocks_of(p, s), groups_of(p, s), segments_of(p, s)
    cycles = groups * ((segments * s.span - 1) * block(s.px_tiles) + block(s.px_tiles - spare_tiles(p, s)))
    if image_bytes(p) > target.l2_bytes * 2 // 3:
        passes = 1 if segments > 1 else groups
        cycles += passes * max(image_bytes(p) / FAR_BYTES_PER_CYCLE - blocks * block(s.px_tiles), 0.0)
    if far_weights(p, target):
        cycles = max(cycles, prepared_bytes(p) / FAR_BYTES_PER_CYCLE)
    return p.n * cycles


def strip_candidates(p: ConvProblem, target: Target) -> Iterator[SplitSchedule]:
    """Those whose blocks are parts of rows."""
    return (s for s in whole_candidates(p, target) if s.px_tiles == 1 and s.rows == TILE_ROWS <= p.ow)


def whole_candidates(p: ConvProblem, target: Target) -> Iterator[SplitSchedule]:
    """Those which take all pixels of a group one after the other."""
    return (s for s in candidates(p, target) if s.span == blocks_of(p, s))


Candidates = Callable[[ConvProblem, Target], Iterator[SplitSchedule]]


@functools.cache
def choose(p: ConvProblem, target: Target, among: Candidates = candidates) -> SplitSchedule | None:
    """The candidate with the lowest prediction; None where there is none."""
    best = min(among(p, target), key=lambda s: predict(p, s, target), default=None)
    if best is not None:
        best.check(p, target)
    return best


def plain_cycles(p: ConvProblem, target: Target) -> float:
    """Cycles of the fastest convolution with the multiplications of its definition, on vectors or in parts."""
    vectors = predict_direct(p, choose_direct(p, target), target)
    s = choose(p, target)
    return vectors if s is None else min(vectors, predict(p, s, target))
