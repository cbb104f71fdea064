"""Half precision with casts around its arithmetic, and what else is rewritten before kernels are chosen."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.backends.llvm.legalize import legalize
from sqzc.backends.reference import evaluate
from sqzc.ir import Graph
from sqzc.ir.parser import parse_graph
from sqzc.ir.types import DType
from sqzc.ir.verifier import verify


def checked(text: str) -> Graph:
    """The legalized form of a graph, which must be valid and compute the same bits."""
    graph = parse_graph(text)
    before = str(graph)
    legal = legalize(graph)
    assert str(graph) == before, "the graph itself was changed"
    verify(legal)
    rng = np.random.default_rng(3)
    feeds = {v.name: np.asarray(rng.standard_normal(v.type.shape)).astype(v.type.dtype.numpy) for v in graph.inputs}
    want, got = evaluate(graph, feeds), evaluate(legal, feeds)
    for name in want:
        assert got[name].dtype == want[name].dtype
        np.testing.assert_allclose(got[name], want[name], rtol=1e-12 if want[name].dtype == np.float64 else 0)
    return legal


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def test_what_needs_nothing_is_the_same_graph() -> None:
    graph = parse_graph("""graph @g(%x: f32[2,3], %h: f16[4,2]) {
      %a = relu(%x) : f32[2,3]
      %b = transpose(%h) {perm=[1,0]} : f16[2,4]
      %c = cast(%b) {to=f32} : f32[2,4]
      yield %a as "a", %c as "c"
    }""")
    assert legalize(graph) is graph


def test_arithmetic_on_half_precision_gets_casts() -> None:
    legal = checked("""graph @g(%x: f16[2,3]) {
      const %w = [1.5, -2.0, 0.25] : f16[3]
      %a = mul(%x, %w) : f16[2,3] @"a"
      %b = tanh(%a) : f16[2,3] @"b"
      %c = concat(%a, %b) {axis=0} : f16[4,3] @"c"
      yield %c as "y"
    }""")
    assert ops(legal) == ["cast", "mul", "cast", "cast", "tanh", "cast", "concat"]
    arithmetic = [node for node in legal.nodes if node.op.name in ("mul", "tanh")]
    assert all(value.type.dtype is DType.F32 for node in arithmetic for value in (*node.inputs, *node.outputs))
    assert {value.name: value.source for value in legal.values()}["b"] == ("b",)


def test_a_value_is_widened_once() -> None:
    legal = checked("""graph @g(%x: f16[3]) {
      %a = exp(%x) : f16[3]
      %b = add(%x, %x) : f16[3]
      yield %a as "a", %b as "b"
    }""")
    assert sum(node.op.name == "cast" and node.inputs[0].name == "x" for node in legal.nodes) == 1


def test_truth_values_and_positions_come_from_wide_operands() -> None:
    legal = checked("""graph @g(%x: f16[2,5], %z: f16[5]) {
      %a = less(%x, %z) : bool[2,5]
      %b, %c = topk(%x) {k=2} : f16[2,2], i64[2,2]
      yield %a as "a", %b as "b", %c as "c"
    }""")
    assert ops(legal).count("cast") == 3


@pytest.mark.parametrize(("source", "target"), [("f16", "i32"), ("f64", "f16"), ("i64", "f16"), ("f16", "f64")])
def test_conversions_go_by_way_of_single_precision(source: str, target: str) -> None:
    legal = checked(f"""graph @g(%x: {source}[7]) {{
      %a = cast(%x) {{to={target}}} : {target}[7]
      yield %a as "a"
    }}""")
    types = [(node.inputs[0].type.dtype.value, node.output.type.dtype.value) for node in legal.nodes]
    assert types == [(source, "f32"), ("f32", target)]


def test_layouts_stay() -> None:
    legal = checked("""graph @g(%x: f16[1,8,4,4]) {
      %a = relayout(%x) : f16[1,8,4,4]:nchw8c
      %b = relu(%a) : f16[1,8,4,4]:nchw8c
      %c = relayout(%b) : f16[1,8,4,4]
      yield %c as "y"
    }""")
    (relu,) = [node for node in legal.nodes if node.op.name == "relu"]
    assert str(relu.output.type) == "f32[1,8,4,4]:nchw8c"


def test_wide_softmax_is_spelled_out() -> None:
    legal = checked("""graph @g(%x: f64[2,5]) {
      %a = softmax(%x) {axes=[1]} : f64[2,5] @"a"
      yield %a as "y"
    }""")
    assert ops(legal) == ["reduce_max", "sub", "exp", "reduce_sum", "div"]
    assert legal.outputs[0][1].name == "a"


def test_fused_activations_of_other_types_are_ops() -> None:
    legal = checked("""graph @g(%x: f64[2,3], %h: f16[2,3]) {
      const %w = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f64[2,3]
      const %v = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f16[2,3]
      %a = linear(%x, %w) {act=relu} : f64[2,2] @"a"
      %b = linear(%h, %v) {act=relu} : f16[2,2] @"b"
      yield %a as "a", %b as "b"
    }""")
    assert ops(legal) == ["linear", "relu", "cast", "linear", "cast"]
    assert str(legal.nodes[3].op) == "linear{act=relu}"
