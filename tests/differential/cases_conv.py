"""Cases of the convolutions: every layer of a real network, every option, random ones; in every layout."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from differential.case import Case

from sqzc.diagnostics import VerifyError
from sqzc.ir import DType, TensorType
from sqzc.ir.ops import nn
from sqzc.ir.ops.activation import NONE, Activation
from sqzc.ir.types import f32

RELU, SIGMOID = Activation("relu"), Activation("sigmoid")
SAME = (1, 1, 1, 1)
POOL = nn.MaxPool2d(kernel=(3, 3), stride=(2, 2), rounding=nn.Rounding.CEIL)

# Input channels, size, output channels, kernel: the distinct layers of a small classification network.
LAYERS = (
    (64, 56, 16, 1), (16, 56, 64, 1), (16, 56, 64, 3), (128, 56, 16, 1), (128, 28, 32, 1), (32, 28, 128, 1),
    (32, 28, 128, 3), (256, 28, 32, 1), (256, 14, 48, 1), (48, 14, 192, 1), (48, 14, 192, 3), (384, 14, 48, 1),
    (384, 14, 64, 1), (64, 14, 256, 1), (64, 14, 256, 3), (512, 14, 64, 1), (512, 14, 1000, 1),
)  # fmt: skip


def conv(
    kernel: str, x: tuple[int, ...], w: tuple[int, ...], *, bias: bool = True, residual: bool = False,
    dtype: DType = DType.F32, then: tuple[Any, ...] = (), transposed: bool = False,
    layout: str = "plain", constant: frozenset[int] | None = None, **options: Any,
) -> Case:  # fmt: skip
    """A convolution of an image of shape `x` by filters of shape `w`."""
    op = (nn.ConvTranspose2d if transposed else nn.Conv2d)(**options)
    outputs = w[1] * options.get("group", 1) if transposed else w[0]
    types = [TensorType(dtype, x), TensorType(dtype, w)]
    if bias:
        types.append(TensorType(dtype, (outputs,)))
    if residual:
        types.append(op.result_types(types)[0])
    terms = (w[0] if transposed else w[1]) * w[2] * w[3]
    exact = 0 if not dtype.is_float else terms + 1
    return Case(kernel, (op, *then), tuple(types), layout, exact, constant)


def layers() -> Iterator[Case]:
    """Every layer of the network as it is compiled, and some as the general kernel runs them."""
    yield conv("conv2d.*", (1, 3, 227, 227), (64, 3, 3, 3), layout="out", stride=(2, 2), act=RELU, then=(POOL,))
    for ic, size, oc, k in LAYERS:
        pads = SAME if k == 3 else (0, 0, 0, 0)
        yield conv("conv2d.*", (1, ic, size, size), (oc, ic, k, k), layout="blocked", pads=pads, act=RELU)
    for ic, size, oc, k in LAYERS[1:8:2]:
        pads = SAME if k == 3 else (0, 0, 0, 0)
        yield conv("conv2d.rows", (1, ic, size, size), (oc, ic, k, k), pads=pads, act=RELU)
    average = nn.AvgPool2d(kernel=(14, 14))
    yield conv("conv2d.*", (1, 512, 14, 14), (1000, 512, 1, 1), layout="blocked", act=RELU, then=(average,))


GENERAL: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((1, 3, 9, 9), (4, 3, 3, 3), {}),
    ((2, 5, 13, 7), (6, 5, 3, 3), {"pads": SAME}),
    ((1, 3, 33, 33), (7, 3, 3, 3), {"stride": (2, 2)}),
    ((1, 8, 14, 14), (16, 8, 1, 1), {}),
    ((2, 6, 5, 5), (8, 3, 3, 3), {"group": 2, "pads": (1, 2, 0, 1), "stride": (2, 1)}),
    ((1, 12, 9, 20), (12, 1, 3, 3), {"group": 12, "pads": SAME}),
    ((1, 4, 17, 40), (5, 4, 3, 2), {"dilation": (2, 3), "pads": (2, 3, 2, 3)}),
    ((1, 3, 20, 70), (2, 3, 5, 11), {"stride": (3, 3), "pads": (2, 5, 2, 5)}),
    ((1, 7, 1, 1), (9, 7, 1, 1), {}),
    ((1, 7, 3, 3), (9, 7, 1, 1), {}),
    ((1, 7, 5, 3), (9, 7, 3, 3), {"pads": SAME}),
    ((1, 3, 50, 50), (4, 3, 1, 1), {"stride": (2, 2)}),
    ((1, 2, 8, 8), (3, 2, 8, 8), {}),
    ((1, 2, 8, 8), (3, 2, 1, 1), {"pads": (5, 5, 5, 5)}),
)


def general() -> Iterator[Case]:
    """The kernel that takes everything: options, computed weights, other types, one side in blocks."""
    for x, w, options in GENERAL:
        yield conv("conv2d.rows", x, w, **options)
        yield conv("conv2d.rows", x, w, residual=True, constant=frozenset(), act=RELU, **options)
    yield conv("conv2d.rows", (1, 3, 9, 9), (4, 3, 3, 3), bias=False, act=SIGMOID)
    for dtype in (DType.I32, DType.I64, DType.U8, DType.F64):
        yield conv("conv2d.rows", (1, 3, 9, 9), (4, 3, 3, 3), dtype=dtype, pads=SAME, stride=(2, 1))
    odd = ((1, 18, 9, 9), (18, 6, 3, 3), {"group": 3, "stride": (2, 2), "pads": SAME})
    for x, w, options in (((2, 20, 9, 9), (4, 20, 3, 3), {}), ((1, 20, 9, 13), (21, 20, 3, 3), {"pads": SAME}), odd):
        yield conv("conv2d.rows", x, w, layout="in", **options)
        computed = {"constant": frozenset[int](), "residual": True, "act": SIGMOID}
        yield conv("conv2d.rows", x, w, layout="blocked", **computed, **options)
    # A computed bias alone is enough to need it.
    yield conv("conv2d.rows", (1, 16, 6, 6), (16, 16, 3, 3), layout="blocked", pads=SAME, constant=frozenset({1}))


def strided() -> Iterator[Case]:
    """Rows sorted by their stride: every small one and one beyond the largest, narrow and wide, padded on any side."""
    pads = ((0, 0, 0, 0), (1, 1, 1, 1), (0, 2, 1, 0), (2, 0, 0, 3), (3, 40, 3, 35))
    for stride in (1, 2, 3, 4, 6, 7, 16, 17):
        for number, (k, dilation, width) in enumerate(
            ((1, 1, 13), (3, 1, 7), (3, 1, 67), (2, 2, 35), (5, 3, 129), (9, 2, 150))
        ):
            options: dict[str, Any] = {
                "stride": (1 + number % 3, stride),
                "dilation": (1 + number % 2, dilation),
                "pads": pads[(stride + number) % len(pads)],
            }
            group = 1 + number % 2 * 3
            x, w = (2, 4, 9, width), (4, 4 // group, min(k, 4), k)
            yield conv("conv2d.rows", x, w, group=group, **options)
            if k == 3:
                for dtype in (DType.U8, DType.I16, DType.F64):
                    yield conv("conv2d.rows", x, w, group=group, dtype=dtype, **options)


def blocked() -> Iterator[Case]:
    """The kernels for channel blocks, at sizes around the block and the tile."""
    for ic, oc in ((1, 1), (4, 4), (15, 17), (16, 33), (40, 20)):
        for k, size in ((1, 5), (3, 7), (5, 9)):
            options: dict[str, Any] = {"pads": (k // 2,) * 4, "act": RELU}
            yield conv("conv2d.*", (1, ic, size, size), (oc, ic, k, k), layout="blocked", **options)
        yield conv("conv2d.[ds]*", (2, ic, 9, 13), (oc, ic, 3, 3), layout="blocked", stride=(2, 2), pads=(1, 0, 0, 2))
        residual = {"residual": True, "constant": frozenset({1, 2}), "act": SIGMOID}
        yield conv("conv2d.*", (1, ic, 6, 11), (oc, ic, 3, 3), layout="blocked", pads=SAME, **residual)
    yield conv("conv2d.[ds]*", (2, 3, 33, 33), (64, 3, 7, 7), layout="out", stride=(2, 2), pads=(3, 3, 3, 3))
    yield conv("conv2d.[ds]*", (1, 16, 9, 9), (16, 16, 3, 3), layout="blocked", dilation=(2, 2), pads=(2, 2, 2, 2))
    yield conv("conv2d.winograd*", (1, 64, 28, 28), (64, 64, 3, 3), layout="blocked", pads=SAME)
    yield conv("conv2d.winograd*", (2, 32, 9, 14), (40, 32, 3, 3), layout="blocked", pads=SAME, act=SIGMOID)
    average = nn.AvgPool2d(kernel=(14, 14))
    for act in (NONE, RELU, SIGMOID):
        x, w = (1, 16, 33, 29), (40, 16, 3, 3)
        yield conv("conv2d.direct+max_pool2d", x, w, layout="blocked", stride=(2, 2), act=act, then=(POOL,))
        yield conv("conv2d.*avg_pool2d", (2, 32, 14, 14), (40, 32, 1, 1), layout="blocked", act=act, then=(average,))


def grouped() -> Iterator[Case]:
    """Depthwise, and groups of whole blocks."""
    depthwise: tuple[tuple[int, int, int, int, dict[str, Any]], ...] = (
        (16, 9, 9, 3, {"pads": SAME}), (20, 14, 14, 3, {"pads": SAME}),
        (33, 15, 7, 3, {"stride": (2, 2), "pads": SAME}),
        (40, 7, 7, 5, {"pads": (2, 2, 2, 2)}), (8, 12, 12, 3, {"dilation": (2, 2), "pads": (2, 2, 2, 2)}),
        (24, 5, 5, 5, {}), (3, 8, 8, 2, {"stride": (2, 1)}), (32, 112, 112, 3, {"pads": SAME}),
        (17, 31, 29, 3, {"stride": (3, 3), "pads": (0, 1, 2, 1)}), (16, 20, 33, 5, {"stride": (1, 4), "pads": SAME}),
        (16, 30, 25, 9, {"pads": (4, 4, 4, 4)}), (20, 19, 40, 7, {"dilation": (1, 3), "stride": (2, 2)}),
    )  # fmt: skip
    for c, h, w, k, options in depthwise:
        yield conv("conv2d.depthwise", (2, c, h, w), (c, 1, k, k), layout="blocked", group=c, **options)
        residual = {"residual": True, "constant": frozenset({1, 2}), "act": SIGMOID}
        yield conv("conv2d.depthwise", (1, c, h, w), (c, 1, k, k), layout="blocked", group=c, **residual, **options)
    for ic, oc, group, size, k, options in (
        (64, 64, 2, 9, 3, {"pads": SAME}), (32, 64, 2, 14, 1, {}), (96, 48, 3, 8, 3, {"stride": (2, 2)}),
        (128, 128, 4, 7, 3, {"pads": SAME}),
    ):  # fmt: skip
        x, w = (2, ic, size, size), (oc, ic // group, k, k)
        yield conv("conv2d.grouped", x, w, layout="blocked", group=group, act=RELU, **options)
        residual = {"residual": True, "constant": frozenset({1, 2})}
        yield conv("conv2d.grouped", x, w, layout="blocked", group=group, **residual, **options)


def transposed() -> Iterator[Case]:
    """Transposed convolutions with every option, in both layouts."""
    for x, w, options in (
        ((1, 3, 5, 6), (3, 4, 3, 3), {}),
        ((2, 4, 5, 20), (4, 3, 3, 3), {"stride": (2, 2), "pads": SAME, "output_pads": (1, 1)}),
        ((1, 6, 4, 5), (6, 2, 4, 4), {"group": 3, "stride": (2, 2), "pads": (1, 0, 1, 2)}),
        ((1, 2, 7, 9), (2, 3, 2, 3), {"dilation": (2, 3), "stride": (3, 2)}),
        ((1, 2, 3, 3), (2, 3, 1, 1), {"stride": (3, 3)}),
        ((1, 2, 3, 3), (2, 2, 2, 2), {"stride": (3, 3), "output_pads": (2, 2)}),
        ((1, 2, 9, 35), (2, 2, 3, 3), {"pads": (2, 2, 2, 2)}),
    ):
        for layout in ("plain", "blocked"):
            yield conv("conv_transpose2d.rows", x, w, transposed=True, layout=layout, act=SIGMOID, **options)
        yield conv("conv_transpose2d.rows", x, w, transposed=True, bias=False, constant=frozenset(), **options)
    yield conv("conv_transpose2d.rows", (1, 3, 5, 6), (3, 4, 3, 3), transposed=True, dtype=DType.I32, stride=(2, 2))


def drawn() -> Iterator[Case]:
    """Random convolutions in both layouts."""
    draw = random.Random(3)
    found = 0
    while found < 10:
        group = draw.choice((1, 1, 1, 2))
        ic, oc = group * draw.randint(1, 20), group * draw.randint(1, 20)
        k = (draw.randint(1, 4), draw.randint(1, 4))
        options: dict[str, Any] = {
            "stride": (draw.randint(1, 3), draw.randint(1, 2)),
            "pads": tuple(draw.randint(0, 3) for _ in range(4)),
            "dilation": (draw.randint(1, 2), draw.randint(1, 2)),
            "group": group,
        }
        x, w = (draw.randint(1, 2), ic, draw.randint(1, 20), draw.randint(1, 20)), (oc, ic // group, *k)
        try:
            nn.Conv2d(**options).result_types([f32(*x), f32(*w)])
        except VerifyError:
            continue
        found += 1
        yield conv("conv2d.*", x, w, **options)
        yield conv("conv2d.*", x, w, layout="blocked", **options)


CASES = [*layers(), *general(), *strided(), *blocked(), *grouped(), *transposed(), *drawn()]
