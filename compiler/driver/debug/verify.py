"""Whether a pass left the numbers as they were: every value that still has its name, before against after.

Two measurements, both against the graph before the pass in double precision:
exact: the graph after it, in double precision too. What differs is what the pass made another function of.
single: the graph after it, in the types that it declares. What differs beyond that is rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqzc.driver.debug.cases import Case, pass_cases
from sqzc.driver.debug.compare import NOISE_FACTOR, NOTHING, Difference, budget_of
from sqzc.driver.debug.evaluation import Evaluator, Values
from sqzc.driver.debug.extract import extract, nodes_between
from sqzc.ir.graph import Graph, Value
from sqzc.ir.ops.shape import Relayout
from sqzc.ir.printer import print_node
from sqzc.ir.types import DType
from sqzc.passes.base import Pass
from sqzc.passes.manager import Instrument, PassFailure, PassRecord

# Bytes of values kept from one pass to the next, so that what a pass did not touch is not computed again.
_MAX_HELD = 1 << 30


@dataclass(frozen=True)
class Pair:
    """A value after a pass, and those before it that it may be.

    A name in the model is often bound several times (`conv1 = relu(conv1)`). Where a pass leaves as many values of the
    name as there were, they are the same in order; else each must be one of them, and the last is the most likely.
    """

    name: str
    after: Value
    before: tuple[Value, ...]


@dataclass(frozen=True)
class Deviation:
    """A value that a pass changed by more than its budget. `op` is the text of the op that makes it after the pass."""

    name: str
    value: str
    op: str
    case: str
    difference: Difference
    allowed: float

    @property
    def words(self) -> str:
        """One sentence."""
        if self.difference.shapes:
            return f"'{self.name}' has another shape: {self.difference.shapes}"
        amount = f"{self.difference.relative:.3g} of its magnitude, over {self.allowed:.3g}"
        return f"'{self.name}' is off by {amount}; {self.difference.words} (inputs: {self.case})"


@dataclass(frozen=True)
class Comparison:
    """Two graphs on one case: the worst differences over all names, and the deviations in the order of the graph."""

    exact: Difference
    single: Difference
    ulps: int
    compared: int
    worst: str
    deviations: tuple[Deviation, ...]


def pairs(before: Graph, after: Graph) -> list[Pair]:
    """The values that both graphs have, in the order of `after`; outputs last, by their names as outputs."""
    old, new = _by_name(before), _by_name(after)
    found = []
    position = dict.fromkeys(new, 0)
    for value in _results(after):
        name = value.source[-1]
        if name in old:
            same = len(old[name]) == len(new[name])
            candidates = [old[name][position[name]]] if same else old[name]
            found.append(Pair(name, value, tuple(candidates)))
        position[name] += 1
    return found + _output_pairs(before, after)


def _output_pairs(before: Graph, after: Graph) -> list[Pair]:
    outputs = dict(before.outputs)
    return [Pair(name, value, (outputs[name],)) for name, value in after.outputs if name in outputs]


def _results(graph: Graph) -> Iterator[Value]:
    """Results that have a name of their own in the model; copies in other layouts are not told apart from it."""
    for node in graph.nodes:
        if not isinstance(node.op, Relayout):
            yield from (value for value in node.outputs if value.source)


def _by_name(graph: Graph) -> dict[str, list[Value]]:
    found: dict[str, list[Value]] = {}
    for value in _results(graph):
        found.setdefault(value.source[-1], []).append(value)
    return found


class _Comparer:
    """Evaluates two graphs on one case and compares what they have in common."""

    def __init__(self, before: Graph, after: Graph, case: Case, evaluator: Evaluator) -> None:
        self.before, self.after, self.case, self.evaluator = before, after, case, evaluator
        self.wanted = evaluator.values(before, "float64")
        self.exact = evaluator.values(after, "float64")
        self.single = None if case.exact_only else evaluator.values(after, "float32")
        self._noise: Values | None = None

    def run(self, found: Sequence[Pair]) -> Comparison:
        worst_exact = worst_single = NOTHING
        worst, ulps = "", 0
        deviations: list[Deviation] = []
        for pair in found:
            candidate, exact = self.nearest(pair)
            single = NOTHING
            if self.single is not None and pair.after.type.dtype.is_float:
                single = self.evaluator.difference(self.single[pair.after.name], self.wanted[candidate.name])
            if not max(exact.relative, single.relative) <= budget_of(pair.after.type.dtype):
                deviations += self.judge(pair, candidate, exact, single)
            if max(exact.relative, single.relative) >= max(worst_exact.relative, worst_single.relative):
                worst = pair.name
            worst_exact = max(worst_exact, exact, key=_size)
            worst_single = max(worst_single, single, key=_size)
            ulps = max(ulps, single.ulps or 0)
        blamed = self.blame(found, deviations)
        return Comparison(worst_exact, worst_single, ulps, len(found), worst, blamed)

    def nearest(self, pair: Pair) -> tuple[Value, Difference]:
        """The value before the pass that this one is closest to; the last of several that are equally close."""
        got = self.exact[pair.after.name]
        measured = [(value, self.evaluator.difference(got, self.wanted[value.name])) for value in reversed(pair.before)]
        return min(measured, key=lambda entry: _size(entry[1]))

    def judge(self, pair: Pair, old: Value, exact: Difference, single: Difference) -> list[Deviation]:
        """The deviation, unless the value was as far off before the pass by rounding alone."""
        budget = budget_of(pair.after.type.dtype)
        noise = 0.0
        if self.single is not None and old.type.dtype.is_float:
            if self._noise is None:
                self._noise = self.evaluator.values(self.before, "float32")
            noise = self.evaluator.difference(self._noise[old.name], self.wanted[old.name]).relative
        # Where single precision overflowed before the pass, only double precision can tell.
        allowed = max(budget, NOISE_FACTOR * noise) if math.isfinite(noise) else budget
        wrong = exact if not exact.relative <= allowed else single
        if wrong is single and (single.relative <= allowed or not math.isfinite(noise)):
            return []
        return [self.deviation(pair, wrong, allowed)]

    def deviation(self, pair: Pair, difference: Difference, allowed: float) -> Deviation:
        producer = pair.after.producer
        op = print_node(producer) if producer is not None else str(pair.after)
        return Deviation(pair.name, pair.after.name, op, self.case.name, difference, allowed)

    def blame(self, found: Sequence[Pair], deviations: Sequence[Deviation]) -> tuple[Deviation, ...]:
        """The deviations, with the value before them in front that passed for an earlier one of its name.

        Where a pass loses a relu of `conv1 = relu(conv1)`, what is left equals the first `conv1`, and only those who
        read it are off. If they come right with the last one put in its place, it is to blame.
        """
        if not deviations:
            return ()
        first = self.after.value(deviations[0].value)
        ancestors = {id(node) for node in nodes_between([first])}
        budget = budget_of(first.type.dtype)
        for pair in found:
            producer = pair.after.producer
            if len(pair.before) < 2 or producer is None or id(producer) not in ancestors or pair.after is first:
                continue
            wanted = self.wanted[pair.before[-1].name]
            difference = self.evaluator.difference(self.exact[pair.after.name], wanted)
            if difference.relative <= budget or difference.shapes:
                continue
            part = extract(self.after, nodes_between([first], [pair.after]), [first])
            inputs = {**self.exact, pair.after.name: wanted}
            got = Evaluator({v.name: inputs[v.name] for v in part.inputs}).values(part, "float64")[first.name]
            target = next(p for p in found if p.after is first)
            if self.evaluator.difference(got, self.wanted[target.before[-1].name]).relative <= budget:
                return (self.deviation(pair, difference, budget), *deviations)
        return tuple(deviations)


def _size(difference: Difference) -> float:
    return math.inf if math.isnan(difference.relative) else difference.relative


def compare_graphs(
    before: Graph, after: Graph, case: Case, *, outputs_only: bool = False, evaluator: Evaluator | None = None
) -> Comparison:
    """The numbers of `after` against those of `before`, which have the same inputs."""
    found = _output_pairs(before, after) if outputs_only else pairs(before, after)
    return _Comparer(before, after, case, evaluator or Evaluator(case.inputs)).run(found)


def interface_difference(before: Graph, after: Graph) -> str:
    """What a pass did to inputs or outputs, which it must leave alone; empty for nothing."""
    if [(v.name, v.type) for v in before.inputs] != [(v.name, v.type) for v in after.inputs]:
        return f"the inputs were {before.inputs} and are {after.inputs}"
    old = [(name, value.type.dtype, value.type.shape) for name, value in before.outputs]
    new = [(name, value.type.dtype, value.type.shape) for name, value in after.outputs]
    if old != new:
        show = [", ".join(f"'{n}' {d.value}{list(s)}" for n, d, s in rows) for rows in (old, new)]
        return f"the outputs were {show[0]} and are {show[1]}"
    return ""


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
        found = pairs(self._before, graph)
        results, held = [], 0
        for case, evaluator in zip(self.cases, self._evaluators, strict=True):
            comparison = _Comparer(self._before, graph, case, evaluator).run(found)
            if comparison.deviations:
                raise WrongNumbers(comparison.deviations[0], step, ran, self._before, case, self.target)
            results.append(comparison)
            evaluator.trim()
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
