"""Schedule of the Winograd convolution: form, register tile, bands of tiles."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_direct import (
    FAR_BYTES_PER_CYCLE,
    L2_BYTES_PER_CYCLE,
    LOADS_PER_CYCLE,
    registers,
)
from sqzc.backends.llvm.winograd_math import FORMS, Form
from sqzc.diagnostics import ScheduleError
from sqzc.target import Target

# Cycles per stored line that has to come from the second-level cache first (measured, AVX-512 server core).
STORE_MISS = 3.5
# Cycles a run that a byte of transformed filters must save to be kept.
MEMORY_PRICE = 1 / 128

ORDERS = ("tile", "position")


@dataclass(frozen=True)
class WinogradSchedule(Schedule):
    """F(m x m, 3 x 3); products in register tiles of `oc_vecs` channel blocks x `tiles` image tiles.

    The input transform of `band` rows of image tiles is kept while all output channels are made from it. `order`:
    `tile` takes one register tile through all positions and out before the next; `position` takes all image tiles
    through one position before the next, so that filters are read once. `prepared`: filters are transformed when a
    handle is made and not in every run, where a caller has a handle.
    """

    m: int
    oc_vecs: int
    tiles: int
    band: int
    order: str
    prepared: int

    def check(self, problem: ConvProblem, target: Target) -> None:
        """ScheduleError when the tile does not fit the registers or the image."""
        wanted = registers(self.oc_vecs, self.tiles, target)
        if wanted > target.vector_registers:
            raise ScheduleError(
                f"a tile of {self.oc_vecs} x {self.tiles} vectors would spill",
                expected=f"at most {target.vector_registers} registers",
                got=str(wanted),
            )
        if self.m not in FORMS or problem.oh < self.m or problem.ow < self.m:
            raise ScheduleError(f"F({self.m},3) on an image of {problem.oh} x {problem.ow}")
        rows, columns = grid(problem, self.m)
        if self.oc_vecs > problem.oc_blocks or self.band > rows or self.tiles > self.band * columns:
            raise ScheduleError(
                f"{self.oc_vecs} channel blocks, {self.tiles} image tiles, bands of {self.band} rows",
                expected=f"within {problem.oc_blocks} blocks, {self.band * columns} tiles in a band and {rows} rows",
            )
        if self.order not in ORDERS:
            raise ScheduleError(f"order '{self.order}'", expected=" or ".join(ORDERS))


def grid(p: ConvProblem, m: int) -> tuple[int, int]:
    """Rows and columns of image tiles."""
    return -(-p.oh // m), -(-p.ow // m)


@dataclass(frozen=True)
class Scratch:
    """Where transformed data V, filters U and products M lie in a thread's scratch; all numbers are bytes.

    V[i][tile][j][ic], U[i][j][ic][oc], M[i][j][tile][oc] for position (i, j). Steps are from row to row in V and from
    position to position in U and M; one cache line more than the data, so that the rows of a register tile do not share
    the sets of the first-level cache.
    """

    v_row: int
    u_step: int
    m_step: int
    u_start: int
    m_start: int
    total: int


def scratch_layout(p: ConvProblem, s: WinogradSchedule, lanes: int) -> Scratch:
    """The scratch of a schedule."""
    size = FORMS[s.m].size
    count = s.band * grid(p, s.m)[1]
    v_row = count * size * p.ic_padded * 4 + 64
    u_step = p.ic_padded * s.oc_vecs * lanes * 4 + 64
    m_step = (s.tiles if s.order == "tile" else count) * s.oc_vecs * lanes * 4 + 64
    u_start = -(-size * v_row // 64) * 64
    m_start = u_start + size**2 * u_step
    return Scratch(v_row, u_step, m_step, u_start, m_start, m_start + size**2 * m_step)


def prepared_bytes(p: ConvProblem, s: WinogradSchedule) -> int:
    """Transformed filters that a handle keeps."""
    return s.prepared * -(-p.oc_blocks // s.oc_vecs) * FORMS[s.m].size ** 2 * scratch_layout(p, s, p.lanes).u_step


def predict(p: ConvProblem, s: WinogradSchedule, target: Target) -> float:
    """Cycles of the whole convolution on one core."""
    form: Form = FORMS[s.m]
    rows, columns = grid(p, s.m)
    bands = -(-rows // s.band)
    count = s.band * columns
    blocks = -(-count // s.tiles)
    oc_tiles = -(-p.oc_blocks // s.oc_vecs)
    positions = form.size**2
    accumulators = s.oc_vecs * s.tiles
    layout = scratch_layout(p, s, p.lanes)

    fma = max(accumulators / target.fma_ports, 4.0)
    loads = (s.oc_vecs + (s.tiles if s.oc_vecs > 1 else accumulators)) / LOADS_PER_CYCLE
    row = s.oc_vecs * target.vector_bytes
    arithmetic = blocks * max(fma, loads)
    far = s.prepared and oc_tiles * positions * layout.u_step > target.l2_bytes // 8
    if s.order == "position":
        # A filter is prefetched from afar once and read from the first-level cache after that.
        steady = p.ic_padded * max(arithmetic, row / (FAR_BYTES_PER_CYCLE if far else L2_BYTES_PER_CYCLE))
    else:
        # Every block reads all filters from the second-level cache; the first waits for them to get there.
        wait = row / FAR_BYTES_PER_CYCLE / 2 if far else 0.0
        steady = p.ic_padded * (max(arithmetic, blocks * row / L2_BYTES_PER_CYCLE) + wait)
    # A store that misses the first-level cache holds up those behind it, unless much arithmetic lies between.
    m_near = positions * layout.m_step <= target.l1_bytes * 7 // 8
    stores = accumulators * blocks * (1.0 if m_near else STORE_MISS)
    products = positions * (steady + max(accumulators * blocks, stores - steady / 4) + (8 + s.oc_vecs) * blocks)

    v_miss = 1.0 if form.size * layout.v_row <= target.l1_bytes * 3 // 4 else STORE_MISS
    data = count * (p.ic_padded // p.lanes) * (form.data_ops * form.size + 12 + positions * v_miss / 2)
    per_tile = (
        form.output_ops * (form.size + form.m) / 2 + positions * (0.5 if m_near else 2.0) + form.m**2 * STORE_MISS
    )
    output = count * s.oc_vecs * per_tile
    filters = 0.0
    if not s.prepared:
        filters = p.ic_padded * s.oc_vecs * max(form.filter_ops * (3 + form.size) / 2, positions * STORE_MISS)
    return p.n * bands * (data + oc_tiles * (filters + products + output))


def candidates(p: ConvProblem, target: Target, forms: tuple[int, ...] = (4, 2)) -> Iterator[WinogradSchedule]:
    """Every form and register tile that fits; bands as high as half the second-level cache allows."""
    for m in forms:
        if p.oh < m or p.ow < m:
            continue
        rows, columns = grid(p, m)
        per_row = FORMS[m].size ** 2 * columns * p.ic_padded * 4
        band = max(1, min(rows, target.l2_bytes // 2 // per_row))
        bands = sorted({1, -(-rows // -(-rows // band))})
        for oc_vecs in range(1, min(4, p.oc_blocks) + 1):
            for band, tiles in itertools.product(bands, range(1, 29)):
                # A single image tile keeps too few sums going, and is for images that have no more.
                possible = min(2, band * columns) <= tiles <= band * columns
                if possible and registers(oc_vecs, tiles, target) <= target.vector_registers:
                    for order in ORDERS:
                        for prepared in (0, 1):
                            yield WinogradSchedule(m, oc_vecs, tiles, band, order, prepared)


@functools.cache
def choose(p: ConvProblem, target: Target, forms: tuple[int, ...] = (4, 2)) -> WinogradSchedule:
    """The candidate with the lowest prediction; prepared filters must earn their memory."""
    best = min(candidates(p, target, forms), key=lambda s: predict(p, s, target) + MEMORY_PRICE * prepared_bytes(p, s))
    best.check(p, target)
    return best
