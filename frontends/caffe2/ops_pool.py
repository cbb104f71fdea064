"""Pools over one to three axes."""

from __future__ import annotations

from typing import Any

from sqzc.frontends.caffe2.env import NameEnv
from sqzc.frontends.caffe2.ops_conv import as_2d, bind_result, image_operand
from sqzc.frontends.caffe2.table import OpView, lift
from sqzc.frontends.caffe2.volumes import pooled
from sqzc.frontends.caffe2.windows import (
    LegacyPad,
    Window,
    caffe_windows,
    read_window,
    require_kernel,
    require_no_negative_pad,
    resolved_pads,
)
from sqzc.frontends.common import settled_rounding
from sqzc.ir import Builder
from sqzc.ir.ops.nn import AvgPool2d, MaxPool2d, Pool2d, Rounding

_AXES = {"1D": 1, "2D": 2, "3D": 3}


@lift("MaxPool", "MaxPool1D", "MaxPool2D", "MaxPool3D")
def lift_max_pool(op: OpView, env: NameEnv, b: Builder) -> None:
    """Padded taps never win: they are skipped."""
    _lift_pool(op, env, b, MaxPool2d, {})


@lift("AveragePool", "AveragePool1D", "AveragePool2D", "AveragePool3D")
def lift_average_pool(op: OpView, env: NameEnv, b: Builder) -> None:
    """Padding is left out of the mean, or all of the kernel counts with `count_include_pad`."""
    include = op.args.flag("count_include_pad", False)
    _lift_pool(op, env, b, AvgPool2d, {"count_include_pad": include, "count_overhang": include})


def _lift_pool(op: OpView, env: NameEnv, b: Builder, kind: type[Pool2d], extra: dict[str, Any]) -> None:
    window, order = read_window(op), op.order()
    axes = len(env.shape(op.inputs[0])) - 2 if window.global_pooling else window.axes
    if op.type[-2:] in _AXES and axes != _AXES[op.type[-2:]]:
        raise op.error(f"{op.type} with a window of {axes} axes")
    x = image_operand(op, env, order, axes)
    sizes = x.type.shape[2:]
    if window.global_pooling:
        # The file's kernel does not matter then; exporters write 0.
        heads, tails, rounding, kernel, stride = (0,) * axes, (0,) * axes, Rounding.FLOOR, sizes, (1,) * axes
    else:
        kernel, stride = window.kernel, window.stride
        heads, tails, rounding = _edges(op, window, sizes)

    def make(chosen: tuple[int | None, int | None]) -> Pool2d:
        def of(values: tuple[int, ...], otherwise: int) -> tuple[int, int]:
            first, second = (otherwise if axis is None else values[axis] for axis in chosen)
            return first, second

        pads = (*of(heads, 0), *of(tails, 0))
        return kind(kernel=of(kernel, 1), stride=of(stride, 1), pads=pads, rounding=rounding, **extra)

    if axes == 3:
        y = pooled(op, env, b, x, make)
    else:
        y = b.add(make((None, 0) if axes == 1 else (0, 1)), as_2d(env, x), source=op.source)
    bind_result(op, env, y, axes, order)


def _edges(op: OpView, window: Window, sizes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], Rounding]:
    """Padding before and after each axis, and how the windows are counted."""
    require_kernel(op, window)
    require_no_negative_pad(op, window)
    if set(window.dilation) != {1}:
        raise op.error("a pool takes no dilation", argument="dilation")
    if any(pad >= kernel for pad, kernel in zip(window.pads, window.kernel * 2, strict=True)):
        raise op.error(
            f"a pad of {max(window.pads)} is not smaller than the kernel", expected=f"less than {min(window.kernel)}"
        )
    if window.legacy is not LegacyPad.CAFFE:
        pads = resolved_pads(op, window, sizes)
        return pads[: window.axes], pads[window.axes :], Rounding.FLOOR
    heads = window.heads()
    for size, kernel, stride, head in zip(sizes, window.kernel, window.stride, heads, strict=True):
        if (caffe_windows(size, kernel, stride, head) - 1) * stride >= size + head:
            raise op.unsupported(
                "legacy_pad 3 with a last window wholly outside the image, which Caffe2 leaves undefined"
            )
    # Caffe's rule takes the leading padding on both sides, whatever the file says of the other.
    return heads, heads, settled_rounding(sizes, window.kernel, window.stride, heads, heads)
