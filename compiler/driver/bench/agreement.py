"""Whether the contenders computed the same: a time for a wrong answer is worth nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from sqzc.ir.constant import Array


@dataclass(frozen=True)
class Agreement:
    """Two contenders' outputs side by side.

    `largest` is the largest absolute difference, infinite when the outputs have different shapes or one has a NaN or
    an infinity that the other has not; `scale` is the largest absolute value of any output. `same_top1` of `images`
    have their largest value at the same place in both.
    """

    first: str
    second: str
    largest: float
    scale: float
    same_top1: int
    images: int

    def holds(self, tolerance: float) -> bool:
        """Whether the difference is at most `tolerance` of the scale."""
        return self.largest <= tolerance * self.scale or self.largest == 0

    def to_data(self) -> dict[str, Any]:
        """As JSON has it, which knows no infinity: None stands for it."""
        return {**asdict(self), "largest": self.largest if math.isfinite(self.largest) else None}

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Agreement:
        """What `to_data` gave."""
        return Agreement(**{**data, "largest": math.inf if data["largest"] is None else data["largest"]})

    def __str__(self) -> str:
        top = f"same top-1 on {self.same_top1} of {self.images}" if self.images else "no top-1"
        return f"{self.first} and {self.second}: largest difference {self.largest:.2g}, {top}"


def compare(answers: Mapping[str, Sequence[Array]], images: int) -> list[Agreement]:
    """Every pair of contenders. `images` is the batch; 0 where outputs are no scores to have a top-1."""
    pairs = combinations(answers.items(), 2)
    return [_compare(first, ours, second, theirs, images) for (first, ours), (second, theirs) in pairs]


def _compare(first: str, ours: Sequence[Array], second: str, theirs: Sequence[Array], images: int) -> Agreement:
    if [a.shape for a in ours] != [a.shape for a in theirs]:
        return Agreement(first, second, math.inf, 0.0, 0, images)
    largest = max(difference(a, b) for a, b in zip(ours, theirs, strict=True))
    scale = max(_size(array) for array in (*ours, *theirs))
    same = 0
    if images:
        tops = [scores[0].reshape(images, -1).argmax(axis=1) for scores in (ours, theirs)]
        same = int(np.sum(tops[0] == tops[1]))
    return Agreement(first, second, largest, scale, same, images)


def difference(a: Array, b: Array) -> float:
    """The largest absolute difference; infinite where one alone is NaN or infinite, or they are so in other ways."""
    wide = a.astype(np.float64), b.astype(np.float64)
    numbers = np.isfinite(wide[0]) & np.isfinite(wide[1])
    alike = (wide[0] == wide[1]) | (np.isnan(wide[0]) & np.isnan(wide[1]))
    if not np.all(numbers | alike):
        return float("inf")
    return float(np.max(np.abs(np.subtract(*wide, where=numbers, out=np.zeros_like(wide[0]))), initial=0.0))


def _size(array: Array) -> float:
    """The largest absolute value that is a number."""
    return float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))
