"""Cases of pools, normalisations and matrix products."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from differential.case import Case, case, one_nan, positive

from sqzc.diagnostics import VerifyError
from sqzc.ir import DType, TensorType
from sqzc.ir.ops import nn
from sqzc.ir.ops.activation import NONE, Activation
from sqzc.ir.types import f32

CEIL = nn.Rounding.CEIL
RELU, TANH = Activation("relu"), Activation("tanh")

WINDOWS: tuple[dict[str, Any], ...] = (
    {"kernel": (2, 2), "stride": (2, 2)},
    {"kernel": (3, 3), "stride": (2, 2), "rounding": CEIL},
    {"kernel": (3, 3), "pads": (1, 1, 1, 1)},
    {"kernel": (3, 2), "stride": (3, 1), "pads": (2, 1, 0, 1), "rounding": CEIL},
    {"kernel": (2, 2), "dilation": (2, 3), "pads": (1, 1, 1, 1)},
    {"kernel": (2, 2), "pads": (3, 3, 3, 3)},
    {"kernel": (3, 3), "stride": (2, 2), "pads": (1, 1, 1, 1), "rounding": CEIL, "dilation": (1, 2)},
)
# Images and windows of the pools of a network that halves 113 x 113 three times.
LAYER_POOLS = ((64, 113), (128, 56), (256, 28))


def pools() -> Iterator[Case]:
    """All options in both layouts; layers of a real network; random windows."""
    for window in WINDOWS:
        yield from _pool((2, 5, 9, 9), window)
        yield from _pool((1, 20, 7, 40), window)
    yield from _pool((1, 3, 4, 4), WINDOWS[1])
    for channels, size in LAYER_POOLS:
        window = {"kernel": (3, 3), "stride": (2, 2), "rounding": CEIL}
        for layout in ("plain", "blocked"):
            yield case("max_pool2d.*", nn.MaxPool2d(**window), f32(1, channels, size, size), layout=layout, length=0)
    for layout in ("plain", "blocked"):
        yield case("avg_pool2d.*", nn.AvgPool2d(kernel=(14, 14)), f32(1, 1000, 14, 14), layout=layout, length=196)
        nan = {"makers": {0: one_nan}, "note": "NaN", "length": 0, "layout": layout}
        # The NaN stands at every place of some window.
        for kernel in ((3, 3), (2, 5), (4, 2), (1, 6)):
            yield case("max_pool2d.*", nn.MaxPool2d(kernel=kernel), f32(1, 3, 9, 20), **nan)
        yield case("max_pool2d.*", nn.MaxPool2d(kernel=(3, 3), dilation=(2, 2)), f32(1, 3, 9, 20), **nan)
    for dtype in (DType.I32, DType.U8):
        yield case("max_pool2d.rows", nn.MaxPool2d(kernel=(3, 3)), TensorType(dtype, (1, 2, 6, 20)), length=0)
    for stride, width in (((2, 2), 28), ((1, 2), 33), ((3, 4), 7), ((2, 16), 70), ((5, 3), 130), ((2, 2), 1)):
        pixels = nn.MaxPool2d(kernel=(1, 1), stride=stride)
        for dtype in (DType.F32, DType.F64, DType.U8):
            yield case("max_pool2d.pixels", pixels, TensorType(dtype, (2, 3, 9, width)), length=0)
        yield case("max_pool2d.blocked", pixels, f32(2, 17, 9, width), layout="blocked", length=0)
    yield case("max_pool2d.rows", nn.MaxPool2d(kernel=(1, 1), stride=(2, 17)), f32(1, 3, 9, 60), length=0)
    draw = random.Random(5)
    for _ in range(8):
        shape = (draw.randint(1, 2), draw.choice((1, 4, 8, 16, 17)), draw.randint(3, 12), draw.randint(3, 12))
        kernel = (draw.randint(1, 3), draw.randint(1, 3))
        pads = tuple(draw.randint(0, kernel[i % 2] - 1) for i in range(4))
        stride = (draw.randint(1, 3), draw.randint(1, 3))
        window = {"kernel": kernel, "stride": stride, "pads": pads, "rounding": draw.choice(list(nn.Rounding))}
        yield from _pool(shape, window)


def _pool(shape: tuple[int, ...], window: dict[str, Any]) -> Iterator[Case]:
    try:
        nn.MaxPool2d(**window).result_types([f32(*shape)])
    except VerifyError:
        return
    taps = window["kernel"][0] * window["kernel"][1]
    for layout in ("plain", "blocked"):
        yield case("max_pool2d.*", nn.MaxPool2d(**window), f32(*shape), layout=layout, length=0)
        for padding, overhang in ((False, False), (True, False), (True, True)):
            if padding and not any(window.get("pads", ())) and "rounding" not in window:
                continue
            op = nn.AvgPool2d(count_include_pad=padding, count_overhang=overhang, **window)
            yield case("avg_pool2d.*", op, f32(*shape), layout=layout, length=taps)


def norms() -> Iterator[Case]:
    """Instance norm, local response, softmax over neighbouring and other axes."""
    for shape in ((2, 3, 5, 7), (1, 2, 40), (2, 5, 3, 3, 3), (1, 3, 33, 16)):
        yield case("instance_norm", nn.InstanceNorm(), f32(*shape), *[f32(shape[1])] * 2, length=64)
    for options in ({}, {"beta": 0.5}, {"beta": 1.0, "alpha": 2.0}, {"beta": 0.6, "size": 4, "bias": 2.0}):
        op = nn.Lrn(**{"size": 5, "alpha": 1.0, **options})
        yield case("lrn", op, f32(2, 9, 5, 7), length=8)
        yield case("lrn", op, f32(1, 3, 1, 3), length=8)
    for axes, shape in (((1,), (3, 20)), ((1,), (2, 1000)), ((1,), (2, 9, 5)), ((1, 2), (2, 3, 5)), ((0,), (17,))):
        yield case("softmax.rows", nn.Softmax(axes=axes), f32(*shape), length=16)
    for axes, shape in (((0, 2), (3, 5, 7)), ((1, 3), (2, 3, 4, 50)), ((0, 2), (3, 40, 5)), ((0, 3), (3, 2, 2, 17))):
        yield case("softmax.axes", nn.Softmax(axes=axes), f32(*shape), length=16)
    for axes in ((1,), (0, 2)):
        yield case("softmax.*", nn.Softmax(axes=axes), f32(3, 4, 5), makers={0: one_nan}, length=16, note="NaN")


LINEAR = (1, 1000, 64), (1, 10, 33), (1, 3, 5), (1, 1, 7), (7, 17, 9), (13, 100, 31), (5, 64, 0), (2, 40, 1), \
    (1, 16, 16), (32, 33, 34), (4, 15, 128), (1, 129, 255)  # fmt: skip
PRODUCTS = (
    ((5, 7), (7, 20), 0, 0), ((7, 5), (7, 20), 1, 0), ((5, 7), (20, 7), 0, 1), ((7, 5), (20, 7), 1, 1),
    ((2, 3, 5, 7), (7, 20), 0, 0), ((2, 1, 5, 7), (3, 7, 2), 0, 0), ((2, 3, 5, 7), (1, 3, 40, 7), 0, 1),
    ((1, 1), (1, 1), 0, 0), ((33, 40), (40, 65), 0, 0), ((4, 3, 0), (4, 0, 5), 0, 0), ((17, 100), (100, 16), 0, 0),
)  # fmt: skip


def matrices() -> Iterator[Case]:
    """Linear layers with constant and computed weights; batched and transposed products."""
    for m, n, k in LINEAR:
        x, w, bias = f32(m, k), f32(n, k), f32(n)
        yield case("linear.packed", nn.Linear(), x, w, bias, length=k + 1)
        yield case("linear.packed", nn.Linear(act=RELU), x, w, length=k + 1)
        yield case("matmul", nn.Linear(act=TANH if n % 2 else NONE), x, w, bias, length=k + 1, constant=frozenset())
    for a, b, trans_a, trans_b in PRODUCTS:
        op = nn.MatMul(trans_a=bool(trans_a), trans_b=bool(trans_b))
        yield case("matmul", op, f32(*a), f32(*b), length=100)
    for dtype in (DType.I32, DType.I64, DType.F64):
        types = TensorType(dtype, (2, 3, 5, 7)), TensorType(dtype, (3, 7, 20))
        yield case("matmul", nn.MatMul(), *types, length=7 if dtype.is_float else 0)
    wide = TensorType(DType.I64, (3, 9)), TensorType(DType.I64, (20, 9))
    yield case("matmul", nn.Linear(), *wide, length=0)
    yield case("linear.packed", nn.Linear(act=Activation("sigmoid")), f32(2, 9), f32(20, 9), f32(20), length=9,
               makers={1: positive})  # fmt: skip


CASES = [*pools(), *norms(), *matrices()]
