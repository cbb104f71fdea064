"""What became of each node of a graph."""

from __future__ import annotations

from dump_folders import AFTER, BEFORE

from sqzc.ir.parser import parse_graph
from sqzc.report.graphdiff import compare, node_differences


def test_a_fused_op_is_followed_to_the_one_that_has_its_name_now() -> None:
    left, right = compare(parse_graph(BEFORE), parse_graph(AFTER))
    assert {name: state.state for name, state in left.items()} == {"a": "changed", "a.1": "merged", "b": "rewired"}
    assert left["a.1"].related == ["a"]
    assert right["a"].related == ["a.1"]
    assert right["a"].differences == [("act", "(default)", "relu")]
    assert right["b"].differences == [("operand x", "%a.1: f32[1,1,4,4]", "%a: f32[1,1,4,4]")]


def test_equal_graphs_have_nothing_to_say() -> None:
    left, right = compare(parse_graph(BEFORE), parse_graph(BEFORE))
    assert all(state.to_json() == ["same", [], []] for state in [*left.values(), *right.values()])


def test_ops_without_heirs_are_gone_and_ops_without_forebears_new() -> None:
    before = parse_graph(
        'graph @g(%x: f32[2]) {\n %a = relu(%x) : f32[2] @"a"\n %b = tanh(%x) : f32[2] @"b"\n yield %b\n}'
    )
    after = parse_graph(
        'graph @g(%x: f32[2]) {\n %c = sigmoid(%x) : f32[2]\n %b = tanh(%c) : f32[2] @"b"\n yield %b\n}'
    )
    left, right = compare(before, after)
    assert left["a"].state == "removed"
    assert right["c"].state == "added"
    assert left["b"].state == right["b"].state == "rewired"


def test_other_contents_of_a_constant_are_a_difference() -> None:
    changed = AFTER.replace("const %w = [1.0]", "const %w = [2.0]")
    left, _ = compare(parse_graph(AFTER), parse_graph(changed))
    assert left["a"].state == "rewired"
    what, old, new = left["a"].differences[0]
    assert what == "operand w"
    assert old != new
    assert "sha=" in old


def test_operands_that_come_or_go_are_named() -> None:
    with_bias = AFTER.replace("conv2d(%x, %w)", "conv2d(%x, %w, %c)").replace(
        "  %a =", "  const %c = [0.5] : f32[1]\n  %a ="
    )
    before, after = parse_graph(AFTER), parse_graph(with_bias)
    what, old, new = node_differences(before.nodes[0], after.nodes[0])[0]
    assert (what, old) == ("operand bias", "(none)")
    assert new.startswith("%c: f32[1] sha=")
