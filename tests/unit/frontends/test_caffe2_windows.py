"""Windows, pads and layouts: points 1 to 7, 13 and 17 of the semantics found by running Caffe2."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.diagnostics import FrontendError, UnsupportedError
from sqzc.frontends.caffe2.windows import caffe_windows, same_pads


def pool_1d_windows(x, kernel, stride, head, count, reduce):
    """Pools a row by hand: window i covers i * stride - head and on, real pixels only."""
    out = []
    for i in range(count):
        start = i * stride - head
        out.append(reduce(x[max(start, 0) : start + kernel]))
    return out


@pytest.fixture
def image(rng):
    return rng.standard_normal((1, 2, 9, 8)).astype(np.float32)


def shape_of(c2, type_, x, **args):
    return c2.run_op(type_, {"X": x}, **args).shape


@pytest.mark.parametrize("type_", ["MaxPool", "AveragePool"])
def test_legacy_pad_decides_the_size(c2, image, type_):
    # 9x8 with kernel 3 and stride 2: floor 4x3, ceil 4x4 (SAME gives ceil(size / stride), 5x4).
    assert shape_of(c2, type_, image, kernel=3, stride=2) == (1, 2, 4, 3)
    assert shape_of(c2, type_, image, kernel=3, stride=2, legacy_pad=1) == (1, 2, 4, 3)
    assert shape_of(c2, type_, image, kernel=3, stride=2, legacy_pad=2) == (1, 2, 5, 4)
    assert shape_of(c2, type_, image, kernel=3, stride=2, legacy_pad=3) == (1, 2, 4, 4)


def test_ceil_windows_see_real_pixels_only(c2, image):
    row = image[:, :, :1]
    got = c2.run_op("AveragePool", {"X": row}, kernels=[1, 3], strides=[1, 2], legacy_pad=3)[0, 0, 0]
    np.testing.assert_allclose(got, pool_1d_windows(row[0, 0, 0], 3, 2, 0, 4, np.mean), rtol=1e-6)
    got = c2.run_op("MaxPool", {"X": row - 10}, kernels=[1, 3], strides=[1, 2], legacy_pad=3)[0, 0, 0]
    np.testing.assert_allclose(got, pool_1d_windows(row[0, 0, 0] - 10, 3, 2, 0, 4, np.max), rtol=1e-6)


def test_a_ceil_window_that_starts_in_the_padding_is_dropped(c2, image):
    # size 8, kernel 2, stride 3, pad 1: windows start at -1, 2, 5, 8 by rounding up; 8 is padding, so three are left.
    assert caffe_windows(8, 2, 3, 1) == 3
    assert shape_of(c2, "MaxPool", image[:, :, :8], kernel=2, stride=3, pad=1, legacy_pad=3) == (1, 2, 3, 3)


def test_a_window_wholly_outside_without_padding_is_unsupported(c2, image):
    with pytest.raises(UnsupportedError, match="wholly outside"):
        c2.run_op("MaxPool", {"X": image[:, :, :8]}, kernel=1, stride=5, legacy_pad=3)


def test_same_pads_put_the_odd_pixel_last(c2):
    assert same_pads(8, 3, 2) == (0, 1)
    assert same_pads(9, 4, 1) == (1, 2)
    assert same_pads(8, 1, 2) == (0, 0)
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8)
    got = c2.run_op("MaxPool", {"X": x}, kernels=[1, 3], strides=[1, 2], legacy_pad=2)
    assert got.ravel().tolist() == [2, 4, 6, 7]


@pytest.mark.parametrize("legacy", [0, 1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_conv_honours_every_legacy_pad(c2, rng, legacy, kernel, stride):
    x = rng.standard_normal((1, 2, 10, 11)).astype(np.float32)
    w = rng.standard_normal((3, 2, kernel, kernel)).astype(np.float32)
    if legacy == 2 and any(same_pads(size, kernel, stride)[0] < 0 for size in (10, 11)):
        with pytest.raises(UnsupportedError):
            c2.run_op("Conv", {"X": x}, {"W": w}, kernel=kernel, stride=stride, legacy_pad=legacy)
        return
    got = c2.run_op("Conv", {"X": x}, {"W": w}, kernel=kernel, stride=stride, legacy_pad=legacy)
    heads = [same_pads(size, kernel, stride)[0] if legacy == 2 else 0 for size in (10, 11)]
    counts = {
        0: [(size - kernel) // stride + 1 for size in (10, 11)],
        1: [(size - kernel) // stride + 1 for size in (10, 11)],
        2: [-(-size // stride) for size in (10, 11)],
        3: [caffe_windows(size, kernel, stride, 0) for size in (10, 11)],
    }[legacy]
    assert got.shape == (1, 3, *counts)
    wide = np.pad(x, ((0, 0), (0, 0), (heads[0], 9), (heads[1], 9)))
    for i in range(counts[0]):
        for j in range(counts[1]):
            patch = wide[0, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            np.testing.assert_allclose(got[0, :, i, j], np.einsum("chw,mchw->m", patch, w), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("type_", ["Conv", "MaxPool"])
@pytest.mark.parametrize("legacy", [1, 2])
@pytest.mark.parametrize(
    "pads", [{"pad": 0}, {"pads": [0, 0, 0, 0]}, dict.fromkeys(("pad_t", "pad_l", "pad_b", "pad_r"), 0)]
)
def test_valid_and_same_refuse_explicit_pads(c2, image, type_, legacy, pads):
    params = {"W": np.ones((1, 2, 3, 3), np.float32)} if type_ == "Conv" else {}
    with pytest.raises(FrontendError, match="explicit pads"):
        c2.run_op(type_, {"X": image}, params, kernel=3, legacy_pad=legacy, **pads)


def test_average_leaves_padding_out_or_divides_by_the_whole_kernel(c2):
    x = np.ones((1, 1, 4, 4), np.float32)
    assert c2.run_op("AveragePool", {"X": x}, kernel=3, pad=1)[0, 0, 0, 0] == 1
    assert c2.run_op("AveragePool", {"X": x}, kernel=3, pad=1, count_include_pad=1)[0, 0, 0, 0] == np.float32(4 / 9)
    # A ceil window past the padding: 1 real pixel, still divided by 9.
    got = c2.run_op("AveragePool", {"X": x}, kernel=3, stride=3, count_include_pad=1, legacy_pad=3)
    assert got.shape == (1, 1, 2, 2)
    np.testing.assert_allclose(got[0, 0], [[1, 3 / 9], [3 / 9, 1 / 9]], rtol=1e-6)


def test_four_pads_count_only_together(c2, image):
    three = {"pad_t": 1, "pad_l": 1, "pad_b": 1}
    assert shape_of(c2, "MaxPool", image, kernel=3, **three) == (1, 2, 7, 6)
    assert shape_of(c2, "MaxPool", image, kernel=3, **three, pad_r=1) == (1, 2, 9, 8)
    assert shape_of(c2, "MaxPool", image, kernel=3, pads=[2, 0, 1, 0]) == (1, 2, 10, 6)
    assert shape_of(c2, "MaxPool", image, kernel=3, pads=[0, 2, 0, 1]) == (1, 2, 7, 9)


def test_global_pooling(c2, image):
    for kernel in ({}, {"kernel": 0}, {"kernel": 5}):
        got = c2.run_op("AveragePool", {"X": image}, global_pooling=1, **kernel)
        np.testing.assert_allclose(got, image.mean((2, 3), keepdims=True), rtol=1e-5)
    assert c2.run_op("MaxPool", {"X": image}, global_pooling=1, legacy_pad=3).shape == (1, 2, 1, 1)
    for bad in ({"pad": 1}, {"stride": 2}, {"pads": [0, 0, 0, 1]}):
        with pytest.raises(FrontendError, match="global_pooling"):
            c2.run_op("MaxPool", {"X": image}, global_pooling=1, **bad)


@pytest.mark.parametrize(
    "bad",
    [{"dilation": 2}, {"pad": 3}, {"pads": [0, 0, 3, 0]}, {"kernel": 0}, {"stride": 0}, {"pad": -1}, {"legacy_pad": 4}],
)
def test_pools_refuse(c2, image, bad):
    with pytest.raises(FrontendError):
        c2.run_op("MaxPool", {"X": image}, **{"kernel": 3, **bad})


def test_kernel_wins_over_kernel_h_and_kernel_w(c2, image):
    assert shape_of(c2, "MaxPool", image, kernel=3, kernel_h=1, kernel_w=2) == (1, 2, 7, 6)
    assert shape_of(c2, "MaxPool", image, kernel_h=1, kernel_w=2) == (1, 2, 9, 7)
    with pytest.raises(FrontendError, match="kernel size is missing"):
        c2.run_op("MaxPool", {"X": image}, kernel_h=3)


def test_nhwc_pool_and_conv(c2, rng, image):
    nhwc = image.transpose(0, 2, 3, 1).copy()
    want = c2.run_op("MaxPool", {"X": image}, kernel=3, stride=2, pad=1)
    got = c2.run_op("MaxPool", {"X": nhwc}, kernel=3, stride=2, pad=1, order="NHWC")
    np.testing.assert_array_equal(got, want.transpose(0, 2, 3, 1))
    w, bias = rng.standard_normal((4, 2, 3, 2)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    spelled = {"kernels": [3, 2], "strides": [2, 1], "pads": [1, 0, 2, 1]}
    want = c2.run_op("Conv", {"X": image}, {"W": w, "b": bias}, **spelled)
    weight = w.transpose(0, 2, 3, 1).copy()  # [M, kh, kw, C]
    got = c2.run_op("Conv", {"X": nhwc}, {"W": weight, "b": bias}, order="NHWC", **spelled)
    np.testing.assert_allclose(got, want.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def test_nhwc_weights_that_are_fed_lift_too(c2, rng, image):
    nhwc = image.transpose(0, 2, 3, 1).copy()
    w = rng.standard_normal((4, 3, 2, 2)).astype(np.float32)
    fed = c2.run_op("Conv", {"X": nhwc, "W": w}, kernels=[3, 2], order="NHWC")
    np.testing.assert_allclose(fed, c2.run_op("Conv", {"X": nhwc}, {"W": w}, kernels=[3, 2], order="NHWC"), rtol=1e-6)


def test_conv_transpose_weights_and_size(c2, rng):
    x = rng.standard_normal((1, 4, 3, 3)).astype(np.float32)
    w = rng.standard_normal((4, 3, 2, 2)).astype(np.float32)  # [C_in, C_out / group, kh, kw]
    got = c2.run_op("ConvTranspose", {"X": x}, {"W": w}, kernel=2, stride=2, group=2)
    assert got.shape == (1, 6, 6, 6)
    for g in (0, 1):
        one = np.einsum("cij,cmuv->miujv", x[0, 2 * g : 2 * g + 2], w[2 * g : 2 * g + 2]).reshape(3, 6, 6)
        np.testing.assert_allclose(got[0, 3 * g : 3 * g + 3], one, rtol=1e-4, atol=1e-5)
    wide = c2.run_op("ConvTranspose", {"X": x}, {"W": w}, kernel=2, stride=2, adj=1, pads=[1, 0, 0, 0])
    assert wide.shape == (1, 3, 6, 7)
    nhwc = c2.run_op(
        "ConvTranspose",
        {"X": x.transpose(0, 2, 3, 1).copy()},
        {"W": w.transpose(0, 2, 3, 1).copy()},
        kernel=2,
        order="NHWC",
    )
    np.testing.assert_allclose(
        nhwc, c2.run_op("ConvTranspose", {"X": x}, {"W": w}, kernel=2).transpose(0, 2, 3, 1), rtol=1e-4
    )


@pytest.mark.parametrize("bad", [{"adj": 3}, {"dilation": 2}, {"legacy_pad": 3}, {"pad": -1}])
def test_conv_transpose_refuses(c2, rng, bad):
    with pytest.raises(FrontendError):
        c2.run_op(
            "ConvTranspose",
            {"X": np.ones((1, 2, 3, 3), np.float32)},
            {"W": np.ones((2, 2, 2, 2), np.float32)},
            **{"kernel": 2, "stride": 2, **bad},
        )


def test_one_dimensional_conv_and_pool(c2, rng):
    x = rng.standard_normal((2, 3, 10)).astype(np.float32)
    w = rng.standard_normal((4, 3, 3)).astype(np.float32)
    got = c2.run_op("Conv", {"X": x}, {"W": w}, kernels=[3], pads=[1, 0], strides=[2])
    wide = np.pad(x, ((0, 0), (0, 0), (1, 0)))
    for i in range(got.shape[2]):
        np.testing.assert_allclose(
            got[:, :, i], np.einsum("ncl,mcl->nm", wide[:, :, 2 * i : 2 * i + 3], w), rtol=1e-4, atol=1e-5
        )
    assert c2.run_op("Conv1D", {"X": x}, {"W": w}, kernels=[3]).shape == (2, 4, 8)
    assert c2.run_op("MaxPool1D", {"X": x}, kernels=[2], strides=[2]).shape == (2, 3, 5)
    assert c2.run_op("AveragePool", {"X": x}, global_pooling=1).shape == (2, 3, 1)
    last = c2.run_op(
        "Conv", {"X": x.transpose(0, 2, 1).copy()}, {"W": w.transpose(0, 2, 1).copy()}, kernels=[3], order="NHWC"
    )
    np.testing.assert_allclose(
        last, c2.run_op("Conv", {"X": x}, {"W": w}, kernels=[3]).transpose(0, 2, 1), rtol=1e-4, atol=1e-5
    )


def volume_taps(x, kernel, stride, dilation, pads, counts, fill):
    """[N, C, D', H', W', taps]: what each window sees, by hand."""
    ends = [(0, 0), (0, 0)]
    for axis in range(3):
        reach = (counts[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        ends.append((pads[axis], max(reach - x.shape[2 + axis] - pads[axis], 0)))
    wide = np.pad(x, ends, constant_values=fill)
    taps = []
    for place in np.ndindex(*kernel):
        starts = [place[axis] * dilation[axis] for axis in range(3)]
        cut = tuple(slice(s, s + (c - 1) * t + 1, t) for s, c, t in zip(starts, counts, stride, strict=True))
        taps.append(wide[(slice(None), slice(None), *cut)])
    return np.stack(taps, axis=-1)


@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pads", "group"),
    [
        ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1, 1, 1, 1), 1),
        ((2, 3, 1), (2, 1, 2), (1, 2, 1), (1, 0, 0, 0, 1, 0), 2),
        ((1, 2, 2), (1, 2, 2), (1, 1, 1), (0, 0, 0, 0, 0, 0), 4),
        ((5, 1, 3), (3, 1, 1), (1, 1, 2), (2, 0, 1, 2, 0, 3), 1),
    ],
)
def test_three_dimensional_conv(c2, rng, kernel, stride, dilation, pads, group, order):
    x = rng.standard_normal((2, 4, 5, 7, 6)).astype(np.float32)
    w = rng.standard_normal((8, 4 // group, *kernel)).astype(np.float32)
    bias = rng.standard_normal(8).astype(np.float32)
    counts = [
        (x.shape[2 + i] + pads[i] + pads[3 + i] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in range(3)
    ]
    taps = volume_taps(x, kernel, stride, dilation, pads, counts, 0).reshape(2, group, 4 // group, *counts, -1)
    want = np.einsum("ngcdhwk,gmck->ngmdhw", taps, w.reshape(group, 8 // group, 4 // group, -1)).reshape(2, 8, *counts)
    want += bias.reshape(8, 1, 1, 1)
    args = {"kernels": kernel, "strides": stride, "dilations": dilation, "pads": pads, "group": group}
    if order == "NHWC":
        x, w, want = (array.transpose(0, 2, 3, 4, 1).copy() for array in (x, w, want))
    for type_ in ("Conv", "Conv3D"):
        got = c2.run_op(type_, {"X": x}, {"W": w, "b": bias}, order=order, **args)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("type_", ["MaxPool", "MaxPool3D", "AveragePool", "AveragePool3D"])
@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "args"),
    [
        ((2, 2, 2), (2, 2, 2), (0, 0, 0), {}),
        ((3, 2, 3), (2, 1, 3), (1, 1, 0), {}),
        ((3, 3, 2), (2, 2, 2), (1, 0, 1), {"legacy_pad": 3}),
        ((2, 2, 3), (1, 2, 2), (1, 0, 1), {"count_include_pad": 1}),
    ],
)
def test_three_dimensional_pools(c2, rng, type_, kernel, stride, pads, args):
    if type_.startswith("Max"):
        args = {name: value for name, value in args.items() if name != "count_include_pad"}
    x = rng.standard_normal((2, 3, 5, 7, 6)).astype(np.float32)
    legacy = "legacy_pad" in args
    counts = [
        caffe_windows(size, k, s, p) if legacy else (size + 2 * p - k) // s + 1
        for size, k, s, p in zip(x.shape[2:], kernel, stride, pads, strict=True)
    ]
    taps = volume_taps(x, kernel, stride, (1, 1, 1), pads, counts, np.nan)
    if type_.startswith("Max"):
        want = np.nanmax(taps, -1)
    else:
        want = np.nansum(taps, -1) / taps.shape[-1] if args.get("count_include_pad") else np.nanmean(taps, -1)
    got = c2.run_op(type_, {"X": x}, kernels=kernel, strides=stride, pads=(*pads, *pads), **args)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    last = c2.run_op(
        type_, {"X": x.transpose(0, 2, 3, 4, 1).copy()}, kernels=kernel, strides=stride, pads=(*pads, *pads),
        order="NHWC", **args,
    )  # fmt: skip
    np.testing.assert_allclose(last, want.transpose(0, 2, 3, 4, 1), rtol=1e-5, atol=1e-5)


def test_three_dimensional_global_pools(c2, rng):
    x = rng.standard_normal((2, 3, 4, 5, 6)).astype(np.float32)
    got = c2.run_op("AveragePool", {"X": x}, global_pooling=1)
    np.testing.assert_allclose(got, x.mean((2, 3, 4), keepdims=True), rtol=1e-4, atol=1e-6)
    got = c2.run_op("MaxPool3D", {"X": x}, global_pooling=1)
    np.testing.assert_array_equal(got, x.max((2, 3, 4), keepdims=True))


@pytest.mark.parametrize(
    ("x", "w", "args", "words"),
    [
        ((1, 2, 2, 4, 4), (2, 2, 3, 3, 3), {}, "deeper"),
        ((1, 4, 4, 4, 4), (2, 2, 3, 3, 3), {}, "input's channels"),
        ((1, 4, 4, 4, 4), (3, 2, 3, 3, 3), {"group": 2}, "input's channels"),
        ((1, 2, 4, 2, 4), (2, 2, 3, 3, 3), {}, "window is larger"),
        ((1, 2, 4, 4), (2, 2, 3, 3, 3), {}, "window of 3 axes"),
    ],
)
def test_three_dimensional_convolutions_that_do_not_fit(c2, x, w, args, words):
    with pytest.raises(FrontendError, match=words):
        c2.run_op("Conv", {"X": np.ones(x, np.float32)}, {"W": np.ones(w, np.float32)}, kernels=w[2:], **args)


def test_transposed_convolutions_of_volumes_are_unsupported(c2):
    x, w = np.ones((1, 2, 4, 4, 4), np.float32), np.ones((2, 2, 3, 3, 3), np.float32)
    with pytest.raises(UnsupportedError, match="3 spatial axes"):
        c2.run_op("ConvTranspose", {"X": x}, {"W": w}, kernels=[3, 3, 3])


def test_caffes_rounding_with_a_dilation_is_unsupported(c2, image):
    # Caffe2 counts the windows of such a convolution as if it had none.
    w = np.ones((2, 2, 2, 2), np.float32)
    with pytest.raises(UnsupportedError, match="legacy_pad 3 with a dilation"):
        c2.run_op("Conv", {"X": image}, {"W": w}, kernel=2, dilation=2, legacy_pad=3)


@pytest.mark.parametrize(
    ("shapes", "args", "words"),
    [
        (((1, 3, 8, 8), (4, 3, 3, 3), (4,)), {"kernel": 2}, "does not fit the kernel"),
        (((1, 3, 8, 8), (4, 3, 3, 3), (5,)), {"kernel": 3}, "bias does not fit"),
        (((1, 3, 8, 8), (4, 2, 3, 3), (4,)), {"kernel": 3}, "channels"),
        (((1, 3, 2, 8), (4, 3, 3, 3), (4,)), {"kernel": 3}, "window is larger"),
        (((1, 3, 8), (4, 3, 3, 3), (4,)), {"kernel": 3}, "window of 2 axes"),
        (((1, 3, 8, 8), (4, 3, 3, 3), (4,)), {"kernel": 3, "strides": [1]}, "strides"),
        (((1, 3, 8, 8), (4, 3, 3, 3), (4,)), {"kernel": 3, "order": "CHWN"}, "order"),
        (((1, 3, 8, 8), (4, 3, 3, 3), (4,)), {"kernel": 3, "group": 0}, "group"),
        (((1, 3, 8, 8), (4, 3, 3, 3), (4,)), {"kernel": 1 << 40}, "at most"),
    ],
)
def test_convolutions_that_do_not_fit(c2, shapes, args, words):
    x, w, b = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(FrontendError) as caught:
        c2.run_op("Conv", {"X": x}, {"W": w, "b": b}, **args)
    assert words in str(caught.value)
    assert "op 0 'Y' (Conv)" in str(caught.value)
