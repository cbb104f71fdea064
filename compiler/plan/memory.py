"""Placing buffers in the arena. Pure functions over (bytes, first step, last step)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from sqzc.plan.program import ALIGN


@dataclass(frozen=True)
class Interval:
    """Memory that is needed from step `first` to step `last`, both included."""

    bytes: int
    first: int
    last: int

    def overlaps(self, other: Interval) -> bool:
        """Whether both are needed at some step."""
        return self.first <= other.last and other.first <= self.last


def align(size: int) -> int:
    """`size` rounded up to the arena's alignment."""
    return -(-size // ALIGN) * ALIGN


def lower_bound(intervals: Sequence[Interval]) -> int:
    """The most bytes live at any one step: no placement needs less."""
    changes: dict[int, int] = defaultdict(int)
    for interval in intervals:
        changes[interval.first] += align(interval.bytes)
        changes[interval.last + 1] -= align(interval.bytes)
    return max(accumulate(changes[step] for step in sorted(changes)), default=0)


def place(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """Offsets for the intervals and the size of the arena.

    Two orders are tried, largest first and longest-lived first; each interval goes to the lowest gap that is free
    during its life, and the smaller arena wins. Quadratic in the number of intervals.
    """
    by_size = sorted(range(len(intervals)), key=lambda i: (-intervals[i].bytes, intervals[i].first, i))
    by_life = sorted(
        range(len(intervals)), key=lambda i: (intervals[i].first - intervals[i].last, -intervals[i].bytes, i)
    )
    by_start = sorted(range(len(intervals)), key=lambda i: (intervals[i].first, -intervals[i].bytes, i))
    best: tuple[list[int], int] | None = None
    for order in (by_size, by_life, by_start):
        offsets = _first_fit(intervals, order)
        total = max((offsets[i] + align(intervals[i].bytes) for i in order), default=0)
        if best is None or total < best[1]:
            best = offsets, total
    assert best is not None
    return best


def _first_fit(intervals: Sequence[Interval], order: Sequence[int]) -> list[int]:
    offsets = [0] * len(intervals)
    placed: list[int] = []
    for index in order:
        wanted = intervals[index]
        taken = sorted(
            (offsets[other], offsets[other] + align(intervals[other].bytes))
            for other in placed
            if intervals[other].overlaps(wanted)
        )
        at = 0
        for start, end in taken:
            if start - at >= align(wanted.bytes):
                break
            at = max(at, end)
        offsets[index] = at
        placed.append(index)
    return offsets
