"""Inputs, parameters, the mean, and errors about a net as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.backends.reference import evaluate
from sqzc.diagnostics import FrontendError, UnsupportedError, UsageError
from sqzc.frontends.caffe2 import lift
from sqzc.frontends.caffe2.weights import WeightsSpec
from sqzc.ir import DType, TensorType

W = np.arange(8, dtype=np.float32).reshape(4, 2, 1, 1)
X = np.ones((1, 2, 3, 3), np.float32)


@pytest.fixture
def conv(c2):
    """A convolution's net on disk, with its init net."""
    c2.write(c2.net([c2.op("Conv", "data w", "Y", kernel=1)], "data w", "Y", name="tiny"))
    c2.write(c2.init({"w": W}), "init_net.pb")
    return c2.folder


def test_an_unknown_shape_names_the_input_and_the_option(conv):
    with pytest.raises(FrontendError) as caught:
        lift(conv)
    assert "nothing fills input 'data' or gives a shape" in str(caught.value)
    assert "--input-shape data:1,3,227,227" in str(caught.value)


def test_without_the_init_net_the_error_says_so(conv):
    (conv / "init_net.pb").unlink()
    with pytest.raises(FrontendError, match="no init net was found"):
        lift(conv)


def test_shapes_come_from_value_info_or_the_caller(conv):
    (conv / "value_info.json").write_text('{"data": [1, [1, 2, 5, 5]]}')
    assert str(lift(conv).inputs[0].type) == "f32[1,2,5,5]"
    assert str(lift(conv, input_shapes={"data": (3, 2, 4, 4)}).inputs[0].type) == "f32[3,2,4,4]"
    assert str(lift(conv, input_shapes={"data": np.array([3, 2, 4, 4])}).inputs[0].type) == "f32[3,2,4,4]"
    double = TensorType(DType.F64, (1, 2, 4, 4))
    with pytest.raises(FrontendError):
        lift(conv, input_shapes={"data": double})


@pytest.mark.parametrize(
    "shape", [(1, 2, 0, 3), (1, 2, -1, 3), (1 << 20, 1 << 20), (1,) * 9, (1, None, 3, 3), (1.5, 2)]
)
def test_shapes_that_are_none(conv, shape):
    with pytest.raises(FrontendError, match="shape"):
        lift(conv, input_shapes={"data": shape})


def test_a_shape_that_does_not_fit_names_the_operator(conv):
    with pytest.raises(FrontendError) as caught:
        lift(conv, input_shapes={"data": (1, 3, 5, 5)})
    assert "predict_net.pb, op 0 'Y' (Conv)" in str(caught.value)


def test_an_unknown_input_name_suggests_the_nearest(conv):
    with pytest.raises(UsageError, match="no input 'dat'") as caught:
        lift(conv, input_shapes={"dat": (1, 2, 3, 3)})
    assert "did you mean 'data'?" in str(caught.value)


def test_a_blob_that_nobody_makes(c2):
    net = c2.net([c2.op("Relu", "X", "a"), c2.op("Add", "a bb", "Y")], "X", "Y")
    with pytest.raises(FrontendError, match="'bb' is read, but nothing makes it") as caught:
        c2.lift(net, {"X": X})
    assert "op 1 'Y' (Add)" in str(caught.value)
    net = c2.net([c2.op("Relu", "X", "Y")], "X", "Y Z")
    with pytest.raises(FrontendError, match="'Z'"):
        c2.lift(net, {"X": X})
    net = c2.net([c2.op("Relu", "X", "Y"), c2.op("Relu", "b", "X"), c2.op("Relu", "X", "b")], "X", "Y")
    with pytest.raises(FrontendError, match="'b' is read"):
        c2.lift(net, {"X": X})


def test_external_input_may_be_empty_or_name_what_nobody_reads(c2):
    ops = [c2.op("Add", "X w", "Y")]
    params = {"w": np.ones((1, 2, 3, 3), np.float32)}
    for inputs in ("", "X w", "w nobody X also_nobody"):
        graph = c2.lift(c2.net(ops, inputs, "Y"), {"X": X}, params)
        assert [value.name for value in graph.inputs] == ["X"]
    c2.lift(c2.net(ops, "X w nobody", "Y"), {"X": X, "nobody": X}, params)


def test_inputs_keep_the_order_of_external_input(c2):
    graph = c2.lift(c2.net([c2.op("Sub", "b a", "Y")], "a b", "Y"), {"b": X, "a": X})
    assert [value.name for value in graph.inputs] == ["a", "b"]


def test_an_init_nets_placeholder_for_the_input_is_no_parameter(c2):
    c2.write(c2.net([c2.op("Conv", "data w", "Y", kernel=1)], "data w", "Y"))
    c2.write(c2.init({"w": W, "data": np.zeros((1, 1), np.float32)}), "init_net.pb")
    with pytest.raises(FrontendError, match="input 'data'"):
        lift(c2.folder)
    graph = lift(c2.folder, input_shapes={"data": X.shape})
    assert [value.name for value in graph.inputs] == ["data"]


def test_a_net_without_inputs_is_a_constant(c2):
    got = c2.run(c2.net([c2.op("ConstantFill", "", "c", shape=[2]), c2.op("Exp", "c", "Y")], "", "Y"))
    assert got["Y"].tolist() == [1, 1]


def test_no_external_output_is_an_error_unless_outputs_are_given(c2):
    net = c2.net([c2.op("Relu", "X", "a"), c2.op("Relu", "a", "Y")], "X")
    with pytest.raises(FrontendError, match="names no output"):
        c2.lift(net, {"X": X})
    assert [name for name, _ in c2.lift(net, {"X": X}, outputs=["a", "Y"]).outputs] == ["a", "Y"]


# -- mean -------------------------------------------------------------------------------------------------------------


def test_the_mean_is_an_op_of_its_own(conv, rng):
    graph = lift(conv, input_shapes={"data": X.shape}, mean=(10.0, 20.0))
    assert [node.op.name for node in graph.nodes] == ["sub", "conv2d"]
    assert graph.meta["mean"] == [10.0, 20.0]
    x = rng.random(X.shape).astype(np.float32)
    plain = lift(conv, input_shapes={"data": X.shape})
    want = evaluate(plain, {"data": x - np.float32([10, 20]).reshape(1, 2, 1, 1)})["Y"]
    np.testing.assert_allclose(evaluate(graph, {"data": x})["Y"], want, rtol=1e-6)


def test_the_mean_of_an_nhwc_net(c2):
    net = c2.net([c2.op("MaxPool", "X", "Y", kernel=1, order="NHWC")], "X", "Y")
    graph = c2.lift(net, {"X": np.ones((1, 4, 4, 3), np.float32)}, mean=(1.0, 2.0, 3.0))
    got = evaluate(graph, {"X": np.zeros((1, 4, 4, 3), np.float32)})["Y"]
    assert got[0, 0, 0].tolist() == [-1, -2, -3]


@pytest.mark.parametrize("mean", [(1.0,), (1.0, 2.0, 3.0), (1.0, float("nan"))])
def test_a_mean_that_does_not_fit(conv, mean):
    with pytest.raises(UsageError, match="mean"):
        lift(conv, input_shapes={"data": X.shape}, mean=mean)


# -- random weights ---------------------------------------------------------------------------------------------------


def weights_of(graph):
    return {value.name: value.data for value in graph.constants}


def test_random_weights_have_the_init_nets_shapes(conv):
    first = weights_of(lift(conv, input_shapes={"data": X.shape}, weights="random:5"))
    again = weights_of(lift(conv, input_shapes={"data": X.shape}, weights="random:5"))
    other = weights_of(lift(conv, input_shapes={"data": X.shape}, weights="random"))
    assert first["w"].shape == W.shape
    np.testing.assert_array_equal(first["w"], again["w"])
    assert not np.array_equal(first["w"], other["w"])
    assert not np.array_equal(first["w"], W)
    assert lift(conv, input_shapes={"data": X.shape}, weights="random:5").meta["weights"] == "random:5"


def test_random_weights_from_shapes_alone_are_he_normal(c2):
    ops = [c2.op("Conv", "X w b", "c", kernel=3), c2.op("SpatialBN", "c s t m v", "Y", is_test=1)]
    c2.write(c2.net(ops, "X w b s t m v", "Y"))
    shapes = {"w": (64, 32, 3, 3), **{name: (64,) for name in "bstmv"}, "not_read": (1 << 15,)}
    graph = lift(c2.folder, input_shapes={"X": (1, 32, 8, 8)}, weights="random:1", param_shapes=shapes)
    drawn = weights_of(graph)
    assert sorted(drawn) == ["b", "m", "s", "t", "v", "w"]
    assert drawn["w"].std() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.02)
    assert (drawn["s"] == 1).all()
    assert (drawn["v"] == 1).all()
    assert 0 < np.abs(drawn["b"]).max() < 0.5
    with pytest.raises(FrontendError, match="random weights need the shape"):
        lift(c2.folder, input_shapes={"X": (1, 32, 8, 8)}, weights="random:1", param_shapes={"w": (64, 32, 3, 3)})


def test_random_weights_keep_whole_numbers(c2):
    net = c2.net([c2.op("Reshape", "X shape", "r old"), c2.op("FC", "r w", "Y")], "X shape w", "Y")
    params = {"shape": np.int64([3, 4]), "w": np.ones((2, 4), np.float32)}
    graph = c2.lift(net, {"X": np.ones((2, 6), np.float32)}, params, weights="random:2")
    assert graph.outputs[0][1].type.shape == (3, 2)


def test_random_fills_need_the_option(c2):
    net = c2.net([c2.op("FC", "X w", "Y")], "X w", "Y")
    c2.write(net)
    for fill in ("XavierFill", "MSRAFill", "UniformFill", "GaussianFill"):
        c2.write(c2.net([c2.op(fill, "", "w", shape=[3, 4], std=0.1)]), "init_net.pb")
        with pytest.raises(FrontendError, match="random"):
            lift(c2.folder, input_shapes={"X": (2, 4)})
        assert weights_of(lift(c2.folder, input_shapes={"X": (2, 4)}, weights="random"))["w"].shape == (3, 4)


@pytest.mark.parametrize("text", ["", "trained", "random:", "random:x", "random:-1", "RANDOM"])
def test_weights_option_mistakes(text):
    with pytest.raises(UsageError, match="weights"):
        WeightsSpec.parse(text)


def test_param_shapes_are_bounded(c2):
    c2.write(c2.net([c2.op("FC", "X w", "Y")], "X w", "Y"))
    for shape in ((1 << 16, 1 << 16), (0, 3), (-1,)):
        with pytest.raises(FrontendError):
            lift(c2.folder, input_shapes={"X": (2, 4)}, weights="random", param_shapes={"w": shape})


# -- unsupported operators --------------------------------------------------------------------------------------------


def test_all_unsupported_operators_are_listed_at_once(c2):
    ops = [
        c2.op("GenerateProposals", "X", "a"),
        c2.op("Relu", "a", "b"),
        c2.op("ConvTranspose", "X w", "c", kernels=[3, 3, 3]),
        c2.op("Convv", "c b", "d"),
        c2.op("Relu", "d", "Y"),
    ]
    net = c2.net(ops, "X w", "Y")
    with pytest.raises(UnsupportedError) as caught:
        c2.lift(net, {"X": np.ones((1, 2, 5, 5, 5), np.float32), "w": np.ones((2, 2, 3, 3, 3), np.float32)})
    text = str(caught.value)
    assert "3 operators" in text
    assert "op 0 'a' (GenerateProposals): operator GenerateProposals is not supported" in text
    assert "op 2 'c' (ConvTranspose): ConvTranspose over 3 spatial axes" in text
    assert "op 3 'd' (Convv): operator Convv is not supported (did you mean 'Conv'?)" in text
    # Even before any shape is known.
    with pytest.raises(UnsupportedError, match="2 operators"):
        c2.lift(net)


def test_an_init_net_of_other_operators(c2):
    c2.write(c2.net([c2.op("FC", "X w", "Y")], "X w", "Y"))
    c2.write(c2.net([c2.op("Load", "", "w"), c2.op("Load", "", "v")]), "init_net.pb")
    with pytest.raises(UnsupportedError, match="2 operators"):
        lift(c2.folder, input_shapes={"X": (2, 4)})


def test_init_nets_may_copy(c2):
    init = c2.init({"a": np.ones((3, 4), np.float32)})
    init.op.append(c2.op("Copy", "a", "w"))
    c2.write(c2.net([c2.op("FC", "X w", "Y")], "X w", "Y"))
    c2.write(init, "init_net.pb")
    assert lift(c2.folder, input_shapes={"X": (2, 4)}).constants[0].data.shape == (3, 4)
    init.op[1].input[0] = "b"
    c2.write(init, "init_net.pb")
    with pytest.raises(FrontendError, match="'b' is read"):
        lift(c2.folder, input_shapes={"X": (2, 4)})


def test_arity(c2):
    for op in (c2.op("Conv", "X", "Y", kernel=1), c2.op("Relu", "X X", "Y"), c2.op("MaxPool", "X", "Y i", kernel=1)):
        with pytest.raises(FrontendError, match=r"has [12] (inputs|outputs)"):
            c2.lift(c2.net([op], "X", "Y"), {"X": X})


def test_importing_is_repeatable(conv):
    texts = {str(lift(conv, input_shapes={"data": X.shape}, weights="random:3")) for _ in range(2)}
    assert len(texts) == 1
