"""Timing against other runtimes, fairly: every contender in a process of its own, in turn, on the same bytes.

`worker` is the process of one contender and `contender` its handle here; `peers` finds the other runtimes; `timing`
decides whose turn it is, `summary` makes figures of the times, `agreement` compares what was computed, `machine` says
where it ran and whether anything else did; `model` puts it together for a network. `benchmarks/` uses the same parts.
"""

from __future__ import annotations

from sqzc.driver.bench.contender import Contender, Spec, opened
from sqzc.driver.bench.model import BenchOptions, bench, prepare
from sqzc.driver.bench.peers import PEERS, find_peers
from sqzc.driver.bench.timing import Pace, interleave

__all__ = [
    "PEERS",
    "BenchOptions",
    "Contender",
    "Pace",
    "Spec",
    "bench",
    "find_peers",
    "interleave",
    "opened",
    "prepare",
]
