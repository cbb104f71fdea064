"""Schedule of the blocked depthwise convolution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.diagnostics import ScheduleError
from sqzc.target import Target

# Sums that must run at once to keep the multipliers busy: latency times ports.
CHAINS = 8
LOADS_PER_CYCLE = 2
# Taller tiles read from too many places at once.
MOST_ROWS = 4
# A filter row of more taps would make too much code of a tile.
MOST_KEPT_TAPS = 8


@dataclass(frozen=True)
class DepthwiseSchedule(Schedule):
    """A tile of `rows` x `cols` pixels of one channel block; one accumulator a pixel.

    `kept`: a row of the filter is kept in registers, and each pixel that it meets is read once for all its taps; else
    every product reads its pixel.
    """

    rows: int
    cols: int
    kept: int

    def check(self, problem: ConvProblem, target: Target) -> None:
        """ScheduleError when the tile does not fit the registers or the image."""
        wanted = self.rows * self.cols + _others(problem, bool(self.kept), target)
        if wanted > target.vector_registers:
            raise ScheduleError(
                f"a tile of {self.rows} x {self.cols} vectors would spill",
                expected=f"at most {target.vector_registers} registers",
                got=str(wanted),
            )
        if self.rows > problem.oh or self.cols > problem.ow:
            raise ScheduleError(f"a tile of {self.rows} x {self.cols}", expected=f"within {problem.oh} x {problem.ow}")


def _others(p: ConvProblem, kept: bool, target: Target) -> int:
    """Registers beside the accumulators: weights, a pixel, zero for an activation; products where they are no sums."""
    return (p.kw if kept else 1) + 1 + (0 if target.has_fma else 2)


def pixels_of_row(p: ConvProblem, cols: int) -> dict[int, list[tuple[int, int]]]:
    """(output column, filter column) pairs by the input column they meet in, for `cols` neighbouring outputs."""
    meetings: dict[int, list[tuple[int, int]]] = {}
    for j in range(cols):
        for v in range(p.kw):
            meetings.setdefault(j * p.sw + v * p.dw, []).append((j, v))
    return dict(sorted(meetings.items()))


def candidates(p: ConvProblem, target: Target) -> Iterator[DepthwiseSchedule]:
    """Every tile that fits the registers."""
    for kept in (0, 1) if p.kw <= MOST_KEPT_TAPS else (0,):
        room = target.vector_registers - _others(p, bool(kept), target)
        for rows in range(1, min(MOST_ROWS, p.oh) + 1):
            for cols in range(1, min(room // rows, p.ow) + 1):
                yield DepthwiseSchedule(rows, cols, kept)


def predict(p: ConvProblem, s: DepthwiseSchedule, target: Target) -> float:
    """Cycles of one channel block of one image."""
    tiles = -(-p.oh // s.rows) * -(-p.ow // s.cols)
    pixels = s.rows * s.cols
    loads = p.kw + s.rows * (len(pixels_of_row(p, s.cols)) if s.kept else p.kw * s.cols)
    row = max(p.kw * max(pixels, CHAINS) / target.fma_ports, loads / LOADS_PER_CYCLE)
    return tiles * (p.kh * (row + 1) + pixels + 3)


def choose(p: ConvProblem, target: Target) -> DepthwiseSchedule:
    """The tile that takes the fewest cycles."""
    best = min(candidates(p, target), key=lambda s: (predict(p, s, target), s.rows))
    best.check(p, target)
    return best
