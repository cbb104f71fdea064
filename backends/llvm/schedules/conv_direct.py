"""Schedule of the direct convolution: register tile, loop order."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.diagnostics import ScheduleError
from sqzc.target import Target

LOADS_PER_CYCLE = 2
# What the second-level cache delivers while the multipliers run, in bytes a cycle (measured, AVX-512 server core).
L2_BYTES_PER_CYCLE = 24
# Bytes a cycle from beyond the second-level cache, streamed with prefetches (measured, the same).
FAR_BYTES_PER_CYCLE = 8

ORDERS = ("oc", "px")


@dataclass(frozen=True)
class DirectSchedule(Schedule):
    """Register tile of `oc_vecs` channel blocks x `rows` x `cols` pixels; all accumulators stay in registers.

    `flat`: rows of input and output follow each other without a gap, so the image is one long row. `order`: `oc` walks
    all pixels before the next channel tile, `px` all channel tiles before the next row of pixels. `ahead`: prefetch
    the tile's pixels of the next channel block.
    """

    oc_vecs: int
    rows: int
    cols: int
    flat: int
    order: str
    ahead: int

    def check(self, problem: ConvProblem, target: Target) -> None:
        """ScheduleError when the tile does not fit the registers or the image."""
        wanted = registers(self.oc_vecs, self.rows * self.cols, target)
        if wanted > target.vector_registers:
            raise ScheduleError(
                f"a tile of {self.oc_vecs} x {self.rows * self.cols} vectors would spill",
                expected=f"at most {target.vector_registers} registers",
                got=str(wanted),
            )
        height, width = extent(problem, bool(self.flat))
        if self.rows > height or self.cols > width or self.oc_vecs > problem.oc_blocks:
            raise ScheduleError(
                f"a tile of {self.oc_vecs} x {self.rows} x {self.cols}",
                expected=f"within {problem.oc_blocks} x {height} x {width}",
            )
        if self.flat and not can_flatten(problem):
            raise ScheduleError("a flat image", expected="rows that follow each other without a gap")
        if self.order not in ORDERS:
            raise ScheduleError(f"order '{self.order}'", expected=" or ".join(ORDERS))


def registers(oc_vecs: int, pixels: int, target: Target) -> int:
    """Vector registers of a tile: accumulators, one weight per channel block, and the broadcast pixel.

    A pixel for one channel block needs none where instructions can broadcast from memory.
    """
    return oc_vecs * pixels + oc_vecs + (0 if oc_vecs == 1 and target.broadcast_operands else 1)


def can_flatten(p: ConvProblem) -> bool:
    """Whether consecutive output rows read and write consecutive memory."""
    one = (p.kh, p.kw, p.sh, p.sw) == (1, 1, 1, 1) and p.pads == (0, 0, 0, 0)
    gapless = p.x.row == p.iw * p.x.pixel and p.y.row == p.ow * p.y.pixel
    return one and gapless and (p.r is None or p.r.row == p.ow * p.r.pixel)


def extent(p: ConvProblem, flat: bool) -> tuple[int, int]:
    """Rows and columns that tiles must cover."""
    return (1, p.oh * p.ow) if flat else (p.oh, p.ow)


def candidates(p: ConvProblem, target: Target, *, rows_apart: bool = False) -> Iterator[DirectSchedule]:
    """Every register tile that fits, both loop orders; with `rows_apart` rows are not joined even if they could be."""
    flat = can_flatten(p) and not rows_apart
    height, width = extent(p, flat)
    for oc_vecs in range(1, min(4, p.oc_blocks) + 1):
        for rows in (1, 2, 3, 4) if not flat else (1,):
            for cols in range(1, min(width, 28) + 1):
                fits = registers(oc_vecs, rows * cols, target) <= target.vector_registers and rows <= height
                # Rows are stacked only where one row cannot fill the registers.
                if fits and (rows == 1 or cols == width or cols <= 4):
                    ahead = int(p.kh * p.kw == 1 and 1 < p.lanes < p.ic_padded)
                    for order in ORDERS:
                        yield DirectSchedule(oc_vecs, rows, cols, int(flat), order, ahead)


def channel_cycles(oc_vecs: int, pixels: int, target: Target) -> float:
    """Cycles that one input channel of one tap takes in a register tile."""
    accumulators = oc_vecs * pixels
    # Fewer chains than latency x ports leave the multipliers idle.
    fma = max(accumulators / target.fma_ports, 4.0)
    return max(fma, (oc_vecs + pixels) / LOADS_PER_CYCLE)


def predict(p: ConvProblem, s: DirectSchedule, target: Target) -> float:
    """Cycles of the whole convolution on one core."""
    height, width = extent(p, bool(s.flat))
    pixels = s.rows * s.cols
    oc_tiles = -(-p.oc_blocks // s.oc_vecs)
    px_tiles = -(-height // s.rows) * -(-width // s.cols)
    tiles = p.n * oc_tiles * px_tiles
    depth = p.ic_padded * p.kh * p.kw
    accumulators = s.oc_vecs * pixels
    # Weights that outgrow the first-level cache come from the second for every tile of pixels.
    fits = depth * s.oc_vecs * target.vector_bytes <= target.l1_bytes // 2
    from_l2 = 4 * pixels + (0 if fits else s.oc_vecs * target.vector_bytes)
    inner = max(channel_cycles(s.oc_vecs, pixels, target), from_l2 / L2_BYTES_PER_CYCLE)
    # Start and end of a tile: bias, activation, store; and the loop's own instructions.
    edge = accumulators * 1.5 + 12 + 2.0 * (p.ic_padded // p.lanes) * p.kh * (p.kw if p.lanes > 1 else 1)
    weights = depth * p.oc_blocks * target.vector_bytes
    image = p.ic_padded * p.ih * p.iw * 4
    if s.order == "oc":
        streamed, kept = oc_tiles * image + weights, depth * s.oc_vecs * target.vector_bytes
    else:
        bands = -(-height // s.rows) if not s.flat else px_tiles
        streamed, kept = bands * weights + image, image // max(height, 1) * (s.rows + p.kh)
    far = 1.0 if weights + image <= target.l2_bytes else 2.0
    spill = 1.0 if kept <= target.l2_bytes else 3.0
    traffic = p.n * streamed * far * spill / 48
    # Weights that no cache of the core keeps from one run to the next are read from afar in every run.
    afar = weights / FAR_BYTES_PER_CYCLE if weights > target.l2_bytes else 0.0
    return max(tiles * (depth * inner + edge), afar) + 0.3 * traffic


@functools.cache
def choose(p: ConvProblem, target: Target) -> DirectSchedule:
    """The candidate with the lowest prediction; ties go to the first in a fixed order."""
    best = min(candidates(p, target), key=lambda s: predict(p, s, target))
    best.check(p, target)
    return best
