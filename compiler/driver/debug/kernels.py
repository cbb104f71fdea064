"""Whether generated code computes what its graph says: every kernel's output, as it leaves it, against the reference.

No fusion is turned off for it: a kernel that stands for several ops is judged by what it writes. Each step is judged
twice. own: against the reference fed with the very memory that the kernel read, so that no other kernel's error counts.
total: against the reference from the inputs on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sqzc.backends.llvm.legalize import legalize
from sqzc.backends.reference import evaluate, evaluate_values
from sqzc.diagnostics import InternalError
from sqzc.driver.debug.cases import Case
from sqzc.driver.debug.compare import NOTHING, Difference, budget_of, compare
from sqzc.driver.debug.extract import extract, nodes_between
from sqzc.driver.debug.setting import Setting
from sqzc.driver.debug.tap import Buffers, Run, SteppedCode
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.printer import show_op
from sqzc.plan.program import CLEAR_BORDER, Program, Step

OWN_FACTOR, TOTAL_FACTOR = 2.0, 10.0
"""What a kernel may be off by, in budgets of its type: by itself, and with all that came before it."""

# An output much smaller than what it is made of is a difference of large numbers; it counts as so large at least.
_CANCELLED = 2.0**-10


@dataclass(frozen=True)
class WrongStep:
    """A kernel call that is wrong. `what` says in which way; `ops` are those it stands for, with their values."""

    index: int
    step: Step
    value: str
    what: str
    difference: Difference
    case: str
    nodes: tuple[Node, ...] = field(repr=False, compare=False, default=())

    @property
    def ops(self) -> str:
        """The ops that the kernel stands for."""
        return "; ".join(show_op(op) for op in self.step.ops) or self.step.kernel

    @property
    def text(self) -> str:
        """What is wrong, in a few lines."""
        schedule = ".".join(f"{key}={value}" for key, value in self.step.schedule.items())
        lines = [
            f"step {self.index} {self.step.kernel} is wrong: {self.what}",
            f"  op:     {self.ops}",
            f"  value:  '{self.value}' (inputs: {self.case})",
        ]
        if self.difference is not NOTHING:
            amount = f"{self.difference.relative:.3g} of its magnitude"
            lines.append(f"  off by: {amount}; {self.difference.words}")
        if self.step.sources:
            lines.append(f"  stands for: {', '.join(self.step.sources)}")
        if schedule:
            lines.append(f"  schedule: {schedule}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        return {
            "step": self.index,
            "kernel": self.step.kernel,
            "what": self.what,
            "op": self.ops,
            "value": self.value,
            "sources": list(self.step.sources),
            "schedule": dict(self.step.schedule),
            "case": self.case,
            "difference": self.difference.to_json(),
        }


@dataclass(frozen=True)
class StepCheck:
    """What `--verify-kernels` measured of one step, over all cases and ways to run it."""

    index: int
    kernel: str
    value: str
    own: float
    total: float
    max_abs: float
    ulps: int

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        return dict(vars(self))


class WrongKernel(InternalError):
    """Generated code that computes something else than its graph. Saves itself as a small reproducer."""

    def __init__(self, wrong: WrongStep, graph: Graph, case: Case, setting: Setting) -> None:
        super().__init__(wrong.text)
        self.wrong, self.before, self.case, self.setting = wrong, graph, case, setting

    def save_reproducer(self, folder: Path) -> str:
        """Writes a graph of a few ops that shows it, and gives the command to show it with."""
        from sqzc.driver.debug.code import reproduce_step

        return reproduce_step(self.before, self.wrong, self.case, self.setting).save(folder, self.wrong.text)


class KernelChecker:
    """Runs the code of one graph step by step."""

    def __init__(self, graph: Graph, program: Program, setting: Setting) -> None:
        # The plan was made from the graph in this form.
        self.graph, self.program = legalize(graph), program
        self.code = SteppedCode(program, setting.target, setting.effort)
        self.values = {value.name: value for value in self.graph.values()}
        self.stands_for = _copies(program)
        self.nodes = [self._nodes_of(step) for step in program.steps]

    def graph_value(self, buffer: str) -> Value | None:
        """The value of the graph that a buffer holds."""
        return self.values.get(self.stands_for.get(buffer, buffer))

    def _nodes_of(self, step: Step) -> list[Node]:
        """The nodes that a step computes: between what it reads and what it writes."""
        if not step.ops:
            return []
        targets, stops = ([self.graph_value(name) for name in names] for names in (step.writes, step.reads))
        return nodes_between([v for v in targets if v is not None], [v for v in stops if v is not None])

    def run(self, case: Case, *, prepare: bool = True, parts: int = 1) -> Iterator[StepCheck | WrongStep]:
        """One entry a step, in order; ends at the first that is wrong."""
        right = evaluate_values(self.graph, case.inputs, "float64")
        inputs = {name: np.asarray(case.inputs[name]) for name in self.program.inputs}
        for index, step, buffers, run in self.code.run(inputs, prepare=prepare, parts=parts):
            found = _StepRun(self, case, right, index, step, buffers).check(run)
            yield found
            if isinstance(found, WrongStep):
                return


class _StepRun:
    def __init__(
        self,
        checker: KernelChecker,
        case: Case,
        right: Mapping[str, Array],
        index: int,
        step: Step,
        buffers: Buffers,
    ) -> None:
        self.checker, self.case, self.right, self.buffers = checker, case, right, buffers
        self.index, self.step = index, step

    def wrong(self, value: str, what: str, difference: Difference = NOTHING) -> WrongStep:
        return WrongStep(
            self.index, self.step, value, what, difference, self.case.name, tuple(self.checker.nodes[self.index])
        )

    def check(self, run: Run) -> StepCheck | WrongStep:
        reads = {name: self.buffers.tensor(name) for name in self.step.reads}
        clobbered = self._check_reads(reads)
        run()
        return clobbered or self._check_writes(reads)

    def _check_reads(self, reads: Mapping[str, Array]) -> WrongStep | None:
        """Whether what the step reads is still what was written."""
        for name, array in reads.items():
            value = self.checker.graph_value(name)
            if value is None or value.constant is not None:
                continue
            difference = compare(array, self.right[value.name], floor=_floor(reads.values()))
            if not difference.relative <= TOTAL_FACTOR * budget_of(value.type.dtype):
                words = "what it reads has been overwritten since it was made"
                return self.wrong(value.name, words, difference)
            if np.any(self.buffers.border(name) != 0):
                return self.wrong(value.name, "the border around what it reads does not hold zeros")
        return None

    def _check_writes(self, reads: Mapping[str, Array]) -> StepCheck | WrongStep:
        if self.step.kernel == CLEAR_BORDER:
            (name,) = self.step.writes
            if np.any(self.buffers.border(name) != 0):
                return self.wrong(name, "the border that it clears does not hold zeros")
            return StepCheck(self.index, self.step.kernel, name, 0.0, 0.0, 0.0, 0)
        wanted = self._wanted(reads)
        own = total = NOTHING
        for name in self.step.writes:
            value = self.checker.graph_value(name)
            if value is None:
                continue
            got, budget, floor = self.buffers.tensor(name), budget_of(value.type.dtype), _floor(reads.values())
            difference = compare(got, wanted[name], floor=floor)
            if not difference.relative <= OWN_FACTOR * budget:
                return self.wrong(value.name, "its result differs from that of its ops on what it read", difference)
            spare = self.buffers.spare_lanes(name)
            # Sums that come to zero by cancellation leave a rounding behind.
            if not np.all(np.abs(spare) <= OWN_FACTOR * budget * np.max(np.abs(wanted[name]), initial=floor)):
                return self.wrong(value.name, "the lanes past the last channel do not hold zeros")
            own = max(own, difference, key=lambda d: d.relative)
            difference = compare(got, self.right[value.name], floor=floor)
            if not difference.relative <= TOTAL_FACTOR * budget:
                return self.wrong(value.name, "errors of this and earlier kernels have added up", difference)
            total = max(total, difference, key=lambda d: d.relative)
        ulps = total.ulps or 0
        return StepCheck(
            self.index, self.step.kernel, self.step.writes[0], own.relative, total.relative, total.max_abs, ulps
        )

    def _wanted(self, reads: Mapping[str, Array]) -> dict[str, Array]:
        """What the step should write, given what it read; by buffer."""
        if not self.step.ops:
            return dict.fromkeys(self.step.writes, next(iter(reads.values())).astype(np.float64))
        targets = {name: self.checker.graph_value(name) for name in self.step.writes}
        part = extract(self.checker.graph, self.checker.nodes[self.index], [v for v in targets.values() if v])
        inputs: dict[str, Array] = {}
        for name, array in reads.items():
            value = self.checker.graph_value(name)
            if value is not None:
                inputs[value.name] = array
        results = evaluate(part, {v.name: inputs[v.name] for v in part.inputs}, dtype="float64")
        return {name: results[value.name] for name, value in targets.items() if value is not None}


def _floor(arrays: Sequence[Array] | Any) -> float:
    largest = 0.0
    for array in arrays:
        if array.dtype.kind == "f" and array.size:
            size = float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0))
            largest = max(largest, size)
    return largest * _CANCELLED


def _copies(program: Program) -> dict[str, str]:
    """The value that stands in a buffer which no node of the graph makes, because a step copies it there."""
    found: dict[str, str] = {}
    for step in program.steps:
        if not step.ops and step.kernel != CLEAR_BORDER:
            found[step.writes[0]] = found.get(step.reads[0], step.reads[0])
    return found


def verify_kernels(graph: Graph, program: Program, setting: Setting, cases: Sequence[Case]) -> list[StepCheck]:
    """Checks every kernel of the code of `program`, which was made from `graph`; WrongKernel at the first bad one.

    Every case is run as a model's handle does it; the first case also with each step in three parts, as if by so many
    threads, and without memory prepared beforehand.
    """
    checker = KernelChecker(graph, program, setting)
    worst: dict[int, StepCheck] = {}
    for number, case in enumerate(cases):
        ways = [(True, 1)] if number else [(True, 1), (True, 3), (False, 1)]
        for prepare, parts in ways:
            for found in checker.run(case, prepare=prepare, parts=parts):
                if isinstance(found, WrongStep):
                    raise WrongKernel(found, graph, case, setting)
                known = worst.get(found.index, found)
                worst[found.index] = max(known, found, key=lambda check: (check.own, check.total))
    assert all(math.isfinite(check.own) for check in worst.values()), "an infinite error was let through"
    return list(worst.values())
