"""Schedule of the Winograd convolution whose products are made by tile units (AMX)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_winograd import STORE_MISS, grid
from sqzc.backends.llvm.schedules.tile_unit import (
    LONE_TERMS,
    PARTS,
    ROW_BYTES,
    TERMS,
    TILE_REGISTERS,
    TILE_ROWS,
    WEIGHT_TILE,
)
from sqzc.backends.llvm.winograd_math import FORMS
from sqzc.diagnostics import ScheduleError
from sqzc.target import Target

# Fitted to what fourteen convolutions take with all schedules, within a tenth (AVX-512 server core with AMX). Cycles of
# a product, and by how much more with three sums; of a line of data for products, and of one that the second-level
# cache has no room for; of a line of results.
PRODUCT_CYCLES = 14.0
THREE_SUMS = 1.25
LINE_LOAD = 0.45
FAR_LINE_LOAD = 2.56
LINE_STORE = 0.5
# The part of the second-level cache that transformed data and results may take.
ROOM = 0.34
# Bytes of filters that come from beyond the second-level cache in a cycle, and the part of that, or of the products
# where they take less, which is not done meanwhile.
FAR_BYTES_PER_CYCLE = 11.5
BESIDE = 0.49
# Cycles to split a vector and store its parts; of an operation of the output transform.
SPLIT_CYCLES = 6.15
OUTPUT_CYCLES = 1.66
# Shapes of sums; of those with equal predictions the first is taken.
SHAPES = {
    4: ((1, 2), (2, 2), (2, 1), (1, 3), (3, 1), (1, 1)),
    2: ((2, 2), (1, 2), (2, 1), (1, 3), (3, 1), (1, 1)),
}


@dataclass(frozen=True)
class WinogradSplitSchedule(Schedule):
    """F(m x m, 3 x 3); sums of `px_tiles` tiles of `rows` image tiles x `oc_tiles` channel blocks in tile registers.

    The input transform of `band` rows of image tiles is kept while all output channels are made from it.
    """

    m: int
    px_tiles: int
    oc_tiles: int
    rows: int
    band: int

    @property
    def oc_vecs(self) -> int:
        """Channel blocks of a group."""
        return self.oc_tiles

    def check(self, problem: ConvProblem, target: Target) -> None:
        """ScheduleError when the tiles do not fit the registers or the image."""
        wanted = self.px_tiles * self.oc_tiles + self.px_tiles + self.oc_tiles
        if wanted > TILE_REGISTERS:
            raise ScheduleError(
                f"sums of {self.px_tiles} x {self.oc_tiles} tiles",
                expected=f"at most {TILE_REGISTERS} tile registers",
                got=str(wanted),
            )
        if self.m not in FORMS or problem.oh < self.m or problem.ow < self.m:
            raise ScheduleError(f"F({self.m},3) on an image of {problem.oh} x {problem.ow}")
        rows, columns = grid(problem, self.m)
        most = min(TILE_ROWS, self.band * columns)
        if not 1 <= self.rows <= most or not 1 <= self.band <= rows or not 1 <= self.oc_tiles <= problem.oc_blocks:
            raise ScheduleError(
                f"{self.oc_tiles} channel blocks, tiles of {self.rows} image tiles, bands of {self.band} rows",
                expected=f"within {problem.oc_blocks} blocks, {most} image tiles and {rows} rows",
            )


@dataclass(frozen=True)
class Depth:
    """How input channels are multiplied: `pairs` of channel blocks side by side, then perhaps a `single` one.

    A pair is three tiles of data, its parts, by three of weights, in six products. A single block would leave half of
    each tile empty; there it holds another of its parts: two tiles by three in three products.
    """

    pairs: int
    single: int

    @property
    def data_tiles(self) -> int:
        """Tiles of data at a position."""
        return PARTS * self.pairs + (PARTS - 1) * self.single

    @property
    def weight_tiles(self) -> int:
        """Tiles of weights at a position for a channel block."""
        return PARTS * (self.pairs + self.single)

    @property
    def products(self) -> int:
        """Products of a tile of sums at a position."""
        return len(TERMS) * self.pairs + len(LONE_TERMS) * self.single


def depth_of(p: ConvProblem) -> Depth:
    """The input channels of a problem."""
    return Depth(*divmod(p.ic_padded // p.lanes, 2))


@dataclass(frozen=True)
class Scratch:
    """Where things lie in a thread's scratch; all numbers are bytes.

    Tiles of transformed data at its start, [position][tile of a channel pair][image tile] of a row each; then a group's
    filters where none are prepared; then products, [position][image tile][oc]. Steps are from position to position, one
    cache line more than the data.
    """

    v_step: int
    m_step: int
    u_start: int
    m_start: int
    total: int


def scratch_layout(p: ConvProblem, s: WinogradSplitSchedule) -> Scratch:
    """The scratch of a schedule."""
    positions, count = FORMS[s.m].size ** 2, s.band * grid(p, s.m)[1]
    v_step = depth_of(p).data_tiles * count * ROW_BYTES + 64
    m_step = count * s.oc_tiles * ROW_BYTES + 64
    u_start = positions * v_step
    m_start = u_start + group_bytes(p, s)
    return Scratch(v_step, m_step, u_start, m_start, m_start + positions * m_step)


def position_bytes(p: ConvProblem, s: WinogradSplitSchedule) -> int:
    """The parts of a group's filters at one position: [oc block][tile of a channel pair]."""
    return s.oc_tiles * depth_of(p).weight_tiles * WEIGHT_TILE


def group_bytes(p: ConvProblem, s: WinogradSplitSchedule) -> int:
    """The parts of a group's transformed filters, position after position, as they are read."""
    return FORMS[s.m].size ** 2 * position_bytes(p, s)


def prepared_bytes(p: ConvProblem, s: WinogradSplitSchedule) -> int:
    """The parts of all transformed filters, group after group, which a handle keeps."""
    return groups_of(p, s) * group_bytes(p, s)


def far_filters(p: ConvProblem, s: WinogradSplitSchedule, target: Target) -> bool:
    """Whether the filters' parts do not stay in the second-level cache from one band or run to the next."""
    return prepared_bytes(p, s) > target.l2_bytes // 4


def groups_of(p: ConvProblem, s: WinogradSplitSchedule) -> int:
    """Groups of `oc_tiles` channel blocks."""
    return -(-p.oc_blocks // s.oc_tiles)


def candidates(p: ConvProblem, target: Target, forms: tuple[int, ...] = (4, 2)) -> Iterator[WinogradSplitSchedule]:
    """Every form and shape of sums, with tiles of as many image tiles as leave few over."""
    if not target.tile_products or p.lanes != TILE_ROWS or p.y_block != TILE_ROWS:
        return
    for m in forms:
        if p.oh < m or p.ow < m:
            continue
        rows, columns = grid(p, m)
        per_row = FORMS[m].size ** 2 * columns * depth_of(p).data_tiles * ROW_BYTES
        band = max(1, min(rows, target.l2_bytes // 2 // per_row))
        for height in sorted({1, -(-rows // -(-rows // band))}):
            count = height * columns
            tiles = -(-count // TILE_ROWS)
            for px_tiles, oc_tiles in SHAPES[m]:
                if oc_tiles <= p.oc_blocks and px_tiles <= tiles:
                    yield WinogradSplitSchedule(m, px_tiles, oc_tiles, -(-count // tiles), height)


def predict(p: ConvProblem, s: WinogradSplitSchedule, target: Target) -> float:
    """Cycles of the whole convolution on one core."""
    form = FORMS[s.m]
    rows, columns = grid(p, s.m)
    bands, count, positions = -(-rows // s.band), s.band * columns, form.size**2
    depth, groups, layout = depth_of(p), groups_of(p, s), scratch_layout(p, s)
    whole, rest = divmod(-(-count // s.rows), s.px_tiles)
    # What is transformed and multiplied comes from the second-level cache, or from beyond where it fills that.
    far = positions * (layout.v_step + layout.m_step) > target.l2_bytes * ROOM
    load = FAR_LINE_LOAD if far else LINE_LOAD

    def block(px_tiles: int) -> float:
        sums = px_tiles * s.oc_tiles
        products = depth.products * sums * PRODUCT_CYCLES * (THREE_SUMS if sums == 3 else 1.0)
        return products + s.rows * (px_tiles * depth.data_tiles * load + sums * LINE_STORE)

    filters = s.oc_tiles * depth.weight_tiles * TILE_ROWS * LINE_LOAD
    products = groups * positions * (filters + whole * block(s.px_tiles) + rest * block(1))
    if far_filters(p, s, target):
        arriving = prepared_bytes(p, s) / FAR_BYTES_PER_CYCLE
        products = max(products, arriving) + BESIDE * min(products, arriving)
    data = count * (p.ic_padded // p.lanes) * (form.data_ops * form.size + 12 + positions * SPLIT_CYCLES)
    output = OUTPUT_CYCLES * form.output_ops * (form.size + form.m) + positions * load + form.m**2 * STORE_MISS
    return p.n * bands * (data + products + groups * s.oc_tiles * count * output)


@functools.cache
def choose(p: ConvProblem, target: Target, forms: tuple[int, ...] = (4, 2)) -> WinogradSplitSchedule | None:
    """The candidate with the lowest prediction; None where there is none."""
    best = min(candidates(p, target, forms), key=lambda s: predict(p, s, target), default=None)
    if best is not None:
        best.check(p, target)
    return best
