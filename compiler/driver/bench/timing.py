"""Whose turn it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqzc.diagnostics import UsageError

Times = list[list[float]]
"""Seconds of each call, by round."""


class TakesTurns(Protocol):
    """What can be timed."""

    def turn(self, warmups: int, calls: int) -> list[float]:
        """Seconds of each of `calls` calls, after `warmups` that are not counted."""
        ...


@dataclass(frozen=True)
class Pace:
    """How long a benchmark takes: in each round every contender has a turn of `warmups` and `runs` timed calls.

    Between turns nothing runs for `pause_seconds`, so that threads which spin for a while after their work are asleep
    when it is another's turn.
    """

    rounds: int = 15
    runs: int = 20
    warmups: int = 3
    pause_seconds: float = 0.02

    def __post_init__(self) -> None:
        if min(self.rounds, self.runs) < 1 or self.warmups < 0:
            raise UsageError(
                f"{self.rounds} rounds of {self.runs} runs after {self.warmups} warm-up calls",
                expected="at least one round and one run",
            )


def order_of(round: int, count: int) -> list[int]:
    """Who comes when in a round: every contender is first, second, ... equally often."""
    return [(round + place) % count for place in range(count)]


def interleave(
    contenders: Sequence[TakesTurns], pace: Pace, on_round: Callable[[int], None] = lambda round: None
) -> list[Times]:
    """The times of each contender. `on_round` is told the number of each round as it begins."""
    times: list[Times] = [[] for _ in contenders]
    for round in range(pace.rounds):
        on_round(round)
        for index in order_of(round, len(contenders)):
            times[index].append(contenders[index].turn(pace.warmups, pace.runs))
            time.sleep(pace.pause_seconds)
    return times


def runs_for(contenders: Sequence[TakesTurns], seconds: float, most: int = 500) -> int:
    """How many calls the slowest contender makes in `seconds`; at least 3, at most `most`."""
    slowest = max(min(contender.turn(2, 3)) for contender in contenders)
    return max(3, min(most, int(seconds / max(slowest, 1e-9))))
