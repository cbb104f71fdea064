"""The search: kernels first, then schedules, each round with another option for every question at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

import sqzc
from sqzc.backends.llvm.legalize import legalize
from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.tuning import Entry, Tuning
from sqzc.diagnostics import UsageError
from sqzc.driver.build import Optimised, generate, make_plan, run_passes, settle
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.driver.sources import ModelLike, read_model
from sqzc.plan.program import Program
from sqzc.profile.build import predictions
from sqzc.profile.machine import measure_clock
from sqzc.profile.probed import Runner, running
from sqzc.target import host_cpu, runs_here
from sqzc.tune.outcome import Comparison, Outcome, choices, confirmed, groups_of
from sqzc.tune.questions import Question, kernel_questions, schedule_questions, with_choices
from sqzc.tune.timing import TURNS, interleave

Tell = Callable[[str, float], None]
"""Told what is being done, and which part of the budget is used up."""


@dataclass(frozen=True)
class Result:
    """A tuning, and what came of it.

    Rows are in the order of the graph. `before` and `after` are seconds of one run; `tried` counts options, many of
    them in each of the `rounds`; `complete` says whether all had their turn before the budget was used up.
    """

    tuning: Tuning
    rows: tuple[Comparison, ...]
    before: float
    after: float
    rounds: int
    tried: int
    seconds: float
    complete: bool
    warnings: tuple[str, ...]


def tune_model(
    model: ModelLike,
    model_options: ModelOptions,
    code_options: CodeOptions,
    *,
    threads: int = 1,
    budget: float = 60.0,
    tell: Tell = lambda words, part: None,
) -> Result:
    """Searches for at most about `budget` seconds; what is tried, and in which order, depends on the model alone."""
    if threads < 1 or not 0 < budget < 1e7:
        raise UsageError(f"{threads} threads, {budget:g} seconds", expected="1 thread or more, a budget above 0")
    start = time.monotonic()
    tell("reading the model", 0.0)
    source = read_model(model, model_options)
    settings = settle(source, code_options)
    if not runs_here(settings.target):
        raise UsageError(f"code for {settings.target.name} does not run here, so it cannot be timed")
    if threads > settings.threads_max:
        raise UsageError(f"{threads} threads", expected=f"at most {settings.threads_max}")
    tell("compiling", 0.0)
    search = Search(run_passes(source, settings), threads, start + budget, budget, tell)
    return search.run(start, source.warnings)


class Search:
    """One search, over the choices for one graph."""

    def __init__(self, optimised: Optimised, threads: int, deadline: float, budget: float, tell: Tell) -> None:
        self.optimised, self.threads, self.tell = optimised, threads, tell
        self.deadline, self.budget = deadline, budget
        settings = optimised.settings
        self.target = settings.target
        self.library = Library(settings.target, settings.winograd)
        self.graph = legalize(optimised.graph)
        self.empty = Tuning(sqzc.__version__, settings.target.name, host_cpu(), settings.winograd, threads)
        self.alive: dict[str, Runner] = {}
        self.clock = measure_clock(self.target)
        self.rounds = self.tried = 0
        self.longest = 0.0
        self.complete = True

    def run(self, start: float, warnings: tuple[str, ...]) -> Result:
        """Both phases, then the model's plan against the tuned one."""
        began = time.monotonic()
        original = self.plan(self.empty)
        with self.built(original) as runner:
            self.longest = time.monotonic() - began
            questions = kernel_questions(self.graph, self.library, original)
            tuning = self.phase("kernels", questions, self.empty, runner, original)
            chosen = self.plan(tuning)
            with self.built(chosen) as other:
                asked = schedule_questions(self.library, chosen)
                tuning = self.phase("schedules", asked, tuning, other, chosen)
            tuned = self.plan(tuning)
            self.say("the model's choices against the tuned ones")
            with self.built(tuned) as other:
                times = interleave(runner, other, turns=2 * TURNS)
        groups = groups_of(self.graph, self.library)
        tuning = confirmed(tuning, groups, original, tuned, times)
        outcome = Outcome(original, tuned, self.plan(tuning), times, self.predict)
        rows = tuple(outcome.row(group) for group in groups)
        before = float(np.median(times.before.sum(axis=1)))
        after = before - sum(row.measured_before - row.measured for row in rows)
        spent = time.monotonic() - start
        filled = outcome.with_seconds(tuning, groups)
        return Result(filled, rows, before, after, self.rounds, self.tried, spent, self.complete, warnings)

    def plan(self, tuning: Tuning) -> Program:
        """The plan with a tuning's choices."""
        return make_plan(replace(self.optimised, settings=replace(self.optimised.settings, tuning=tuning)))

    def predict(self, program: Program) -> list[float | None]:
        """Seconds of each step by the cost model."""
        cycles = predictions(program, self.target, self.threads)
        return [None if count is None else count / self.clock for count in cycles]

    @contextmanager
    def built(self, program: Program) -> Iterator[Runner]:
        """The code of a plan, with probes, ready to run; that which runs already if a plan has the same choices."""
        key = str(choices(program, range(len(program.steps))))
        if key in self.alive:
            yield self.alive[key]
            return
        with running(generate(self.optimised, program, shared=False, probes=True), self.threads) as runner:
            self.alive[key] = runner
            try:
                yield runner
            finally:
                del self.alive[key]

    def say(self, words: str) -> None:
        self.tell(words, min(1.0, 1 - (self.deadline - time.monotonic()) / self.budget))

    def has_time(self) -> bool:
        """Whether another round, and the last comparison after it, fit into the budget."""
        return time.monotonic() + 2 * self.longest < self.deadline

    def phase(
        self, name: str, questions: Sequence[Question], tuning: Tuning, runner: Runner, program: Program
    ) -> Tuning:
        """Tries the options of all questions, the n-th of each at once, against what the plan has; keeps the best."""
        best: dict[int, tuple[float, Entry]] = {}
        asked: set[int] = set()
        for number in range(1, max((len(question.options) for question in questions), default=0)):
            if not self.has_time():
                self.complete = False
                break
            began = time.monotonic()
            picks = [(i, q, q.options[number]) for i, q in enumerate(questions) if len(q.options) > number]
            self.say(f"{name}, round {number}: {len(picks)} options, {len(best)} better so far")
            other = self.plan(with_choices(tuning, ((question, entry) for _, question, entry in picks)))
            with self.built(other) as candidate:
                times = interleave(runner, candidate)
            for i, question, entry in picks:
                asked.add(i)
                ratio = times.gain(question.steps(program), question.steps(other))
                if ratio is not None and (i not in best or ratio < best[i][0]):
                    best[i] = ratio, entry
            self.rounds, self.tried = self.rounds + 1, self.tried + len(picks)
            self.longest = max(self.longest, time.monotonic() - began)
        # What was measured is kept as well where the model's choice won.
        return with_choices(
            tuning, ((q, best[i][1] if i in best else q.options[0]) for i, q in enumerate(questions) if i in asked)
        )
