"""Schedule of the Winograd convolution: form, register tile, bands of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_direct import LOADS_PER_CYCLE, registers
from sqzc.backends.llvm.winograd_math import FORMS, Form
from sqzc.diagnostics import ScheduleError
from sqzc.target import Target


@dataclass(frozen=True)
class WinogradSchedule(Schedule):
    """F(m x m, 3 x 3); products in register tiles of `oc_vecs` channel blocks x `tiles` image tiles.

    The input transform of `band` rows of image tiles is kept while all output channels are made from it.
    """

    m: int
    oc_vecs: int
    tiles: int
    band: int

    def check(self, problem: ConvProblem, target: Target) -> None:
        """ScheduleError when the tile does not fit the registers or the image."""
        wanted = registers(self.oc_vecs, self.tiles)
        if wanted > target.vector_registers:
            raise ScheduleError(
                f"a tile of {self.oc_vecs} x {self.tiles} vectors would spill",
                expected=f"at most {target.vector_registers} registers",
                got=str(wanted),
            )
        if self.m not in FORMS or problem.oh < self.m or problem.ow < self.m:
            raise ScheduleError(f"F({self.m},3) on an image of {problem.oh} x {problem.ow}")


def grid(p: ConvProblem, m: int) -> tuple[int, int]:
    """Rows and columns of image tiles."""
    return -(-p.oh // m), -(-p.ow // m)


@dataclass(frozen=True)
class Scratch:
    """Where transformed data V, filters U and products M lie in a thread's scratch; all numbers are bytes.

    V[i][tile][j][ic], U[i][ic][j][oc], M[i][j][tile][oc] for position (i, j): a transform writes few streams of
    consecutive lines rather than one line in each of 36 pages. `*_row` is the distance between rows i, one cache line
    more than the data so that rows do not share the sets of the first-level cache.
    """

    v_row: int
    u_row: int
    m_row: int
    m_step: int
    u_start: int
    m_start: int
    total: int


def scratch_layout(p: ConvProblem, s: WinogradSchedule, lanes: int) -> Scratch:
    """The scratch of a schedule."""
    size = FORMS[s.m].size
    count = s.band * grid(p, s.m)[1]
    v_row = -(-count * size * p.ic_padded * 4 // 64) * 64 + 64
    u_row = p.ic_padded * size * s.oc_vecs * lanes * 4 + 64
    m_step = s.tiles * s.oc_vecs * lanes * 4
    m_row = size * m_step + 64
    u_start = size * v_row
    m_start = u_start + size * u_row
    return Scratch(v_row, u_row, m_row, m_step, u_start, m_start, m_start + size * m_row)


def predict(p: ConvProblem, s: WinogradSchedule, target: Target) -> float:
    """Cycles of the whole convolution on one core."""
    form: Form = FORMS[s.m]
    rows, columns = grid(p, s.m)
    bands = -(-rows // s.band)
    blocks = -(-s.band * columns // s.tiles)
    oc_tiles = -(-p.oc_blocks // s.oc_vecs)
    ic_blocks = p.ic_padded // p.lanes
    positions = form.size**2
    accumulators = s.oc_vecs * s.tiles
    fma = max(accumulators / target.fma_ports, 4.0)
    loads = (s.oc_vecs + (s.tiles if s.oc_vecs > 1 else accumulators)) / LOADS_PER_CYCLE
    products = positions * blocks * (p.ic_padded * max(fma, loads) + accumulators + 8)
    spread = form.size + form.m
    data = s.band * columns * ic_blocks * (form.data_ops * 2 * form.size / 2 + 12 + positions / 2)
    output = s.band * columns * s.oc_vecs * (form.output_ops * spread / 2 + positions / 2 + form.m**2)
    filters = p.ic_padded * s.oc_vecs * (form.filter_ops * (3 + form.size) / 2 + positions / 2 + 6)
    return p.n * bands * (data + oc_tiles * (filters + products + output))


def candidates(p: ConvProblem, target: Target, forms: tuple[int, ...] = (4, 2)) -> Iterator[WinogradSchedule]:
    """Every form and register tile that fits; bands as high as half the second-level cache allows."""
    for m in forms:
        if p.oh < m or p.ow < m:
            continue
        rows, columns = grid(p, m)
        per_row = FORMS[m].size ** 2 * columns * p.ic_padded * 4
        band = max(1, min(rows, target.l2_bytes // 2 // per_row))
        band = -(-rows // -(-rows // band))
        for oc_vecs in range(1, min(4, p.oc_blocks) + 1):
            for tiles in range(2, min(28, band * columns) + 1):
                if registers(oc_vecs, tiles) <= target.vector_registers:
                    yield WinogradSchedule(m, oc_vecs, tiles, band)


def choose(p: ConvProblem, target: Target, forms: tuple[int, ...] = (4, 2)) -> WinogradSchedule:
    """The candidate with the lowest prediction."""
    best = min(candidates(p, target, forms), key=lambda s: predict(p, s, target))
    best.check(p, target)
    return best
