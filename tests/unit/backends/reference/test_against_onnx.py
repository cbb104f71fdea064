"""Every op against the ONNX project's own reference evaluator, through the exporter: two authors, one answer."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from sqzc.backends import onnx_export
from sqzc.backends.reference import evaluate, supported
from sqzc.ir import Builder, DType, Graph, registry
from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.nn import Rounding
from sqzc.ir.ops.shape import Coordinates, PadMode, ResizeMode
from sqzc.ir.types import TensorType
from sqzc.ir.verifier import verify


@dataclass(frozen=True)
class Case:
    """One op with operand types, and the range its operands are drawn from."""

    op: str
    operands: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    low: float = -2.0
    high: float = 2.0

    def __str__(self) -> str:
        return repr(registry[self.op](**self.attrs)) + ",".join(self.operands)


def case(op: str, *operands: str, low: float = -2.0, high: float = 2.0, **attrs: Any) -> Case:
    return Case(op, operands, attrs, low, high)


def read_type(text: str) -> TensorType:
    dtype, _, dims = text.rstrip("]").partition("[")
    return TensorType(DType(dtype), tuple(int(d) for d in dims.split(",") if d))


IMAGE = "f32[2,4,7,6]"
CEIL = Rounding.CEIL
RELU6 = Activation("clip", (0.0, 6.0))

CASES = [
    *[
        case(name, "f32[2,3,5]")
        for name, cls in registry.items()
        if getattr(cls, "is_activation", False) and name not in ("log", "sqrt", "reciprocal")
    ],
    case("log", "f32[7]", low=0.1),
    case("sqrt", "f32[7]", low=0),
    case("reciprocal", "f32[7]", low=0.1),
    case("leaky_relu", "f32[4,4]", alpha=0.3),
    case("elu", "f32[4,4]", alpha=0.5),
    case("selu", "f32[4,4]", alpha=1.5, gamma=1.1),
    case("hard_sigmoid", "f32[40]", alpha=0.3, beta=0.4),
    case("clip", "f32[40]", lo=-0.5),
    case("clip", "f32[40]", hi=0.5),
    case("clip", "f32[40]", lo=-0.5, hi=0.75),
    case("clip", "i32[40]", lo=-1, hi=3, low=-9, high=9),
    case("relu", "i64[40]", low=-9, high=9),
    case("abs", "i32[40]", low=-9, high=9),
    case("relu", "f16[40]"),
    case("round", "f32[40]", low=-20, high=20),
    case("identity", "bool[4]"),
    case("dropout", "f32[4]", ratio=0.7),
    case("cast", "f32[30]", to=DType.I32, low=-9, high=9),
    case("cast", "f32[30]", to=DType.BOOL),
    case("cast", "i64[30]", to=DType.F32, low=-1e15, high=1e15),
    case("cast", "f32[30]", to=DType.F16),
    case("cast", "bool[30]", to=DType.U8),
    *[case(name, "f32[2,1,4]", "f32[3,1]") for name in ("add", "sub", "mul", "maximum", "minimum")],
    *[case(name, "i64[2,4]", "i64[4]", low=-3, high=3) for name in ("add", "mul", "equal", "less", "less_equal")],
    *[case(name, "f32[5,5]", "f32[5]") for name in ("equal", "less", "less_equal")],
    case("equal", "bool[9]", "bool[9]"),
    case("div", "f32[3,4]", "f32[4]", low=0.5),
    case("div", "i32[40]", "i32[40]", low=1, high=9),
    case("pow", "f32[3,4]", "f32[]", low=0.2),
    case("prelu", "f32[2,3,4,4]", "f32[3]"),
    case("prelu", "f32[2,3]", "f32[3]"),
    case("prelu", "f32[2,3,4]", "f32[1]"),
    case("prelu", "f32[5]", "f32[1]"),
    case("where", "bool[2,3]", "f32[3]", "f32[2,1]"),
    case("conv2d", IMAGE, "f32[5,4,3,3]"),
    case("conv2d", IMAGE, "f32[5,4,1,1]", "f32[5]"),
    case("conv2d", IMAGE, "f32[6,4,3,2]", "f32[6]", stride=(2, 3), pads=(1, 0, 2, 1)),
    case("conv2d", IMAGE, "f32[6,4,3,3]", "f32[6]", dilation=(2, 1), pads=(2, 1, 2, 1)),
    case("conv2d", IMAGE, "f32[6,2,3,3]", "f32[6]", group=2, act=Activation("relu")),
    case("conv2d", IMAGE, "f32[8,1,3,3]", group=4, act=RELU6, pads=(1, 1, 1, 1)),
    case("conv2d", IMAGE, "f32[5,4,3,3]", "f32[5]", "f32[2,5,5,4]", act=Activation("leaky_relu", (0.25,))),
    case("conv2d", "f64[1,2,4,4]", "f64[3,2,2,2]", act=Activation("swish")),
    case("conv_transpose2d", IMAGE, "f32[4,5,3,3]"),
    case("conv_transpose2d", IMAGE, "f32[4,5,3,2]", "f32[5]", stride=(2, 3), pads=(1, 0, 2, 1), output_pads=(1, 2)),
    # Groups are in test_nn.py: the evaluator cannot do them here.
    case("conv_transpose2d", IMAGE, "f32[4,3,3,3]", "f32[3]", stride=(2, 2), act=Activation("relu")),
    case("conv_transpose2d", IMAGE, "f32[4,3,2,3]", dilation=(2, 2)),
    *[
        made
        for name in ("max_pool2d", "avg_pool2d")
        for made in (
            case(name, IMAGE, kernel=(2, 2), stride=(2, 2)),
            case(name, IMAGE, kernel=(3, 3), stride=(2, 2), rounding=CEIL),
            case(name, IMAGE, kernel=(3, 2), stride=(2, 1), pads=(1, 0, 1, 1)),
            case(name, IMAGE, kernel=(3, 3), stride=(2, 2), pads=(1, 1, 0, 1), rounding=CEIL),
            case(name, IMAGE, kernel=(7, 6)),
            case(name, "f32[1,2,5,5]", kernel=(2, 2), stride=(3, 3), rounding=CEIL),
            case(name, "f32[1,2,9,9]", kernel=(2, 3), dilation=(2, 3), stride=(2, 1)),
        )
    ],
    case("avg_pool2d", IMAGE, kernel=(3, 3), stride=(2, 2), pads=(1, 1, 1, 1), count_include_pad=True),
    case("avg_pool2d", IMAGE, kernel=(3, 3), stride=(2, 2), rounding=CEIL, count_include_pad=True, count_overhang=True),
    case("avg_pool2d", "f32[1,1,6,6]", kernel=(3, 3), stride=(2, 2), rounding=CEIL, count_include_pad=True),
    # A last window that starts behind the image is none.
    case(
        "avg_pool2d",
        "f32[1,3,16,7]",
        kernel=(2, 3),
        stride=(2, 3),
        pads=(1, 1, 0, 2),
        rounding=CEIL,
        count_include_pad=True,
    ),
    case("batch_norm", IMAGE, *["f32[4]"] * 4, low=0.1, eps=1e-3),
    case("batch_norm", "f32[3,4]", *["f32[4]"] * 4, low=0.1),
    case("instance_norm", IMAGE, "f32[4]", "f32[4]", eps=1e-2),
    # The evaluator runs over as many channels as there are images, so there are as many.
    case("lrn", "f32[6,6,3,2]", size=3, alpha=0.5),
    case("lrn", "f32[6,6,3,2]", size=4, alpha=0.5, beta=0.5, bias=2.0),
    case("lrn", "f32[6,6,3,2]", size=9, alpha=0.5),
    case("softmax", "f32[2,5]", axes=(1,), low=-9, high=90),
    case("softmax", "f32[2,5,1,1]", axes=(1, 2, 3)),
    case("softmax", "f32[2,3,4]", axes=(0, 2)),
    case("linear", "f32[3,6]", "f32[4,6]"),
    case("linear", "f32[3,6]", "f32[4,6]", "f32[4]", act=Activation("relu")),
    case("matmul", "f32[2,3,4]", "f32[4,5]"),
    case("matmul", "f32[2,4,3]", "f32[2,5,4]", trans_a=True, trans_b=True),
    case("matmul", "i64[3,4]", "i64[4,2]", low=-9, high=9),
    case("relayout", IMAGE),
    case("reshape", "f32[2,6]", shape=(3, 4)),
    case("reshape", "f32[0,6]", shape=(3, 0)),
    case("transpose", "f32[2,3,4]", perm=(2, 0, 1)),
    case("concat", "f32[2,3]", "f32[2,1]", "f32[2,2]", axis=1),
    case("concat", "f32[2,3]", axis=0, placed=True),
    case("slice", "f32[5,6]", starts=(1, 0), sizes=(3, 6)),
    case("slice", "f32[5,6]", starts=(4, 1), sizes=(5, 2), steps=(-1, 3)),
    case("slice", "f32[5,6]", starts=(4, 5), sizes=(2, 0), steps=(-2, 1)),
    case("slice", "f32[5]", starts=(0,), sizes=(5,)),
    case("pad", "f32[3,4]", pads=(1, 0, 2, 3), value=1.5),
    case("pad", "i32[3,4]", pads=(1, 0, 2, 3), value=7.0, low=-9, high=9),
    *[case("pad", "f32[3,4]", pads=(1, 0, 2, 3), mode=mode) for mode in PadMode],
    case("expand", "f32[3,1]", shape=(2, 3, 4)),
    *[
        made
        for name in ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod")
        for made in (
            case(name, "f32[2,3,4]", axes=(1,)),
            case(name, "f32[2,3,4]", axes=(0, 2), keepdims=False),
            case(name, "f32[2,3,4]", axes=(0, 1, 2), keepdims=False),
            case(name, "f32[2,3]", axes=()),
            case(name, "i64[2,3,4]", axes=(2,), low=1, high=9),
        )
    ],
    case("argmax", "f32[3,5]", axis=1),
    case("argmax", "i32[3,50]", axis=1, keepdims=False, last=True, low=-2, high=2),
    case("argmin", "i32[30,5]", axis=0, low=-2, high=2),
    case("argmin", "f32[3,5]", axis=0, last=True),
    case("topk", "f32[3,9]", k=4),
    case("topk", "f32[3,9]", k=9, largest=False),
    case("gather", "f32[5,3]", "i64[2,4]", axis=0, low=-5, high=4),
    case("gather", "f32[2,5]", "i64[]", axis=1, low=-5, high=4),
    *[
        case("resize2d", "f32[1,2,4,5]", size=size, mode=mode, coordinates=rule)
        for size in ((8, 10), (5, 3), (1, 7))
        for mode in ResizeMode
        for rule in Coordinates
    ],
    case("resize2d", "f32[1,2,4,4]", size=(6, 10), scale_h=1.5, scale_w=2.5),
    case("resize2d", "f32[1,2,4,4]", size=(5, 9), scale_h=1.3, scale_w=2.25, mode=ResizeMode.LINEAR),
]


def draw(made: Case, index: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    type = read_type(made.operands[index])
    if type.dtype is DType.BOOL:
        return rng.integers(0, 2, type.shape).astype(bool)
    if type.dtype.is_float:
        return rng.uniform(made.low, made.high, type.shape).astype(type.dtype.numpy)
    return rng.integers(int(made.low), int(made.high), type.shape, endpoint=True).astype(type.dtype.numpy)


def build(made: Case) -> tuple[Graph, dict[str, np.ndarray[Any, Any]]]:
    graph = Graph("one_op")
    rng = np.random.default_rng(zlib.crc32(str(made).encode()))
    feeds = {f"in{i}": np.asarray(draw(made, i, rng)) for i in range(len(made.operands))}
    values = [graph.add_input(f"in{i}", read_type(text)) for i, text in enumerate(made.operands)]
    results = Builder(graph).add_multi(registry[made.op](**made.attrs), *values)
    for index, value in enumerate(results):
        graph.add_output(f"out{index}", value)
    verify(graph)
    return graph, feeds


@pytest.mark.parametrize("made", CASES, ids=str)
def test_reference_agrees_with_onnx(made: Case) -> None:
    graph, feeds = build(made)
    model = onnx_export.export(graph)
    onnx.checker.check_model(model, full_check=True)
    with np.errstate(all="ignore"):
        wanted = ReferenceEvaluator(model).run(None, feeds)
    got = evaluate(graph, feeds)
    for (name, _), want in zip(graph.outputs, wanted, strict=True):
        want = np.asarray(want)
        assert got[name].dtype == want.dtype
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(got[name], want)
        else:
            tolerance = 2e-3 if want.dtype == np.float16 else 2e-5
            np.testing.assert_allclose(got[name], want, rtol=tolerance, atol=tolerance, strict=True)


@pytest.mark.parametrize("made", CASES, ids=str)
def test_float64_agrees_with_float32(made: Case) -> None:
    graph, feeds = build(made)
    single, double = evaluate(graph, feeds), evaluate(graph, feeds, dtype="float64")
    for name, value in graph.outputs:
        if value.type.dtype.is_float:
            assert double[name].dtype == np.float64
            tolerance = 2e-3 if "f16" in str(graph.inputs) + str(value.type) else 2e-5
            np.testing.assert_allclose(double[name], single[name], rtol=tolerance, atol=tolerance)
        else:
            assert double[name].dtype == single[name].dtype
            np.testing.assert_array_equal(double[name], single[name])


def test_every_op_has_a_kernel_and_a_case() -> None:
    assert supported() == set(registry)
    assert {made.op for made in CASES} == set(registry)


def test_every_op_has_an_exporter() -> None:
    assert onnx_export.supported() == set(registry)
