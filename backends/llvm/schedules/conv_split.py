"""Schedule of the 1 x 1 convolution on units that multiply tiles of bfloat16 (AMX)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.diagnostics import ScheduleError
from sqzc.target import Target

# Rows of a tile and bytes of a row, at most; tile registers.
TILE_ROWS = 16
ROW_BYTES = 64
TILE_REGISTERS = 8
# Parts of a float32, and which products of a part of the one with a part of the other are made: those whose sum is no
# further from the product of the wholes than the rounding of a float32. In this order each differs from the one before
# in one part only, whose tiles must be loaded.
PARTS = 3
TERMS = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0))
# Cycles of a product of two tiles, alone and among others; of a load of a tile from the first-level cache; of a tile of
# sums that goes to memory, and of one that comes back for more. Bytes a cycle that tiles come from the second-level
# cache. (Measured, AVX-512 server core with AMX.)
PRODUCT_CYCLES = 16.0
LONE_PRODUCT_CYCLES = 20.0
LOAD_CYCLES = 8.0
STORE_CYCLES = 16.0
RETURN_CYCLES = 56.0
L2_BYTES_PER_CYCLE = 20
# Cycles to split two vectors and store their parts in the first-level cache; more in the second, and as many again
# where they fill it; to finish and store a vector; of an item.
SPLIT_CYCLES = 9.0
FAR_SPLIT_CYCLES = 9.0
FINISH_CYCLES = 3.0
ITEM_CYCLES = 60.0
# Bytes a cycle that prepared parts come from beyond the second-level cache.
FAR_BYTES_PER_CYCLE = 8
# What tiles of parts may take of the first-level cache.
PANEL_BYTES = 24 << 10


@dataclass(frozen=True)
class SplitSchedule(Schedule):
    """Sums of `px_tiles` tiles of `rows` pixels x `oc_tiles` channel blocks stay in tile registers.

    `chunks` pairs of input channel blocks are taken through all pixels of a segment before the next ones, so that their
    weights stay in the first-level cache; `span` tiles of pixels are a segment, which is split into parts at once.
    """

    px_tiles: int
    oc_tiles: int
    rows: int
    chunks: int
    span: int

    def check(self, problem: ConvProblem, target: Target) -> None:
        """ScheduleError when the tiles do not fit the registers or the image."""
        wanted = self.px_tiles * self.oc_tiles + self.px_tiles + self.oc_tiles
        if wanted > TILE_REGISTERS:
            raise ScheduleError(
                f"sums of {self.px_tiles} x {self.oc_tiles} tiles",
                expected=f"at most {TILE_REGISTERS} tile registers",
                got=str(wanted),
            )
        if not 1 <= self.rows <= min(TILE_ROWS, problem.oh * problem.ow):
            raise ScheduleError(
                f"tiles of {self.rows} pixels", expected=f"1 to {min(TILE_ROWS, problem.oh * problem.ow)}"
            )
        if not 1 <= self.oc_tiles <= problem.oc_blocks:
            raise ScheduleError(f"{self.oc_tiles} channel blocks", expected=f"within {problem.oc_blocks}")
        if not 1 <= self.chunks <= chunks_of(problem) or not 1 <= self.span <= tiles_of(problem, self.rows):
            raise ScheduleError(
                f"{self.chunks} pairs of channel blocks, segments of {self.span} tiles",
                expected=f"at most {chunks_of(problem)} pairs and {tiles_of(problem, self.rows)} tiles",
            )


def applies(p: ConvProblem, target: Target) -> bool:
    """Whether it is a plain 1 x 1 convolution of blocks as wide as a tile's row."""
    plain = (p.kh, p.kw, p.sh, p.sw) == (1, 1, 1, 1) and p.pads == (0, 0, 0, 0)
    return target.tile_products and plain and p.lanes == p.y_block == ROW_BYTES // 4


def chunks_of(p: ConvProblem) -> int:
    """Pairs of input channel blocks; the last one may have one block only."""
    return -(-p.ic_padded // (2 * p.lanes))


def tiles_of(p: ConvProblem, rows: int) -> int:
    """Tiles of pixels."""
    return -(-p.oh * p.ow // rows)


def groups_of(p: ConvProblem, s: SplitSchedule) -> int:
    """Groups of `oc_tiles` channel blocks."""
    return -(-p.oc_blocks // s.oc_tiles)


def segments_of(p: ConvProblem, s: SplitSchedule) -> int:
    """Segments of an image."""
    return -(-tiles_of(p, s.rows) // s.span)


def data_tile(s: SplitSchedule) -> int:
    """Bytes of one part of a tile of pixels."""
    return s.rows * ROW_BYTES


WEIGHT_TILE = TILE_ROWS * ROW_BYTES


def prepared_bytes(p: ConvProblem) -> int:
    """The parts of all weights, which a handle keeps: [oc block][chunk][part] tiles."""
    return p.oc_blocks * chunks_of(p) * PARTS * WEIGHT_TILE


@dataclass(frozen=True)
class Scratch:
    """Where a segment's parts, its sums, and a group's weights where none are prepared lie; all numbers are bytes."""

    sums: int
    weights: int
    total: int


def scratch_layout(p: ConvProblem, s: SplitSchedule) -> Scratch:
    """The scratch of a schedule; parts of data, [tile][chunk][part], are at its start."""
    sums = s.span * chunks_of(p) * PARTS * data_tile(s)
    weights = sums + s.oc_tiles * s.span * data_tile(s)
    return Scratch(sums, weights, weights + s.oc_tiles * chunks_of(p) * PARTS * WEIGHT_TILE)


def loads_of(px_tiles: int, oc_tiles: int) -> tuple[int, int]:
    """Tile loads of data and weights of one chunk, walking through TERMS with one part of each side in registers."""
    data = weights = 0
    held = (-1, -1)
    for term in TERMS:
        data += px_tiles * (term[0] != held[0])
        weights += oc_tiles * (term[1] != held[1])
        held = term
    return data, weights


def far_weights(p: ConvProblem, target: Target) -> bool:
    """Whether the weights' parts do not stay in the second-level cache from one use to the next."""
    return prepared_bytes(p) > target.l2_bytes // 4


def candidates(p: ConvProblem, target: Target) -> Iterator[SplitSchedule]:
    """Every shape of sums, with tiles of as many pixels as leave few over."""
    if not applies(p, target):
        return
    pixels, chunks = p.oh * p.ow, chunks_of(p)
    for px_tiles, oc_tiles in ((2, 2), (3, 1), (1, 3), (2, 1), (1, 2), (1, 1)):
        if oc_tiles > p.oc_blocks:
            continue
        fewest = -(-pixels // TILE_ROWS)
        for rows in sorted({-(-pixels // tiles) for tiles in range(fewest, fewest + px_tiles)}):
            tiles = tiles_of(p, rows)
            at_once = max(1, min(chunks, PANEL_BYTES // (oc_tiles * PARTS * WEIGHT_TILE)))
            # Equal shares: a last one of few chunks would pay for its sums' way to memory and back all the same.
            at_once = -(-chunks // -(-chunks // at_once))
            for span in sorted(set(spans(p, target, px_tiles, oc_tiles, rows))):
                yield SplitSchedule(px_tiles, oc_tiles, rows, at_once, min(span, tiles))


def spans(p: ConvProblem, target: Target, px_tiles: int, oc_tiles: int, rows: int) -> list[int]:
    """Segments whose parts fit the first-level cache, half the second, or the whole image."""
    tiles, tile = tiles_of(p, rows), segment_bytes(p, oc_tiles, rows)
    found = [1, min(px_tiles, tiles), tiles]
    for limit in (near_bytes(target), target.l2_bytes // 4, target.l2_bytes // 2):
        found.append(min(tiles, max(1, limit // tile // px_tiles) * px_tiles))
    return found


def near_bytes(target: Target) -> int:
    """Parts of data and sums that stay in the first-level cache beside weights and results."""
    return target.l1_bytes // 2


def segment_bytes(p: ConvProblem, oc_tiles: int, rows: int) -> int:
    """Parts of data and sums of one tile of pixels."""
    return (chunks_of(p) * PARTS + oc_tiles) * rows * ROW_BYTES


def predict(p: ConvProblem, s: SplitSchedule, target: Target) -> float:
    """Cycles of the whole convolution on one core."""
    chunks, segments, groups = chunks_of(p), segments_of(p, s), groups_of(p, s)
    tiles = tiles_of(p, s.rows)
    whole, rest = divmod(s.span, s.px_tiles)
    last_whole, last_rest = divmod(tiles - (segments - 1) * s.span, s.px_tiles)
    blocks = -(-chunks // s.chunks)
    near = s.span * segment_bytes(p, s.oc_tiles, s.rows) <= near_bytes(target)

    def block(px_tiles: int) -> float:
        sums = px_tiles * s.oc_tiles
        products = len(TERMS) * max(sums * PRODUCT_CYCLES, LONE_PRODUCT_CYCLES)
        data, weights = loads_of(px_tiles, s.oc_tiles)
        every = max(products, (data + weights) * LOAD_CYCLES)
        if not near:
            every = max(every, data * data_tile(s) / L2_BYTES_PER_CYCLE)
        return chunks * every + sums * (STORE_CYCLES + RETURN_CYCLES * (blocks - 1))

    full = whole * block(s.px_tiles) + rest * block(1)
    last = last_whole * block(s.px_tiles) + last_rest * block(1)
    products = groups * ((segments - 1) * full + last)
    if far_weights(p, target):
        products = max(products, segments * prepared_bytes(p) / FAR_BYTES_PER_CYCLE)
    far = s.span * segment_bytes(p, s.oc_tiles, s.rows) > target.l2_bytes // 4
    split = tiles * s.rows * chunks * (SPLIT_CYCLES + (0.0 if near else FAR_SPLIT_CYCLES * (2 if far else 1)))
    finish = p.oc_blocks * tiles * s.rows * FINISH_CYCLES
    return p.n * (split + products + finish + ITEM_CYCLES * segments * groups)


@functools.cache
def choose(p: ConvProblem, target: Target, *, whole: bool = False) -> SplitSchedule | None:
    """The candidate with the lowest prediction, with `whole` of those whose segment is the image; None without any."""
    found = (s for s in candidates(p, target) if not whole or is_whole(p, s))
    best = min(found, key=lambda s: predict(p, s, target), default=None)
    if best is not None:
        best.check(p, target)
    return best


def is_whole(p: ConvProblem, s: SplitSchedule) -> bool:
    """Whether one segment is the whole image."""
    return s.span == tiles_of(p, s.rows)
