"""Moving, selecting and reducing against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sqzc.backends.reference import evaluate
from sqzc.diagnostics import UsageError
from sqzc.ir import Builder, DType, Graph, Layout, TensorType, registry
from sqzc.ir.ops.shape import Coordinates, PadMode, ResizeMode

Array = np.ndarray[Any, Any]
NAN = math.nan


def run_all(op: str, *operands: Any, **attrs: Any) -> list[Array]:
    graph = Graph()
    arrays = [x if isinstance(x, np.ndarray) else np.asarray(x, np.float32) for x in operands]
    values = [graph.add_input(f"x{i}", TensorType(DType.of(a.dtype), a.shape)) for i, a in enumerate(arrays)]
    for index, value in enumerate(Builder(graph).add_multi(registry[op](**attrs), *values)):
        graph.add_output(f"y{index}", value)
    return list(evaluate(graph, {f"x{i}": a for i, a in enumerate(arrays)}).values())


def run(op: str, *operands: Any, **attrs: Any) -> Array:
    (result,) = run_all(op, *operands, **attrs)
    return result


COUNT = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_relayout_does_not_move_anything() -> None:
    graph = Graph()
    type = TensorType(DType.F32, (1, 3, 2, 2))
    x = graph.add_input("x", type)
    blocked = graph.insert(registry["relayout"](), [x], types=[type.with_layout(Layout(16))]).output
    relu = graph.insert(registry["relu"](), [blocked], types=[blocked.type]).output
    graph.add_output("y", relu)
    data = np.arange(-6, 6, dtype=np.float32).reshape(1, 3, 2, 2)
    assert evaluate(graph, {"x": data})["y"].tolist() == np.maximum(data, 0).tolist()


def test_reshape_transpose_concat_expand() -> None:
    assert run("reshape", COUNT, shape=(3, 2)).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert run("transpose", COUNT, perm=(1, 0)).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert run("transpose", np.zeros((2, 3, 4), np.float32), perm=(2, 0, 1)).shape == (4, 2, 3)
    assert run("concat", [[1], [2]], COUNT, axis=1).tolist() == [[1, 0, 1, 2], [2, 3, 4, 5]]
    assert run("expand", [[1], [2]], shape=(2, 2, 2)).tolist() == [[[1, 1], [2, 2]]] * 2


@pytest.mark.parametrize(
    ("attrs", "wanted"),
    [
        ({"starts": (1, 0), "sizes": (1, 2)}, [[3, 4]]),
        ({"starts": (0, 2), "sizes": (2, 3), "steps": (1, -1)}, [[2, 1, 0], [5, 4, 3]]),
        ({"starts": (0, 0), "sizes": (2, 2), "steps": (1, 2)}, [[0, 2], [3, 5]]),
        ({"starts": (0, 0), "sizes": (0, 2)}, []),
    ],
)
def test_slice(attrs: dict[str, Any], wanted: list[list[float]]) -> None:
    assert run("slice", COUNT, **attrs).tolist() == wanted


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        (PadMode.CONSTANT, [9, 9, 1, 2, 3, 9]),
        (PadMode.EDGE, [1, 1, 1, 2, 3, 3]),
        (PadMode.REFLECT, [3, 2, 1, 2, 3, 2]),
        (PadMode.WRAP, [2, 3, 1, 2, 3, 1]),
    ],
)
def test_pad_modes(mode: PadMode, wanted: list[float]) -> None:
    assert run("pad", [1, 2, 3], pads=(2, 1), mode=mode, value=9.0).tolist() == wanted


def test_reductions() -> None:
    assert run("reduce_sum", COUNT, axes=(0, 1)).tolist() == [[15]]
    assert run("reduce_mean", COUNT, axes=(1,), keepdims=False).tolist() == [1, 4]
    assert run("reduce_prod", COUNT, axes=(0,)).tolist() == [[0, 4, 10]]
    assert run("reduce_max", [1, NAN, 3], axes=(0,), keepdims=False).tolist() != [3]
    assert np.isnan(run("reduce_min", [1, NAN, 3], axes=(0,))).all()
    assert run("reduce_sum", COUNT, axes=()).tolist() == COUNT.tolist()
    integers = np.array([-3, -4], np.int32)
    assert run("reduce_mean", integers, axes=(0,)).tolist() == [-3]
    assert run("reduce_sum", np.array([100, 100], np.int8), axes=(0,)).tolist() == [-56]


def test_reductions_of_nothing() -> None:
    nothing = np.zeros((2, 0), np.float32)
    assert run("reduce_sum", nothing, axes=(1,)).tolist() == [[0], [0]]
    assert run("reduce_prod", nothing, axes=(1,)).tolist() == [[1], [1]]
    assert np.isnan(run("reduce_mean", nothing, axes=(1,))).all()


@pytest.mark.parametrize(
    ("op", "last", "wanted"), [("argmax", False, 1), ("argmax", True, 3), ("argmin", False, 0), ("argmin", True, 2)]
)
def test_arg_reductions_of_equals(op: str, last: bool, wanted: int) -> None:
    got = run(op, [[1, 5, 1, 5]], axis=1, last=last)
    assert got.dtype == np.int64
    assert got.tolist() == [[wanted]]
    assert run(op, [[1, 5, 1, 5]], axis=1, last=last, keepdims=False).tolist() == [wanted]


def test_arg_reductions_pass_over_nan_unless_it_comes_first() -> None:
    x = [[NAN, 1], [3, NAN], [2, 2]]
    assert run("argmax", x, axis=0).tolist() == [[0, 2]]
    assert run("argmin", x, axis=0, last=True).tolist() == [[0, 0]]


def test_topk_keeps_equals_in_order() -> None:
    values, positions = run_all("topk", [[3, 1, 3, 2, 3]], k=4)
    assert values.tolist() == [[3, 3, 3, 2]]
    assert positions.tolist() == [[0, 2, 4, 3]]
    values, positions = run_all("topk", [3, 1, 3, 1, 3], k=3, largest=False)
    assert values.tolist() == [1, 1, 3]
    assert positions.tolist() == [1, 3, 0]
    _, positions = run_all("topk", [1, NAN, 5], k=2)
    assert positions.tolist() == [1, 2]
    values, _ = run_all("topk", np.array([0, 255], np.uint8), k=1)
    assert values.tolist() == [255]


def test_gather_counts_negative_indices_from_the_end() -> None:
    assert run("gather", COUNT, np.array([[-1, 0]]), axis=1).tolist() == [[[2, 0]], [[5, 3]]]
    with pytest.raises(UsageError, match="index 3 on an axis of 3"):
        run("gather", COUNT, np.array([0, 3]), axis=1)
    with pytest.raises(UsageError, match="index -4"):
        run("gather", COUNT, np.array(-4), axis=1)


def line(values: list[float]) -> Array:
    return np.array(values, np.float32).reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("x", "length", "attrs", "wanted"),
    [
        ([1, 2], 4, {}, [1, 1, 2, 2]),
        ([1, 2, 3, 4], 2, {}, [1, 3]),
        ([1, 2, 3, 4, 5], 12, {"scale_w": 2.5}, [1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5]),
        ([1, 3], 4, {"mode": ResizeMode.LINEAR}, [1, 2, 3, 3]),
        ([1, 4], 4, {"mode": ResizeMode.LINEAR, "coordinates": Coordinates.ALIGN_CORNERS}, [1, 2, 3, 4]),
        ([0, 4], 4, {"mode": ResizeMode.LINEAR, "coordinates": Coordinates.HALF_PIXEL}, [0, 1, 3, 4]),
        ([7, 8], 1, {"mode": ResizeMode.LINEAR, "coordinates": Coordinates.ALIGN_CORNERS}, [7]),
        ([1, 2, 3], 5, {"coordinates": Coordinates.ALIGN_CORNERS}, [1, 1, 2, 2, 3]),
        ([1, 2], 4, {"coordinates": Coordinates.HALF_PIXEL}, [1, 1, 1, 2]),
    ],
)
def test_resize_along_a_row(x: list[float], length: int, attrs: dict[str, Any], wanted: list[float]) -> None:
    got = run("resize2d", line(x), size=(1, length), **attrs)
    np.testing.assert_allclose(got.ravel(), wanted, rtol=1e-6)
    np.testing.assert_allclose(
        run(
            "resize2d",
            line(x).swapaxes(2, 3).copy(),
            size=(length, 1),
            **{"scale_h" if k == "scale_w" else k: v for k, v in attrs.items()},
        ).ravel(),
        wanted,
        rtol=1e-6,
    )


def test_resize_positions_are_float32() -> None:
    # 17 / float32(1.7) is just below 10 in exact arithmetic and exactly 10 in float32, which is what runtimes do.
    scale = float(np.float32(1.7))
    assert 17 / scale < 10
    x = line(list(range(12)))
    assert run("resize2d", x, size=(1, 20), scale_w=scale).ravel()[17] == 10
