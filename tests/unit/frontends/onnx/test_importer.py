"""Inputs and their shapes, names, constants, branches, and what is reported when a model cannot be lifted."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_maker import Dims, OnnxMaker, normal

from sqzc.diagnostics import FrontendError, UnsupportedError, UsageError
from sqzc.frontends.onnx import UnsupportedModelError
from sqzc.frontends.onnx.importer import NotStaticError
from sqzc.ir import DType, Graph, TensorType


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


# -- inputs -----------------------------------------------------------------------------------------------------------


def relu(maker: OnnxMaker, dims: Dims) -> onnx.ModelProto:
    return maker.model([maker.node("Relu", "x", "y")], {"x": dims})


def test_static_shapes_come_from_the_file(maker: OnnxMaker) -> None:
    imported = maker.lift(relu(maker, [2, 3, 4, 5]))
    assert str(imported.graph.inputs[0].type) == "f32[2,3,4,5]"
    assert imported.notes == ()
    assert imported.graph.name == "net"
    assert imported.graph.meta == {"format": "onnx", "sha256": {}, "weights": "file", "mean": None}


@pytest.mark.parametrize("batch", ["N", "batch_size", None])
def test_an_unknown_batch_is_one_with_a_note(maker: OnnxMaker, batch: str | None) -> None:
    imported = maker.lift(relu(maker, [batch, 3, 8, 8]))
    assert imported.graph.inputs[0].type.shape == (1, 3, 8, 8)
    assert imported.notes == (f"input 'x': the batch '{batch or '?'}' is taken to be 1",)


def test_other_unknown_dimensions_must_be_given(maker: OnnxMaker) -> None:
    model = maker.model([maker.node("Add", "x z", "y")], {"x": ["N", 3, "H", "W"], "z": [None]})
    with pytest.raises(NotStaticError, match=r"the shape of input 'x' and input 'z' is not static") as caught:
        maker.lift(model)
    assert "--input-shape x:" in str(caught.value.hint)
    graph = maker.graph(model, input_shapes={"x": (2, 3, 4, 5), "z": (5,)})
    assert str(graph.outputs[0][1].type) == "f32[2,3,4,5]"


def test_a_symbol_means_the_same_everywhere(maker: OnnxMaker) -> None:
    model = maker.model([maker.node("Add", "x z", "y")], {"x": ["N", "W"], "z": ["N", "W"]})
    graph = maker.graph(model, input_shapes={"x": (3, 7)})
    assert [value.type.shape for value in graph.inputs] == [(3, 7), (3, 7)]


def test_a_full_type_and_another_batch_are_taken(maker: OnnxMaker) -> None:
    graph = maker.graph(relu(maker, [1, 3]), input_shapes={"x": TensorType(DType.F32, (4, 3))})
    assert graph.inputs[0].type.shape == (4, 3)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 4), r"shape \[1, 4\]"), ((1, 3, 1), r"shape \[1, 3, 1\]"), ((-1, 3), r"shape \[-1, 3\]")],
)
def test_shapes_that_contradict_the_file(maker: OnnxMaker, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        maker.lift(relu(maker, [1, 3]), input_shapes={"x": shape})


def test_an_element_type_that_contradicts_the_file(maker: OnnxMaker) -> None:
    with pytest.raises(UsageError, match="another element type"):
        maker.lift(relu(maker, [1, 3]), input_shapes={"x": TensorType(DType.F64, (1, 3))})


@pytest.mark.parametrize("option", ["input_shapes", "known_inputs"])
def test_unknown_inputs_are_named(maker: OnnxMaker, option: str) -> None:
    with pytest.raises(UsageError, match="no such input") as caught:
        maker.lift(relu(maker, [1, 3]), **{option: {"xx": [1]}})
    assert caught.value.hint == "did you mean 'x'?"


def test_initializers_that_are_inputs_too_are_weights(maker: OnnxMaker) -> None:
    model = maker.model([maker.node("Add", "x w", "y")], {"x": [2], "w": [2]}, weights={"w": normal(2)})
    assert [value.name for value in maker.graph(model).inputs] == ["x"]


def test_an_input_without_elements_is_left_out(maker: OnnxMaker) -> None:
    model = maker.model([maker.node("Concat", "x z", "y", axis=0)], {"x": [2, 3], "z": [0, 3]})
    imported = maker.lift(model)
    assert [value.name for value in imported.graph.inputs] == ["x"]
    assert imported.notes == ("input 'z' has no elements and is left out",)


def test_a_mean_is_an_op_of_its_own(maker: OnnxMaker) -> None:
    path = maker.save(relu(maker, [1, 3, 2, 2]))
    graph = maker.load(path, mean=[1.0, 2.0, 3.0]).graph
    assert ops(graph) == ["sub", "relu"]
    assert graph.nodes[0].inputs[1].data.ravel().tolist() == [1.0, 2.0, 3.0]
    assert graph.meta["mean"] == [1.0, 2.0, 3.0]
    with pytest.raises(UsageError, match="a mean of 2 numbers"):
        maker.load(path, mean=[1.0, 2.0])


# -- names and constants ----------------------------------------------------------------------------------------------


def test_values_are_called_as_in_the_file(maker: OnnxMaker) -> None:
    nodes = [
        maker.node("Relu", "x", "conv/relu:0"),
        maker.node("ThresholdedRelu", "conv/relu:0", "t", alpha=2.0),
        maker.node("Identity", "t", "y"),
    ]
    graph = maker.graph(maker.model(nodes, {"x": [2, 3]}))
    named = {value.name: value.source for node in graph.nodes for value in node.outputs}
    assert named["conv/relu:0"] == ("conv/relu:0",)
    # An operator that becomes several ops gives its own name to the last of them.
    assert graph.value("t").producer is not None
    assert graph.value("t").producer.op.name == "where"  # type: ignore[union-attr]
    assert named["y"] == ("y",)
    assert graph.outputs == [("y", graph.value("y"))]


def test_several_outputs_have_their_own_names(maker: OnnxMaker) -> None:
    model = maker.model([maker.node("Split", "x", "a b", num_outputs=2)], {"x": [4, 2]}, outputs=("a", "b"))
    graph = maker.graph(model)
    assert [(value.name, value.source) for _, value in graph.outputs] == [("a", ("a",)), ("b", ("b",))]


def test_weights_are_shared_not_copied(maker: OnnxMaker) -> None:
    nodes = [maker.node("Gemm", "x w", "a", transB=1), maker.node("Gemm", "x w", "b", transB=1)]
    graph = maker.graph(maker.model(nodes, {"x": [2, 3]}, ("a", "b"), {"w": normal(4, 3)}))
    assert [value.name for value in graph.constants] == ["w"]
    assert len(graph.constants[0].users) == 2


def test_chains_that_compute_a_shape_leave_nothing_behind(maker: OnnxMaker) -> None:
    nodes = [
        maker.node("Shape", "x", "shape"),
        maker.node("Gather", "shape zero", "batch", axis=0),
        maker.node("Unsqueeze", "batch axes", "batch1"),
        maker.node("Constant", "", "rest", value_ints=[-1]),
        maker.node("Concat", "batch1 rest", "target", axis=0),
        maker.node("Reshape", "x target", "y"),
    ]
    zero, axes = np.asarray(0, np.int64), np.asarray([0], np.int64)
    graph = maker.graph(maker.model(nodes, {"x": [2, 3, 4]}, weights={"zero": zero, "axes": axes}))
    assert ops(graph) == ["reshape"]
    assert graph.constants == []
    assert graph.outputs[0][1].type.shape == (2, 12)


def test_large_constants_are_not_computed(maker: OnnxMaker) -> None:
    nodes = [maker.node("Expand", "one shape", "big"), maker.node("Add", "x big", "y")]
    weights = {"one": np.ones(1, np.float32), "shape": np.asarray([1 << 20], np.int64)}
    graph = maker.graph(maker.model(nodes, {"x": [1]}, weights=weights))
    assert ops(graph) == ["expand", "add"]


def test_fills_beyond_the_bound_are_ops(maker: OnnxMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqzc.frontends.onnx.values.MAX_FOLDED_BYTES", 1000)
    nodes = [
        maker.node("ConstantOfShape", "shape", "small"),
        maker.node("ConstantOfShape", "shape", "large"),
        maker.node("Sum", "x small large", "y"),
    ]
    graph = maker.graph(maker.model(nodes, {"x": [1]}, weights={"shape": np.asarray([200], np.int64)}))
    assert ops(graph) == ["expand", "add", "add"]


def test_outputs_may_be_inputs_and_constants(maker: OnnxMaker) -> None:
    nodes = [maker.node("Shape", "x", "s"), maker.node("Identity", "x", "y")]
    graph = maker.graph(maker.model(nodes, {"x": [2, 3]}, ("s", "y")))
    assert graph.outputs[0][1].data.tolist() == [2, 3]
    assert ops(graph) == ["identity"]


def test_an_output_of_another_type_than_declared(maker: OnnxMaker) -> None:
    model = relu(maker, [2])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, [2]))
    with pytest.raises(FrontendError, match="output 'y' has another element type") as caught:
        maker.lift(model)
    assert caught.value.expected == "INT64"


# -- values that must be known ----------------------------------------------------------------------------------------


def test_computed_shapes_name_the_inputs_to_fix(maker: OnnxMaker) -> None:
    nodes = [maker.node("Add", "s t", "shape"), maker.node("Reshape", "x shape", "y")]
    ints = np.asarray([1, 2], np.int64)
    model = maker.model(nodes, {"x": [2, 3], "s": ints, "t": ints, "u": ints})
    with pytest.raises(
        UnsupportedModelError, match="the shape of Reshape is computed at run time by 'shape'"
    ) as caught:
        maker.lift(model)
    assert caught.value.inputs == ("s", "t")
    assert "fix the value of input 's', 't'" in str(caught.value.hint)
    graph = maker.graph(model, known_inputs={"s": ints, "t": np.asarray([2, 0], np.int64)})
    assert graph.outputs[0][1].type.shape == (3, 2)
    assert [value.name for value in graph.inputs] == ["x", "u"]


# -- branches ---------------------------------------------------------------------------------------------------------


def branching(maker: OnnxMaker) -> onnx.ModelProto:
    """y = x + 1 or, with a weight of the branch's own, x * w; both use the name `t` inside."""
    info = onnx.ValueInfoProto(name="t")
    info.CopyFrom(helper.make_tensor_value_info("t", TensorProto.FLOAT, [2]))
    weight = onnx.numpy_helper.from_array(np.asarray([3, 4], np.float32), "w")
    then = helper.make_graph([maker.node("Add", "x one", "t")], "then", [], [info])
    other = helper.make_graph([maker.node("Mul", "x w", "t")], "else", [], [info], initializer=[weight])
    nodes = [
        maker.node("If", "c", "a", then_branch=then, else_branch=other),
        maker.node("If", "c", "b", then_branch=other, else_branch=then),
        maker.node("Sub", "a b", "y"),
    ]
    return maker.model(nodes, {"x": [2], "c": np.asarray(True)}, weights={"one": np.ones(2, np.float32)})


@pytest.mark.parametrize("taken", [True, False])
def test_a_known_condition_leaves_its_branch(maker: OnnxMaker, taken: bool) -> None:
    feeds = {"x": normal(2), "c": np.asarray(taken)}
    maker.agree(branching(maker), feeds, known=["c"])
    graph = maker.graph(branching(maker), known_inputs={"c": taken})
    assert sorted(ops(graph)) == ["add", "identity", "identity", "mul", "sub"]


def test_an_unknown_condition_is_dynamic(maker: OnnxMaker) -> None:
    with pytest.raises(UnsupportedModelError, match="the condition of If") as caught:
        maker.lift(branching(maker))
    assert caught.value.inputs == ("c",)


# -- what is not supported --------------------------------------------------------------------------------------------


def test_all_unsupported_operators_are_listed_with_places(maker: OnnxMaker) -> None:
    nodes = [
        maker.node("Relu", "x", "a"),
        maker.node("NonMaxSuppression", "a a", "b", name="nms"),
        maker.node("Relu", "b", "c"),
        helper.make_node("FusedConv", ["c"], ["d"], domain="com.example"),
        maker.node("LSTM", "d d d", "e", hidden_size=2),
        maker.node("Add", "e c", "y"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        maker.lift(maker.model(nodes, {"x": [2]}))
    words = caught.value.message
    assert "3 operators" in words
    assert "node 1 'nms' (NonMaxSuppression): operator NonMaxSuppression is not supported" in words
    assert "node 3 (FusedConv): operator com.example::FusedConv is not supported" in words
    assert "node 4 (LSTM): operator LSTM is not supported" in words


def test_the_nearest_operator_is_suggested(maker: OnnxMaker) -> None:
    with pytest.raises(UnsupportedError, match=r"BitCast is not supported \(did you mean 'Cast'"):
        maker.lift(maker.model([maker.node("BitCast", "x", "y", to=6)], {"x": [2]}, opset=26))


def test_what_an_operator_has_of_its_own_is_listed_too(maker: OnnxMaker) -> None:
    nodes = [
        maker.node("Dropout", "x r t", "a"),
        maker.node("Conv", "z w", "b", pads=[-1, 0, 0, 0]),
        maker.node("Gelu", "x", "c"),
    ]
    weights = {"r": np.asarray(0.5, np.float32), "t": np.asarray(True), "w": normal(1, 1, 1, 1)}
    with pytest.raises(UnsupportedError) as caught:
        maker.lift(maker.model(nodes, {"x": [2], "z": [1, 1, 4, 4]}, ("a", "b", "c"), weights, opset=20))
    assert "Dropout in training mode" in caught.value.message
    assert "Conv with a negative padding" in caught.value.message
    assert "Gelu" not in caught.value.message


def test_element_types_that_the_ir_lacks(maker: OnnxMaker) -> None:
    model = maker.model([maker.node("Cast", "x", "a", to=TensorProto.BFLOAT16)], {"x": [2]}, ("a",))
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.STRING, [2]))
    with pytest.raises(UnsupportedError) as caught:
        maker.lift(model)
    assert "input 's': has elements of type STRING" in caught.value.message
    assert "the result of Cast has elements of type BFLOAT16" in caught.value.message


def test_errors_say_where(maker: OnnxMaker) -> None:
    model = maker.model([maker.node("Add", "x z", "y", name="sum")], {"x": [2, 3], "z": [4]})
    with pytest.raises(FrontendError, match="do not broadcast") as caught:
        maker.lift(model, file="nets/a.onnx")
    assert str(caught.value.location) == "nets/a.onnx, node 0 'sum' (Add)"


def test_errors_after_something_unsupported_are_not_reported(maker: OnnxMaker) -> None:
    nodes = [maker.node("NonMaxSuppression", "x x", "a"), maker.node("Add", "x z", "y")]
    with pytest.raises(UnsupportedError, match="1 operator that"):
        maker.lift(maker.model(nodes, {"x": [2, 3], "z": [4]}))


def test_attributes_of_the_wrong_kind_or_value(maker: OnnxMaker) -> None:
    for attributes, words in (
        ({"auto_pad": "SOME", "kernel_shape": [2, 2]}, "attribute 'auto_pad' is 'SOME'"),
        ({"strides": [0, 1], "kernel_shape": [2, 2]}, "'strides' must be at least 1, got 0"),
        ({"strides": [1], "kernel_shape": [2, 2]}, "'strides' of MaxPool"),
        ({"kernel_shape": [2, 2], "ceil_mode": 7}, "attribute 'ceil_mode' is 7"),
    ):
        model = maker.model([maker.node("MaxPool", "x", "y", **attributes)], {"x": [1, 1, 4, 4]})
        with pytest.raises(FrontendError, match=words):
            maker.lift(model)
