"""One case for each family of fast kernels, with a schedule that gives it many work items."""

from __future__ import annotations

from typing import Any

import pytest
from differential.case import Case
from differential.cases_conv import SAME, SIGMOID, conv
from differential.forcing import always_strassen, force, prefer

from sqzc.backends.llvm.kernels.conv_direct import ConvDirect
from sqzc.backends.llvm.kernels.conv_pool import ConvGlobalAverage, ConvMaxPool
from sqzc.backends.llvm.kernels.conv_split import ConvSplit, ConvSplitAverage, ConvSplitMaxPool
from sqzc.backends.llvm.kernels.conv_strassen import ConvStrassen, ConvStrassenAverage
from sqzc.backends.llvm.kernels.conv_winograd import ConvWinograd
from sqzc.backends.llvm.kernels.conv_winograd_split import ConvWinogradSplit
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule
from sqzc.backends.llvm.schedules.conv_split import SplitSchedule
from sqzc.backends.llvm.schedules.conv_strassen import StrassenSchedule
from sqzc.backends.llvm.schedules.conv_winograd import WinogradSchedule
from sqzc.ir import TensorType
from sqzc.ir.ops.nn import AvgPool2d, MaxPool2d, Rounding, Softmax
from sqzc.ir.types import f32
from sqzc.target import Target

POOL = MaxPool2d(kernel=(3, 3), stride=(2, 2), pads=SAME, rounding=Rounding.CEIL)
FAMILIES = {
    family.name: family
    for family in (
        ConvDirect(),
        ConvWinograd(always=True),
        ConvMaxPool(),
        ConvGlobalAverage(),
        ConvStrassen(),
        ConvStrassenAverage(),
        ConvSplit(always=True),
        ConvWinogradSplit(wherever=True),
        ConvSplitAverage(always=True),
        ConvSplitMaxPool(always=True),
    )
}


def cases(lanes: int, tile_products: bool) -> dict[str, tuple[Case, Any]]:
    """A case for each family that a target has, and a schedule that gives it many items where it would choose few."""
    big = 3 * lanes + 1

    def blocked(kernel: str, ic: int, size: tuple[int, int], k: int, n: int = 2, **rest: Any) -> Case:
        x, w = (n, ic, *size), (big, ic, k, k)
        return conv(kernel, x, w, layout="blocked", act=SIGMOID, **rest)

    residual: dict[str, Any] = {"residual": True, "constant": frozenset({1, 2})}
    average = (AvgPool2d(kernel=(4, 6)),)
    image: tuple[TensorType, ...] = (f32(2, big, 7, 9),)
    mean = AvgPool2d(kernel=(3, 3), stride=(2, 2), pads=SAME)
    parts: dict[str, tuple[Case, Any]] = {
        "parts": (blocked("conv2d.split", 3 * lanes, (7, 9), 1, **residual), None),
        "parts and winograd": (blocked("conv2d.winograd_split", 3 * lanes, (11, 9), 3, pads=SAME, **residual), None),
        "parts and average": (
            blocked("conv2d.split+avg_pool2d", 3 * lanes, (4, 6), 1, then=average),
            SplitSchedule(1, 1, 16, 2),
        ),
        "parts of windows": (blocked("conv2d.split", lanes, (9, 7), 3, pads=SAME, stride=(2, 1)), None),
        "parts and maximum": (
            blocked("conv2d.split+max_pool2d", lanes, (7, 20), 3, pads=SAME, then=(MaxPool2d(kernel=(3, 3)),)),
            None,
        ),
    }
    return {
        **(parts if tile_products else {}),
        "direct by channels": (
            blocked("conv2d.direct", lanes, (5, 7), 3, pads=SAME), DirectSchedule(2, 2, 3, 0, "oc", 0)
        ),
        "direct by rows": (
            blocked("conv2d.direct", lanes, (5, 7), 3, pads=SAME, **residual), DirectSchedule(2, 1, 4, 0, "px", 0)
        ),
        "direct flat": (blocked("conv2d.direct", lanes, (4, 5), 1), DirectSchedule(3, 1, 3, 1, "px", 0)),
        "winograd": (
            blocked("conv2d.winograd", lanes, (11, 9), 3, pads=SAME), WinogradSchedule(4, 2, 2, 1, "tile", 1)
        ),
        "winograd by position": (
            blocked("conv2d.winograd", lanes, (9, 9), 3, pads=SAME, **residual),
            WinogradSchedule(2, 3, 3, 2, "position", 0),
        ),
        "strassen": (blocked("conv2d.strassen", 2 * lanes, (4, 6), 1), StrassenSchedule(1, 1, 4)),
        "strassen and average": (
            blocked("conv2d.strassen+avg_pool2d", 2 * lanes, (4, 6), 1, then=average), StrassenSchedule(1, 1, 12)
        ),
        "convolution and maximum": (
            blocked("conv2d.direct+max_pool2d", lanes, (9, 7), 3, then=(POOL,)), DirectSchedule(2, 1, 3, 0, "oc", 0)
        ),
        "convolution and average": (
            blocked("conv2d.direct+avg_pool2d", lanes, (4, 6), 1, then=average), DirectSchedule(3, 1, 4, 1, "oc", 0)
        ),
        "maximum": (Case("max_pool2d.blocked", (POOL,), image, "blocked"), None),
        "average": (Case("avg_pool2d.blocked", (mean,), image, "blocked"), None),
        "rows sorted by stride": (
            conv("conv2d.rows", (2, 6, 11, 37), (6, 2, 3, 3), group=3, stride=(2, 2), pads=SAME, act=SIGMOID), None
        ),
        "pixels": (Case("max_pool2d.pixels", (MaxPool2d(kernel=(1, 1), stride=(2, 2)),), (f32(2, 3, 9, 38),)), None),
        "depthwise": (
            conv("conv2d.depthwise", (2, big, 9, 7), (big, 1, 3, 3), layout="blocked", group=big, pads=SAME), None
        ),
        "softmax": (Case("softmax.rows", (Softmax(axes=(1,)),), (f32(5, 3 * lanes + 1),)), None),
    }  # fmt: skip


NAMES = tuple(cases(4, True))


def case_for(name: str, target: Target) -> tuple[Case, Any]:
    """The case of this name, skipping the test where the target has no such kernel."""
    offered = cases(target.vector_lanes, target.tile_products)
    if name not in offered:
        pytest.skip(f"{target.name} has no such kernel")
    return offered[name]


def prepare(patch: pytest.MonkeyPatch, item: Case, schedule: Any) -> None:
    """Makes the family of the case run, with the schedule if there is one."""
    if "strassen" in item.kernel:
        always_strassen(patch)
    if item.kernel in FAMILIES:
        prefer(patch, FAMILIES[item.kernel])
    if schedule is not None:
        force(patch, schedule)
