"""Schedule of the blocked pools."""

from __future__ import annotations

from dataclasses import dataclass

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import PoolProblem
from sqzc.target import Target


@dataclass(frozen=True)
class PoolSchedule(Schedule):
    """`cols` output pixels are made at once, sharing the columns that their windows have in common."""

    cols: int


def inner_columns(p: PoolProblem) -> tuple[int, int]:
    """Output columns whose whole window lies inside the image: [first, last)."""
    left, stride, span = p.op.pads[1], p.op.stride[1], (p.op.kernel[1] - 1) * p.op.dilation[1] + 1
    first = -(-left // stride)
    last = (p.iw - span + left) // stride + 1
    return min(first, p.ow), max(min(last, p.ow), min(first, p.ow))


def choose(p: PoolProblem, target: Target) -> PoolSchedule:
    """As many pixels as have registers for their columns, without a needlessly long overlapping tail."""
    first, last = inner_columns(p)
    width = max(last - first, 1)
    room = target.vector_registers - 4
    fitting = [n for n in range(1, 5) if (n - 1) * p.op.stride[1] + p.op.kernel[1] + n <= room and n <= width]
    best = min(fitting or [1], key=lambda n: (-(-width // n) * (n + 1), -n))
    return PoolSchedule(best)
