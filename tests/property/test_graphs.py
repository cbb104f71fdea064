"""Properties of random graphs: the text form, the passes and the levels keep what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from golden.runner import manager
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from property.graphs import graphs, inputs_for, seeded_graph

from sqzc.backends.reference import evaluate
from sqzc.ir.constant import Array
from sqzc.ir.equality import first_difference
from sqzc.ir.files import weights_of
from sqzc.ir.graph import Graph
from sqzc.ir.parser import parse_graph
from sqzc.ir.printer import print_graph
from sqzc.passes.base import Pass
from sqzc.passes.pipelines import PIPELINES
from sqzc.passes.registry import known_passes, parse_pipeline

SPECS = [*known_passes(), *PIPELINES, "assign-layout{lanes=4},elide-concat"]
quick = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def outputs_of(graph: Graph) -> dict[str, Array]:
    """Results in double precision, so that what is left is the rounding of folded constants."""
    return evaluate(graph, inputs_for(graph), dtype="float64")


def assert_same(before: dict[str, Array], after: dict[str, Array], what: str) -> None:
    """Equal up to the rounding of float32 constants, measured against the largest element."""
    assert before.keys() == after.keys()
    for name, wanted in before.items():
        got = after[name]
        assert got.shape == wanted.shape
        scale = 1 + np.abs(wanted).max(initial=0)
        error = np.abs(got - wanted).max(initial=0)
        assert error <= 1e-5 * scale, f"{what}: output {name} is off by {error:g} at values up to {scale:g}"


@quick
@given(graphs())
def test_text_reads_back_equal(graph: Graph) -> None:
    text = print_graph(graph)
    again = parse_graph(text, weights_of(graph))
    assert first_difference(graph, again) is None
    assert print_graph(again) == text


@pytest.mark.parametrize("spec", SPECS)
@quick
@given(graphs())
def test_pass_keeps_numbers(spec: str, graph: Graph) -> None:
    before = outputs_of(graph)
    interface = [(v.name, v.type) for v in graph.inputs], [(name, v.type) for name, v in graph.outputs]
    manager(spec).run(graph)
    assert interface == ([(v.name, v.type) for v in graph.inputs], [(name, v.type) for name, v in graph.outputs])
    assert_same(before, outputs_of(graph), f"{spec}\n{graph}")


@pytest.mark.parametrize("name", known_passes())
@quick
@given(graph=graphs(), limit=st.integers(0, 4))
def test_limit_keeps_numbers_and_is_a_prefix(name: str, graph: Graph, limit: int) -> None:
    """A pass cut off after any number of rewrites leaves a graph of the same meaning; bisection stands on this."""
    before, whole = outputs_of(graph), graph.clone()
    (record,) = manager(name).run(whole)
    (step,) = parse_pipeline(name)
    assert isinstance(step, Pass)
    runner = manager(name)
    runner.steps = (replace(step, limit=limit),)
    (cut,) = runner.run(graph)
    assert len(cut.rewrites) == min(limit, len(record.rewrites))
    assert cut.rewrites == record.rewrites[:limit]
    assert cut.changed == bool(cut.rewrites)
    assert_same(before, outputs_of(graph), f"{name}{{limit={limit}}}\n{graph}")


@pytest.mark.parametrize("name", known_passes())
@quick
@given(graphs())
def test_pass_is_done_after_one_run(name: str, graph: Graph) -> None:
    manager(name).run(graph)
    (again,) = manager(name).run(graph)
    assert not again.changed, f"{again.rewrites}\n{graph}"


@quick
@given(graphs())
def test_levels_are_deterministic(graph: Graph) -> None:
    """The same graph, or the same graph read from its text, gives the same text."""
    texts = []
    for start in (graph.clone(), graph.clone(), parse_graph(print_graph(graph), weights_of(graph))):
        manager("O3").run(start)
        texts.append(print_graph(start))
    assert texts[0] == texts[1] == texts[2]


@quick
@given(graphs())
def test_every_surviving_name_has_its_value(graph: Graph) -> None:
    """The last source name of a value is the one whose number it is, whatever was fused into it."""
    inputs = inputs_for(graph)
    outputs = [value.source[-1] for _, value in graph.outputs]
    named = {v.source[-1]: v.name for v in graph.values() if v.source and v.producer is not None}
    before = evaluate(graph, inputs, dtype="float64", taps="all")
    manager("O2").run(graph)
    after = evaluate(graph, inputs, dtype="float64", taps="all")
    kept = [(v.source[-1], v.name) for v in graph.values() if v.source and v.source[-1] in named]
    assert all(wanted in value.source for wanted, (_, value) in zip(outputs, graph.outputs, strict=True))
    assert_same(
        {source: before[named[source]] for source, _ in kept},
        {source: after[name] for source, name in kept},
        str(graph),
    )


@pytest.mark.parametrize("seed", range(30))
def test_seeded_graphs_keep_numbers_at_o3(seed: int) -> None:
    graph = seeded_graph(seed)
    before = outputs_of(graph)
    manager("O3").run(graph)
    assert_same(before, outputs_of(graph), f"seed {seed}")


def test_generator_reaches_what_it_should() -> None:
    """The random graphs exercise every pass and have the shapes that the passes must survive."""
    rewritten = dict.fromkeys(known_passes(), 0)
    ops, branches, outputs = set(), 0, 0
    for seed in range(150):
        graph = seeded_graph(seed)
        ops |= {node.op.name for node in graph.nodes}
        branches += any(len(value.users) > 1 for value in graph.values())
        outputs += len(graph.outputs) > 1
        for record in manager("O2").run(graph):
            rewritten[record.name] += record.changed
    assert not [name for name, count in rewritten.items() if not count]
    assert len(ops) >= 30
    assert branches > 100
    assert outputs > 60
