"""From wrong outputs to the pass, rewrite and op that make them wrong, or the kernel, and a few ops that show it.

1. What is expected is compared with the reference on the graph as it was read: no pass is to blame for what differs.
2. Passes: the first after which the reference gives other outputs; the fewest of its rewrites; the first value.
3. Kernels: the first whose output is not that of the ops it stands for.
4. The whole code, called as a library is.
5. Passes that change a value although no output shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sqzc.backends.reference import evaluate
from sqzc.driver.build import Settings, StageFailure, make_plan, run_passes
from sqzc.driver.debug.cases import Arrays, Case, kernel_cases, pass_cases
from sqzc.driver.debug.code import load_graph_code, reproduce_code, reproduce_step, wrong_output
from sqzc.driver.debug.compare import compare
from sqzc.driver.debug.kernels import TOTAL_FACTOR, KernelChecker, WrongStep
from sqzc.driver.debug.passes import (
    Snapshot,
    Snapshots,
    WrongPass,
    broken_pass,
    first_wrong_outputs,
    first_wrong_values,
    narrow,
    reproduce,
)
from sqzc.driver.debug.reproducer import Reproducer
from sqzc.driver.debug.setting import Setting
from sqzc.driver.sources import Source
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph
from sqzc.passes.base import Pass
from sqzc.passes.manager import PassFailure
from sqzc.passes.registry import parse_pipeline

RIGHT, EXPECTATION, PASS, STAGE, KERNEL, CODE = "right", "expectation", "pass", "stage", "kernel", "code"

TOLERANCE = 2e-5
"""How far outputs that somebody expects may be from the reference's, relative to their largest magnitude."""


@dataclass(frozen=True)
class Question:
    """What to look into. Without `inputs` they are drawn; `expected` are outputs, and `expected_from` whose."""

    source: Source
    settings: Settings
    inputs: Arrays | None = None
    expected: Arrays | None = None
    expected_from: str = ""
    tolerance: float = TOLERANCE
    threads: int = 1
    on_stage: Callable[[str], None] = field(default=lambda name: None)

    @property
    def graph(self) -> Graph:
        """The graph before any pass."""
        return self.source.graph

    @property
    def setting(self) -> Setting:
        """How the code is made."""
        return Setting.of(self.settings, self.threads)


@dataclass(frozen=True)
class Verdict:
    """What was found. `kind` is one of the constants above; `text` says it in a few lines, `data` in JSON-able form."""

    kind: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    reproducer: Reproducer | None = None


def bisect(question: Question) -> Verdict:
    """Finds what is wrong, if anything is."""
    return _Search(question).run()


class _Search:
    def __init__(self, question: Question) -> None:
        self.question, self.snapshots = question, Snapshots()
        self.specs: Sequence[str] = ()
        graph, given = question.graph, question.inputs
        self.pass_cases = pass_cases(graph, 1) if given is None else [Case("given", given)]
        self.kernel_cases = kernel_cases(graph, 1) if given is None else self.pass_cases

    def run(self) -> Verdict:
        for step in (self.expectation, self.passes, self.kernels, self.values):
            verdict = step()
            if verdict is not None:
                return verdict
        given = "all inputs that were tried" if self.question.inputs is None else "the given inputs"
        return Verdict(RIGHT, f"every pass and every kernel agrees with the reference on {given}")

    # -- 1. what is expected

    def expectation(self) -> Verdict | None:
        """Whether the graph as it was read gives what is expected."""
        q = self.question
        if q.expected is None:
            return None
        assert q.inputs is not None, "outputs are expected of inputs"
        q.on_stage("comparing with the reference")
        right = evaluate(q.graph, q.inputs, dtype="float64")
        for name, array in q.expected.items():
            difference = compare(array, right[name])
            if not difference.relative <= q.tolerance:
                text = (
                    f"no pass is to blame: before any of them ran, output '{name}' is not what {q.expected_from} says\n"
                    f"  off by {difference.relative:.3g} of its magnitude, over {q.tolerance:.3g}\n"
                    f"  at {list(difference.index)} the reference gives {difference.expected:.9g}, "
                    f"{q.expected_from} {difference.got:.9g}\n"
                    "  look at the inputs, at the mean, at how the model was read, and at what is expected"
                )
                return Verdict(EXPECTATION, text, {"output": name, "difference": difference.to_json()})
        return None

    # -- 2. passes

    def passes(self) -> Verdict | None:
        """Whether a pass makes an output wrong, or breaks down."""
        q = self.question
        q.on_stage("running passes")
        broken = None
        try:
            self.specs = [record.spec for record in run_passes(q.source, q.settings, [self.snapshots]).records]
        except PassFailure as failure:
            broken, self.specs = failure, failure.predecessors
        q.on_stage("looking for the first wrong pass")
        # Also where one broke down: what ran before it may be the cause.
        for case in self.pass_cases:
            snapshot = first_wrong_outputs(self.snapshots.taken, case)
            if snapshot is not None:
                return self.wrong_pass(snapshot, case)
        if broken is None:
            return None
        (step,) = parse_pipeline(broken.spec)
        assert isinstance(step, Pass)
        return self.pass_verdict(broken_pass(broken, step), self.pass_cases[0])

    def values(self) -> Verdict | None:
        """Whether a pass changed a value although no output shows it."""
        self.question.on_stage("looking at every value")
        for case in self.pass_cases:
            snapshot = first_wrong_values(self.snapshots.taken, case)
            if snapshot is not None:
                return self.wrong_pass(snapshot, case)
        return None

    def wrong_pass(self, snapshot: Snapshot, case: Case) -> Verdict:
        self.question.on_stage("narrowing it down")
        before = self.specs[: snapshot.record.index - 1]
        return self.pass_verdict(narrow(snapshot, before, case, self.question.settings.target.name), case)

    def pass_verdict(self, wrong: WrongPass, case: Case) -> Verdict:
        self.question.on_stage("making it small")
        reproducer = reproduce(wrong, case, self.question.settings.target.name)
        return Verdict(PASS, wrong.text, wrong.to_json(), reproducer)

    # -- 3. kernels, 4. the whole code

    def kernels(self) -> Verdict | None:
        """Whether the code of a kernel is wrong, or that of the whole, or a stage that makes it breaks down."""
        q = self.question
        q.on_stage("generating code")
        optimised = run_passes(q.source, q.settings)
        try:
            program = make_plan(optimised)
            checker = KernelChecker(optimised.graph, program, q.setting)
            q.on_stage("checking kernels")
            for case in self.kernel_cases:
                for prepare, parts in ((True, 1), (False, 3)):
                    for found in checker.run(case, prepare=prepare, parts=parts):
                        if isinstance(found, WrongStep):
                            return self.wrong_step(optimised.graph, found, case)
            return self.whole(optimised.graph)
        except StageFailure as failure:
            q.on_stage("making it small")
            reproducer = reproduce_code(
                optimised.graph, self.kernel_cases[0].inputs, optimised.graph.nodes, q.setting, crash=True
            )
            data = {"stage": failure.stage, "failure": str(failure)}
            return Verdict(STAGE, f"every pass keeps the outputs\n{failure}", data, reproducer)

    def wrong_step(self, graph: Graph, wrong: WrongStep, case: Case) -> Verdict:
        self.question.on_stage("making it small")
        reproducer = reproduce_step(graph, wrong, case, self.question.setting)
        return Verdict(KERNEL, f"every pass keeps the outputs\n{wrong.text}", wrong.to_json(), reproducer)

    def whole(self, graph: Graph) -> Verdict | None:
        """Whether the code is wrong when it is called as a library is."""
        q = self.question
        q.on_stage("checking the whole")
        with load_graph_code(graph, q.setting) as model:
            for case in self.kernel_cases:
                wrong = wrong_output(graph, model, case.inputs, TOTAL_FACTOR)
                if wrong is None:
                    continue
                name, difference = wrong
                text = (
                    f"every pass keeps the outputs, every kernel by itself is right, but not the code as a whole on "
                    f"{q.threads} threads\n"
                    f"  output '{name}' is off by {difference.relative:.3g} of its magnitude; {difference.words}"
                )
                q.on_stage("making it small")
                seeds = [node for node in graph.nodes if any(graph.is_output(value) for value in node.outputs)]
                reproducer = reproduce_code(graph, case.inputs, seeds, q.setting)
                return Verdict(CODE, text, {"output": name, "difference": difference.to_json()}, reproducer)
        return None


# -- replay -----------------------------------------------------------------------------------------------------------


def replay(question: Question) -> Verdict:
    """Only whether the outputs are those expected, first after the passes, then of the code."""
    assert question.inputs is not None, "a replay is of given inputs"
    assert question.expected is not None, "a replay has outputs to compare with"
    try:
        optimised = run_passes(question.source, question.settings)
    except PassFailure as failure:
        return Verdict(PASS, f"pass {failure.spec} failed: {failure.reason}", {"failure": failure.reason})
    graph = optimised.graph
    verdict = _outputs(question, PASS, "after the passes", evaluate(graph, question.inputs, dtype="float64"))
    if verdict is not None:
        return verdict
    try:
        with load_graph_code(graph, question.setting) as model:
            got = model.run({name: np.ascontiguousarray(array) for name, array in question.inputs.items()})
    except StageFailure as failure:
        return Verdict(STAGE, str(failure), {"stage": failure.stage, "failure": str(failure)})
    verdict = _outputs(question, CODE, "of the code", got)
    return verdict or Verdict(RIGHT, "the outputs are those expected, after the passes and of the code")


def _outputs(question: Question, kind: str, when: str, got: Mapping[str, Array]) -> Verdict | None:
    assert question.expected is not None
    lines: list[str] = []
    worst: dict[str, Any] = {}
    for name, array in question.expected.items():
        difference = compare(got[name], array)
        if not difference.relative <= question.tolerance:
            lines.append(f"  '{name}' is off by {difference.relative:.3g} of its magnitude; {difference.words}")
            worst[name] = difference.to_json()
    if not lines:
        return None
    return Verdict(kind, "\n".join([f"the outputs {when} are not those expected", *lines]), {"outputs": worst})
