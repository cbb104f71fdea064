"""Operators in the forms that ONNX's own node tests leave out, against its evaluator or against plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx_maker import Array, OnnxMaker, normal

from sqzc.diagnostics import FrontendError, UnsupportedError
from sqzc.ir import Graph


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def ints(*values: int) -> Array:
    return np.asarray(values, np.int64)


# -- windows ----------------------------------------------------------------------------------------------------------

CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 4, 9), (6, 4, 3), {"strides": [2], "pads": [1, 2]}),
    ((2, 4, 9), (6, 2, 3), {"dilations": [2], "group": 2}),
    ((2, 4, 9, 8), (6, 4, 3, 2), {"strides": [2, 3], "pads": [1, 0, 2, 1], "dilations": [1, 2]}),
    ((2, 4, 9, 8), (8, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 2, 9, 8), (3, 2, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    ((1, 2, 9, 8), (3, 2, 4, 3), {"auto_pad": "VALID", "strides": [2, 1]}),
    ((1, 2, 5, 6, 7), (3, 2, 3, 2, 3), {"pads": [1, 0, 1, 2, 1, 0]}),
    ((2, 4, 5, 6, 7), (6, 2, 2, 2, 3), {"group": 2, "strides": [2, 1, 2], "dilations": [2, 1, 1]}),
]


@pytest.mark.parametrize(("x", "w", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_convolutions(
    maker: OnnxMaker, x: tuple[int, ...], w: tuple[int, ...], attributes: dict[str, Any], bias: bool
) -> None:
    weights = {"w": normal(*w, seed=1), **({"b": normal(w[0], seed=2)} if bias else {})}
    node = maker.node("Conv", "x w b" if bias else "x w", "y", **attributes)
    maker.agree(maker.model([node], {"x": x}, weights=weights), {"x": normal(*x)}, tolerance=2e-5)


TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 5), (3, 4, 3), {"strides": [2], "pads": [1, 0], "output_padding": [1]}),
    ((1, 3, 5, 4), (3, 2, 3, 3), {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [0, 1]}),
    ((1, 3, 5, 4), (3, 2, 3, 3), {"dilations": [2, 1], "strides": [1, 2]}),
    ((1, 3, 5, 4), (3, 2, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    ((1, 2, 3, 4, 3), (2, 3, 3, 2, 2), {"strides": [2, 1, 2], "pads": [1, 0, 0, 1, 1, 0]}),
    ((1, 2, 3, 4, 3), (2, 3, 2, 2, 2), {"strides": [1, 2, 1], "dilations": [2, 1, 1]}),
]


@pytest.mark.parametrize(("x", "w", "attributes"), TRANSPOSED)
def test_transposed_convolutions(
    maker: OnnxMaker, x: tuple[int, ...], w: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    weights = {"w": normal(*w, seed=1), "b": normal(w[1], seed=2)}
    model = maker.model([maker.node("ConvTranspose", "x w b", "y", **attributes)], {"x": x}, weights=weights)
    maker.agree(model, {"x": normal(*x)}, tolerance=2e-5)


@pytest.mark.parametrize("shape", [(9, 9), (10, 8), (11, 6), (12, 9)])
def test_a_wanted_shape_is_a_part_of_the_whole(maker: OnnxMaker, shape: tuple[int, int]) -> None:
    feeds, weights = {"x": normal(1, 3, 5, 4)}, {"w": normal(3, 2, 3, 3)}
    nodes = [maker.node("ConvTranspose", "x w", "y", strides=[2, 2], **more) for more in ({}, {"output_shape": shape})]
    whole, part = (maker.ours(maker.model([node], {"x": [1, 3, 5, 4]}, weights=weights), feeds)["y"] for node in nodes)
    assert part.shape[2:] == shape
    cut = [max(have - want, 0) for have, want in zip(whole.shape[2:], shape, strict=True)]
    starts = [size - size // 2 for size in cut]
    kept = whole[:, :, starts[0] : starts[0] + shape[0], starts[1] : starts[1] + shape[1]]
    np.testing.assert_allclose(part[:, :, : kept.shape[2], : kept.shape[3]], kept, rtol=1e-5, atol=1e-6)
    assert not part[:, :, kept.shape[2] :].any()


def test_the_odd_element_changed_ends_with_opset_11(maker: OnnxMaker) -> None:
    node = maker.node("ConvTranspose", "x w", "y", output_shape=[8], strides=[2])
    pads = {}
    for opset in (10, 11):
        model = maker.model([node], {"x": [1, 1, 4]}, weights={"w": normal(1, 1, 3)}, opset=opset)
        pads[opset] = next(n.op.attrs["pads"] for n in maker.graph(model).nodes if n.op.name == "conv_transpose2d")
    assert pads == {10: (0, 0, 0, 1), 11: (0, 1, 0, 0)}


POOLS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 9), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ((2, 3, 9, 8), {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 2, 1]}),
    ((2, 3, 9, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((2, 3, 9, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 5, 6, 7), {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2], "pads": [1, 1, 0, 0, 1, 1]}),
    ((1, 2, 7, 6, 7), {"kernel_shape": [2, 2, 2], "strides": [2, 3, 2], "ceil_mode": 1}),
]


@pytest.mark.parametrize(("x", "attributes"), POOLS)
@pytest.mark.parametrize("type_", ["MaxPool", "AveragePool"])
def test_pools(maker: OnnxMaker, type_: str, x: tuple[int, ...], attributes: dict[str, Any]) -> None:
    model = maker.model([maker.node(type_, "x", "y", **attributes)], {"x": x}, opset=22)
    maker.agree(model, {"x": normal(*x)})


@pytest.mark.parametrize("x", [(2, 3, 9), (2, 3, 9, 8), (1, 2, 5, 6, 7)])
def test_means_that_count_the_padding(maker: OnnxMaker, x: tuple[int, ...]) -> None:
    axes = len(x) - 2
    attributes = {"kernel_shape": [3] * axes, "strides": [2] * axes, "pads": [1] * (2 * axes), "count_include_pad": 1}
    model = maker.model([maker.node("AveragePool", "x", "y", **attributes)], {"x": x}, opset=22)
    maker.agree(model, {"x": normal(*x)})


def test_windows_that_hang_over_have_one_form(maker: OnnxMaker) -> None:
    """28 windows of 3 with stride 2 on 56 pixels, in both spellings; no overhang is no ceil_mode."""
    forms = [
        maker.node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], **more)
        for more in ({"ceil_mode": 1}, {"pads": [0, 0, 1, 1]})
    ]
    graphs = [maker.graph(maker.model([node], {"x": [1, 1, 56, 56]})) for node in forms]
    assert len({repr(graph.nodes[0].op) for graph in graphs}) == 1
    assert "rounding=ceil" in repr(graphs[0].nodes[0].op)
    fits = maker.graph(maker.model([forms[0]], {"x": [1, 1, 57, 57]}))
    assert "rounding" not in repr(fits.nodes[0].op)


def test_positions_of_maxima_follow_numpy(maker: OnnxMaker) -> None:
    x = np.random.default_rng(3).permutation(2 * 3 * 5 * 6).reshape(2, 3, 5, 6).astype(np.float32)
    for order in (0, 1):
        node = maker.node("MaxPool", "x", "y i", kernel_shape=[2, 2], strides=[2, 3], pads=[0, 1, 1, 0])
        node.attribute.append(onnx.helper.make_attribute("storage_order", order))
        found = maker.ours(maker.model([node], {"x": x}, ("y", "i")), {"x": x})
        for n, c, i, j in np.ndindex(found["y"].shape):
            flat = found["i"][n, c, i, j] - (n * 3 + c) * 30
            row, column = divmod(flat, 6) if order == 0 else divmod(flat, 5)[::-1]
            assert x[n, c, row, column] == found["y"][n, c, i, j]


# -- versions whose meaning changed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_old_softmax_is_joint(maker: OnnxMaker, type_: str, axis: int) -> None:
    x = normal(2, 3, 4)
    old = maker.ours(maker.model([maker.node(type_, "x", "y", axis=axis)], {"x": x}, opset=11), {"x": x})["y"]
    flat = x.reshape(int(np.prod(x.shape[:axis])), -1)
    new = maker.ours(maker.model([maker.node(type_, "x", "y", axis=1)], {"x": flat}, opset=13), {"x": flat})["y"]
    np.testing.assert_allclose(old.reshape(flat.shape), new, rtol=1e-6)


def test_unit_axes_behind_softmaxs_make_no_difference_in_form(maker: OnnxMaker) -> None:
    axes = set()
    for opset in (11, 13):
        graph = maker.graph(maker.model([maker.node("Softmax", "x", "y", axis=1)], {"x": [1, 9, 1, 1]}, opset=opset))
        axes.add(graph.nodes[0].op.attrs["axes"])
    assert axes == {(1, 2, 3)}


OLD_FORMS: list[tuple[str, dict[str, Any], int]] = [
    ("Clip", {"min": -0.5, "max": 0.25}, 10),
    ("Clip", {}, 7),
    ("Slice", {"starts": [1, 0], "ends": [9, -1], "axes": [0, 1]}, 9),
    ("Pad", {"pads": [0, 1, 2, 0], "value": 1.5}, 10),
    ("Squeeze", {"axes": [0]}, 11),
    ("Unsqueeze", {"axes": [0, 2]}, 11),
    ("ReduceSum", {"axes": [1], "keepdims": 0}, 11),
    ("ReduceMean", {"axes": [1]}, 13),
    ("Split", {"axis": 1, "split": [1, 3]}, 11),
    ("TopK", {"k": 2, "axis": 1}, 9),
    ("Upsample", {"mode": "nearest", "scales": [1.0, 2.0]}, 7),
    ("Dropout", {"ratio": 0.3}, 7),
]


@pytest.mark.parametrize(("type_", "attributes", "opset"), OLD_FORMS)
def test_attributes_that_became_inputs(maker: OnnxMaker, type_: str, attributes: dict[str, Any], opset: int) -> None:
    x = normal(1, 4) if type_ == "Squeeze" else normal(3, 4)
    outputs = ("y", "z") if type_ in ("Split", "TopK") else ("y",)
    model = maker.model([maker.node(type_, "x", " ".join(outputs), **attributes)], {"x": x}, outputs, opset=opset)
    got = maker.ours(model, {"x": x})
    wanted: dict[str, Any] = {
        "Clip": np.clip(x, attributes.get("min", -9), attributes.get("max", 9)),
        "Slice": x[1:9, 0:-1],
        "Pad": np.pad(x, ((0, 2), (1, 0)), constant_values=1.5),
        "Squeeze": x[0],
        "Unsqueeze": x[None, :, None],
        "ReduceSum": x.sum(axis=1),
        "ReduceMean": x.mean(axis=1, keepdims=True),
        "Split": x[:, :1],
        "TopK": np.sort(x, axis=1)[:, :-3:-1],
        "Upsample": x.repeat(2, axis=1),
        "Dropout": x,
    }
    np.testing.assert_allclose(got["y"], wanted[type_], rtol=1e-6)


# -- forms that are chosen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "c", "wanted"),
    [
        ({"transB": 1}, (4,), ["linear"]),
        ({}, (1, 4), ["linear"]),
        ({"transA": 1, "transB": 1}, (4,), ["transpose", "linear"]),
        ({"alpha": 0.5, "transB": 1}, (4,), ["linear", "mul", "add"]),
        ({"beta": 2.0, "transB": 1}, (4,), ["linear"]),
        ({"transB": 1}, (3, 4), ["linear", "add"]),
        ({"transB": 1}, (), ["linear", "add"]),
    ],
)
def test_gemm_is_a_linear_layer_where_it_can_be(
    maker: OnnxMaker, attributes: dict[str, Any], c: tuple[int, ...], wanted: list[str]
) -> None:
    x = normal(5, 3) if attributes.get("transA") else normal(3, 5)
    weights = {"w": normal(4, 5) if attributes.get("transB") else normal(5, 4), "c": normal(*c, seed=8)}
    model = maker.model([maker.node("Gemm", "x w c", "y", **attributes)], {"x": x}, weights=weights)
    assert ops(maker.graph(model)) == wanted
    maker.agree(model, {"x": x})


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_an_image_is_a_global_pool(maker: OnnxMaker, keepdims: int) -> None:
    node = maker.node("ReduceMean", "x a", "y", keepdims=keepdims)
    model = maker.model([node], {"x": [2, 3, 4, 5]}, weights={"a": ints(-1, 2)})
    assert ops(maker.graph(model)) == ["avg_pool2d", "reshape"][: 2 - keepdims]
    maker.agree(model, {"x": normal(2, 3, 4, 5)})


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((4, 2, 3), (3,)), ((3,), (4, 3, 2))])
def test_matmul_of_vectors(maker: OnnxMaker, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = normal(*shapes[0]), normal(*shapes[1], seed=6)
    maker.agree(maker.model([maker.node("MatMul", "a b", "y")], {"a": a, "b": b}), {"a": a, "b": b})


@pytest.mark.parametrize(
    ("slope", "wanted"),
    [((3, 1, 1), ["prelu"]), ((1,), ["prelu"]), ((), ["prelu"]), ((3, 4, 5), ["less", "mul", "where"])],
)
def test_slopes(maker: OnnxMaker, slope: tuple[int, ...], wanted: list[str]) -> None:
    model = maker.model([maker.node("PRelu", "x s", "y")], {"x": [2, 3, 4, 5]}, weights={"s": normal(*slope)})
    assert ops(maker.graph(model)) == wanted
    maker.agree(model, {"x": normal(2, 3, 4, 5)})


RESIZES: list[tuple[dict[str, Any], list[float], str]] = [
    ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, [2, 3], "resize2d"),
    # Whatever the rule: reading the same samples is the same op.
    ({"mode": "nearest"}, [2, 2], "resize2d"),
    ({"mode": "linear"}, [1.5, 0.7], "resize2d"),
    ({"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}, [2, 2], "resize2d"),
    ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, [2, 2], "resize2d"),
    ({"mode": "nearest", "nearest_mode": "ceil"}, [1.3, 2], "gather"),
    ({"mode": "cubic"}, [2, 0.5], "matmul"),
    ({"mode": "linear", "antialias": 1}, [0.5, 0.4], "matmul"),
]


@pytest.mark.parametrize(("attributes", "scales", "wanted"), RESIZES)
def test_resizes(maker: OnnxMaker, attributes: dict[str, Any], scales: list[float], wanted: str) -> None:
    node = maker.node("Resize", "x - s", "y", **attributes)
    weights = {"s": np.asarray([1, 1, *scales], np.float32)}
    model = maker.model([node], {"x": [1, 2, 6, 8]}, weights=weights, opset=19)
    assert set(ops(maker.graph(model))) <= {wanted, "transpose", "reshape"}
    maker.agree(model, {"x": normal(1, 2, 6, 8)}, tolerance=1e-4)


def test_logic_of_truth_values(maker: OnnxMaker) -> None:
    a, b = np.asarray([True, True, False, False]), np.asarray([True, False, True, False])
    nodes = [maker.node(name, "a b", name) for name in ("And", "Or", "Xor")] + [maker.node("Not", "a", "Not")]
    found = maker.ours(maker.model(nodes, {"a": a, "b": b}, ("And", "Or", "Xor", "Not")), {"a": a, "b": b})
    assert [found[name].tolist() for name in ("And", "Or", "Xor", "Not")] == [
        (a & b).tolist(),
        (a | b).tolist(),
        (a ^ b).tolist(),
        (~a).tolist(),
    ]


@pytest.mark.parametrize("dtype", ["int32", "int8", "uint8"])
@pytest.mark.parametrize("fmod", [0, 1])
def test_remainders(maker: OnnxMaker, dtype: str, fmod: int) -> None:
    a = np.asarray([7, 7, 0, 9, 100], dtype)
    b = np.asarray([3, 5, 4, 9, 7], dtype)
    if dtype != "uint8":
        a, b = np.concatenate([a, -a, a, -a]), np.concatenate([b, b, -b, -b])
    model = maker.model([maker.node("Mod", "a b", "y", fmod=fmod)], {"a": a, "b": b})
    np.testing.assert_array_equal(maker.ours(model, {"a": a, "b": b})["y"], (np.fmod if fmod else np.mod)(a, b))


def test_powers_of_whole_numbers(maker: OnnxMaker) -> None:
    a, b = np.asarray([-3, 2, 0, 7, 10], np.int64), np.asarray([3, 30, 0, 2, 9], np.int64)
    found = maker.ours(maker.model([maker.node("Pow", "a b", "y")], {"a": a, "b": b}), {"a": a, "b": b})
    np.testing.assert_array_equal(found["y"], a**b)


INVERSES = {"Asin": np.arcsin, "Acos": np.arccos, "Atan": np.arctan, "Asinh": np.arcsinh, "Atanh": np.arctanh}


@pytest.mark.parametrize("type_", [*INVERSES, "Sinh", "Cosh", "Tan", "Acosh"])
def test_angles(maker: OnnxMaker, type_: str) -> None:
    small = np.asarray([-1, -0.999, -0.3, -1e-6, 0, 1e-12, 1e-3, 0.5, 0.9999, 1], np.float32)
    x = small + 1.5 if type_ == "Acosh" else small[1:-1] if type_ == "Atanh" else small
    x = np.maximum(x, 1) if type_ == "Acosh" else x
    wanted = {**INVERSES, "Sinh": np.sinh, "Cosh": np.cosh, "Tan": np.tan, "Acosh": np.arccosh}[type_](x)
    found = maker.ours(maker.model([maker.node(type_, "x", "y")], {"x": x}), {"x": x})["y"]
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-30)


# -- choosing and placing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["none", "add", "mul", "max", "min"])
def test_scattering_at_known_places(maker: OnnxMaker, how: str) -> None:
    x, updates = normal(4, 3), normal(5, 3, seed=9)
    places = ints(0, 2, 0, 3, 0).reshape(5, 1)
    model = maker.model(
        [maker.node("ScatterND", "x i u", "y", reduction=how)], {"x": x, "u": updates}, weights={"i": places}
    )
    wanted = x.copy()
    for place, update in zip(places[:, 0], updates, strict=True):
        combine = {"none": lambda a, b: b, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
        wanted[place] = combine[how](wanted[place], update)
    np.testing.assert_allclose(maker.ours(model, {"x": x, "u": updates})["y"], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("type_", "weights", "words"),
    [
        ("ScatterND", {"i": ints(4).reshape(1, 1), "u": normal(1, 3)}, "outside"),
        ("ScatterElements", {"i": ints(-5, 0, 0).reshape(1, 3), "u": normal(1, 3)}, "outside"),
        ("GatherElements", {"i": ints(0, 0, 0, 0, 0, 0, 0, 0).reshape(2, 4)}, "do not fit"),
        ("GatherND", {"i": ints(0, 0, 0).reshape(1, 3)}, "do not fit"),
    ],
)
def test_indices_that_do_not_fit(maker: OnnxMaker, type_: str, weights: dict[str, Array], words: str) -> None:
    names = " ".join(["x", *weights])
    with pytest.raises(FrontendError, match=words):
        maker.lift(maker.model([maker.node(type_, names, "y")], {"x": [4, 3]}, weights=weights))


@pytest.mark.parametrize(
    ("type_", "weights", "attributes", "words"),
    [
        ("Reshape", {"s": ints(5, -1)}, {}, "cannot be reshaped"),
        ("Reshape", {"s": ints(-1, -1)}, {}, "cannot reshape"),
        ("Reshape", {"s": ints(1, 1, 0)}, {}, "copied from the input"),
        ("Squeeze", {"a": ints(0)}, {}, "cannot be squeezed"),
        ("Unsqueeze", {"a": ints(0, 0)}, {}, "name one twice"),
        ("Transpose", {}, {"perm": [0, 0]}, "a permutation"),
        ("Split", {"s": ints(1, 9)}, {}, "a split into"),
        ("Slice", {"s": ints(0), "e": ints(1), "a": ints(7)}, {}, "axes: 7"),
        ("Slice", {"s": ints(0), "e": ints(1), "a": ints(0), "t": ints(0)}, {}, "step 0"),
        ("Pad", {"p": ints(1, 1)}, {}, "'pads' of Pad"),
        ("Pad", {"p": ints(-3, 0, -3, 0)}, {}, "leave nothing"),
        ("Tile", {"r": ints(2)}, {}, "repeats"),
        ("DepthToSpace", {}, {"blocksize": 2}, "rank 4"),
        ("TopK", {"k": ints(9)}, {"axis": 0}, "topk: k"),
        ("Resize", {"r": normal(0), "s": np.asarray([1, -2], np.float32)}, {}, "a scale of -2"),
        ("Compress", {"c": np.asarray([True] * 9)}, {"axis": 0}, "does not fit"),
        ("Concat", {}, {"axis": 5}, "axis 5"),
        ("CumSum", {"a": ints(4).reshape(())}, {}, "axis 4"),
        ("LpNormalization", {}, {"p": 3}, "'p' is 3"),
    ],
)
def test_operands_that_make_no_sense(
    maker: OnnxMaker, type_: str, weights: dict[str, Array], attributes: dict[str, Any], words: str
) -> None:
    outputs = {"Split": "y z", "TopK": "y z"}.get(type_, "y")
    node = maker.node(type_, " ".join(["x", *weights]), outputs, **attributes)
    with pytest.raises(FrontendError, match=words) as caught:
        maker.lift(maker.model([node], {"x": [2, 3]}, tuple(outputs.split()), weights))
    assert "node 0" in str(caught.value) or "expected" in str(caught.value)


def test_lengths_are_bounded(maker: OnnxMaker) -> None:
    huge = {"a": np.asarray(0, np.int64), "b": np.asarray(1 << 40, np.int64), "c": np.asarray(1, np.int64)}
    with pytest.raises(FrontendError, match="Range of"):
        maker.lift(maker.model([maker.node("Range", "a b c", "y")], {"x": [1]}, weights=huge))
    fill = maker.node("ConstantOfShape", "s", "y")
    with pytest.raises(FrontendError, match="no tensor has shape"):
        maker.lift(maker.model([fill], {"x": [1]}, weights={"s": ints(1 << 20, 1 << 20)}))
    resize = maker.node("Resize", "x - - s", "y")
    with pytest.raises(FrontendError, match="samples along an axis"):
        maker.lift(maker.model([resize], {"x": [1, 1, 2, 2]}, weights={"s": ints(1, 1, 1 << 30, 2)}))


def test_three_axes_at_most(maker: OnnxMaker) -> None:
    node = maker.node("MaxPool", "x", "y", kernel_shape=[1, 1, 1, 1])
    with pytest.raises(UnsupportedError, match="over 4 spatial axes"):
        maker.lift(maker.model([node], {"x": [1, 1, 2, 2, 2, 2]}))


# -- quantised tensors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_quantised_there_and_back(maker: OnnxMaker, dtype: str, axis: int | None) -> None:
    scale = np.asarray(0.05, np.float32) if axis is None else np.asarray([0.05, 0.1, 0.02], np.float32)
    zero = np.full(scale.shape, 3, dtype)
    more = {} if axis is None else {"axis": axis}
    nodes = [maker.node("QuantizeLinear", "x s z", "q", **more), maker.node("DequantizeLinear", "q s z", "y", **more)]
    model = maker.model(nodes, {"x": [2, 3, 4]}, ("q", "y"), {"s": scale, "z": zero})
    x = normal(2, 3, 4) * np.float32(4)
    found = maker.ours(model, {"x": x})
    wide = scale.reshape(1, -1, 1) if axis else scale
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    wanted = np.clip(np.round(x / wide) + 3, low, high)
    np.testing.assert_array_equal(found["q"], wanted.astype(dtype))
    np.testing.assert_allclose(found["y"], (wanted - 3) * wide, rtol=1e-6)


def test_quantised_convolutions_are_the_real_ones_rounded(maker: OnnxMaker) -> None:
    rng = np.random.default_rng(11)
    x, w = rng.integers(0, 256, (1, 3, 6, 6), np.uint8), rng.integers(-127, 128, (4, 3, 3, 3), np.int8)
    bias = rng.integers(-500, 500, 4, np.int32)
    scales = {"xs": np.float32(0.02), "ws": np.asarray([0.01, 0.02, 0.03, 0.015], np.float32), "ys": np.float32(0.2)}
    zeros = {"xz": np.uint8(120), "wz": np.zeros(4, np.int8), "yz": np.uint8(100)}
    node = maker.node("QLinearConv", "x xs xz w ws wz ys yz b", "y", pads=[1, 1, 1, 1], strides=[2, 1])
    model = maker.model([node], {"x": x}, weights={"w": w, "b": bias, **scales, **zeros})
    got = maker.ours(model, {"x": x})["y"].astype(np.int64)
    real_x = (x.astype(np.float32) - 120) * scales["xs"]
    real_w = w.astype(np.float32) * scales["ws"].reshape(4, 1, 1, 1)
    real_b = (bias * scales["xs"] * scales["ws"]).astype(np.float32)
    plain = maker.model(
        [maker.node("Conv", "x w b", "y", pads=[1, 1, 1, 1], strides=[2, 1])],
        {"x": real_x},
        weights={"w": real_w, "b": real_b},
    )
    real = maker.ours(plain, {"x": real_x})["y"]
    wanted = np.clip(np.round(real / 0.2) + 100, 0, 255)
    assert np.abs(got - wanted).max() <= 1
    assert (got != wanted).mean() < 0.02


def test_scales_that_do_not_fit(maker: OnnxMaker) -> None:
    weights = {"s": np.ones(2, np.float32), "z": np.zeros(2, np.int8)}
    node = maker.node("QuantizeLinear", "x s z", "y", axis=1)
    with pytest.raises(FrontendError, match="a scale for each place"):
        maker.lift(maker.model([node], {"x": [2, 3, 4]}, weights=weights))
