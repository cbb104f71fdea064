"""Convolutions, pools and normalisations against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sqzc.backends.reference import evaluate
from sqzc.ir import Builder, Graph, registry
from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.nn import Rounding
from sqzc.ir.types import DType, TensorType

Array = np.ndarray[Any, Any]
NAN, INF = math.nan, math.inf


def run(op: str, *operands: Any, **attrs: Any) -> Array:
    graph = Graph()
    arrays = [np.asarray(x, np.float32) if not isinstance(x, np.ndarray) else x for x in operands]
    values = [graph.add_input(f"x{i}", TensorType(DType.of(a.dtype), a.shape)) for i, a in enumerate(arrays)]
    graph.add_output("y", Builder(graph).add(registry[op](**attrs), *values))
    return evaluate(graph, {f"x{i}": a for i, a in enumerate(arrays)})["y"]


def image(*rows: list[float]) -> Array:
    return np.array([[rows]], np.float32)


def test_conv2d_is_cross_correlation_with_zero_padding() -> None:
    x = image([1, 2], [3, 4])
    w = image([1, 10], [100, 1000])
    assert run("conv2d", x, w).tolist() == [[[[4321]]]]
    got = run("conv2d", x, w, [0.5], pads=(1, 0, 0, 1), stride=(1, 1))
    assert got[0, 0].tolist() == [[2100.5, 200.5], [4321.5, 402.5]]


def test_conv2d_dilation_and_stride_pick_taps() -> None:
    x = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    w = image([1, 1], [1, 1])
    assert run("conv2d", x, w, dilation=(2, 4))[0, 0].tolist() == [[0 + 4 + 10 + 14], [5 + 9 + 15 + 19], [68]]
    assert run("conv2d", x, image([1]), stride=(3, 2))[0, 0].tolist() == [[0, 2, 4], [15, 17, 19]]


def test_conv2d_groups_see_their_own_channels() -> None:
    x = np.array([1, 2, 3, 4], np.float32).reshape(1, 4, 1, 1)
    w = np.array([[1, 10], [100, 1000]], np.float32).reshape(2, 2, 1, 1)
    assert run("conv2d", x, w, group=2).ravel().tolist() == [21, 4300]


def test_conv2d_adds_the_residual_before_the_activation() -> None:
    x, w = image([1, -1]), image([2])
    got = run("conv2d", x, w, [1], image([-5, 3]), act=Activation("relu"))
    assert got.ravel().tolist() == [0, 2]
    got = run("conv2d", x, w, [1], image([-5, 3]), act=Activation("clip", (-1.0, 1.0)))
    assert got.ravel().tolist() == [-1, 1]


def test_conv2d_keeps_nan_where_it_is_read() -> None:
    got = run("conv2d", image([NAN, 1, 2, 3]), image([1, 1]))
    assert np.isnan(got.ravel()).tolist() == [True, False, False]


def test_conv2d_does_not_read_outside_the_last_partial_window() -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 6)
    assert run("conv2d", x, image([1, 1, 1]), stride=(1, 2)).ravel().tolist() == [3, 9]


def test_conv_transpose2d_scatters() -> None:
    got = run("conv_transpose2d", image([1, 2]), image([1, 10, 100]), [0.5], stride=(1, 2))
    assert got.ravel().tolist() == [1.5, 10.5, 102.5, 20.5, 200.5]
    cut = run("conv_transpose2d", image([1, 2]), image([1, 10, 100]), stride=(1, 2), pads=(0, 1, 0, 2))
    assert cut.ravel().tolist() == [10, 102]
    longer = run("conv_transpose2d", image([1, 2]), image([1, 10, 100]), stride=(1, 2), output_pads=(0, 1))
    assert longer.ravel().tolist() == [1, 10, 102, 20, 200, 0]


def test_conv_transpose2d_groups_are_separate_ops() -> None:
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(2, 4, 3, 3)).astype(np.float32), rng.normal(size=(4, 3, 2, 2)).astype(np.float32)
    bias = rng.normal(size=6).astype(np.float32)
    halves = [
        run("conv_transpose2d", x[:, c : c + 2], w[c : c + 2], bias[m : m + 3], stride=(2, 1))
        for c, m in ((0, 0), (2, 3))
    ]
    whole = run("conv_transpose2d", x, w, bias, stride=(2, 1), group=2)
    np.testing.assert_allclose(whole, np.concatenate(halves, axis=1), rtol=1e-6)


def test_conv_transpose2d_is_the_adjoint_of_conv2d() -> None:
    rng = np.random.default_rng(6)
    x, w = rng.normal(size=(1, 4, 7, 8)).astype(np.float32), rng.normal(size=(6, 2, 3, 2)).astype(np.float32)
    attrs: dict[str, Any] = {"stride": (2, 3), "pads": (1, 0, 1, 1), "group": 2, "dilation": (1, 2)}
    y = run("conv2d", x, w, **attrs)
    other = rng.normal(size=y.shape).astype(np.float32)
    back = run("conv_transpose2d", other, w, **attrs)
    # What the strides of conv2d left over at the end is missing here and counts as zero there.
    rest = np.zeros_like(x)
    rest[:, :, : back.shape[2], : back.shape[3]] = back
    np.testing.assert_allclose(np.vdot(y, other), np.vdot(x, rest), rtol=1e-4)


def test_max_pool2d_ceil_window_ignores_what_is_past_the_edge() -> None:
    x = image([-1, -2, -3, -4])
    assert run("max_pool2d", x, kernel=(1, 3), stride=(1, 2)).ravel().tolist() == [-1]
    assert run("max_pool2d", x, kernel=(1, 3), stride=(1, 2), rounding=Rounding.CEIL).ravel().tolist() == [-1, -3]
    assert run("max_pool2d", x, kernel=(1, 2), stride=(1, 2), pads=(0, 1, 0, 1)).ravel().tolist() == [-1, -2, -4]


def test_max_pool2d_nan_wins_and_an_empty_window_is_minus_infinity() -> None:
    got = run("max_pool2d", image([NAN, 5, INF, 2]), kernel=(1, 2)).ravel()
    assert np.isnan(got).tolist() == [True, False, False]
    assert got[1:].tolist() == [INF, INF]
    empty = run("max_pool2d", image([1, 2]), kernel=(1, 1), pads=(0, 1, 0, 0)).ravel()
    assert empty.tolist() == [-INF, 1, 2]


def test_max_pool2d_of_integers() -> None:
    x = np.array([-100, -120], np.int8).reshape(1, 1, 1, 2)
    got = run("max_pool2d", x, kernel=(1, 2), pads=(0, 1, 0, 1))
    assert got.dtype == np.int8
    assert got.ravel().tolist() == [-100, -100, -120]


@pytest.mark.parametrize(
    ("attrs", "wanted"),
    [
        ({}, [1.5, 3.5]),
        ({"pads": (0, 1, 0, 1)}, [1, 2.5, 4]),
        ({"pads": (0, 1, 0, 1), "count_include_pad": True}, [0.5, 2.5, 2]),
    ],
)
def test_avg_pool2d_divides_by_the_taps_that_count(attrs: dict[str, Any], wanted: list[float]) -> None:
    got = run("avg_pool2d", image([1, 2, 3, 4]), kernel=(1, 2), stride=(1, 2), **attrs)
    assert got.ravel().tolist() == wanted


@pytest.mark.parametrize(
    ("attrs", "last"),
    [
        ({}, (4 + 5) / 2),
        ({"count_include_pad": True}, (4 + 5) / 2),
        ({"count_include_pad": True, "count_overhang": True}, (4 + 5) / 3),
    ],
)
def test_avg_pool2d_ceil_window_past_the_padding(attrs: dict[str, Any], last: float) -> None:
    x = image([1, 2, 3, 4, 5])
    got = run("avg_pool2d", x, kernel=(1, 3), stride=(1, 3), rounding=Rounding.CEIL, **attrs)
    np.testing.assert_allclose(got.ravel(), [2, last], rtol=1e-6)


def test_avg_pool2d_of_nothing_is_nan() -> None:
    assert np.isnan(run("avg_pool2d", image([1]), kernel=(1, 1), pads=(0, 1, 0, 0)).ravel()).tolist() == [True, False]


def test_batch_norm_formula() -> None:
    x = np.array([[[[3.0]], [[5.0]]]], np.float32)
    got = run("batch_norm", x, [2, 1], [1, -1], [1, 5], [3, 7], eps=1.0)
    assert got.ravel().tolist() == [2 * (3 - 1) / 2 + 1, -1]


def test_instance_norm_uses_its_own_statistics() -> None:
    x = np.array([[[1, 3], [10, 10]]], np.float32)
    got = run("instance_norm", x, [2, 2], [1, 0], eps=3.0)
    assert got.ravel().tolist() == [1 - 2 / 2, 1 + 2 / 2, 0, 0]


def test_lrn_window_of_an_even_size_leans_forward() -> None:
    x = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    got = run("lrn", x, size=2, alpha=2.0, beta=1.0, bias=1.0).ravel()
    np.testing.assert_allclose(got, [1 / (1 + 1 + 4), 2 / (1 + 4 + 9), 3 / (1 + 9)], rtol=1e-6)


def test_lrn_divides_alpha_by_size_even_past_the_channels() -> None:
    x = np.array([2], np.float32).reshape(1, 1, 1, 1)
    assert run("lrn", x, size=8, alpha=8.0, beta=1.0, bias=0.0).item() == 0.5


def test_softmax_does_not_overflow_and_is_joint_over_axes() -> None:
    np.testing.assert_allclose(run("softmax", [1000.0, 1000.0], axes=(0,)), [0.5, 0.5])
    got = run("softmax", np.zeros((2, 2, 4), np.float32), axes=(1, 2))
    assert got.tolist() == np.full((2, 2, 4), 1 / 8).tolist()


def test_softmax_of_nan_and_infinity() -> None:
    assert np.isnan(run("softmax", [NAN, 1.0], axes=(0,))).all()
    assert np.isnan(run("softmax", [-INF, -INF], axes=(0,))).all()
    assert run("softmax", [-INF, 1.0], axes=(0,)).tolist() == [0, 1]


def test_linear_and_matmul() -> None:
    x, w = np.array([[1, 2]], np.float32), np.array([[1, 10], [3, 30]], np.float32)
    assert run("linear", x, w, [0.5, -99], act=Activation("relu")).tolist() == [[21.5, 0]]
    assert run("matmul", x, w).tolist() == [[7, 70]]
    assert run("matmul", x, w, trans_b=True).tolist() == [[21, 63]]
    assert run("matmul", w, x, trans_a=True, trans_b=True).tolist() == [[7], [70]]
