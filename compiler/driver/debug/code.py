"""Whether the code of a graph gives the right outputs, called as a loaded library is, and the few ops that show it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sqzc.backends.reference import evaluate
from sqzc.diagnostics import SqzcError
from sqzc.driver.build import StageFailure, generate, load_code, make_plan, run_passes, settle
from sqzc.driver.debug.cases import Arrays, Case
from sqzc.driver.debug.compare import Difference, budget_of, compare
from sqzc.driver.debug.extract import nodes_between
from sqzc.driver.debug.kernels import OWN_FACTOR, WrongStep
from sqzc.driver.debug.reduce import Fails, Reduced, reduce
from sqzc.driver.debug.reproducer import Reproducer
from sqzc.driver.debug.setting import Setting
from sqzc.driver.options import ModelOptions
from sqzc.driver.sources import read_model
from sqzc.ir.graph import Graph, Node
from sqzc.runtime import Model


def load_graph_code(graph: Graph, setting: Setting) -> Model:
    """The code of a graph as it is, in this process."""
    source = read_model(graph, ModelOptions())
    optimised = run_passes(source, settle(source, setting.code_options))
    return load_code(generate(optimised, make_plan(optimised)), setting.threads)


def wrong_output(graph: Graph, model: Model, inputs: Arrays, factor: float) -> tuple[str, Difference] | None:
    """The first output of the code that is off by over `factor` budgets, if one is."""
    arrays = {name: np.ascontiguousarray(inputs[name]) for name in (value.name for value in graph.inputs)}
    got, exact = model.run(arrays), evaluate(graph, inputs, dtype="float64")
    for name, value in graph.outputs:
        difference = compare(got[name], exact[name])
        if not difference.relative <= factor * budget_of(value.type.dtype):
            return name, difference
    return None


def code_fails(setting: Setting, *, crash: bool = False) -> Fails:
    """For `reduce`: whether the code of a graph is wrong; with `crash`, whether a stage that makes it breaks down."""

    def fails(graph: Graph, inputs: Arrays) -> bool:
        try:
            model = load_graph_code(graph, setting)
        except StageFailure:
            return crash
        except SqzcError:
            return False
        with model:
            return not crash and wrong_output(graph, model, inputs, OWN_FACTOR) is not None

    return fails


def reproduce_code(
    graph: Graph, inputs: Arrays, seeds: Sequence[Node], setting: Setting, *, crash: bool = False
) -> Reproducer:
    """A few ops whose code is wrong; the whole graph if no part of it shows that."""
    fails = code_fails(setting, crash=crash)
    reduced = reduce(graph, inputs, list(seeds) or graph.nodes, fails, seconds=30.0, row_major=True)
    return Reproducer(reduced or Reduced(graph, inputs), setting.options)


def reproduce_step(graph: Graph, wrong: WrongStep, case: Case, setting: Setting) -> Reproducer:
    """A few ops for which the kernel of a step is wrong."""
    seeds = list(wrong.nodes)
    if not seeds:
        # A copy, or a border: what makes the value, and what reads it.
        value = next((v for v in graph.values() if v.name == wrong.value), None)
        seeds = [] if value is None else [*nodes_between([value], value.producer.inputs if value.producer else ())]
    return reproduce_code(graph, case.inputs, seeds, setting)
