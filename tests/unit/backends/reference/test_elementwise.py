"""Elementwise ops at the points where implementations differ: zeros, halves, infinities, NaN, integer limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sqzc.backends.reference import evaluate
from sqzc.ir import Builder, DType, Graph, TensorType, registry

NAN, INF = math.nan, math.inf


def run(op: str, *operands: Any, dtype: Any = np.float32, **attrs: Any) -> np.ndarray[Any, Any]:
    graph = Graph()
    arrays = [x if isinstance(x, np.ndarray) else np.asarray(x, dtype) for x in operands]
    values = [graph.add_input(f"x{i}", TensorType(DType.of(a.dtype), a.shape)) for i, a in enumerate(arrays)]
    graph.add_output("y", Builder(graph).add(registry[op](**attrs), *values))
    return evaluate(graph, {f"x{i}": a for i, a in enumerate(arrays)})["y"]


@pytest.mark.parametrize(
    ("op", "attrs", "x", "wanted"),
    [
        ("relu", {}, [-1, 0, 2, INF, -INF, NAN], [0, 0, 2, INF, 0, NAN]),
        ("leaky_relu", {"alpha": 0.5}, [-4, 0, 2, -INF, NAN], [-2, 0, 2, -INF, NAN]),
        ("elu", {"alpha": 2.0}, [0, 3, -INF, 1000, NAN], [0, 3, -2, 1000, NAN]),
        ("selu", {"alpha": 2.0, "gamma": 3.0}, [0, 2, -INF, NAN], [0, 6, -6, NAN]),
        ("clip", {"lo": -1.0, "hi": 2.0}, [-5, 0.5, 9, -INF, INF, NAN], [-1, 0.5, 2, -1, 2, NAN]),
        ("clip", {"lo": 3.0, "hi": 2.0}, [0, 9], [2, 2]),
        ("sigmoid", {}, [0, -INF, INF, -1000, NAN], [0.5, 0, 1, 0, NAN]),
        ("tanh", {}, [0, -INF, INF, NAN], [0, -1, 1, NAN]),
        ("swish", {}, [0, INF, 1000, NAN], [0, INF, 1000, NAN]),
        ("hard_sigmoid", {"alpha": 0.25, "beta": 0.5}, [-9, 0, 1, 9, NAN], [0, 0.5, 0.75, 1, NAN]),
        ("hard_swish", {}, [-4, -3, 3, 4, 0, NAN], [0, 0, 3, 4, 0, NAN]),
        ("gelu", {}, [0, 100, -100, NAN], [0, 100, 0, NAN]),
        ("gelu_tanh", {}, [0, 100, -100, NAN], [0, 100, 0, NAN]),
        ("softplus", {}, [-1000, 1000, INF, -INF, NAN], [0, 1000, INF, 0, NAN]),
        ("softsign", {}, [-1, 0, 3, NAN], [-0.5, 0, 0.75, NAN]),
        ("exp", {}, [0, -INF, INF, 1000, NAN], [1, 0, INF, INF, NAN]),
        ("log", {}, [1, 0, -1, INF, NAN], [0, -INF, NAN, INF, NAN]),
        ("sqrt", {}, [4, 0, -1, INF, NAN], [2, 0, NAN, INF, NAN]),
        ("erf", {}, [0, INF, -INF, NAN], [0, 1, -1, NAN]),
        ("abs", {}, [-2, 3, -INF, NAN], [2, 3, INF, NAN]),
        ("neg", {}, [-2, 3, INF, NAN], [2, -3, -INF, NAN]),
        ("reciprocal", {}, [4, -0.5, 0, INF, NAN], [0.25, -2, INF, 0, NAN]),
        ("floor", {}, [-1.5, 1.5, 2, NAN], [-2, 1, 2, NAN]),
        ("ceil", {}, [-1.5, 1.5, 2, NAN], [-1, 2, 2, NAN]),
        ("round", {}, [0.5, 1.5, 2.5, -0.5, -1.5, 2.4, NAN], [0, 2, 2, 0, -2, 2, NAN]),
        ("sign", {}, [-3, 0, 0.1, -INF, NAN], [-1, 0, 1, -1, NAN]),
        ("identity", {}, [1, NAN], [1, NAN]),
        ("dropout", {"ratio": 0.9}, [1, NAN], [1, NAN]),
    ],
)
def test_unary_points(op: str, attrs: dict[str, float], x: list[float], wanted: list[float]) -> None:
    got = run(op, x, **attrs)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.array(wanted, np.float32), rtol=1e-6, atol=1e-30)


def test_unary_values_against_the_standard_library() -> None:
    x = np.linspace(-4, 4, 41, dtype=np.float32)
    np.testing.assert_allclose(run("erf", x), [math.erf(v) for v in x], rtol=1e-6, atol=1e-7)
    gelu = [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x.tolist()]
    np.testing.assert_allclose(run("gelu", x), gelu, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run("softplus", x), [math.log1p(math.exp(v)) for v in x.tolist()], rtol=1e-6)


def test_integers() -> None:
    assert run("clip", [-9, 5, 200], dtype=np.int16, lo=-2.0, hi=100.0).tolist() == [-2, 5, 100]
    assert run("clip", [0, 255], dtype=np.uint8, lo=-5.0, hi=300.0).tolist() == [0, 255]
    assert run("clip", [-128, 127], dtype=np.int8).tolist() == [-128, 127]
    assert run("neg", [1, -3], dtype=np.int32).tolist() == [-1, 3]
    assert run("div", [7, -7, 7, -7, 6, 5], [2, 2, -2, -2, -3, 0], dtype=np.int32).tolist() == [3, -3, -3, 3, -2, 0]
    assert run("div", [250], [7], dtype=np.uint8).tolist() == [35]
    assert run("add", [127], [1], dtype=np.int8).tolist() == [-128]


@pytest.mark.parametrize(
    ("to", "x", "wanted"),
    [
        (DType.I32, [-1.9, 1.9, 3.0], [-1, 1, 3]),
        (DType.I64, [-0.5, 2.5, 2.0**33], [0, 2, 2**33]),
        (DType.BOOL, [0.0, -0.0, 0.25, NAN], [False, False, True, True]),
        (DType.F16, [0.1, 1e6], [0.0999755859375, INF]),
    ],
)
def test_cast_from_float(to: DType, x: list[float], wanted: list[Any]) -> None:
    got = run("cast", x, to=to)
    assert got.dtype == to.numpy
    assert got.tolist() == wanted


def test_cast_from_integer_rounds_once() -> None:
    big = 2**53 + 2**29 + 1  # just above half way between two floats: rounding to double first would lose the 1
    assert run("cast", [big], dtype=np.int64, to=DType.F32).tolist() == [float(2**53 + 2**30)]


def test_binary_nan_and_comparisons() -> None:
    a, b = [1, NAN, 3], [2, 2, NAN]
    for op in ("maximum", "minimum", "add", "sub", "mul", "div"):
        assert np.isnan(run(op, a, b)).tolist() == [False, True, True]
    assert run("less", a, b).tolist() == [True, False, False]
    assert run("less_equal", [1, 2], [2, 2]).tolist() == [True, True]
    assert run("equal", [NAN, 0.0], [NAN, -0.0]).tolist() == [False, True]
    assert run("equal", [True, False], [True, True], dtype=np.bool_).tolist() == [True, False]
    assert run("div", [1, -1, 0], [0, 0, 0])[:2].tolist() == [INF, -INF]
    assert run("pow", [2, 9, -1], [3, 0.5, 0.5])[:2].tolist() == [8, 3]


def test_broadcasting() -> None:
    got = run("sub", np.zeros((2, 1, 3), np.float32), np.arange(2, dtype=np.float32).reshape(2, 1))
    assert got.shape == (2, 2, 3)
    assert got[1, :, 2].tolist() == [0, -1]


def test_prelu_and_where() -> None:
    x = np.array([[[-1.0], [-2.0]]], np.float32)
    assert run("prelu", x, [10, 100]).ravel().tolist() == [-10, -200]
    assert run("prelu", x, [3]).ravel().tolist() == [-3, -6]
    assert np.isnan(run("prelu", [NAN], [1])).all()
    condition = np.array([[True], [False]])
    assert run("where", condition, [1, 2], [[3], [4]]).tolist() == [[1, 2], [4, 4]]


def test_half_precision_is_rounded_only_when_stored() -> None:
    got = run("swish", [1.0], dtype=np.float16)
    assert got.dtype == np.float16
    assert got.item() == np.float16(1 / (1 + math.exp(-1)))
