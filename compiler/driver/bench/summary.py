"""Figures from times: medians, quartiles, and ratios of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqzc.driver.bench.timing import Times


@dataclass(frozen=True)
class Summary:
    """Seconds of one call: over all calls of all rounds, and the median of each round."""

    median: float
    minimum: float
    quartiles: tuple[float, float]
    calls: int
    rounds: tuple[float, ...]

    def to_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; of one value, that value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, middle, upper


def summarise(times: Times) -> Summary:
    """The figures of one contender."""
    calls = [seconds for turn in times for seconds in turn]
    lower, middle, upper = quartiles(calls)
    return Summary(middle, min(calls), (lower, upper), len(calls), tuple(statistics.median(turn) for turn in times))


@dataclass(frozen=True)
class Ratio:
    """Our time as a share of a peer's: of the medians, and the quartiles of the same within each round."""

    of_medians: float
    quartiles: tuple[float, float]

    def to_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def ratio(ours: Summary, peer: Summary) -> Ratio:
    """Below 1 when we are faster."""
    lower, _, upper = quartiles([a / b for a, b in zip(ours.rounds, peer.rounds, strict=True)])
    return Ratio(ours.median / peer.median, (lower, upper))


def best(summaries: dict[str, Summary]) -> str:
    """Who has the lowest median."""
    return min(summaries, key=lambda name: summaries[name].median)
