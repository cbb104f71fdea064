"""Schedule of the row-buffered convolution, the one that takes every layout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from sqzc.backends.llvm.family import Schedule
from sqzc.target import Target

# More would write to too many places at once.
MOST_ROWS = 8
# Bands are the work items of an image without groups: threads need some.
MOST_BAND = 16


@dataclass(frozen=True)
class RowsProblem:
    """What the schedule depends on: one group of a convolution, `flat` when it is 1 x 1 over gapless images.

    `direct`: the input can be read where it is, without a padded copy. A flat image is one row of all its pixels.
    """

    ic: int
    oc: int
    oh: int
    ow: int
    kh: int
    kw: int
    sh: int
    sw: int
    dh: int
    dw: int
    item_bytes: int
    direct: bool
    flat: bool


@dataclass(frozen=True)
class RowsSchedule(Schedule):
    """Register tile of `ocs` output channels x `rows` x (`vecs` vectors of `width` pixels).

    A work item is `band` output rows, or `span` columns of a flat image. `copied`: input rows are first copied, padded
    and with their columns sorted by the stride, so that every tap is a run of consecutive elements.
    """

    ocs: int
    rows: int
    vecs: int
    width: int
    band: int
    span: int
    copied: int

    def copied_rows(self, p: RowsProblem) -> int:
        """Input rows that are copied for a band: every `row_gap`-th one."""
        return ((self.band - 1) * p.sh + (p.kh - 1) * p.dh) // row_gap(p) + 1

    def phase(self, p: RowsProblem) -> int:
        """Columns of one phase of a copied row, which is every sw-th one; at least a vector."""
        return max(p.ow + _reach(p), self.width)

    def buffer_elements(self, p: RowsProblem) -> int:
        """Size of the copied rows of all channels of a group, and what vectors longer than a row read behind them."""
        rows = p.ic * self.copied_rows(p) * p.sw // phase_gap(p) * self.phase(p)
        return rows + max(0, self.width + _reach(p) - self.phase(p)) if self.copied else 0


def _reach(p: RowsProblem) -> int:
    """Columns of one phase from a filter's first tap to its last."""
    return (p.kw - 1) * p.dw // p.sw


def row_gap(p: RowsProblem) -> int:
    """Windows read every so many-th row only, counted from their first."""
    return p.sh if p.kh == 1 else math.gcd(p.sh, p.dh)


def phase_gap(p: RowsProblem) -> int:
    """Windows read every so many-th column only; so many phases apart are those that are copied."""
    return p.sw if p.kw == 1 else math.gcd(p.sw, p.dw)


def vector_width(size: int, lanes: int) -> int:
    """The vector that covers `size` pixels with the fewest unused lanes, at most `lanes`."""
    width = 1
    while width < min(size, lanes):
        width *= 2
    return width


def choose(p: RowsProblem, target: Target) -> RowsSchedule:
    """The tile and the band with the least work: unused lanes, and rows and columns that two tiles compute, cost."""
    return min(candidates(p, target), key=lambda s: (_work(p, s), -s.band, s.vecs))


def candidates(p: RowsProblem, target: Target) -> Iterator[RowsSchedule]:
    """Every tile that has registers, in bands as high as the second-level cache allows."""
    width = vector_width(p.ow, target.vector_lanes)
    tiles = -(-p.ow // width)
    ocs = max(1, min(4, p.oc))
    # Without fused multiply-add every product needs a register too.
    room = (target.vector_registers * 3 // 4 if target.has_fma else target.vector_registers // 2) // ocs
    copied = not p.direct or p.ow < width
    for vecs in range(1, min(room, tiles) + 1):
        for rows in range(1, min(room // vecs, p.oh, MOST_ROWS) + 1):
            span = p.ow
            if p.flat and not copied:
                span = min(p.ow, max(1, 1024 // (width * vecs)) * width * vecs)
            bands = {min(band, p.oh) for band in (*range(rows, MOST_BAND + 1, rows), MOST_BAND)} if copied else {rows}
            for band in sorted(bands):
                s = RowsSchedule(ocs, rows, vecs, width, band, span, int(copied))
                if band == rows or s.buffer_elements(p) * p.item_bytes <= target.l2_bytes // 4:
                    yield s


def _work(p: RowsProblem, s: RowsSchedule) -> float:
    """Multiply-adds and weights read for them, of a group; loads of the copy count twice for their stores."""
    tiles = -(-s.band // s.rows) * -(-p.ow // (s.width * s.vecs)) * -(-p.oc // s.ocs)
    vectors = s.rows * s.vecs
    sums = tiles * s.ocs * (p.ic * p.kh * p.kw * (vectors + 1) + 2 * vectors)
    copies = s.copied * p.ic * s.copied_rows(p) * p.sw // phase_gap(p) * -(-s.phase(p) // s.width)
    return float(-(-p.oh // s.band) * (sums + 2 * copies))
