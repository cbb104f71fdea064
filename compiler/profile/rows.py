"""The table of a profile: one row for each step, against what the machine can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqzc.plan.program import Program, Step
from sqzc.plan.traffic import step_traffic
from sqzc.profile.machine import Machine
from sqzc.profile.probed import Timings

FEWER = ("winograd", "strassen", "split")
"""Kernels whose name has one of these words do less arithmetic than the op they stand for, or not on these units."""

FEWER_NOTE = (
    "* counted by the op's own rule; the kernel does less arithmetic (Winograd, Strassen) or does it on other units "
    "(split), so that it can go beyond 100 % of the peak"
)

GAP_BAR = 0.03
"""The share of the total that rows may fail to explain."""

PROBE_BAR = 0.05
"""By how much the probes may slow the code down."""


@dataclass(frozen=True)
class Row:
    """One step. `flops` are those of its ops, by their own rule; `bytes` its operands, constants and results, each
    once. Shares are of the machine's limits with as many threads. `bound` is what limits a kernel of so many FLOPs a
    byte: `compute`, or the nearest level of memory with room for its bytes; `roof_share` is the part of that limit that
    it reaches. `predicted_seconds` is what the cost model that chose the schedule says, at the machine's clock; None
    for kernels that it does not know.
    """

    index: int
    layer: str
    sources: tuple[str, ...]
    kernel: str
    schedule: str
    seconds: float
    share: float
    flops: int
    bytes: int
    flops_per_second: float
    bytes_per_second: float
    peak_share: float
    bandwidth_share: float
    roof_share: float
    bound: str
    fewer_operations: bool
    predicted_seconds: float | None = None

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Profile:
    """A whole profile. `total` is the wall time of a run of the probed code, `plain_total` of the same code without
    probes; both, and the rows, are means over the fastest tenth of the runs.
    """

    model: str
    threads: int
    runs: int
    machine: Machine
    rows: tuple[Row, ...]
    total: float
    plain_total: float
    timeline: tuple[float, ...]

    @property
    def sum(self) -> float:
        """Seconds of all rows."""
        return sum(row.seconds for row in self.rows)

    @property
    def gap(self) -> float:
        """Seconds of the total that are in no row: entering and leaving the library, waking and awaiting threads."""
        return self.total - self.sum

    @property
    def gap_share(self) -> float:
        """The gap as a part of the total."""
        return self.gap / self.total

    @property
    def probe_cost(self) -> float:
        """By what part the probes slow the code down; below zero where the noise of the machine is larger than that."""
        return self.total / self.plain_total - 1

    @property
    def flops(self) -> int:
        """FLOPs of all rows."""
        return sum(row.flops for row in self.rows)

    @property
    def bytes(self) -> int:
        """Bytes of all rows."""
        return sum(row.bytes for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        return {
            "model": self.model,
            "threads": self.threads,
            "runs": self.runs,
            "machine": self.machine.to_json(),
            "rows": [asdict(row) for row in self.rows],
            "sum_seconds": self.sum,
            "total_seconds": self.total,
            "gap_seconds": self.gap,
            "gap_share": self.gap_share,
            "plain_seconds": self.plain_total,
            "probe_cost": self.probe_cost,
            "flops": self.flops,
            "bytes": self.bytes,
            "flops_per_second": self.flops / self.total,
            "peak_share": self.flops / self.total / self.machine.peak_flops,
        }


def make_profile(
    program: Program, timings: Timings, machine: Machine, cycles: Sequence[float | None] | None = None
) -> Profile:
    """The profile that timings of a program amount to; `cycles` are the cost model's, for each step."""
    seconds = timings.steps
    total = timings.total
    fastest = timings.counters[timings.best[0]]
    timeline = tuple(float(at - fastest[0]) / timings.cycles_per_second for at in fastest)
    predicted = [None if count is None else count / machine.clock for count in cycles or [None] * len(program.steps)]
    rows = tuple(
        replace(_row(program, index, step, float(seconds[index]), total, machine), predicted_seconds=predicted[index])
        for index, step in enumerate(program.steps)
    )
    return Profile(
        program.name, machine.threads, len(timings.walls), machine, rows, total, timings.plain_total, timeline
    )


def _row(program: Program, index: int, step: Step, seconds: float, total: float, machine: Machine) -> Row:
    traffic = step_traffic(program, step).total
    # A step of an empty range may take no time at all.
    rate = step.flops / seconds if seconds > 0 else 0.0
    speed = traffic / seconds if seconds > 0 else 0.0
    level = machine.level_for(traffic)
    reach = step.flops / traffic * level.bytes_per_second if traffic else machine.peak_flops
    return Row(
        index=index,
        layer=layer_name(step),
        sources=step.sources,
        kernel=step.kernel,
        schedule=" ".join(f"{name}={value}" for name, value in step.schedule.items()),
        seconds=seconds,
        share=seconds / total,
        flops=step.flops,
        bytes=traffic,
        flops_per_second=rate,
        bytes_per_second=speed,
        peak_share=rate / machine.peak_flops,
        bandwidth_share=speed / machine.memory_bandwidth,
        # A step without arithmetic is limited by its bytes alone.
        roof_share=rate / min(reach, machine.peak_flops) if step.flops else speed / level.bytes_per_second,
        bound="compute" if reach >= machine.peak_flops else level.level,
        fewer_operations=any(word in step.kernel for word in FEWER),
    )


def layer_name(step: Step) -> str:
    """What the model calls the step: its last two source names, or what it writes where it has none."""
    return ", ".join(step.sources[-2:] or [f"%{name}" for name in step.writes])


def heaviest(rows: Sequence[Row], count: int) -> list[Row]:
    """The rows that take longest, longest first."""
    return sorted(rows, key=lambda row: -row.seconds)[:count]
