"""What came of a search: the model's plan against the tuned one, problem by problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.spaces import SPACES
from sqzc.backends.llvm.tuning import Entry, Tuning, node_problem, step_problem
from sqzc.ir.graph import Graph
from sqzc.plan.program import Program, Step
from sqzc.tune.questions import chain, writers
from sqzc.tune.timing import Times


@dataclass(frozen=True)
class Group:
    """All places with the same problem: what their kernels write, and how many there are."""

    problem: str
    values: frozenset[str]
    count: int

    def steps(self, program: Program) -> list[int]:
        """The kernels of a plan that stand for them."""
        return writers(program, self.values)


@dataclass(frozen=True)
class Comparison:
    """The kernels of a group in the model's plan and in the tuned one. Seconds are of all `layers` together;
    predictions are None where no model knows the kernels.
    """

    layers: tuple[str, ...]
    kernel_before: str
    kernel: str
    schedule_before: str
    schedule: str
    predicted_before: float | None
    predicted: float | None
    measured_before: float
    measured: float

    @property
    def changed(self) -> bool:
        """Whether the tuning changed anything."""
        return (self.kernel, self.schedule) != (self.kernel_before, self.schedule_before)


def groups_of(graph: Graph, library: Library) -> list[Group]:
    """The problems whose kernels have schedules to choose from, in the order of the graph."""
    found: dict[str, Group] = {}
    covered: set[str] = set()
    for node in graph.nodes:
        if not node.outputs or covered.intersection(value.name for value in node.outputs):
            continue
        if not library.alternatives(graph, node):
            continue
        values = chain(graph, node)
        covered.update(values)
        problem = node_problem(graph, node)
        known = found.get(problem, Group(problem, frozenset(), 0))
        found[problem] = Group(problem, known.values.union(values), known.count + 1)
    return list(found.values())


def choices(program: Program, steps: Sequence[int]) -> list[tuple[str, dict[str, int | str]]]:
    """Kernels and schedules of some steps."""
    return [(program.steps[i].kernel, dict(program.steps[i].schedule)) for i in steps]


def key_of(program: Program, step: Step) -> tuple[str, str]:
    """What the schedule entry of a step is found by."""
    return step.kernel, step_problem(program, step)


def confirmed(tuning: Tuning, groups: Sequence[Group], original: Program, tuned: Program, times: Times) -> Tuning:
    """The tuning with the model's own choices for groups that turn out not to be faster with it."""
    kernels = {entry.problem: entry for entry in tuning.kernels}
    schedules = {(entry.kernel, entry.problem): entry for entry in tuning.schedules}
    for group in groups:
        before, after = group.steps(original), group.steps(tuned)
        if choices(original, before) == choices(tuned, after) or times.gain(before, after) is not None:
            continue
        asked = {key: schedules.pop(key, None) for key in (key_of(tuned, tuned.steps[i]) for i in after)}
        for step in (original.steps[i] for i in before):
            entry = asked.get(key_of(original, step))
            if entry is not None:
                schedules[entry.kernel, entry.problem] = replace(entry, schedule=dict(step.schedule))
        if group.problem in kernels:
            first = next(original.steps[i] for i in before if original.steps[i].kernel in SPACES)
            kernels[group.problem] = Entry(first.kernel, group.problem)
    return replace(tuning, kernels=tuple(kernels.values()), schedules=tuple(schedules.values()))


class Outcome:
    """Times and predictions of the final plan, every step of which was measured in one of two others."""

    def __init__(
        self,
        original: Program,
        tuned: Program,
        final: Program,
        times: Times,
        predict: Callable[[Program], list[float | None]],
    ) -> None:
        self.original, self.final = original, final
        before, after = np.median(times.before, axis=0), np.median(times.after, axis=0)
        self.before = [float(seconds) for seconds in before]
        # What did not change is told with one number, although it was measured twice.
        known = {
            (step.writes, step.kernel, tuple(step.schedule.items())): float(seconds)
            for program, medians in ((tuned, after), (original, before))
            for step, seconds in zip(program.steps, medians, strict=True)
        }
        # Two problems that share a kernel's entry may leave a step as it never ran: the nearest that ran stands for it.
        nearest = {step.writes: float(seconds) for step, seconds in zip(tuned.steps, after, strict=True)}
        self.after = [
            known.get((step.writes, step.kernel, tuple(step.schedule.items())), nearest.get(step.writes, 0.0))
            for step in final.steps
        ]
        self.predicted_before, self.predicted = predict(original), predict(final)

    def row(self, group: Group) -> Comparison:
        """What became of a group."""
        before, after = group.steps(self.original), group.steps(self.final)
        layers = dict.fromkeys(name for i in after for name in self.final.steps[i].sources[-1:])
        return Comparison(
            tuple(layers),
            *(_kernels(self.original, before), _kernels(self.final, after)),
            *(_schedules(self.original, before), _schedules(self.final, after)),
            *(_total(self.predicted_before, before), _total(self.predicted, after)),
            *(sum(self.before[i] for i in before), sum(self.after[i] for i in after)),
        )

    def with_seconds(self, tuning: Tuning, groups: Sequence[Group]) -> Tuning:
        """The tuning with the seconds of each entry, and without entries that the plan has no use for."""
        kernels = []
        by_problem = {group.problem: group for group in groups}
        for entry in tuning.kernels:
            group = by_problem[entry.problem]
            kernels.append(self._filled(entry, group.steps(self.final), group.count))
        schedules = []
        for entry in tuning.schedules:
            key = entry.kernel, entry.problem
            steps = [i for i, step in enumerate(self.final.steps) if key_of(self.final, step) == key]
            if steps:
                schedules.append(self._filled(entry, steps, len(steps)))
        return replace(tuning, kernels=tuple(kernels), schedules=tuple(schedules))

    def _filled(self, entry: Entry, steps: Sequence[int], count: int) -> Entry:
        predicted = _total(self.predicted, steps)
        return replace(
            entry,
            measured_seconds=sum(self.after[i] for i in steps) / count,
            predicted_seconds=None if predicted is None else predicted / count,
        )


def _total(seconds: Sequence[float | None], steps: Sequence[int]) -> float | None:
    known = [value for value in (seconds[i] for i in steps) if value is not None]
    return sum(known) if known else None


def _kernels(program: Program, steps: Sequence[int]) -> str:
    return " + ".join(dict.fromkeys(program.steps[i].kernel for i in steps))


def _schedules(program: Program, steps: Sequence[int]) -> str:
    words = (
        " ".join(f"{name}={value}" for name, value in program.steps[i].schedule.items())
        for i in steps
        if program.steps[i].kernel in SPACES
    )
    return "; ".join(dict.fromkeys(words))
