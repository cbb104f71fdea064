"""What is easy to get wrong: points 8 to 26 of the semantics found by running Caffe2, each against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.diagnostics import FrontendError


def f32(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def close(got, want, tolerance=1e-5):
    assert got.shape == np.shape(want)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


# -- 8: Softmax -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "axes"), [({}, (1, 2)), ({"axis": 2}, (2,)), ({"axis": -2}, (1, 2)), ({"axis": 0}, (0, 1, 2))]
)
def test_softmax_normalises_over_all_axes_from_axis_on(c2, rng, args, axes):
    x = f32(rng, 2, 3, 4)
    e = np.exp(x - x.max(axes, keepdims=True))
    close(c2.run_op("Softmax", {"X": x}, **args), e / e.sum(axes, keepdims=True))


# -- 9, 10: broadcasting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "args", "view"),
    [
        ((3,), {"axis": 1}, (1, 3, 1, 1)),
        ((3, 4), {"axis": 1}, (1, 3, 4, 1)),
        ((4, 5), {}, (1, 1, 4, 5)),
        ((5,), {"axis": -1}, (1, 1, 1, 5)),
        ((2,), {"axis": 0}, (2, 1, 1, 1)),
        ((1,), {}, (1, 1, 1, 1)),
        ((1, 3, 1), {"axis": 0}, (1, 3, 1, 1)),
        ((3,), {"axis_str": "C"}, (1, 3, 1, 1)),
        ((5,), {"axis_str": "C", "order": "NHWC"}, (1, 1, 1, 5)),
    ],
)
@pytest.mark.parametrize(
    ("type_", "ufunc"), [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide)]
)
def test_broadcast_lines_the_second_blob_up(c2, rng, shape, args, view, type_, ufunc):
    a, b = f32(rng, 2, 3, 4, 5), f32(rng, *shape) + 3
    want = ufunc(a, b.reshape(view))
    close(c2.run_op(type_, {"A": a}, {"B": b}, broadcast=1, **args), want)
    close(c2.run_op(type_, {"A": a, "B": b}, broadcast=1, **args), want)


@pytest.mark.parametrize(
    ("shape", "args"), [((2, 3, 4, 5, 1), {}), ((3,), {}), ((3,), {"axis": 4}), ((3, 1, 5), {"axis": 1})]
)
def test_broadcast_refuses_what_does_not_line_up(c2, rng, shape, args):
    with pytest.raises(FrontendError):
        c2.run_op("Add", {"A": f32(rng, 2, 3, 4, 5), "B": f32(rng, *shape)}, broadcast=1, **args)


def test_without_broadcast_numpys_rule_holds_and_axis_means_nothing(c2, rng):
    a, b = f32(rng, 2, 3, 4), f32(rng, 3, 1)
    close(c2.run_op("Add", {"A": a, "B": b}), a + b)
    close(c2.run_op("Add", {"A": a, "B": b}, axis=0), a + b)
    close(c2.run_op("Sub", {"A": b, "B": a}), b - a)


@pytest.mark.parametrize("type_", ["Sum", "Max", "Min", "Mean"])
def test_variadic_operators_never_broadcast(c2, rng, type_):
    with pytest.raises(FrontendError, match="different shapes"):
        c2.run_op(type_, {"A": f32(rng, 2, 3), "B": f32(rng, 3)})


# -- 11, 12: side outputs ---------------------------------------------------------------------------------------------


def test_dropout_neither_scales_nor_writes_its_mask(c2, rng):
    x = f32(rng, 3, 4)
    net = c2.net([c2.op("Dropout", "X", "Y mask", ratio=0.4, is_test=1)], "X", "Y")
    np.testing.assert_array_equal(c2.run(net, {"X": x})["Y"], x)
    net.external_output.append("mask")
    with pytest.raises(FrontendError, match="does not write its mask"):
        c2.run(net, {"X": x})
    with pytest.raises(FrontendError, match="training form"):
        c2.run_op("Dropout", {"X": x}, ratio=0.4)


def test_concats_second_output_is_the_sizes(c2, rng):
    blobs = {"a": f32(rng, 2, 1, 3), "b": f32(rng, 2, 4, 3)}
    y, sizes = c2.run_op("Concat", blobs, outputs="Y sizes")
    close(y, np.concatenate([*blobs.values()], 1))
    assert (sizes.dtype, sizes.tolist()) == (np.int32, [1, 4])
    blobs = {"a": f32(rng, 2, 3), "b": f32(rng, 2, 3)}
    y, sizes = c2.run_op("Concat", blobs, outputs="Y sizes", axis=1, add_axis=1)
    close(y, np.stack([*blobs.values()], 1))
    assert sizes.tolist() == [1, 1]


def test_reshapes_second_output_is_the_old_shape(c2, rng):
    y, old = c2.run_op("Reshape", {"X": f32(rng, 3, 4, 2)}, outputs="Y old", shape=[0, -1])
    assert (y.shape, old.dtype, old.tolist()) == ((3, 8), np.int64, [3, 4, 2])


def test_a_side_output_can_be_read_by_the_next_operator(c2, rng):
    x = f32(rng, 3, 4)
    ops = [
        c2.op("Reshape", "X", "flat old", shape=[-1]),
        c2.op("Relu", "flat", "flat"),
        c2.op("Reshape", "flat old", "Y y"),
    ]
    np.testing.assert_array_equal(c2.run(c2.net(ops, "X", "Y"), {"X": x})["Y"], np.maximum(x, 0))


# -- 13: Concat and Split ---------------------------------------------------------------------------------------------


def test_concat_and_split_default_to_the_channel_axis(c2, rng):
    a, b = f32(rng, 1, 2, 3, 4), f32(rng, 1, 2, 3, 4)
    assert c2.run_op("Concat", {"a": a, "b": b}).shape == (1, 4, 3, 4)
    assert c2.run_op("Concat", {"a": a, "b": b}, order="NHWC").shape == (1, 2, 3, 8)
    first, second = c2.run_op("Split", {"X": a}, outputs="a b")
    np.testing.assert_array_equal(np.concatenate([first, second], 1), a)
    assert c2.run_op("Split", {"X": a}, outputs="a b", order="NHWC")[0].shape == (1, 2, 3, 2)
    parts = c2.run_op("Split", {"X": a}, {"n": np.int32([1, 3])}, outputs="a b", axis=-1)
    assert [part.shape[3] for part in parts] == [1, 3]
    with pytest.raises(FrontendError, match="equal parts"):
        c2.run_op("Split", {"X": a}, outputs="a b", axis=2)
    with pytest.raises(FrontendError, match="sum of 3"):
        c2.run_op("Split", {"X": a}, outputs="a b", axis=2, split=[1, 1])


# -- 16: FC -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "args", "y_shape"),
    [
        ((2, 3, 4), (5, 12), {}, (2, 5)),
        ((2, 3, 4), (5, 4), {"axis": 2}, (2, 3, 5)),
        ((2, 3, 4), (5, 4), {"axis": -1}, (2, 3, 5)),
        ((2, 3, 2, 2), (5, 3, 2, 2), {}, (2, 5)),
        ((2, 6, 1, 1), (1, 1, 4, 6), {"axis_w": 3}, (2, 4)),
    ],
)
def test_fc_flattens_both_operands(c2, rng, x_shape, w_shape, args, y_shape):
    x, w, b = f32(rng, *x_shape), f32(rng, *w_shape), f32(rng, y_shape[-1])
    want = (x.reshape(-1, w.size // b.size) @ w.reshape(b.size, -1).T + b).reshape(y_shape)
    close(c2.run_op("FC", {"X": x}, {"W": w, "b": b}, **args), want, 1e-4)
    close(c2.run_op("FC", {"X": x, "W": w, "b": b}, **args), want, 1e-4)


def test_fc_says_what_does_not_fit(c2, rng):
    with pytest.raises(FrontendError, match="does not fit the input"):
        c2.run_op("FC", {"X": f32(rng, 2, 3)}, {"W": f32(rng, 5, 4), "b": f32(rng, 5)})
    with pytest.raises(FrontendError, match="bias does not fit"):
        c2.run_op("FC", {"X": f32(rng, 2, 3)}, {"W": f32(rng, 5, 3), "b": f32(rng, 4)})


# -- 18, 19: normalisations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 9])
@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
def test_lrn_divides_alpha_by_the_full_size(c2, rng, size, order):
    x = f32(rng, 1, 4, 2, 3)
    fed = x if order == "NCHW" else x.transpose(0, 2, 3, 1).copy()
    got = c2.run_op("LRN", {"X": fed}, size=size, alpha=0.5, beta=0.75, bias=2.0, order=order)
    half = size // 2
    sums = np.stack([(x[:, max(0, c - half) : c + half + 1] ** 2).sum(1) for c in range(4)], 1)
    want = x / (2.0 + 0.5 / size * sums) ** 0.75
    close(got, want if order == "NCHW" else want.transpose(0, 2, 3, 1))


def test_lrns_scale_output_may_be_named_but_not_read(c2, rng):
    net = c2.net([c2.op("LRN", "X", "Y scale", size=3, alpha=0.1, beta=0.5)], "X", "Y")
    c2.run(net, {"X": f32(rng, 1, 4, 2, 2)})
    net.external_output.append("scale")
    with pytest.raises(FrontendError, match="gradient"):
        c2.run(net, {"X": f32(rng, 1, 4, 2, 2)})


def test_layer_norm_has_three_outputs(c2, rng):
    x = f32(rng, 2, 3, 4)
    y, mean, deviation = c2.run_op("LayerNorm", {"X": x}, outputs="Y m d", epsilon=0.1)
    want_mean = x.mean((1, 2), keepdims=True)
    want_deviation = np.sqrt(x.var((1, 2), keepdims=True) + 0.1)
    close(y, (x - want_mean) / want_deviation)
    close(mean, want_mean.reshape(2, 1))
    close(deviation, want_deviation.reshape(2, 1))
    w, b = f32(rng, 4), f32(rng, 4)
    got = c2.run_op("LayerNorm", {"X": x}, {"w": w, "b": b}, outputs="Y m d", axis=2, elementwise_affine=1)[0]
    close(got, (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5) * w + b, 1e-4)


# -- 20, 21, 22: searches, fills, slices ------------------------------------------------------------------------------


def test_topk_and_argmax_give_int64(c2):
    x = np.float32([[3, 1, 3, 2], [0, 5, 5, 5]])
    values, indices = c2.run_op("TopK", {"X": x}, outputs="v i", k=3)
    assert values.tolist() == [[3, 3, 2], [5, 5, 5]]
    assert (indices.dtype, indices.tolist()) == (np.int64, [[0, 2, 3], [1, 2, 3]])
    values, indices = c2.run_op("TopK", {"X": x}, outputs="v i", k=1, axis=0)
    assert (values.tolist(), indices.tolist()) == ([[3, 5, 5, 5]], [[0, 1, 1, 1]])
    got = c2.run_op("ArgMax", {"X": x})
    assert (got.dtype, got.tolist()) == (np.int64, [[0], [1]])
    assert c2.run_op("ArgMax", {"X": x}, axis=0, keepdims=0).tolist() == [0, 1, 1, 1]
    assert c2.run_op("ArgMin", {"X": x}, keepdims=0).tolist() == [1, 0]


def test_reductions_take_all_axes_by_default_and_keep_them(c2, rng):
    x = f32(rng, 2, 3, 4)
    close(c2.run_op("ReduceSum", {"X": x}), x.sum(keepdims=True))
    close(c2.run_op("ReduceMean", {"X": x}, axes=[2, 0], keepdims=0), x.mean((0, 2)))
    close(c2.run_op("ReduceMax", {"X": x}, axes=[-1]), x.max(2, keepdims=True))
    close(c2.run_op("ReduceL2", {"X": x}, axes=[1]), np.sqrt((x * x).sum(1, keepdims=True)))


def test_constant_fill_follows_its_value(c2):
    for args, dtype in (
        ({"value": 3}, np.int64),
        ({"value": 3.0}, np.float32),
        ({}, np.float32),
        ({"value": 1, "dtype": 2}, np.int32),
        ({"value": 2.5, "dtype": 13}, np.float64),
        ({"value": 1, "dtype": 5}, np.bool_),
    ):
        got = c2.run(c2.net([c2.op("ConstantFill", "", "Y", shape=[2, 3], **args)], "", "Y"))["Y"]
        assert got.dtype == dtype
        assert (got == args.get("value", 0)).all()
        assert got.shape == (2, 3)


def test_fills_take_their_shape_from_an_input(c2, rng):
    x = f32(rng, 2, 3)
    assert c2.run_op("ConstantFill", {"X": x}, value=1.5).tolist() == [[1.5] * 3] * 2
    assert c2.run_op("ConstantFill", {"X": x}, value=1.5, extra_shape=[2]).shape == (2, 3, 2)
    got = c2.run_op("ConstantFill", {}, {"s": np.int64([4, 1])}, value=2, input_as_shape=1)
    assert (got.shape, got.dtype) == ((4, 1), np.int64)
    with pytest.raises(FrontendError, match="compile time"):
        c2.run_op("ConstantFill", {"s": np.int64([4, 1])}, value=2, input_as_shape=1)


@pytest.mark.parametrize(
    ("starts", "ends", "where"),
    [
        ([0, 1, 0], [-1, 3, -1], np.s_[:, 1:3]),
        ([0, 0, 0], [-1, -1, -2], np.s_[:, :, :-1]),
        ([0, -3, 0], [-1, -1, -1], np.s_[:, -2:]),
        ([1], [99], np.s_[1:]),
        ([0, 0, 0], [-1, -1, -1], np.s_[:]),
    ],
)
def test_slice(c2, rng, starts, ends, where):
    x = f32(rng, 2, 5, 4)
    close(c2.run_op("Slice", {"X": x}, starts=starts, ends=ends), x[where])
    close(c2.run_op("Slice", {"X": x}, {"s": np.int32(starts), "e": np.int32(ends)}), x[where])


def test_slice_cuts_one_axis_only(c2, rng):
    with pytest.raises(FrontendError, match="one axis only"):
        c2.run_op("Slice", {"X": f32(rng, 4, 4)}, starts=[1, 1], ends=[-1, -1])
    with pytest.raises(FrontendError, match="Slice from"):
        c2.run_op("Slice", {"X": f32(rng, 4, 4)}, starts=[3, 0], ends=[2, -1])


# -- 23, 24: resizes, transposes, casts -------------------------------------------------------------------------------


def test_upsample_bilinear_aligns_corners(c2, rng):
    x = f32(rng, 1, 1, 3, 3)
    got = c2.run_op("UpsampleBilinear", {"X": x}, height_scale=2.0, width_scale=2.0)
    assert got.shape == (1, 1, 6, 6)
    np.testing.assert_allclose(got[0, 0, ::5, ::5], x[0, 0, ::2, ::2], rtol=1e-6)
    np.testing.assert_allclose(got[0, 0, 0, 1], x[0, 0, 0, 0] * 0.6 + x[0, 0, 0, 1] * 0.4, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.5, 2.5, 1.1, 0.7, 1 / 3, 3.3])
def test_resize_nearest_reads_the_floor_in_single_precision(c2, rng, scale):
    x = f32(rng, 1, 2, 9, 12)
    single = np.float32(scale)
    picks = []
    for size in (9, 12):
        out = int(np.float32(size) * single)
        picks.append(np.minimum((np.arange(out, dtype=np.float32) / single).astype(int), size - 1))
    want = x[:, :, picks[0]][:, :, :, picks[1]]
    args = {"height_scale": float(single), "width_scale": float(single)}
    close(c2.run_op("ResizeNearest", {"X": x}, **args), want, 0)
    close(c2.run_op("ResizeNearest", {"X": x}, {"s": np.float32([single, single])}), want, 0)
    nhwc = c2.run_op("ResizeNearest", {"X": x.transpose(0, 2, 3, 1).copy()}, order="NHWC", **args)
    close(nhwc, want.transpose(0, 2, 3, 1), 0)


def test_resize_scale_input_is_height_then_width(c2, rng):
    x = f32(rng, 1, 1, 2, 3)
    assert c2.run_op("ResizeNearest", {"X": x}, {"s": np.float32([3, 2])}).shape == (1, 1, 6, 6)


def test_transpose_reverses_by_default(c2, rng):
    x = f32(rng, 2, 3, 4)
    np.testing.assert_array_equal(c2.run_op("Transpose", {"X": x}), x.T)
    np.testing.assert_array_equal(c2.run_op("Transpose", {"X": x}, axes=[1, 2, 0]), x.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("to", "dtype"), [(2, np.int32), ("INT64", np.int64), ("int32", np.int32), (1, np.float32), (5, np.bool_)]
)
def test_cast_truncates_toward_zero(c2, to, dtype):
    x = np.float32([-2.7, -0.5, 0.0, 0.5, 2.7])
    got = c2.run_op("Cast", {"X": x}, to=to)
    np.testing.assert_array_equal(got, x.astype(dtype))
    assert got.dtype == dtype


def test_cast_to_nothing_known(c2):
    for args in ({"to": 99}, {"to": "WHAT"}, {}):
        with pytest.raises(FrontendError, match="no data type"):
            c2.run_op("Cast", {"X": np.ones(2, np.float32)}, **args)


def test_flatten_refuses_negative_axes(c2, rng):
    x = f32(rng, 2, 3, 4)
    assert c2.run_op("Flatten", {"X": x}, axis=0).shape == (1, 24)
    assert c2.run_op("Flatten", {"X": x}, axis=3).shape == (24, 1)
    with pytest.raises(FrontendError, match="axis -1"):
        c2.run_op("Flatten", {"X": x}, axis=-1)


# -- 26: arguments ----------------------------------------------------------------------------------------------------


def test_arguments_without_effect_are_let_through(c2, rng):
    x = f32(rng, 2, 3)
    args = {"exhaustive_search": 1, "shared_buffer": 1, "ws_nbytes_limit": 1 << 26, "cudnn_state": 3, "order": "NCHW"}
    net = c2.net([c2.op("Relu", "X", "Y", **args)], "X", "Y")
    net.op[0].engine = "NNPACK"
    net.type = "dag"
    np.testing.assert_array_equal(c2.run(net, {"X": x})["Y"], np.maximum(x, 0))


def test_an_argument_that_nobody_reads_is_an_error(c2, rng):
    with pytest.raises(FrontendError) as caught:
        c2.run_op("Relu", {"X": f32(rng, 2)}, alpha=0.5)
    assert "op 0 'Y' (Relu), argument 'alpha'" in str(caught.value)
    with pytest.raises(FrontendError, match="strid"):
        c2.run_op("MaxPool", {"X": f32(rng, 1, 1, 4, 4)}, kernel=2, strid=2)


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_splits_add_axis_undoes_that_of_concat(c2, rng, axis):
    shape = [2, 4, 5]
    shape[axis] = 3
    x = rng.standard_normal(shape).astype(np.float32)
    got = c2.run_op("Split", {"X": x}, outputs="a b c", axis=axis, add_axis=1)
    for number, part in enumerate(got):
        np.testing.assert_array_equal(part, np.take(x, number, axis))
    with pytest.raises(FrontendError, match="one element each"):
        c2.run_op("Split", {"X": np.ones((4, 2), np.float32)}, outputs="a b", axis=0, add_axis=1)


def test_dims_named_twice_count_once(c2, rng):
    x = rng.standard_normal((1, 3)).astype(np.float32)
    assert c2.run_op("Squeeze", {"X": x}, dims=[0, 0]).shape == (3,)
    assert c2.run_op("ExpandDims", {"X": x}, dims=[2, 0, 2]).shape == (1, 1, 1, 3)
