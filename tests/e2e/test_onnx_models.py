"""ONNX model files through the whole compiler, and SqueezeNet by way of either format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_maker import OnnxMaker, normal

import sqzc
from sqzc.backends.onnx_export import export, to_bytes
from sqzc.backends.reference import evaluate_node
from sqzc.diagnostics import UsageError
from sqzc.driver import SqzcWarning
from sqzc.frontends import caffe2, onnx
from sqzc.ir.equality import first_difference


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A small net with an unknown batch, a shape that is computed, and a residual block."""
    maker = OnnxMaker(tmp_path)
    vectors = {name: np.abs(normal(8, seed=i)) + 0.1 for i, name in enumerate(("s", "b", "m", "v"))}
    weights = {"w": normal(8, 3, 3, 3) / 5, "u": normal(8, 8, 3, 3) / 8, "f": normal(10, 8), "g": normal(10), **vectors}
    nodes = [
        maker.node("Conv", "x w", "c", strides=[2, 2], auto_pad="SAME_UPPER"),
        maker.node("BatchNormalization", "c s b m v", "n"),
        maker.node("HardSwish", "n", "h"),
        maker.node("Conv", "h u", "d", pads=[1, 1, 1, 1]),
        maker.node("Add", "d h", "r"),
        maker.node("Relu", "r", "a"),
        maker.node("ReduceMean", "a axes", "p"),
        maker.node("Shape", "p", "shape", start=0, end=1),
        maker.node("Concat", "shape rest", "target", axis=0),
        maker.node("Reshape", "p target", "q"),
        maker.node("Gemm", "q f g", "z", transB=1),
        maker.node("Softmax", "z", "y"),
    ]
    weights["axes"], weights["rest"] = np.asarray([2, 3], np.int64), np.asarray([-1], np.int64)
    return maker.save(maker.model(nodes, {"x": ["N", 3, 16, 16]}, weights=weights), "small.onnx")


def test_an_unknown_batch_is_told(net: Path) -> None:
    with pytest.warns(SqzcWarning, match="the batch 'N' is taken to be 1"):
        graph = sqzc.lift(net)
    assert graph.inputs[0].type.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("level", range(4))
def test_compiled_code_agrees_with_the_reference(net: Path, level: int) -> None:
    x = {"x": normal(1, 3, 16, 16)}
    wanted = sqzc.evaluate(sqzc.lift(net, inputs=x), x)["y"]
    model = sqzc.compile(net, inputs=x, opt_level=level)
    assert model.metadata["sources"][0]["name"] == "small.onnx"
    np.testing.assert_allclose(model.run(x)["y"], wanted, rtol=1e-4, atol=1e-6)


def test_shapes_and_means_are_options(net: Path) -> None:
    graph = sqzc.lift(net, inputs={"x": (2, 3, 16, 16)}, mean=[1, 2, 3])
    assert graph.inputs[0].type.shape == (2, 3, 16, 16)
    assert graph.nodes[0].op.name == "sub"


@pytest.mark.parametrize("wrong", [{"weights": "random"}, {"init_net": "init_net.pb"}])
def test_options_of_the_other_format_are_refused(net: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="ONNX model"):
        sqzc.lift(net, **wrong)  # type: ignore[arg-type]


def test_what_was_exported_is_lifted_to_the_same(net: Path, tmp_path: Path) -> None:
    graph = sqzc.optimize(sqzc.lift(net, inputs={"x": (1, 3, 16, 16)}), "O2")
    (tmp_path / "again.onnx").write_bytes(to_bytes(graph))
    again = sqzc.lift(tmp_path / "again.onnx")
    x = {"x": normal(1, 3, 16, 16)}
    np.testing.assert_allclose(sqzc.evaluate(again, x)["y"], sqzc.evaluate(graph, x)["y"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mean", [None, (103.96, 116.78, 123.68)])
def test_squeezenet_is_the_same_from_both_formats(squeezenet_dir: Path, mean: tuple[float, ...] | None) -> None:
    ours = caffe2.lift(squeezenet_dir, mean=mean)
    theirs = onnx.lift_proto(export(ours), evaluate_node).graph
    for level in ("O0", "O1", "O2"):
        one, other = sqzc.optimize(ours, level), sqzc.optimize(theirs, level)
        assert first_difference(one, other, sources=False) is None, level
