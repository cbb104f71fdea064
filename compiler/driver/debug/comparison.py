"""The numbers of two graphs: every value that both have by name, one against the other.

Two measurements, both against the graph before in double precision:
exact: the graph after it, in double precision too. What differs is what it is another function of.
single: the graph after it, in the types that it declares. What differs beyond that is rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqzc.driver.debug.cases import Case
from sqzc.driver.debug.compare import NOISE_FACTOR, NOTHING, Difference, budget_of
from sqzc.driver.debug.evaluation import Evaluator, Values
from sqzc.driver.debug.extract import extract, nodes_between
from sqzc.ir.graph import Graph, Value
from sqzc.ir.ops.shape import Relayout
from sqzc.ir.printer import print_node


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


class Baseline:
    """A graph's values on one case, to compare other graphs with the same inputs against."""

    def __init__(self, graph: Graph, case: Case, evaluator: Evaluator | None = None) -> None:
        self.graph, self.case = graph, case
        self.evaluator = evaluator or Evaluator(case.inputs)
        self.wanted = self.evaluator.values(graph, "float64")
        self._noise: Values | None = None

    def compare(self, after: Graph, *, outputs_only: bool = False, remember: bool = False) -> Comparison:
        """The numbers of `after` against those of this graph; `remember` when `after` is the next baseline.

        Where double precision shows deviations already, single precision is not looked at.
        """
        found = _output_pairs(self.graph, after) if outputs_only else pairs(self.graph, after)
        result = _Comparer(self, after, found, remember).run()
        self.evaluator.trim()
        return result

    def noise(self, value: Value) -> float:
        """How far off single precision is in a value of this graph; infinite where it overflows."""
        if self.case.exact_only or not value.type.dtype.is_float:
            return 0.0
        if self._noise is None:
            self._noise = self.evaluator.values(self.graph, "float32", remember=False)
        return self.evaluator.difference(self._noise[value.name], self.wanted[value.name]).relative


@dataclass(frozen=True)
class _Measured:
    """A pair, the value before that the one after it is nearest to, and how far that is in double precision."""

    pair: Pair
    before: Value
    exact: Difference


class _Comparer:
    def __init__(self, baseline: Baseline, after: Graph, found: Sequence[Pair], remember: bool) -> None:
        self.baseline, self.after, self.found, self.remember = baseline, after, found, remember
        self.evaluator, self.wanted = baseline.evaluator, baseline.wanted
        self.exact = self.evaluator.values(after, "float64", remember=remember)

    def run(self) -> Comparison:
        measured = [self.nearest(pair) for pair in self.found]
        deviations = [d for m in measured for d in self.judge(m, m.exact)]
        singles = [NOTHING] * len(measured)
        if not deviations and not self.baseline.case.exact_only:
            single = self.evaluator.values(self.after, "float32", remember=self.remember)
            singles = [self.single(m, single) for m in measured]
            deviations = [d for m, s in zip(measured, singles, strict=True) for d in self.judge(m, s, single=True)]
        sizes = [max(_size(m.exact), _size(s)) for m, s in zip(measured, singles, strict=True)]
        return Comparison(
            max((m.exact for m in measured), key=_size, default=NOTHING),
            max(singles, key=_size, default=NOTHING),
            max((s.ulps or 0 for s in singles), default=0),
            len(measured),
            measured[sizes.index(max(sizes))].pair.name if sizes else "",
            self.blame(deviations),
        )

    def nearest(self, pair: Pair) -> _Measured:
        """The value before that this one is closest to; the last of several that are equally close."""
        got = self.exact[pair.after.name]
        measured = [
            _Measured(pair, value, self.evaluator.difference(got, self.wanted[value.name]))
            for value in reversed(pair.before)
        ]
        return min(measured, key=lambda entry: _size(entry.exact))

    def single(self, m: _Measured, values: Values) -> Difference:
        if not m.pair.after.type.dtype.is_float:
            return NOTHING
        return self.evaluator.difference(values[m.pair.after.name], self.wanted[m.before.name])

    def judge(self, m: _Measured, difference: Difference, *, single: bool = False) -> list[Deviation]:
        """The deviation, unless the value was as far off before by rounding alone."""
        budget = budget_of(m.pair.after.type.dtype)
        if difference.relative <= budget:
            return []
        noise = self.baseline.noise(m.before)
        # Where single precision overflowed before, only double precision can tell.
        if not math.isfinite(noise):
            return [] if single else [self.deviation(m.pair, difference, budget)]
        allowed = max(budget, NOISE_FACTOR * noise)
        return [] if difference.relative <= allowed else [self.deviation(m.pair, difference, allowed)]

    def deviation(self, pair: Pair, difference: Difference, allowed: float) -> Deviation:
        producer = pair.after.producer
        op = print_node(producer) if producer is not None else str(pair.after)
        return Deviation(pair.name, pair.after.name, op, self.baseline.case.name, difference, allowed)

    def blame(self, deviations: Sequence[Deviation]) -> tuple[Deviation, ...]:
        """The deviations, with the value before them in front that passed for an earlier one of its name.

        Where a pass loses a relu of `conv1 = relu(conv1)`, what is left equals the first `conv1`, and only those who
        read it are off. If they come right with the last one put in its place, it is to blame.
        """
        if not deviations:
            return ()
        target = next(pair for pair in self.found if pair.after.name == deviations[0].value)
        first, budget = target.after, budget_of(target.after.type.dtype)
        ancestors = {id(node) for node in nodes_between([first])}
        for pair in self.found:
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
            if self.evaluator.difference(got, self.wanted[target.before[-1].name]).relative <= budget:
                return (self.deviation(pair, difference, budget), *deviations)
        return tuple(deviations)


def _size(difference: Difference) -> float:
    return math.inf if math.isnan(difference.relative) else difference.relative


def compare_graphs(before: Graph, after: Graph, case: Case) -> Comparison:
    """The numbers of `after` against those of `before`, which has the same inputs."""
    return Baseline(before, case).compare(after)


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
