"""Blobs are names, not values: rebinding, side outputs, axis orders and source names (points 13 to 15)."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.diagnostics import FrontendError
from sqzc.frontends.caffe2.env import channels_last, inverse


def ops_of(graph):
    return [node.op.name for node in graph.nodes]


def test_in_place_operators_rename(c2, rng):
    x = rng.standard_normal((2, 3)).astype(np.float32)
    ops = [
        c2.op("Relu", "X", "X"),
        c2.op("Scale", "X", "X", scale=2.0),
        c2.op("Sum", "X X", "X"),
        c2.op("Copy", "X", "Y"),
    ]
    net = c2.net(ops, "X", "Y X")
    got = c2.run(net, {"X": x})
    np.testing.assert_allclose(got["X"], np.maximum(x, 0) * 4)
    np.testing.assert_allclose(got["Y"], got["X"])
    graph = c2.lift(net, {"X": x})
    assert [value.source for node in graph.nodes for value in node.outputs] == [("X",), ("X",), ("X",), ("Y",)]
    assert [name for name, _ in graph.outputs] == ["Y", "X"]


def test_two_buffers_taking_turns(c2):
    x = np.float32([1, -2])
    ops = [c2.op("Scale", "a", "b", scale=2.0), c2.op("Negative", "b", "a"), c2.op("Scale", "a", "b", scale=3.0)]
    got = c2.run(c2.net([*ops, c2.op("Sub", "a b", "a")], "a", "a b"), {"a": x})
    assert got["b"].tolist() == [-6, 12]
    assert got["a"].tolist() == [4, -8]


def test_an_output_may_be_an_input_or_a_parameter(c2):
    x, w = np.float32([1, 2]), np.float32([3, 4])
    got = c2.run(c2.net([c2.op("Add", "X w", "Y")], "X w", "X w Y"), {"X": x}, {"w": w})
    assert {k: v.tolist() for k, v in got.items()} == {"X": [1, 2], "w": [3, 4], "Y": [4, 6]}


def test_a_parameter_can_be_overwritten(c2):
    ops = [c2.op("Scale", "w", "w", scale=2.0), c2.op("Add", "X w", "Y")]
    assert c2.run(c2.net(ops, "X w", "Y"), {"X": np.float32([1])}, {"w": np.float32([3])})["Y"].tolist() == [7]


def test_unused_parameters_leave_no_constant(c2):
    net = c2.net([c2.op("Add", "X w", "Y")], "X w unused", "Y")
    graph = c2.lift(net, {"X": np.ones(2, np.float32)}, {"w": np.ones(2, np.float32), "unused": np.ones(2, np.float32)})
    assert [value.name for value in graph.constants] == ["w"]


def test_transposed_and_reshaped_parameters_keep_their_names(c2, rng):
    w = rng.standard_normal((3, 2, 2, 1)).astype(np.float32)
    net = c2.net([c2.op("Conv", "X w", "c", kernel=2, order="NHWC")], "X w", "c")
    net.op[0].arg[0].i = 2
    w = np.ascontiguousarray(w.reshape(3, 2, 2, 1))
    graph = c2.lift(net, {"X": np.ones((1, 4, 4, 1), np.float32)}, {"w": w})
    assert [(value.name, value.type.shape) for value in graph.constants] == [("w", (3, 1, 2, 2))]


def test_nhwc_operators_pass_images_on_without_transposes(c2, rng):
    nhwc = {"order": "NHWC"}
    ops = [
        c2.op("Conv", "X w b", "c1", kernel=3, **nhwc),
        c2.op("Relu", "c1", "c1"),
        c2.op("SpatialBN", "c1 s t m v", "c1", is_test=1, **nhwc),
        c2.op("MaxPool", "c1", "p", kernel=2, **nhwc),
        c2.op("Mul", "p s", "p", broadcast=1),
        c2.op("Conv", "p w2", "c2", kernel=1, **nhwc),
        c2.op("Sum", "c2 p", "c2"),
        c2.op("Concat", "c2 p", "cat", **nhwc),
        c2.op("Softmax", "cat", "soft", axis=3),
        c2.op("Split", "soft", "left right", **nhwc),
        c2.op("ReduceMean", "left", "Y", axes=[1, 2]),
    ]
    params = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(4).astype(np.float32),
        "w2": rng.standard_normal((4, 1, 1, 4)).astype(np.float32),
        **{name: (rng.random(4) + 1).astype(np.float32) for name in "stmv"},
    }
    x = rng.standard_normal((1, 7, 8, 3)).astype(np.float32)
    net = c2.net(ops, "X " + " ".join(params), "Y")
    graph = c2.lift(net, {"X": x}, params)
    # One for the input; the output, [1, 1, 1, 4] from [1, 4, 1, 1], is a reshape. Parameters are permuted in place.
    assert ops_of(graph).count("transpose") == 1
    assert ops_of(graph)[-1] == "reshape"

    def nchw(message):
        flat = c2.op(message.type, message.input, message.output)
        flat.arg.extend(arg for arg in message.arg if arg.name != "order")
        return flat

    plain = [nchw(op) for op in ops]
    plain[4] = c2.op("Mul", "p s", "p", broadcast=1, axis=1)
    plain[8] = c2.op("Softmax", "cat", "soft_nchw", axis=1)
    plain[8:9] = [
        c2.op("NCHW2NHWC", "cat", "cat"),
        c2.op("Softmax", "cat", "soft", axis=3),
        c2.op("NHWC2NCHW", "soft", "soft"),
    ]
    plain[-1] = c2.op("ReduceMean", "left", "Y", axes=[2, 3])
    flat_params = {
        **params,
        "w": params["w"].transpose(0, 3, 1, 2).copy(),
        "w2": params["w2"].transpose(0, 3, 1, 2).copy(),
    }
    want = c2.run(c2.net(plain, net_inputs(params), "Y"), {"X": x.transpose(0, 3, 1, 2).copy()}, flat_params)["Y"]
    got = c2.run(net, {"X": x}, params)["Y"]
    np.testing.assert_allclose(got, want.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def net_inputs(params):
    return "X " + " ".join(params)


def test_transposes_that_cancel_leave_nothing(c2, rng):
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    ops = [c2.op("NCHW2NHWC", "X", "a"), c2.op("Relu", "a", "a"), c2.op("NHWC2NCHW", "a", "Y")]
    net = c2.net(ops, "X", "Y")
    assert ops_of(c2.lift(net, {"X": x})) == ["relu"]
    np.testing.assert_array_equal(c2.run(net, {"X": x})["Y"], np.maximum(x, 0))


def test_a_blob_is_transposed_once_however_often_it_is_read(c2, rng):
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    ops = [c2.op("Transpose", "X", "t"), c2.op("FlattenToVec", "t", "a"), c2.op("Flatten", "t", "b")]
    net = c2.net(ops, "X", "a b t")
    assert ops_of(c2.lift(net, {"X": x})).count("transpose") == 1
    got = c2.run(net, {"X": x})
    np.testing.assert_array_equal(got["a"], x.T.ravel())
    np.testing.assert_array_equal(got["b"], x.T.reshape(4, 6))


@pytest.mark.parametrize(("a_nhwc", "b_nhwc"), [(True, True), (True, False), (False, True)])
def test_operands_in_different_axis_orders_meet(c2, rng, a_nhwc, b_nhwc):
    x = rng.standard_normal((1, 4, 5, 3)).astype(np.float32)
    y = rng.standard_normal((1, 4, 5, 3)).astype(np.float32)

    def source(name, nhwc):
        # A pool binds its result in NCHW order; a copy leaves the blob's own order.
        return c2.op("MaxPool", name, f"{name}p", kernel=1, order="NHWC") if nhwc else c2.op("Copy", name, f"{name}p")

    ops = [source("X", a_nhwc), source("Z", b_nhwc), c2.op("Sub", "Xp Zp", "Y"), c2.op("Concat", "Xp Zp", "C", axis=2)]
    got = c2.run(c2.net(ops, "X Z", "Y C"), {"X": x, "Z": y})
    np.testing.assert_allclose(got["Y"], x - y)
    np.testing.assert_array_equal(got["C"], np.concatenate([x, y], 2))


def test_broadcasting_over_a_permuted_blob(c2, rng):
    x = rng.standard_normal((1, 4, 5, 3)).astype(np.float32)
    for shape, args in (((3,), {}), ((4,), {"axis": 1}), ((5, 3), {"axis": 2}), ((1,), {})):
        b = rng.standard_normal(shape).astype(np.float32)
        view = b.reshape(
            (1,) * args.get("axis", 4 - b.ndim) + b.shape + (1,) * (4 - b.ndim - args.get("axis", 4 - b.ndim))
        )
        ops = [c2.op("MaxPool", "X", "p", kernel=1, order="NHWC"), c2.op("Add", "p b", "Y", broadcast=1, **args)]
        for params, fed in (({"b": b}, {}), ({}, {"b": b})):
            got = c2.run(c2.net(ops, "X b", "Y"), {"X": x, **fed}, params)["Y"]
            np.testing.assert_allclose(got, x + view)
    small = rng.standard_normal((5, 1)).astype(np.float32)
    ops = [c2.op("MaxPool", "X", "p", kernel=1, order="NHWC"), c2.op("Mul", "b p", "Y")]
    np.testing.assert_allclose(c2.run(c2.net(ops, "X b", "Y"), {"X": x, "b": small})["Y"], small * x)


def test_side_outputs_are_made_only_when_read(c2, rng):
    x = rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    net = c2.net([c2.op("InstanceNorm", "X s b", "Y m d", epsilon=0.01)], "X s b", "Y")
    params = {"s": np.ones(3, np.float32), "b": np.zeros(3, np.float32)}
    assert ops_of(c2.lift(net, {"X": x}, params)) == ["instance_norm"]
    net.external_output.extend(["m", "d"])
    got = c2.run(net, {"X": x}, params)
    np.testing.assert_allclose(got["m"], x.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(got["d"], 1 / np.sqrt(x.var((2, 3)) + 0.01), rtol=1e-5)


def test_a_freed_blob_cannot_be_read(c2):
    ops = [c2.op("Relu", "X", "a"), c2.op("Free", "a", "a"), c2.op("Relu", "a", "Y")]
    with pytest.raises(FrontendError, match="freed"):
        c2.lift(c2.net(ops, "X", "Y"), {"X": np.ones(2, np.float32)})


def test_permutations():
    assert channels_last(4) == (0, 2, 3, 1)
    assert channels_last(3) == (0, 2, 1)
    for perm in ((0, 2, 3, 1), (2, 0, 1), (0,)):
        assert tuple(perm[i] for i in inverse(perm)) == tuple(range(len(perm)))
