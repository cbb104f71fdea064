"""What is asked, what counts as faster, and what is kept in the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_nets import write_small_net

from sqzc.backends.llvm.legalize import legalize
from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.tuning import Entry, Tuning, TuningError
from sqzc.diagnostics import UsageError
from sqzc.driver.build import Optimised, make_plan, run_passes, settle
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.driver.sources import read_model
from sqzc.plan.program import Program
from sqzc.target import TARGETS, host_cpu, runs_here
from sqzc.tune.outcome import Outcome, choices, confirmed, groups_of
from sqzc.tune.questions import MOST, kernel_questions, schedule_questions, with_choices
from sqzc.tune.search import tune_model
from sqzc.tune.timing import Times

TARGET = TARGETS["x86-64-v3"]


@pytest.fixture(scope="module")
def optimised(tmp_path_factory: pytest.TempPathFactory) -> Optimised:
    net = write_small_net(tmp_path_factory.mktemp("nets") / "net")
    source = read_model(net, ModelOptions())
    return run_passes(source, settle(source, CodeOptions(target=TARGET.name)))


def plan(optimised: Optimised, tuning: Tuning) -> Program:
    return make_plan(replace(optimised, settings=replace(optimised.settings, tuning=tuning)))


@pytest.fixture
def original(optimised: Optimised) -> Program:
    return plan(optimised, Tuning())


def times(before: list[float], after: list[float]) -> Times:
    """Four turns that all take the same."""
    return Times(np.array([before] * 4), np.array([after] * 4))


def test_every_convolution_with_a_choice_is_asked_for(optimised: Optimised, original: Program) -> None:
    library, graph = Library(TARGET), legalize(optimised.graph)
    kernels = kernel_questions(graph, library, original)
    assert all(len(question.options) > 1 and question.of_kernels for question in kernels)
    for question in kernels:
        assert question.options[0].kernel in {original.steps[i].kernel for i in question.steps(original)}
    assert ("conv2d.direct+max_pool2d", "conv2d.direct") in {
        tuple(option.kernel for option in question.options) for question in kernels
    }
    schedules = schedule_questions(library, original)
    for question in schedules:
        assert 1 < len(question.options) <= MOST + 1
        assert all(original.steps[i].schedule == question.options[0].schedule for i in question.steps(original))
        assert len({str(option.schedule) for option in question.options}) == len(question.options)
    assert schedules == schedule_questions(Library(TARGET), original)


def test_all_options_make_plans(optimised: Optimised, original: Program) -> None:
    questions = schedule_questions(Library(TARGET), original)
    for number in (1, 2):
        picks = [(q, q.options[number]) for q in questions if len(q.options) > number]
        program = plan(optimised, with_choices(Tuning(), picks))
        for question, entry in picks:
            assert {str(program.steps[i].schedule) for i in question.steps(program)} == {str(entry.schedule)}
    graph = legalize(optimised.graph)
    for question in kernel_questions(graph, Library(TARGET), original):
        for entry in question.options:
            program = plan(optimised, with_choices(Tuning(), [(question, entry)]))
            assert entry.kernel in {program.steps[i].kernel for i in question.steps(program)}


def test_a_gain_is_more_than_noise() -> None:
    assert times([2.0, 1.0], [1.0, 1.0]).gain([0], [0]) == pytest.approx(0.5)
    assert times([2.0, 1.0], [1.0, 1.0]).gain([0, 1], [0]) == pytest.approx(1 / 3)
    assert times([1.0], [0.99]).gain([0], [0]) is None
    assert times([1.0], [1.5]).gain([0], [0]) is None
    assert times([0.0], [1.0]).gain([0], [0]) is None
    # Faster in the median, but slower in one turn of three.
    shaky = Times(np.ones((6, 1)), np.array([[0.8], [0.8], [0.8], [0.8], [1.3], [1.3]]))
    assert shaky.gain([0], [0]) is None


def tuned_everywhere(optimised: Optimised, original: Program) -> Tuning:
    """Another kernel where there is one, and the next best schedules."""
    library, graph = Library(TARGET), legalize(optimised.graph)
    kernels = with_choices(Tuning(), ((q, q.options[1]) for q in kernel_questions(graph, library, original)))
    asked = schedule_questions(library, plan(optimised, kernels))
    return with_choices(kernels, ((q, q.options[1]) for q in asked))


def test_what_is_not_faster_in_the_end_is_taken_back(optimised: Optimised, original: Program) -> None:
    tuning = tuned_everywhere(optimised, original)
    tuned = plan(optimised, tuning)
    assert choices(tuned, range(len(tuned.steps))) != choices(original, range(len(original.steps)))
    groups = groups_of(legalize(optimised.graph), Library(TARGET))
    slower = times([1.0] * len(original.steps), [2.0] * len(tuned.steps))
    back = confirmed(tuning, groups, original, tuned, slower)
    final = plan(optimised, back)
    assert [(s.kernel, s.schedule) for s in final.steps] == [(s.kernel, s.schedule) for s in original.steps]
    faster = times([2.0] * len(original.steps), [0.5] * len(tuned.steps))
    kept = confirmed(tuning, groups, original, tuned, faster)
    assert kept == tuning


def test_rows_tell_what_changed(optimised: Optimised, original: Program) -> None:
    tuning = tuned_everywhere(optimised, original)
    tuned = plan(optimised, tuning)
    groups = groups_of(legalize(optimised.graph), Library(TARGET))
    measured = times([2.0] * len(original.steps), [0.5] * len(tuned.steps))
    outcome = Outcome(original, tuned, tuned, measured, lambda program: [3.0] * len(program.steps))
    rows = [outcome.row(group) for group in groups]
    pool = next(row for row in rows if row.kernel_before == "conv2d.direct+max_pool2d")
    assert pool.kernel == "conv2d.direct + max_pool2d.blocked"
    assert (pool.measured_before, pool.measured, pool.predicted_before, pool.predicted) == (2.0, 1.0, 3.0, 6.0)
    assert pool.changed
    filled = outcome.with_seconds(tuning, groups)
    assert all(entry.measured_seconds in (0.5, 1.0) for entry in filled.schedules)
    assert [entry.kernel for entry in filled.kernels] == [entry.kernel for entry in tuning.kernels]
    same = Outcome(original, original, original, measured_alike(original), lambda program: [None] * len(program.steps))
    assert not any(same.row(group).changed for group in groups)
    assert all(same.row(group).measured == same.row(group).measured_before for group in groups)


def measured_alike(program: Program) -> Times:
    return times([1.0] * len(program.steps), [1.1] * len(program.steps))


NATIVE = pytest.mark.skipif(not runs_here(TARGET), reason=f"this machine has no {TARGET.name}")


@NATIVE
def test_a_search_stays_in_its_budget_and_gives_a_usable_tuning(tmp_path: Path) -> None:
    net = write_small_net(tmp_path / "net")
    told: list[tuple[str, float]] = []
    options = CodeOptions(target=TARGET.name)
    result = tune_model(net, ModelOptions(), options, budget=3, tell=lambda *words: told.append(words))
    assert result.tuning.target == TARGET.name
    assert result.tuning.cpu == host_cpu()
    assert result.rounds >= 1
    assert result.tried >= result.rounds
    assert min(result.after, result.before) > 0
    assert all(0 <= part <= 1 for _, part in told)
    assert any(words.startswith("kernels, round 1: ") for words, _ in told)
    assert all(entry.measured_seconds for entry in (*result.tuning.kernels, *result.tuning.schedules))
    source = read_model(net, ModelOptions())
    program = plan(run_passes(source, settle(source, options)), result.tuning)
    # How much the time was enough for depends on the machine, and may be kernels as they were.
    assert set(result.tuning.steps(program)) <= set(range(len(program.steps)))
    assert program.meta["tuning"] == {"cpu": host_cpu(), "threads": 1, "steps": result.tuning.steps(program)}


@NATIVE
def test_a_budget_for_nothing_tries_nothing(tmp_path: Path) -> None:
    options = CodeOptions(target=TARGET.name)
    result = tune_model(write_small_net(tmp_path / "net"), ModelOptions(), options, budget=1e-6)
    assert (result.rounds, result.tried, result.complete) == (0, 0, False)
    assert not result.tuning
    assert not any(row.changed for row in result.rows)


@pytest.mark.parametrize(("threads", "budget"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_what_makes_no_sense_is_refused_at_once(threads: int, budget: float) -> None:
    with pytest.raises(UsageError, match="threads"):
        tune_model("nothing", ModelOptions(), CodeOptions(), threads=threads, budget=budget)


def test_a_tuning_asks_for_no_kernel_that_is_gone(optimised: Optimised) -> None:
    graph = legalize(optimised.graph)
    problem = groups_of(graph, Library(TARGET))[0].problem
    with pytest.raises(TuningError, match=r"no\.such\.kernel"):
        plan(optimised, Tuning(kernels=(Entry("no.such.kernel", problem),)))
