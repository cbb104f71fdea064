"""From a model to its profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.spaces import predicted_cycles
from sqzc.diagnostics import UsageError
from sqzc.driver.build import Code, Optimised, generate, make_plan, run_passes, settle, tuning_warnings
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.driver.sources import ModelLike, read_model
from sqzc.plan.program import Program
from sqzc.profile.machine import Machine, measure
from sqzc.profile.probed import measure_runs
from sqzc.profile.rows import Profile, make_profile
from sqzc.target import Target, resolve, runs_here

MAX_RUNS = 1_000_000
OnStage = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """A profile and what the caller should be told besides."""

    profile: Profile
    program: Program
    warnings: tuple[str, ...]


def profile_model(
    model: ModelLike,
    model_options: ModelOptions,
    code_options: CodeOptions,
    *,
    threads: int = 1,
    runs: int | None = None,
    machine: Machine | None = None,
    on_stage: OnStage | None = None,
) -> Result:
    """Compiles a model in process, once with probes and once without, and measures where its time goes.

    Nothing of it is kept. `machine` is measured when it is not given; it must be for as many threads.
    """
    say = on_stage or (lambda stage: None)
    _check(threads, runs, code_options)
    say("reading the model")
    source = read_model(model, model_options)
    settings = settle(source, code_options)
    if not runs_here(settings.target):
        raise UsageError(
            f"code for {settings.target.name} does not run here, so it cannot be profiled",
            hint="profile with --target native, or on a machine that has it",
        )
    if threads > settings.threads_max:
        raise UsageError(f"{threads} threads", expected=f"at most {settings.threads_max}, as the model is compiled for")
    say("compiling")
    optimised = run_passes(source, settings)
    program = make_plan(optimised)
    probed, plain = both_builds(optimised, program)
    if machine is None:
        say("measuring the machine")
        machine = measure(settings.target, threads)
    assert machine.threads == threads, "a machine measured with another number of threads"
    say("running the model")
    timings = measure_runs(probed, plain, threads, runs)
    profile = make_profile(program, timings, machine, predictions(program, settings.target, threads))
    return Result(profile, program, (*source.warnings, *tuning_warnings(settings, program)))


def both_builds(optimised: Optimised, program: Program) -> tuple[Code, Code]:
    """The code with probes, and without."""
    return (
        generate(optimised, program, shared=False, probes=True),
        generate(optimised, program, shared=False),
    )


def predictions(program: Program, target: Target, threads: int) -> list[float | None]:
    """Cycles of each step by the cost model; of several threads, those of the one with the most work items."""
    families, found = Library(target).families, list[float | None]()
    for step in program.steps:
        cycles = predicted_cycles(program, step, target)
        items = 0 if cycles is None else families[step.kernel].items(program, step)
        found.append(None if cycles is None or not items else cycles * -(-items // threads) / items)
    return found


def _check(threads: int, runs: int | None, options: CodeOptions) -> None:
    """Mistakes that need no model to be found."""
    if threads < 1:
        raise UsageError(f"{threads} threads", expected="1 or more")
    if runs is not None and not 1 <= runs <= MAX_RUNS:
        raise UsageError(f"{runs} runs", expected=f"1 to {MAX_RUNS}")
    if options.target is not None:
        resolve(options.target)
