"""ONNX's own backend test suite: all that sqzc says it runs, by the reference; a part by default in compiled code.

The whole suite in compiled code takes minutes: `pytest -m long tests/e2e/test_onnx_backend.py`.
"""

from __future__ import annotations

import unittest
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as helper
import pytest
from onnx.backend.base import Backend

import sqzc.onnx_backend
from sqzc.diagnostics import UnsupportedError, UsageError
from sqzc.onnx_backend import CompiledBackend, ReferenceBackend
from sqzc.onnx_backend.declared import EXCEPTIONS, operators, undeclared
from sqzc.onnx_backend.table import Case, cases, document, rows

with warnings.catch_warnings():
    # The suite's modules compute with infinities and use what numpy deprecates when they are imported.
    warnings.simplefilter("ignore")
    from onnx.backend.test import BackendTest

    CASES = cases()
    SUITES = {backend: BackendTest(backend, __name__) for backend in (ReferenceBackend, CompiledBackend)}

DECLARED = [case for case in CASES if case.why_not is None]
ROOT = Path(__file__).resolve().parents[2]


def representatives() -> set[str]:
    """One test for each operator: the first that is about it."""
    chosen: dict[str, Case] = {}
    for case in DECLARED:
        for operator in case.operators:
            best = chosen.get(operator)
            if best is None or len(case.operators) < len(best.operators):
                chosen[operator] = case
    return {case.name for case in chosen.values()}


def suite_of(backend: Any, category: str, names: set[str]) -> type[unittest.TestCase]:
    """The suite's own test case with those of its tests, without what it would only skip."""
    whole = SUITES[backend].test_cases[f"OnnxBackend{category}ModelTest"]
    members = {f"{name}_cpu": getattr(whole, f"{name}_cpu") for name in sorted(names)}
    assert members, "no tests are left"
    return type(f"Onnx{category}{backend.__name__}", (unittest.TestCase,), members)


def packaged(category: str) -> set[str]:
    """Names of the suite's tests whose models are in the onnx package and that are declared."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / category
    found = set()
    for path in folder.glob("*/model.onnx"):
        if undeclared(onnx.load(path)) is None:
            found.add(path.parent.name)
    return found


NODE_NAMES = {case.name for case in DECLARED}
TestNodesByReference = suite_of(ReferenceBackend, "Node", NODE_NAMES)
TestOperatorsCompiled = suite_of(CompiledBackend, "Node", representatives())
TestAllNodesCompiled = pytest.mark.long(suite_of(CompiledBackend, "Node", NODE_NAMES))
TestPyTorchNets = suite_of(ReferenceBackend, "PyTorchConverted", packaged("pytorch-converted"))
TestPyTorchOperators = suite_of(CompiledBackend, "PyTorchOperator", packaged("pytorch-operator"))
TestSimpleModels = suite_of(CompiledBackend, "Simple", packaged("simple"))

QUICK_NETS = {"test_squeezenet", "test_shufflenet"}
NETS = QUICK_NETS | {
    f"test_{name}"
    for name in ("resnet50", "densenet121", "inception_v1", "inception_v2", "bvlc_alexnet", "vgg19", "zfnet512")
}
TestQuickNetsCompiled = suite_of(CompiledBackend, "Real", QUICK_NETS)
TestNetsCompiled = pytest.mark.long(suite_of(CompiledBackend, "Real", NETS))


@pytest.fixture(autouse=True)
def onnx_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite writes the inputs of its nets below this folder, by default one in the user's home."""
    monkeypatch.setenv("ONNX_HOME", str(tmp_path))
    monkeypatch.delenv("ONNX_MODELS", raising=False)


# -- what is declared -------------------------------------------------------------------------------------------------


def test_enough_is_declared() -> None:
    assert len(DECLARED) >= 1200
    assert {case.name for case in CASES} >= set(EXCEPTIONS)


def test_every_operator_that_the_suite_has_is_declared_in_some_test() -> None:
    # What only models of other operators use, or the suite has no test of.
    without = {"Scatter"}
    in_suite = {operator for case in CASES for operator in case.operators}
    declared = {operator for case in DECLARED for operator in case.operators}
    assert operators() & in_suite - declared <= without


def page() -> str:
    return (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8")


def same_suite() -> None:
    if f"(onnx {onnx.__version__})" not in page():
        pytest.skip(f"docs/onnx.md counts the tests of another version of onnx than {onnx.__version__}")


def test_the_page_counts_what_is_declared() -> None:
    same_suite()
    # Every declared test passes: that is what the long tests check.
    assert page() == document(CASES, frozenset(case.name for case in DECLARED))


def test_rows_count_tests_of_each_operator() -> None:
    *_, total = rows(CASES, frozenset(["test_relu"]))
    assert (total.operator, total.passed, total.declared, total.total) == ("all tests", 1, len(DECLARED), len(CASES))


# -- the interface ----------------------------------------------------------------------------------------------------


def net(*nodes: Any, inputs: dict[str, tuple[int, list[Any]]], outputs: list[str], opset: int = 18) -> Any:
    """A model of some nodes; inputs by name with element type and shape."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, type_, shape) for name, (type_, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
RELU = net(helper.make_node("Relu", ["x"], ["y"]), inputs={"x": (FLOAT, [2, 3])}, outputs=["y"])
X = np.array([[-1, 2, -3], [4, -5, 6]], np.float32)


def test_the_module_is_a_backend() -> None:
    assert issubclass(CompiledBackend, Backend)
    for name in ("prepare", "run_model", "run_node", "supports_device", "is_compatible"):
        assert callable(getattr(sqzc.onnx_backend, name))
    assert sqzc.onnx_backend.supports_device("CPU")
    assert not sqzc.onnx_backend.supports_device("CUDA:1")
    with pytest.raises(UnsupportedError, match="CUDA"):
        sqzc.onnx_backend.prepare(RELU, "CUDA")


@pytest.mark.parametrize("backend", [CompiledBackend, ReferenceBackend])
@pytest.mark.parametrize("inputs", [[X], X, {"x": X}, (X,)], ids=["list", "array", "dict", "tuple"])
def test_inputs_in_every_form(backend: Any, inputs: Any) -> None:
    outputs = backend.prepare(RELU).run(inputs)
    np.testing.assert_array_equal(outputs[0], np.maximum(X, 0))
    np.testing.assert_array_equal(outputs.y, outputs["y"])
    np.testing.assert_array_equal(backend.run_model(RELU, inputs)[0], outputs[0])


def test_wrong_use_is_refused() -> None:
    prepared = ReferenceBackend.prepare(RELU)
    with pytest.raises(UsageError, match="2 inputs"):
        prepared.run([X, X])
    with pytest.raises(UsageError, match="no option 'speed'"):
        prepared.run([X], speed=9)
    with pytest.raises(UsageError, match="no option 'speed'"):
        CompiledBackend.prepare(RELU, speed=9)
    with pytest.raises(UnsupportedError, match="is a sequence"):
        prepared.run({"x": [X]})


def test_options_reach_the_compiler() -> None:
    for level in (0, 2):
        (y,) = CompiledBackend.prepare(RELU, opt_level=level, threads=2).run([X])
        np.testing.assert_array_equal(y, np.maximum(X, 0))


@pytest.mark.parametrize("backend", [CompiledBackend, ReferenceBackend])
def test_nodes_run_alone(backend: Any) -> None:
    node = helper.make_node("Concat", ["a", "b"], ["y"], axis=0)
    (y,) = backend.run_node(node, [X, X + 1])
    np.testing.assert_array_equal(y, np.concatenate([X, X + 1]))
    old = helper.make_node("Softmax", ["a"], ["y"], axis=0)
    (joint,) = backend.run_node(old, X, opset_version=11)
    assert joint.sum() == pytest.approx(1.0)
    (apart,) = backend.run_node(old, X, opset_version=13)
    np.testing.assert_allclose(apart.sum(axis=0), 1.0, rtol=1e-6)
    with pytest.raises(UsageError, match="1 inputs for a node that reads 2"):
        backend.run_node(node, [X])


def test_values_that_decide_shapes_are_fixed_call_by_call() -> None:
    model = net(
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Slice", ["r", "starts", "ends"], ["y"]),
        inputs={"x": (FLOAT, [2, 3]), "shape": (INT64, [2]), "starts": (INT64, [1]), "ends": (INT64, [1])},
        outputs=["y"],
    )
    prepared = CompiledBackend.prepare(model)
    for shape, start in (((3, 2), 1), ((6, 1), 2), ((3, 2), 0), ((3, 2), 1)):
        feeds = [X, np.array(shape, np.int64), np.array([start], np.int64), np.array([9], np.int64)]
        (y,) = prepared.run(feeds)
        np.testing.assert_array_equal(y, X.reshape(shape)[start:])
    assert len(prepared._variants) == 3, "equal calls share their code"


def test_open_shapes_follow_the_inputs() -> None:
    model = net(
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ReduceProd", ["s"], ["n"], keepdims=0),
        helper.make_node("Cast", ["n"], ["f"], to=FLOAT),
        helper.make_node("Div", ["x", "f"], ["y"]),
        inputs={"x": (FLOAT, ["rows", "columns"])},
        outputs=["y"],
    )
    prepared = CompiledBackend.prepare(model)
    for rows_, columns in ((2, 3), (5, 1), (2, 3)):
        x = np.ones((rows_, columns), np.float32)
        np.testing.assert_allclose(prepared.run([x])[0], x / x.size)


def test_known_and_empty_outputs_need_no_code() -> None:
    model = net(
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["shape"], to=FLOAT),
        helper.make_node("Slice", ["x", "zero", "zero"], ["none"]),
        helper.make_node("Neg", ["x"], ["y"]),
        inputs={"x": (FLOAT, [2, 3]), "zero": (INT64, [1])},
        outputs=["shape", "none", "y"],
    )
    shape, none, y = CompiledBackend.prepare(model).run([X, np.zeros(1, np.int64)])
    assert shape.tolist() == [2, 3]
    assert none.shape == (0, 3)
    np.testing.assert_array_equal(y, -X)
