"""Schedule of the 1 x 1 convolution by one level of Strassen's algorithm in Winograd's form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule, can_flatten, predict, registers
from sqzc.diagnostics import ScheduleError
from sqzc.target import Target

# Cycles per vector of a sum of two operands that come from the second-level cache and go back there.
SUM_CYCLES = 3.0


@dataclass(frozen=True)
class StrassenSchedule(Schedule):
    """Register tile of `oc_vecs` channel blocks x `cols` pixels within a half of the channels and of the pixels."""

    oc_vecs: int
    cols: int

    def check(self, problem: ConvProblem, target: Target) -> None:
        """ScheduleError when the tile does not fit the registers or the halves."""
        wanted = registers(self.oc_vecs, self.cols, target)
        if wanted > target.vector_registers:
            raise ScheduleError(
                f"a tile of {self.oc_vecs} x {self.cols} vectors would spill",
                expected=f"at most {target.vector_registers} registers",
                got=str(wanted),
            )
        if not applies(problem) or rows_and_width(problem)[1] % self.cols:
            raise ScheduleError(f"halves of {problem.oh} x {problem.ow} pixels do not divide into {self.cols}")
        if self.oc_vecs > half_blocks(problem):
            raise ScheduleError(
                f"a tile of {self.oc_vecs} channel blocks", expected=f"at most half the image's, {half_blocks(problem)}"
            )


def applies(p: ConvProblem) -> bool:
    """Whether it is a plain 1 x 1 convolution whose input channels and rows divide into halves."""
    plain = (p.kh, p.kw, p.sh, p.sw) == (1, 1, 1, 1) and p.pads == (0, 0, 0, 0) and p.lanes > 1
    return plain and (p.ic_padded // p.lanes) % 2 == 0 and p.oh % 2 == 0


def rows_and_width(p: ConvProblem) -> tuple[int, int]:
    """A half of the image as rows of pixels that follow each other in memory: one long row where there are no gaps."""
    return (1, pixels(p)) if can_flatten(p) else (p.oh // 2, p.ow)


def pixels(p: ConvProblem) -> int:
    """Pixels of a half."""
    return p.oh * p.ow // 2


def half_blocks(p: ConvProblem) -> int:
    """Channel blocks of the larger half of the output channels."""
    return -(-p.oc_blocks // 2)


def half(p: ConvProblem) -> ConvProblem:
    """One of the seven products as a convolution problem."""
    return replace(p, ic=p.ic_padded // 2, oc=half_blocks(p) * p.y_block, oh=1, ow=pixels(p), ih=1, iw=pixels(p))


def schedule_of_half(s: StrassenSchedule) -> DirectSchedule:
    """The register tile of the products."""
    return DirectSchedule(s.oc_vecs, 1, s.cols, 1, "oc", 1)


def candidates(p: ConvProblem, target: Target) -> Iterator[StrassenSchedule]:
    """Every register tile that divides the rows."""
    if not applies(p):
        return
    # One channel block alone is bound by loads, which takes more than the seventh product gives.
    for oc_vecs in range(2, min(4, half_blocks(p)) + 1):
        for cols in range(4, 29):
            if rows_and_width(p)[1] % cols == 0 and registers(oc_vecs, cols, target) <= target.vector_registers:
                yield StrassenSchedule(oc_vecs, cols)


def cost(p: ConvProblem, s: StrassenSchedule, target: Target) -> float:
    """Cycles of the whole convolution on one core."""
    product = predict(replace(half(p), n=1), schedule_of_half(s), target)
    sums = 4 * (p.ic_padded // p.lanes // 2) * pixels(p) * SUM_CYCLES
    tiles = -(-half_blocks(p) // s.oc_vecs) * (pixels(p) // s.cols)
    moves = tiles * s.oc_vecs * s.cols * 10
    return p.n * (7 * product + sums + moves)


def choose(p: ConvProblem, target: Target) -> tuple[StrassenSchedule, float] | None:
    """The candidate with the lowest prediction, and that; None where the algorithm does not apply."""
    return min(((s, cost(p, s, target)) for s in candidates(p, target)), key=lambda pair: pair[1], default=None)
