"""Reference kernels of convolutions, pools, normalisations and matrix products."""

from __future__ import annotations

import numpy as np

from sqzc.backends.reference.registry import apply, kernel
from sqzc.ir.constant import Array
from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.nn import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    InstanceNorm,
    Linear,
    Lrn,
    MatMul,
    MaxPool2d,
    Pool2d,
    Softmax,
)
from sqzc.ir.types import f32


def windows(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], out: tuple[int, int]
) -> Array:
    """A view [n, c, kh, kw, oh, ow] whose element is x[n, c, oh*sh + kh*dh, ow*sw + kw*dw]; copies nothing."""
    (sh, sw), (dh, dw) = stride, dilation
    needed = ((out[0] - 1) * sh + (kernel[0] - 1) * dh + 1, (out[1] - 1) * sw + (kernel[1] - 1) * dw + 1)
    # The stride trick reads whatever lies there, so a window that leaves x must never get this far.
    assert max(needed[0] - x.shape[2], needed[1] - x.shape[3]) <= 0, f"windows need {needed} of {x.shape}"
    n, c, h, w = x.strides
    return np.lib.stride_tricks.as_strided(
        x, (*x.shape[:2], *kernel, *out), (n, c, h * dh, w * dw, h * sh, w * sw), writeable=False
    )


def per_channel(vector: Array, rank: int) -> Array:
    """A vector as an array of `rank` axes that broadcasts along axis 1."""
    return vector.reshape(1, -1, *(1,) * (rank - 2))


def activate(act: Activation, y: Array) -> Array:
    """`y` through a fused activation."""
    return apply(act.as_op(), y)[0] if act else y


@kernel("conv2d")
def conv2d(op: Conv2d, x: Array, w: Array, bias: Array | None = None, residual: Array | None = None) -> Array:
    """Unfolds the windows into columns; then each group is one matrix product."""
    n, c = x.shape[:2]
    m, _, kh, kw = w.shape
    top, left, bottom, right = op.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    out_h = (padded.shape[2] - (kh - 1) * op.dilation[0] - 1) // op.stride[0] + 1
    out_w = (padded.shape[3] - (kw - 1) * op.dilation[1] - 1) // op.stride[1] + 1
    taps = windows(padded, (kh, kw), op.stride, op.dilation, (out_h, out_w))
    columns = taps.reshape(n, op.group, c // op.group * kh * kw, out_h * out_w)
    rows = w.reshape(op.group, m // op.group, c // op.group * kh * kw)
    y = np.matmul(rows, columns).reshape(n, m, out_h, out_w)
    if bias is not None:
        y = y + per_channel(bias, 4)
    if residual is not None:
        y = y + residual
    return activate(op.act, y)


@kernel("conv_transpose2d")
def conv_transpose2d(op: ConvTranspose2d, x: Array, w: Array, bias: Array | None = None) -> Array:
    """Adds each tap of the kernel, scaled by the whole input, where it falls; then cuts the padding off."""
    n, c, h, width = x.shape
    _, per_group, kh, kw = w.shape
    group, m = op.group, per_group * op.group
    (sh, sw), (dh, dw), (top, left, bottom, right) = op.stride, op.dilation, op.pads
    full_h = (h - 1) * sh + (kh - 1) * dh + 1 + op.output_pads[0]
    full_w = (width - 1) * sw + (kw - 1) * dw + 1 + op.output_pads[1]
    pixels = x.reshape(n, group, c // group, h * width)
    y = np.zeros((n, m, full_h, full_w), x.dtype)
    for u in range(kh):
        for v in range(kw):
            tap = w[:, :, u, v].reshape(group, c // group, per_group).swapaxes(1, 2)
            share = np.matmul(tap, pixels).reshape(n, m, h, width)
            y[:, :, u * dh : u * dh + (h - 1) * sh + 1 : sh, v * dw : v * dw + (width - 1) * sw + 1 : sw] += share
    y = y[:, :, top : full_h - bottom, left : full_w - right]
    if bias is not None:
        y = y + per_channel(bias, 4)
    return activate(op.act, y)


def pool_taps(op: Pool2d, x: Array, fill: float | int, overhang_fill: float | int) -> Array:
    """Windows over x with `fill` in the padding and `overhang_fill` past it, where a ceil window may reach."""
    out_h, out_w = op.infer(f32(*x.shape)).shape[2:]
    top, left, bottom, right = op.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    past = [
        max(0, (count - 1) * stride + (k - 1) * dilation + 1 - size)
        for count, stride, k, dilation, size in zip(
            (out_h, out_w), op.stride, op.kernel, op.dilation, padded.shape[2:], strict=True
        )
    ]
    padded = np.pad(padded, ((0, 0), (0, 0), (0, past[0]), (0, past[1])), constant_values=overhang_fill)
    return windows(padded, op.kernel, op.stride, op.dilation, (out_h, out_w))


@kernel("max_pool2d")
def max_pool2d(op: MaxPool2d, x: Array) -> Array:
    """The maximum over the two window axes; np.max lets NaN win."""
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    return np.asarray(pool_taps(op, x, lowest, lowest).max(axis=(2, 3)))


@kernel("avg_pool2d")
def avg_pool2d(op: AvgPool2d, x: Array) -> Array:
    """Sum over the window divided by the number of taps that count."""
    total = pool_taps(op, x, 0, 0).sum(axis=(2, 3))
    in_padding = int(op.count_include_pad)
    past_padding = int(op.count_include_pad and op.count_overhang)
    count = pool_taps(op, np.ones((1, 1, *x.shape[2:]), x.dtype), in_padding, past_padding).sum(axis=(2, 3))
    return np.asarray(total / count)


@kernel("batch_norm")
def batch_norm(op: BatchNorm, x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> Array:
    """The formula, with every vector spread over its channel."""
    scale, bias, mean, var = (per_channel(v, x.ndim) for v in (scale, bias, mean, var))
    return np.asarray(scale * (x - mean) / np.sqrt(var + op.eps) + bias)


@kernel("instance_norm")
def instance_norm(op: InstanceNorm, x: Array, scale: Array, bias: Array) -> Array:
    """Like batch_norm, with mean and variance of the image's own channel."""
    axes = tuple(range(2, x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    var = np.square(x - mean).mean(axis=axes, keepdims=True)
    scale, bias = per_channel(scale, x.ndim), per_channel(bias, x.ndim)
    return np.asarray(scale * (x - mean) / np.sqrt(var + op.eps) + bias)


@kernel("lrn")
def lrn(op: Lrn, x: Array) -> Array:
    """Sums the squares of `size` shifted copies along the channels."""
    before, after = (op.size - 1) // 2, op.size // 2
    squares = np.pad(x * x, ((0, 0), (before, after), (0, 0), (0, 0)))
    total = np.zeros_like(x)
    for shift in range(op.size):
        total += squares[:, shift : shift + x.shape[1]]
    return np.asarray(x / (op.bias + op.alpha / op.size * total) ** op.beta)


@kernel("softmax")
def softmax(op: Softmax, x: Array) -> Array:
    """Exponentials over their sum; with the maximum taken off none of them overflows."""
    powers = np.exp(x - x.max(axis=op.axes, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=op.axes, keepdims=True))


@kernel("linear")
def linear(op: Linear, x: Array, w: Array, bias: Array | None = None) -> Array:
    """One matrix product."""
    y = np.matmul(x, w.T)
    if bias is not None:
        y = y + bias
    return activate(op.act, y)


@kernel("matmul")
def matmul(op: MatMul, a: Array, b: Array) -> Array:
    """numpy's matmul after the transpositions."""
    a = a.swapaxes(-1, -2) if op.trans_a else a
    b = b.swapaxes(-1, -2) if op.trans_b else b
    return np.asarray(np.matmul(a, b))
