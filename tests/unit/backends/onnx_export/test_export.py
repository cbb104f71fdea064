"""What an exported model looks like; that its numbers are right is in ../reference/test_against_onnx.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from sqzc.backends import onnx_export
from sqzc.backends.reference import evaluate
from sqzc.diagnostics import UnsupportedError
from sqzc.ir import Builder, DType, Graph, Layout, OpDef, TensorType, registry
from sqzc.ir.opdef import op
from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.nn import Rounding
from sqzc.ir.types import f32


def small_net() -> Graph:
    """A fused, residual convolution in a blocked layout, a placed concat, a pool and a softmax."""
    graph = Graph("small")
    graph.meta["mean"] = [103.96, 116.78, 123.68]
    b = Builder(graph)
    rng = np.random.default_rng(3)
    data = graph.add_input("data", f32(1, 3, 6, 6))
    w = b.constant("conv1_w", rng.normal(size=(4, 3, 3, 3)).astype(np.float32))
    bias = b.constant("conv1_b", rng.normal(size=4).astype(np.float32))
    first = b.add(registry["conv2d"](pads=(1, 1, 1, 1)), data, w, bias, source=("conv1",))
    again = registry["conv2d"](pads=(1, 1, 1, 1), act=Activation("relu"))
    blocked = [graph.insert(registry["relayout"](), [first], types=[first.type.with_layout(Layout(4))]).output]
    second = b.add(again, data, w, bias, blocked[0], source=("conv2", "relu2"))
    joined = b.add(registry["concat"](axis=1, placed=True), first, second, source=("join",))
    pool = registry["max_pool2d"](kernel=(3, 3), stride=(2, 2), rounding=Rounding.CEIL)
    pooled = b.add(pool, joined, source=("pool",))
    average = b.add(registry["avg_pool2d"](kernel=(3, 3)), pooled)
    graph.add_output("prob", b.add(registry["softmax"](axes=(1, 2, 3)), average, source=("softmax",)))
    return graph


def answers(graph: Graph, feeds: dict[str, Any]) -> dict[str, Any]:
    model = onnx_export.export(graph)
    onnx.checker.check_model(model, full_check=True)
    return dict(zip([o.name for o in model.graph.output], ReferenceEvaluator(model).run(None, feeds), strict=True))


def test_a_network_gives_the_same_numbers() -> None:
    graph = small_net()
    feeds = {"data": np.random.default_rng(4).normal(size=(1, 3, 6, 6)).astype(np.float32)}
    np.testing.assert_allclose(answers(graph, feeds)["prob"], evaluate(graph, feeds)["prob"], rtol=1e-5)


def test_nodes_are_called_after_their_sources() -> None:
    model = onnx_export.export(small_net())
    named = [(node.name, node.op_type, node.doc_string) for node in model.graph.node]
    assert named == [
        ("conv1", "Conv", "conv1"),
        ("relayout", "Identity", ""),
        ("relu2", "Conv", "conv2, relu2"),
        ("relu2/Add", "Add", "conv2, relu2"),
        ("relu2/Relu", "Relu", "conv2, relu2"),
        ("join", "Concat", "join"),
        ("pool", "MaxPool", "pool"),
        ("avg_pool2d", "GlobalAveragePool", ""),
        ("softmax", "Softmax", "softmax"),
    ]
    assert model.graph.node[-1].output[0] == "prob"
    assert [i.name for i in model.graph.initializer] == ["conv1_w", "conv1_b"]
    assert {p.key: p.value for p in model.metadata_props} == {"mean": "[103.96, 116.78, 123.68]"}


def test_constants_keep_their_bits() -> None:
    data = np.array([np.nan, -0.0, 1e-45, np.inf], np.float32)
    graph = Graph()
    graph.add_output("y", Builder(graph).constant("c", data))
    model = onnx_export.export(graph)
    onnx.checker.check_model(model, full_check=True)
    assert numpy_helper.to_array(model.graph.initializer[0]).tobytes() == data.tobytes()


def test_a_value_may_be_several_outputs_or_an_input() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(2))
    y = Builder(graph).add(registry["neg"](), x)
    for name, value in (("a", y), ("b", y), ("c", x), ("x", x)):
        graph.add_output(name, value)
    got = answers(graph, {"x": np.array([1, 2], np.float32)})
    assert {name: array.tolist() for name, array in got.items()} == {
        "a": [-1, -2],
        "b": [-1, -2],
        "c": [1, 2],
        "x": [1, 2],
    }


def test_inner_values_step_aside_for_the_names_of_outputs() -> None:
    graph = Graph()
    b = Builder(graph)
    x = graph.add_input("x", f32(2))
    inner = b.add(registry["abs"](), x, name="y")
    graph.add_output("y", b.add(registry["neg"](), inner))
    assert answers(graph, {"x": np.array([-1, 2], np.float32)})["y"].tolist() == [-1, -2]


def test_an_output_called_like_another_input_is_refused() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(2))
    graph.add_output("x", Builder(graph).add(registry["neg"](), x))
    with pytest.raises(UnsupportedError, match="both 'x'"):
        onnx_export.export(graph)


@pytest.fixture
def strange_op() -> Iterator[type[OpDef]]:
    @op("strange_test_op")
    class Strange(OpDef):
        """Nothing ONNX knows."""

        def infer(self) -> TensorType:
            return f32(1)

    yield Strange
    del registry["strange_test_op"]


def test_all_ops_without_meaning_are_named_at_once(strange_op: type[OpDef]) -> None:
    graph = Graph("odd")
    b = Builder(graph)
    for _ in range(2):
        b.add(strange_op())
    short = graph.add_input("x", TensorType(DType.U8, (1, 1, 4, 4)))
    b.add(registry["neg"](), short)
    resized = b.add(registry["resize2d"](size=(9, 8), scale_h=2.5), short)
    graph.add_output("y", resized)
    with pytest.raises(UnsupportedError) as caught:
        onnx_export.export(graph)
    words = str(caught.value)
    assert words.count("strange_test_op") == 1
    assert "neg: ONNX's Neg does not take u8" in words
    assert "resize2d: ONNX gives 4 * 2.5 samples, not 9" in words


_PRINT_HASH = """
import hashlib, importlib.util, sys
spec = importlib.util.spec_from_file_location("net", sys.argv[1])
net = importlib.util.module_from_spec(spec)
spec.loader.exec_module(net)
from sqzc.backends import onnx_export
print(hashlib.sha256(onnx_export.to_bytes(net.small_net())).hexdigest())
"""


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    seen = set()
    for seed in ("0", "1"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", _PRINT_HASH, __file__]
        seen.add(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
    assert len(seen) == 1
