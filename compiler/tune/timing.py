"""Two builds of one model, run in turns, and how long their steps take."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sqzc.profile.machine import cycles_per_second
from sqzc.profile.probed import Counters, Runner

TURNS = 8
"""Turns of each build; who is first changes from one to the next."""

GAIN = 0.02
"""By what part of the time a choice must be faster to be taken."""

_TURN_SECONDS = 0.01
_MOST_RUNS = 50

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Times:
    """Median seconds of each step in each turn: [turns, steps], of the build that was there before and of the other."""

    before: Seconds
    after: Seconds

    def gain(self, before: list[int], after: list[int]) -> float | None:
        """Time of some steps of the other build by that of their counterparts, if they are faster and not by chance."""
        ratios = self.after[:, after].sum(axis=1) / np.maximum(self.before[:, before].sum(axis=1), 1e-12)
        median = float(np.median(ratios))
        return median if median < 1 - GAIN and float(np.quantile(ratios, 0.75)) < 1 else None


def interleave(before: Runner, after: Runner, *, turns: int = TURNS) -> Times:
    """Runs both builds, which have probes."""
    runners = before, after
    buffers = [np.zeros((1, before.steps + 1), np.uint64)]
    buffers.append(buffers[0] if after is before else np.zeros((1, after.steps + 1), np.uint64))
    medians: tuple[list[Seconds], list[Seconds]] = ([], [])
    starts: list[float] = []
    readings: list[int] = []
    for runner, buffer in zip(runners, buffers, strict=True):
        runner.count(buffer)
        runner.run()
    runs = _affordable(before)
    for turn in range(turns):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            # The caches are the other build's.
            runners[which].run()
            rows = []
            for _ in range(runs):
                starts.append(time.perf_counter())
                runners[which].run()
                rows.append(buffers[which][0].copy())
                readings.append(int(rows[-1][0]))
            medians[which].append(_step_medians(np.stack(rows)))
    rate = cycles_per_second(readings, starts)
    return Times(np.stack(medians[0]) / rate, np.stack(medians[1]) / rate)


def _step_medians(rows: Counters) -> Seconds:
    return np.asarray(np.median(np.diff(rows.astype(np.int64), axis=1), axis=0))


def _affordable(runner: Runner) -> int:
    """Runs of a turn."""
    start = time.perf_counter()
    runner.run()
    return int(min(max(_TURN_SECONDS / max(time.perf_counter() - start, 1e-6), 3), _MOST_RUNS))
