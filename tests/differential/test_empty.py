"""Tensors without elements: every kernel must do nothing, or what the empty sum says."""

from __future__ import annotations

import numpy as np
import pytest
from differential.case import Case, case
from differential.cases_conv import conv
from differential.checking import TARGET_NAMES, check

from sqzc.ir import DType, TensorType
from sqzc.ir.ops import elementwise, nn, shape
from sqzc.ir.types import f32

I64, BOOL = DType.I64, DType.BOOL
ZERO_INDEX = {1: lambda rng, type: np.zeros(type.shape, np.int64)}

CASES: list[Case] = [
    case("*", nn.MaxPool2d(kernel=(2, 2)), f32(0, 3, 5, 5)),
    case("*", nn.AvgPool2d(kernel=(2, 2)), f32(1, 0, 5, 5)),
    case("*", nn.Softmax(axes=(1,)), f32(0, 5)),
    case("*", nn.Softmax(axes=(1,)), f32(5, 0)),
    case("*", nn.Softmax(axes=(0, 2)), f32(5, 0, 3)),
    case("*", nn.Lrn(size=3), f32(0, 3, 4, 4)),
    case("*", nn.InstanceNorm(), f32(0, 3, 4), f32(3), f32(3)),
    case("*", nn.BatchNorm(), f32(0, 3, 2, 2), *[f32(3)] * 4),
    case("*", nn.Linear(), f32(0, 4), f32(3, 4)),
    case("*", nn.Linear(), f32(2, 4), f32(0, 4)),
    case("*", nn.MatMul(), f32(0, 4), f32(4, 3)),
    case("*", nn.MatMul(), f32(2, 4), f32(4, 0)),
    case("*", shape.Resize2d(size=(3, 3)), f32(0, 3, 4, 4)),
    case("*", shape.Resize2d(size=(3, 3), mode=shape.ResizeMode.LINEAR), f32(0, 3, 4, 4)),
    case("*", shape.TopK(k=2), f32(0, 4)),
    case("*", shape.Gather(axis=0), f32(3, 0), TensorType(I64, (2,)), makers=ZERO_INDEX),
    case("*", shape.Gather(axis=0), f32(3, 4), TensorType(I64, (0,)), makers=ZERO_INDEX),
    case("*", shape.Concat(axis=0), f32(0, 4), f32(2, 4)),
    case("*", shape.Pad(pads=(1, 0, 1, 0)), f32(0, 4)),
    case("*", shape.Pad(pads=(0, 1, 0, 1), mode=shape.PadMode.EDGE), f32(0, 4)),
    case("*", shape.Expand(shape=(0, 4)), f32(1, 4)),
    case("*", shape.ArgMax(axis=1), f32(0, 4)),
    case("*", shape.ReduceSum(axes=(1,)), f32(0, 4)),
    case("*", elementwise.Where(), TensorType(BOOL, (0,)), f32(1), f32(1)),
    conv("*", (0, 3, 9, 9), (4, 3, 3, 3)),
    conv("*", (0, 3, 9, 9), (4, 3, 3, 3), layout="blocked"),
    conv("*", (1, 0, 9, 9), (4, 0, 3, 3)),
    conv("*", (1, 3, 9, 9), (0, 3, 3, 3)),
    conv("*", (0, 16, 9, 9), (16, 1, 3, 3), group=16, layout="blocked"),
    conv("*", (0, 3, 5, 6), (3, 4, 3, 3), transposed=True),
]


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("item", CASES, ids=lambda item: item.name)
def test_nothing_in_gives_nothing_or_the_empty_sum(item: Case, target: str) -> None:
    check(item, target)
