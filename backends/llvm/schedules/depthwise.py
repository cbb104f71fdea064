"""Schedule of the blocked depthwise convolution."""

from __future__ import annotations

from dataclasses import dataclass

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.diagnostics import ScheduleError
from sqzc.target import Target

# Sums that must run at once to keep the multipliers busy: latency times ports.
CHAINS = 8


@dataclass(frozen=True)
class DepthwiseSchedule(Schedule):
    """A tile of `rows` x `cols` pixels of one channel block; one accumulator a pixel."""

    rows: int
    cols: int

    def check(self, problem: ConvProblem, target: Target) -> None:
        """ScheduleError when the tile does not fit the registers or the image."""
        if self.rows * self.cols + 2 > target.vector_registers:
            raise ScheduleError(
                f"a tile of {self.rows} x {self.cols} vectors would spill",
                expected=f"at most {target.vector_registers - 2} accumulators",
            )
        if self.rows > problem.oh or self.cols > problem.ow:
            raise ScheduleError(f"a tile of {self.rows} x {self.cols}", expected=f"within {problem.oh} x {problem.ow}")


def choose(p: ConvProblem, target: Target) -> DepthwiseSchedule:
    """The tile with the least work: accumulators that recompute pixels, and too few of them, cost time."""
    # Without fused multiply-add every product needs a register too.
    room = min(14, target.vector_registers - (2 if target.has_fma else 4))
    shapes = [
        DepthwiseSchedule(rows, cols)
        for rows in range(1, min(4, p.oh) + 1)
        for cols in range(1, min(room // rows, p.ow) + 1)
    ]

    def work(s: DepthwiseSchedule) -> float:
        tiles = -(-p.oh // s.rows) * -(-p.ow // s.cols)
        return tiles * (max(s.rows * s.cols, CHAINS) + 1.5)

    best = min(shapes, key=lambda s: (work(s), s.rows))
    best.check(p, target)
    return best
