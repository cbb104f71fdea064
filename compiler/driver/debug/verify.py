"""Checks after every pass that the numbers are what they were before it; see `comparison` for how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqzc.driver.debug.cases import Case, pass_cases
from sqzc.driver.debug.compare import budget_of
from sqzc.driver.debug.comparison import Baseline, Comparison, Deviation, interface_difference
from sqzc.driver.debug.evaluation import Evaluator
from sqzc.ir.graph import Graph
from sqzc.ir.types import DType
from sqzc.passes.base import Pass
from sqzc.passes.manager import Instrument, PassFailure, PassRecord

# Bytes of values kept from one pass to the next, so that what a pass did not touch is not computed again.
_MAX_HELD = 1 << 30


@dataclass(frozen=True)
class PassCheck:
    """What `--verify-passes` measured of one pass, over all cases; all zero for one that changed nothing."""

    spec: str
    changed: bool
    compared: int = 0
    exact: float = 0.0
    relative: float = 0.0
    max_abs: float = 0.0
    ulps: int = 0
    worst: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        return dict(vars(self))


class WrongNumbers(PassFailure):
    """A pass changed a value by more than its budget. Saves itself as a small reproducer."""

    def __init__(
        self, deviation: Deviation, step: Pass, ran: Sequence[str], before: Graph, case: Case, target: str | None
    ) -> None:
        super().__init__(deviation.words, step.spec, ran, before)
        self.deviation, self.step, self.case, self.target = deviation, step, case, target

    def __str__(self) -> str:
        ran = ", ".join(self.predecessors) or "none"
        return (
            f"pass {self.spec} changed the numbers: {self.deviation.words}\n"
            f"  op after it: {self.deviation.op}\n  passes before it: {ran}"
        )

    def save_reproducer(self, folder: Path) -> str:
        """Writes a graph of a few ops that shows it, and gives the command to show it with."""
        from sqzc.driver.debug.passes import reproduce, wrong_pass_of

        wrong = wrong_pass_of(self)
        return reproduce(wrong, self.case, self.target).save(folder, wrong.text)


@dataclass
class VerifyPasses(Instrument):
    """Checks every pass that changed the graph; WrongNumbers at the first value over budget.

    `seeds` is the number of seeded inputs of each size, to which come the awkward ones; `cases` are used instead when
    given. The budget is `compare.BUDGETS`, or NOISE_FACTOR times the error that a value had before the pass.
    """

    seeds: int = 1
    cases: Sequence[Case] = ()
    target: str | None = None
    checks: list[PassCheck] = field(default_factory=list)
    _before: Graph | None = None
    _evaluators: Sequence[Evaluator] = ()

    def before_pipeline(self, graph: Graph) -> None:
        """Draws the inputs."""
        self.cases = self.cases or pass_cases(graph, self.seeds)
        self._evaluators = [Evaluator(case.inputs) for case in self.cases]

    def before_pass(self, index: int, step: Pass, graph: Graph) -> None:
        """Keeps the graph to compare with."""
        self._before = graph.clone()

    def after_pass(self, index: int, step: Pass, graph: Graph, record: PassRecord) -> None:
        """Compares, if there is anything new to compare."""
        assert self._before is not None
        if not record.changed:
            self.checks.append(PassCheck(step.spec, False))
            return
        ran = [check.spec for check in self.checks]
        words = interface_difference(self._before, graph)
        if words:
            raise PassFailure(words, step.spec, ran, self._before)
        results, held = [], 0
        for case, evaluator in zip(self.cases, self._evaluators, strict=True):
            comparison = Baseline(self._before, case, evaluator).compare(graph, remember=True)
            if comparison.deviations:
                raise WrongNumbers(comparison.deviations[0], step, ran, self._before, case, self.target)
            results.append(comparison)
            held += evaluator.bytes
            if held > _MAX_HELD:
                held -= evaluator.bytes
                evaluator.forget()
        self.checks.append(_summary(step.spec, results))

    @property
    def budget(self) -> float:
        """The budget of single precision, for tables."""
        return budget_of(DType.F32)


def _summary(spec: str, results: Sequence[Comparison]) -> PassCheck:
    worst = max(results, key=lambda r: max(r.exact.relative, r.single.relative), default=None)
    return PassCheck(
        spec,
        True,
        compared=results[0].compared if results else 0,
        exact=max((r.exact.relative for r in results), default=0.0),
        relative=max((r.single.relative for r in results), default=0.0),
        max_abs=max((r.single.max_abs for r in results), default=0.0),
        ulps=max((r.ulps for r in results), default=0),
        worst=worst.worst if worst else "",
    )
