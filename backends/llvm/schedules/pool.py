"""Schedule of the blocked pools."""

from __future__ import annotations

from collections.abc import Iterator
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


def candidates(p: PoolProblem, target: Target) -> Iterator[PoolSchedule]:
    """Every number of pixels that has registers for its columns; a single one always does well enough."""
    first, last = inner_columns(p)
    yield PoolSchedule(1)
    for n in range(2, min(4, last - first) + 1):
        if (n - 1) * p.op.stride[1] + p.op.kernel[1] + n <= target.vector_registers - 4:
            yield PoolSchedule(n)


def choose(p: PoolProblem, target: Target) -> PoolSchedule:
    """As many pixels as have registers for their columns, without a needlessly long overlapping tail."""
    first, last = inner_columns(p)
    width = max(last - first, 1)
    return min(candidates(p, target), key=lambda s: (-(-width // s.cols) * (s.cols + 1), -s.cols))
