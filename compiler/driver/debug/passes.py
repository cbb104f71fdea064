"""Which pass, which of its rewrites and which op breaks the numbers, and the few ops that show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqzc.backends.reference import evaluate_node
from sqzc.diagnostics import SqzcError
from sqzc.driver.debug.cases import Arrays, Case
from sqzc.driver.debug.comparison import Baseline, Deviation, interface_difference
from sqzc.driver.debug.evaluation import Evaluator
from sqzc.driver.debug.reduce import Fails, Reduced, reduce
from sqzc.driver.debug.reproducer import Reproducer
from sqzc.driver.debug.verify import WrongNumbers
from sqzc.ir.graph import Graph, Node
from sqzc.ir.printer import print_node
from sqzc.passes.base import Pass
from sqzc.passes.manager import Instrument, PassFailure, PassManager, PassRecord
from sqzc.target import resolve


@dataclass(frozen=True)
class Snapshot:
    """One run of one pass that changed the graph."""

    step: Pass
    record: PassRecord
    before: Graph
    after: Graph


class Snapshots(Instrument):
    """Keeps the graph before and after every pass that changed it. Constants are shared, so that this costs little."""

    def __init__(self) -> None:
        self.taken: list[Snapshot] = []
        self._before: Graph | None = None

    def before_pass(self, index: int, step: Pass, graph: Graph) -> None:
        """Keeps the graph, unless it is the one that the last pass left."""
        self._before = self.taken[-1].after if self.taken else graph.clone()

    def after_pass(self, index: int, step: Pass, graph: Graph, record: PassRecord) -> None:
        """Keeps the graph if it is another one."""
        if record.changed:
            assert self._before is not None
            self.taken.append(Snapshot(step, record, self._before, graph.clone()))


@dataclass(frozen=True)
class WrongPass:
    """A pass that breaks the numbers, or breaks down.

    `before` and `after` are the graphs around the smallest number of rewrites that does it, which `step` makes:
    the one called `rewrite`, or where it takes several together, the last of them. `needed` is how many. Of a pass
    that counts no rewrites, all it does is one. `deviation` is the first value that is off, None for a breakdown, for
    which `failure` says why.
    """

    index: int
    step: Pass
    predecessors: tuple[str, ...]
    before: Graph
    after: Graph | None
    rewrite: str
    number: int
    needed: int
    total: int
    deviation: Deviation | None
    failure: str = ""

    @property
    def text(self) -> str:
        """What is wrong, in a few lines."""
        lines = [f"pass {self.index} {self.step.name} {'breaks down' if self.after is None else 'is wrong'}"]
        if self.rewrite:
            words = f"rewrite {self.number} of {self.total}" if self.total else "rewrite"
            more = "" if self.needed <= 1 else f", together with those before it ({self.needed} in all)"
            lines.append(f"  {words}{more}: {self.rewrite}")
        if self.deviation is not None:
            lines += [f"  op:     {self.deviation.op}", f"  value:  {self.deviation.words}"]
        if self.failure:
            lines.append(f"  {self.failure}")
        lines.append(f"  passes before it: {', '.join(self.predecessors) or 'none'}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        deviation = self.deviation
        return {
            "pass": self.step.name,
            "spec": self.step.spec,
            "index": self.index,
            "predecessors": list(self.predecessors),
            "rewrite": self.rewrite or None,
            "rewrite_number": self.number,
            "rewrites_needed": self.needed,
            "rewrites": self.total,
            "op": deviation.op if deviation else None,
            "value": deviation.name if deviation else None,
            "case": deviation.case if deviation else None,
            "difference": deviation.difference.to_json() if deviation else None,
            "failure": self.failure or None,
        }


def differs(right: Baseline, graph: Graph, *, outputs_only: bool) -> bool:
    """Whether a value of `graph`, or only an output, is over budget; or its inputs or outputs have other types."""
    if interface_difference(right.graph, graph):
        return True
    return bool(right.compare(graph, outputs_only=outputs_only).deviations)


def run_pass(graph: Graph, step: Pass, target: str | None) -> tuple[Graph, PassRecord]:
    """A copy of the graph after one pass."""
    result = graph.clone()
    manager = PassManager([step], target=None if target is None else resolve(target), evaluate=evaluate_node)
    (record,) = manager.run(result)
    return result, record


def first_wrong_outputs(snapshots: Sequence[Snapshot], case: Case) -> Snapshot | None:
    """The first pass after which an output is wrong, if any is in the end; found by halving."""
    if not snapshots:
        return None
    right = Baseline(snapshots[0].before, case)
    if not differs(right, snapshots[-1].after, outputs_only=True):
        return None
    good, bad = -1, len(snapshots) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        wrong = differs(right, snapshots[middle].after, outputs_only=True)
        good, bad = (good, middle) if wrong else (middle, bad)
    return snapshots[bad]


def first_wrong_values(snapshots: Sequence[Snapshot], case: Case) -> Snapshot | None:
    """The first pass that changed any value, whether that shows in the outputs or not."""
    evaluator = Evaluator(case.inputs)
    for snapshot in snapshots:
        if Baseline(snapshot.before, case, evaluator).compare(snapshot.after, remember=True).deviations:
            return snapshot
    return None


def narrow(snapshot: Snapshot, predecessors: Sequence[str], case: Case, target: str | None) -> WrongPass:
    """The fewest rewrites of the pass that are wrong, and the first value that they put off."""
    step, total = snapshot.step, len(snapshot.record.rewrites)
    right = Baseline(snapshot.before, case)
    good, bad, last = 0, total, snapshot.before
    while bad - good > 1:
        middle = (good + bad) // 2
        after, _ = run_pass(right.graph, replace(step, limit=middle), target)
        if differs(right, after, outputs_only=False):
            bad = middle
        else:
            good, last = middle, after
    number, needed = bad, bad
    chosen = replace(step, limit=bad) if 0 < bad < total else step
    after, record = run_pass(right.graph, chosen, target)
    if good:
        # The rewrites before the wrong one are right, so that it can perhaps be made alone on what they leave.
        alone, nearer = replace(step, limit=1), Baseline(last, case)
        other, its_record = run_pass(last, alone, target)
        if its_record.changed and differs(nearer, other, outputs_only=False):
            right, after, record, chosen, needed = nearer, other, its_record, alone, 1
    deviations = right.compare(after).deviations
    return WrongPass(
        index=snapshot.record.index,
        step=chosen,
        predecessors=tuple(predecessors),
        before=right.graph,
        after=after,
        rewrite=record.rewrites[-1] if record.rewrites else "",
        number=number,
        needed=needed,
        total=total,
        deviation=deviations[0] if deviations else None,
        failure="" if deviations else interface_difference(right.graph, after),
    )


def broken_pass(failure: PassFailure, step: Pass) -> WrongPass:
    """A pass that broke down."""
    return WrongPass(
        index=len(failure.predecessors) + 1,
        step=step,
        predecessors=failure.predecessors,
        before=failure.before,
        after=None,
        rewrite="",
        number=0,
        needed=0,
        total=0,
        deviation=None,
        failure=failure.reason,
    )


# -- reproducers ------------------------------------------------------------------------------------------------------


def pass_fails(step: Pass, target: str | None, case: Case, *, crash: bool) -> Fails:
    """For `reduce`: whether the pass changes an output of a graph; with `crash`, whether it breaks down."""

    def fails(graph: Graph, inputs: Arrays) -> bool:
        try:
            after, _ = run_pass(graph, step, target)
        except PassFailure:
            return crash
        except SqzcError:
            return False
        return not crash and differs(Baseline(graph, replace(case, inputs=inputs)), after, outputs_only=True)

    return fails


def seeds_of(before: Graph, after: Graph | None, deviation: Deviation | None) -> list[Node]:
    """Where to look first: the op that is off, as it was before the pass, or else every op that the pass changed."""
    if deviation is not None:
        found = [node for node in before.nodes if any(deviation.name in value.source[-1:] for value in node.outputs)]
        if found:
            return found[-1:]
    if after is None:
        return list(before.nodes)
    kept = {_signature(node) for node in after.nodes}
    return [node for node in before.nodes if _signature(node) not in kept] or list(before.nodes)


def _signature(node: Node) -> str:
    constants = [value.constant.sha for value in node.inputs if value.constant is not None]
    return f"{print_node(node)} {constants}"


def reproduce(wrong: WrongPass, case: Case, target: str | None) -> Reproducer:
    """A few ops on which the pass goes wrong; the graph that it was given if no part of it shows that."""
    crash = wrong.after is None
    seeds = seeds_of(wrong.before, wrong.after, wrong.deviation)
    reduced = reduce(wrong.before, case.inputs, seeds, pass_fails(wrong.step, target, case, crash=crash))
    options = ["--passes", wrong.step.spec, *([] if target is None else ["--target", target])]
    return Reproducer(reduced or Reduced(wrong.before, case.inputs), options)


def wrong_pass_of(error: WrongNumbers) -> WrongPass:
    """The pass that `--verify-passes` stopped at, narrowed down."""
    after, record = run_pass(error.before, error.step, error.target)
    snapshot = Snapshot(error.step, replace(record, index=len(error.predecessors) + 1), error.before, after)
    return narrow(snapshot, error.predecessors, error.case, error.target)
