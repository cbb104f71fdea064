"""Runs pipelines: verification after every pass, instruments, bounded fixed points, records of what happened.

A pass that raises, leaves an invalid graph or misreports whether it changed something is a bug in sqzc: it ends in a
`PassFailure` that names the pass, the passes before it, and holds the IR it was given.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqzc.diagnostics import InternalError, PassError, SqzcError, nearest
from sqzc.ir.equality import first_difference
from sqzc.ir.graph import Graph
from sqzc.ir.verifier import verify
from sqzc.passes.base import Evaluate, Pass, PassContext
from sqzc.passes.registry import Fixpoint, Step, parse_pipeline, show_pipeline
from sqzc.target import Target


@dataclass(frozen=True)
class PassRecord:
    """What one run of one pass did. `remaining` is the spec of everything that was still to come.

    Running `remaining` on the graph as it was after this pass gives what the whole pipeline gives.
    """

    index: int
    name: str
    spec: str
    changed: bool
    seconds: float
    ops_before: int
    ops_after: int
    rewrites: tuple[str, ...]
    notes: tuple[str, ...]
    remaining: str

    def to_json(self) -> dict[str, Any]:
        """The record as JSON-able data."""
        return asdict(self)


class PassFailure(InternalError):
    """A pass broke its promise. `before` is the graph it was given; `predecessors` ran before it, oldest first."""

    def __init__(self, reason: str, spec: str, predecessors: Sequence[str], before: Graph) -> None:
        self.reason, self.spec, self.before = reason, spec, before
        self.predecessors = tuple(predecessors)
        ran = ", ".join(self.predecessors) or "none"
        super().__init__(f"pass {spec} failed: {reason}\npasses before it: {ran}\nIR before it:\n{before}")


class Instrument:
    """Watches a pipeline. It must not change the graphs it is shown; clone what is to be kept."""

    def before_pipeline(self, graph: Graph) -> None:
        """Called once, with the graph as it came."""

    def before_pass(self, index: int, step: Pass, graph: Graph) -> None:
        """Called with the verified graph that the pass will change; `index` counts from 1."""

    def after_pass(self, index: int, step: Pass, graph: Graph, record: PassRecord) -> None:
        """Called with the verified graph that the pass left."""


class PassManager:
    """Runs a pipeline, given as a spec (`"O2"`, `"fold-mean,dead-code"`) or as steps.

    `stop_after` ends the run early: after that many passes when a number, after the first run of that pass when a name.
    """

    def __init__(
        self,
        pipeline: str | Sequence[Step],
        instruments: Sequence[Instrument] = (),
        *,
        target: Target | None = None,
        evaluate: Evaluate | None = None,
        stop_after: int | str | None = None,
    ) -> None:
        self.steps = parse_pipeline(pipeline) if isinstance(pipeline, str) else tuple(pipeline)
        self.instruments = tuple(instruments)
        self.target, self.evaluate = target, evaluate
        self.stop_after = self._checked_stop(stop_after)
        self.records: list[PassRecord] = []

    def _checked_stop(self, stop: int | str | None) -> int | str | None:
        if isinstance(stop, str) and stop.isdecimal():
            stop = int(stop)
        if isinstance(stop, str):
            names = [p.name for step in self.steps for p in (step.steps if isinstance(step, Fixpoint) else (step,))]
            if stop not in names:
                raise PassError(
                    f"cannot stop after '{stop}': the pipeline has no such pass",
                    expected=", ".join(dict.fromkeys(names)) or "an empty pipeline",
                    hint=nearest(stop, names),
                )
        return stop

    def run(self, graph: Graph) -> list[PassRecord]:
        """Changes `graph` in place and returns one record per pass run; VerifyError if it is invalid to begin with."""
        verify(graph)
        self.records = []
        for instrument in self.instruments:
            instrument.before_pipeline(graph)
        for position, step in enumerate(self.steps):
            rest = self.steps[position + 1 :]
            if isinstance(step, Fixpoint):
                self._run_fixpoint(step, graph, rest)
            elif not self._stopped():
                self._run_pass(step, graph, rest)
        return self.records

    def _stopped(self) -> bool:
        if isinstance(self.stop_after, int):
            return len(self.records) >= self.stop_after
        return self.stop_after is not None and any(r.name == self.stop_after for r in self.records)

    def _run_fixpoint(self, group: Fixpoint, graph: Graph, rest: Sequence[Step]) -> None:
        for _ in range(group.max):
            changed = ""
            for position, step in enumerate(group.steps):
                if self._stopped():
                    return
                if self._run_pass(step, graph, (*group.steps[position + 1 :], group, *rest)):
                    changed = step.name
            if not changed:
                return
        raise InternalError(
            f"{show_pipeline((group,))} still changes the graph after {group.max} rounds, last by {changed}\n{graph}"
        )

    def _run_pass(self, step: Pass, graph: Graph, rest: Sequence[Step]) -> bool:
        index = len(self.records) + 1
        for instrument in self.instruments:
            instrument.before_pass(index, step, graph)
        before = graph.clone()
        ctx = PassContext(target=self.target, evaluate=self.evaluate, limit=step.limit)
        start = time.perf_counter()
        changed = self._guarded(step, graph, ctx, before)
        seconds = time.perf_counter() - start
        record = PassRecord(
            index=index,
            name=step.name,
            spec=step.spec,
            changed=changed,
            seconds=seconds,
            ops_before=len(before.nodes),
            ops_after=len(graph.nodes),
            rewrites=tuple(ctx.rewrites),
            notes=tuple(ctx.notes),
            remaining=show_pipeline(rest),
        )
        self.records.append(record)
        for instrument in self.instruments:
            instrument.after_pass(index, step, graph, record)
        return changed

    def _guarded(self, step: Pass, graph: Graph, ctx: PassContext, before: Graph) -> bool:
        def fail(reason: str) -> PassFailure:
            graph.copy_from(before)
            return PassFailure(reason, step.spec, [r.spec for r in self.records], before)

        try:
            changed = step.run(graph, ctx)
        except PassError:
            graph.copy_from(before)
            raise
        except Exception as error:
            raise fail(f"{type(error).__name__}: {error}") from error
        try:
            verify(graph)
        except SqzcError as error:
            raise fail(f"it left an invalid graph: {error}") from error
        if not changed:
            difference = first_difference(before, graph)
            if difference is not None:
                raise fail(f"it says that it changed nothing, but {difference}")
        return changed


def replay_spec(records: Sequence[PassRecord], upto: int, limit: int | None = None) -> str:
    """The passes that ran up to record `upto` (1-based) in a row, fixed points unrolled; `limit` is for the last one.

    With it a bisection cuts a pipeline at any pass, and that pass at any rewrite.
    """
    steps = [step for record in records[:upto] for step in parse_pipeline(record.spec)]
    if limit is not None and steps and isinstance(steps[-1], Pass):
        steps[-1] = replace(steps[-1], limit=limit)
    return show_pipeline(steps)
