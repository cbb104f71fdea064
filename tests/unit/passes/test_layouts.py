"""The layout choice is the cheapest there is, its relayouts are minimal, and `limit` cuts it anywhere."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from golden.runner import manager, parse
from property.graphs import seeded_graph

from sqzc.diagnostics import PassError
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops import shape
from sqzc.ir.types import Layout
from sqzc.ir.verifier import verify
from sqzc.passes.layout_choice import Decision, best_layouts
from sqzc.passes.layout_cost import (
    Freedom,
    Preference,
    blocked_elements,
    freedom,
    input_preference,
    is_image,
    output_preference,
    relayout_cost,
    tied_preference,
)
from sqzc.passes.manager import PassManager
from sqzc.passes.registry import parse_pipeline

LANES = 4


def cost_of(graph: Graph, choice: dict[int, tuple[bool, bool]]) -> int:
    """Cost of an assignment, added up use by use; choice: (first operand, rest) blocked, by id() of the node."""

    def price(preference: Preference, blocked: bool) -> int:
        return preference.blocked if blocked else preference.plain

    def wants(node: Node, index: int) -> bool:
        value = node.inputs[index]
        if id(node) not in choice or not is_image(value.type):
            return False
        if node.op.layouts.value == "image" and node.op.operand_name(index) not in node.op.image_operands:
            return False
        if node.op.layouts.value == "broadcast" and value.type.elements == 1:
            return False
        first, rest = choice[id(node)]
        return first if index == 0 else rest

    total = 0
    for node in graph.nodes:
        if id(node) in choice:
            first, rest = choice[id(node)]
            if freedom(node, LANES) is Freedom.FREE:
                total += price(input_preference(node, LANES), first) + price(output_preference(node, LANES), rest)
            else:
                total += price(tied_preference(node, LANES), rest)
    for value in graph.values():
        made = value.producer is not None and choice.get(id(value.producer), (False, False))[1]
        uses = {wants(node, i) for node in value.users for i, v in enumerate(node.inputs) if v is value}
        uses |= {False} if graph.is_output(value) else set()
        if is_image(value.type):
            total += len(uses - {made}) * relayout_cost(value.type, LANES)
    return total


def choices_of(node: Node) -> list[tuple[bool, bool]]:
    """Every layout that the node may have."""
    if freedom(node, LANES) is Freedom.FREE:
        return list(itertools.product((False, True), repeat=2))
    return [(False, False), (True, True)]


def test_minimum_cut_is_the_optimum() -> None:
    compared = blocked = 0
    for seed in range(400):
        graph = seeded_graph(seed, max_ops=7)
        free = [node for node in graph.nodes if freedom(node, LANES) is not Freedom.PLAIN]
        options = [choices_of(node) for node in free]
        if not 1 <= len(free) <= 8:
            continue
        ids = [id(node) for node in free]
        best = min(cost_of(graph, dict(zip(ids, pick, strict=True))) for pick in itertools.product(*options))
        found = best_layouts(graph, LANES)
        nothing = {id(node): Decision((False,) * len(node.inputs), False) for node in free}
        decided = {**nothing, **found}
        chosen = {key: (decision.operands[0], decision.result) for key, decision in decided.items()}
        assert cost_of(graph, chosen) == best, f"seed {seed}\n{graph}"
        compared += 1
        blocked += bool(found)
    assert compared > 100
    assert blocked > 30


@pytest.mark.parametrize("seed", range(40))
def test_limit_cuts_anywhere(seed: int) -> None:
    (step,) = parse_pipeline(f"assign-layout{{lanes={LANES}}}")
    whole = seeded_graph(seed)
    (record,) = PassManager((step,)).run(whole)
    for limit in range(min(len(record.rewrites), 6)):
        graph = seeded_graph(seed)
        (cut,) = PassManager((replace(step, limit=limit),)).run(graph)
        assert cut.rewrites == record.rewrites[:limit]
        verify(graph)


@pytest.mark.parametrize("seed", range(40))
def test_layouts_are_forgotten_first(seed: int) -> None:
    """Whatever layouts a graph comes with, it leaves with the same ones; and no relayout is made twice."""
    fresh, reworked = seeded_graph(seed), seeded_graph(seed)
    PassManager("assign-layout{lanes=4}").run(fresh)
    PassManager("assign-layout{lanes=8},assign-layout{lanes=2},assign-layout{lanes=4}").run(reworked)
    assert str(fresh) == str(reworked)
    made = [(id(n.inputs[0]), n.output.type) for n in fresh.nodes if isinstance(n.op, shape.Relayout)]
    assert len(set(made)) == len(made)
    assert not any(isinstance(v.producer.op, shape.Relayout) for n in fresh.nodes for v in n.inputs
                   if isinstance(n.op, shape.Relayout) and v.producer is not None)  # fmt: skip


def test_interface_keeps_its_layouts() -> None:
    text = """
    graph @g(%x: f32[1,8,4,4]:nchw8c) {
      %a = relu(%x) : f32[1,8,4,4]:nchw8c
      %b = relayout(%a) : f32[1,8,4,4]
      %c = softmax(%b) {axes=[1]} : f32[1,8,4,4]
      yield %a as "a", %c as "c"
    }
    """
    graph = parse(text)
    manager("assign-layout").run(graph)
    assert [value.type.layout for _, value in graph.outputs] == [Layout(8), Layout()]
    assert graph.inputs[0].type.layout == Layout(8)
    assert str(graph) == str(parse(text))


def test_unused_lanes_are_counted() -> None:
    (value,) = parse("graph @g(%x: f32[2,5,3,3]) { yield %x }").inputs
    assert blocked_elements(value.type, 8) == 2 * 8 * 3 * 3
    assert blocked_elements(value.type, 4) == 2 * 8 * 3 * 3
    assert blocked_elements(value.type, 5) == 2 * 5 * 3 * 3


@pytest.mark.parametrize("lanes", [1, 257])
def test_bad_lanes(lanes: int) -> None:
    with pytest.raises(PassError, match="2 to 256"):
        manager(f"assign-layout{{lanes={lanes}}}").run(parse("graph @g(%x: f32[1]) { yield %x }"))
