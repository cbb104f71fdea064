"""From wrong outputs to the pass, rewrite and op that make them wrong, or the kernel, and a few ops that show it.

1. What is expected is compared with the reference on the graph as it was read: no pass is to blame for what differs.
2. Passes: the first after which the reference gives other outputs; the fewest of its rewrites; the first value.
3. Kernels: the first whose output is not that of the ops it stands for.
4. The whole code, called as a library is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sqzc.backends.reference import evaluate
from sqzc.driver.build import Settings, StageFailure, make_plan, run_passes
from sqzc.driver.debug.cases import Arrays, Case, kernel_cases, pass_cases
from sqzc.driver.debug.code import Setting, code_is_wrong, load_graph_code, reproduce_code, reproduce_step
from sqzc.driver.debug.compare import Difference, compare
from sqzc.driver.debug.kernels import KernelChecker, WrongStep
from sqzc.driver.debug.passes import Snapshots, WrongPass, broken_pass, first_wrong, narrow, reproduce
from sqzc.driver.debug.reproducer import Reproducer
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
        return Setting(self.settings.target, self.settings.opt_level, self.threads)


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

# -- 1. what is expected ----------------------------------------------------------------------------------------------


def _expectation(question: Question) -> Verdict | None:
    if question.expected is None:
        return None
    assert question.inputs is not None, "outputs are expected of inputs"
    question.on_stage("comparing with the reference")
    right = evaluate(question.graph, question.inputs, dtype="float64")
    for name, array in question.expected.items():
        difference = compare(array, right[name])
        if not difference.relative <= question.tolerance:
            amount = f"{difference.relative:.3g} of its magnitude, over {question.tolerance:.3g}"
            text = (
                f"no pass is to blame: before any of them ran, output '{name}' is not what {question.expected_from} "
                f"says\n  off by {amount}; {difference.words.replace('expected', 'reference').replace('got', 'there')}\n"
                "  look at the inputs, the mean and how the model was read, or at where the expected outputs come from"
            )
            return Verdict(EXPECTATION, text, {"output": name, "difference": difference.to_json()})
    return None


# -- 2. passes --------------------------------------------------------------------------------------------------------


def _passes(question: Question) -> Verdict | None:
    question.on_stage("running passes")
    snapshots, settings = Snapshots(), question.settings
    cases = pass_cases(question.graph, 1) if question.inputs is None else [Case("given", question.inputs)]
    try:
        records = run_passes(question.source, settings, [snapshots]).records
    except PassFailure as failure:
        # What ran before may be the cause.
        records, broken = (), failure
    else:
        broken = None
    question.on_stage("looking for the first wrong pass")
    target = settings.target.name
    for case in cases:
        snapshot = first_wrong(snapshots.taken, case)
        if snapshot is not None:
            specs = [record.spec for record in records] or [s.record.spec for s in snapshots.taken]
            question.on_stage("narrowing it down")
            wrong = narrow(snapshot, specs[: snapshot.record.index - 1], case, target)
            return _wrong_pass(question, wrong, case)
    if broken is not None:
        (step,) = parse_pipeline(broken.spec)
        assert isinstance(step, Pass)
        return _wrong_pass(question, broken_pass(broken, step), cases[0])
    return None


def _wrong_pass(question: Question, wrong: WrongPass, case: Case) -> Verdict:
    question.on_stage("making it small")
    reproducer = reproduce(wrong, case, question.settings.target.name)
    return Verdict(PASS, wrong.text, wrong.to_json(), reproducer)


# -- 3. kernels, 4. code ----------------------------------------------------------------------------------------------


def _kernels(question: Question) -> Verdict | None:
    question.on_stage("generating code")
    optimised = run_passes(question.source, question.settings)
    graph, setting = optimised.graph, question.setting
    cases = kernel_cases(question.graph, 1) if question.inputs is None else [Case("given", question.inputs)]
    try:
        program = make_plan(optimised)
        checker = KernelChecker(graph, program, setting.target)
        question.on_stage("checking kernels")
        for case in cases:
            for prepare, parts in ((True, 1), (False, 3)):
                for found in checker.run(case, prepare=prepare, parts=parts):
                    if isinstance(found, WrongStep):
                        return _wrong_step(question, graph, found, case)
        question.on_stage("checking the whole")
        for case in cases:
            wrong = code_is_wrong(graph, setting, case)
            if wrong is not None:
                return _wrong_code(question, graph, wrong, case)
    except StageFailure as failure:
        question.on_stage("making it small")
        text = f"{failure.stage} breaks down\n  {failure}"
        reproducer = reproduce_code(graph, cases[0].inputs, graph.nodes, setting, crash=True)
        return Verdict(STAGE, text, {"stage": failure.stage, "failure": str(failure)}, reproducer)
    return None


def _wrong_step(question: Question, graph: Graph, wrong: WrongStep, case: Case) -> Verdict:
    question.on_stage("making it small")
    text = f"every pass is right\n{wrong.text}"
    reproducer = reproduce_step(graph, wrong, case, question.settings.target, question.setting)
    return Verdict(KERNEL, text, wrong.to_json(), reproducer)


def _wrong_code(question: Question, graph: Graph, wrong: tuple[str, Difference], case: Case) -> Verdict:
    question.on_stage("making it small")
    name, difference = wrong
    text = (
        f"every pass and every kernel by itself is right, but not the code as a whole (threads: {question.threads})\n"
        f"  output '{name}' is off by {difference.relative:.3g} of its magnitude; {difference.words}"
    )
    seeds = [node for node in graph.nodes if any(graph.is_output(value) for value in node.outputs)]
    reproducer = reproduce_code(graph, case.inputs, seeds, question.setting)
    return Verdict(CODE, text, {"output": name, "difference": difference.to_json()}, reproducer)


# -- replay -----------------------------------------------------------------------------------------------------------


def replay(question: Question) -> Verdict:
    """Only whether the outputs are those expected, first after the passes, then of the code; nothing is searched for."""
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
        bare = replace(question.source, graph=graph)
        with load_graph_code(bare.graph, question.setting) as model:
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


