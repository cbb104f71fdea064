"""Convolutions and pools over three spatial axes, as two-dimensional ops of the IR.

A convolution puts the slices that one window sees in depth side by side as channels. A pool is taken within the slices
and then along the depth: maxima are, and so are means, whose counts are products of those along each axis.
"""

from __future__ import annotations

from collections.abc import Callable

from sqzc.frontends.caffe2.env import NameEnv
from sqzc.frontends.caffe2.table import OpView
from sqzc.frontends.caffe2.windows import Window
from sqzc.ir import Builder, Value
from sqzc.ir.ops.nn import Conv2d, Pool2d
from sqzc.ir.ops.shape import Concat, Pad, Slice

# Makes a pool over two of the axes, given their numbers; None is an axis of one tap.
MakePool = Callable[[tuple[int | None, int | None]], Pool2d]


def convolved(
    op: OpView,
    env: NameEnv,
    b: Builder,
    window: Window,
    pads: tuple[int, ...],
    group: int,
    operands: tuple[Value, ...],
) -> Value:
    """The convolution of [N, C, D, H, W] by [M, C / group, kernel] with `pads`, and a bias where there is one."""
    x, w, *bias = operands
    n, c, depth, height, width = x.type.shape
    reach = (window.kernel[0] - 1) * window.dilation[0] + 1
    count = (depth + pads[0] + pads[3] - reach) // window.stride[0] + 1
    if depth + pads[0] + pads[3] < reach:
        raise op.error("the window is deeper than the padded input", got=f"shape {list(x.type.shape)}")
    slices = env.transpose(x, (0, 2, 1, 3, 4))
    if pads[0] or pads[3]:
        slices = b.add(Pad(pads=(0, pads[0], 0, 0, 0, 0, pads[3], 0, 0, 0)), slices)
    # [N * D', group, taps * C / group, H, W]: the channels of a group stay together.
    parts = []
    for tap in range(window.kernel[0]):
        starts, sizes = (0, tap * window.dilation[0], 0, 0, 0), (n, count, c, height, width)
        part = b.add(Slice(starts=starts, sizes=sizes, steps=(1, window.stride[0], 1, 1, 1)), slices)
        parts.append(env.reshape(part, (n * count, group, c // group, height, width)))
    joined = parts[0] if len(parts) == 1 else b.add(Concat(axis=2), *parts)
    images = env.reshape(joined, (n * count, window.kernel[0] * c, height, width))
    m, own, taps, kh, kw = w.type.shape
    weight = env.reshape(env.transpose(w, (0, 2, 1, 3, 4)), (m, taps * own, kh, kw))
    ir = Conv2d(
        stride=(window.stride[1], window.stride[2]),
        pads=(pads[1], pads[2], pads[4], pads[5]),
        dilation=(window.dilation[1], window.dilation[2]),
        group=group,
    )
    y = b.add(ir, images, weight, *bias)
    return env.transpose(env.reshape(y, (n, count, *y.type.shape[1:])), (0, 2, 1, 3, 4), op.source)


def pooled(op: OpView, env: NameEnv, b: Builder, x: Value, make: MakePool) -> Value:
    """The pool of [N, C, D, H, W]."""
    n, c, depth, height, width = x.type.shape
    planes = b.add(make((1, 2)), env.reshape(x, (n, c * depth, height, width)))
    height, width = planes.type.shape[2:]
    y = b.add(make((0, None)), env.reshape(planes, (n, c, depth, height * width)))
    return env.reshape(y, (n, c, y.type.shape[2], height, width), op.source)
