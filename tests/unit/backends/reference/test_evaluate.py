"""The walk over a graph: inputs, precision, taps, lifetimes."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from sqzc.backends.reference import evaluate, evaluate_values, find_tap, iterate
from sqzc.backends.reference.registry import apply
from sqzc.diagnostics import UnsupportedError, UsageError
from sqzc.ir import Builder, DType, Graph, OpDef, TensorType, registry
from sqzc.ir.types import f32


def chain() -> Graph:
    """data -> add -> relu, both called "conv1" in the model, then a sum."""
    graph = Graph("chain")
    b = Builder(graph)
    data = graph.add_input("data", f32(2))
    bias = b.constant("bias", np.array([0.1, -5], np.float32))
    total = b.add(registry["add"](), data, bias, source=("conv1",))
    relu = b.add(registry["relu"](), total, source=("conv1",))
    graph.add_output("prob", b.add(registry["reduce_sum"](axes=(0,)), relu, source=("prob",)))
    return graph


DATA = {"data": np.array([1, 2], np.float32)}


def test_outputs_come_under_their_names() -> None:
    got = evaluate(chain(), DATA)
    assert list(got) == ["prob"]
    assert got["prob"].tolist() == [np.float32(1) + np.float32(0.1)]


def test_float64_promotes_inputs_and_constants() -> None:
    got = evaluate(chain(), DATA, dtype="float64")["prob"]
    assert got.dtype == np.float64
    assert got.tolist() == [1 + float(np.float32(0.1))]
    exact = {"data": np.array([1 + 1e-12, 0])}
    assert evaluate(chain(), exact, dtype="float64")["prob"][0] > got[0]


def test_float64_leaves_integers_alone() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.I32, (2,)))
    graph.add_output("y", Builder(graph).add(registry["neg"](), x))
    assert evaluate(graph, {"x": np.array([1, 2], np.int32)}, dtype="float64")["y"].dtype == np.int32


def test_a_source_tap_is_the_last_value_of_that_name() -> None:
    got = evaluate(chain(), DATA, taps=["conv1", "data", "bias"])
    assert got["conv1"].tolist() == [np.float32(1.1), 0]
    assert got["data"].tolist() == [1, 2]
    assert list(got) == ["conv1", "data", "bias", "prob"]
    assert find_tap(chain(), "conv1").producer.op.name == "relu"  # type: ignore[union-attr]


def test_a_tap_may_be_an_ssa_name() -> None:
    graph = chain()
    before = graph.nodes[0].output
    graph.rename(before, "before")
    assert evaluate(graph, DATA, taps=["before"])["before"][1] == -3


def test_all_taps() -> None:
    graph = chain()
    got = evaluate(graph, DATA, taps="all")
    assert set(got) == {value.name for value in graph.values()} | {"prob"}
    values = evaluate_values(graph, DATA)
    assert set(values) == {value.name for value in graph.values()}
    for name, array in values.items():
        assert np.array_equal(array, got[name])


def test_results_share_no_memory_with_inputs_or_each_other() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(2))
    y = Builder(graph).add(registry["identity"](), x)
    graph.add_output("a", y)
    graph.add_output("b", y)
    graph.add_output("c", x)
    data = np.array([1, 2], np.float32)
    got = evaluate(graph, {"x": data})
    arrays: list[Any] = [data, *got.values()]
    assert not any(np.shares_memory(p, q) for i, p in enumerate(arrays) for q in arrays[:i])


def test_an_output_wins_over_a_value_of_its_name() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(1))
    graph.add_output("x", Builder(graph).add(registry["neg"](), x))
    assert evaluate(graph, {"x": np.ones(1, np.float32)}, taps="all")["x"].tolist() == [-1]


def test_iterate_gives_every_node_and_lets_values_go() -> None:
    graph = Graph()
    b = Builder(graph)
    value = graph.add_input("x", f32(1000))
    for _ in range(5):
        value = b.add(registry["neg"](), value)
    graph.add_output("y", value)
    seen: list[weakref.ref[Any]] = []
    for node, (array,) in iterate(graph, {"x": np.zeros(1000, np.float32)}):
        assert node.op.name == "neg"
        seen.append(weakref.ref(array))
        del array
        assert sum(ref() is not None for ref in seen) <= 2
    assert len(seen) == 5


def test_iterate_collects_all_results_of_a_node() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(4))
    values, positions = Builder(graph).add_multi(registry["topk"](k=2), x)
    graph.add_output("v", values)
    graph.add_output("i", positions)
    ((node, results),) = list(iterate(graph, {"x": np.arange(4, dtype=np.float32)}))
    assert node.op.name == "topk"
    assert [array.tolist() for array in results] == [[3, 2], [3, 2]]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "'data' is missing"),
        ({"data": [1, 2], "dta": [1]}, "no input 'dta'"),
        ({"data": np.zeros(3, np.float32)}, "does not fit"),
        ({"data": np.zeros(2)}, "does not fit"),
        ({"data": np.zeros(2, np.int32)}, "does not fit"),
    ],
)
def test_inputs_that_do_not_fit(inputs: dict[str, Any], words: str) -> None:
    given = {name: np.asarray(x, np.float32) if isinstance(x, list) else x for name, x in inputs.items()}
    with pytest.raises(UsageError, match=words):
        evaluate(chain(), given)


def test_unknown_names_are_user_errors() -> None:
    with pytest.raises(UsageError, match="no value called 'conv2'") as caught:
        evaluate(chain(), DATA, taps=["conv2"])
    assert "conv1" in str(caught.value)
    with pytest.raises(UsageError, match="unknown precision"):
        evaluate(chain(), DATA, dtype="float16")  # type: ignore[arg-type]


def test_an_op_without_kernel_is_unsupported() -> None:
    class Strange(OpDef):
        name = "strange"

    with pytest.raises(UnsupportedError, match="no kernel for op 'strange'"):
        apply(Strange())
