"""Every op declaration: the types it infers, what it refuses and in which words, what it costs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sqzc.diagnostics import VerifyError
from sqzc.ir import DType, OpDef, TensorType, registry
from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.nn import Rounding
from sqzc.ir.ops.shape import PadMode

RELU = Activation("relu")
CEIL = Rounding.CEIL
IMAGE = "f32[2,4,7,6]"


def types(text: str) -> list[TensorType]:
    """Reads "f32[2,3] i64[]"."""
    found = re.findall(r"(\w+)\[([\d,]*)\]", text)
    return [TensorType(DType(dtype), tuple(int(d) for d in dims.split(",") if d)) for dtype, dims in found]


def make(name: str, **attrs: Any) -> OpDef:
    return registry[name](**attrs)


def show(found: tuple[TensorType, ...]) -> str:
    return " ".join(map(str, found))


UNARY = [name for name, cls in registry.items() if getattr(cls, "is_activation", False)]
ARITHMETIC = ["add", "sub", "mul", "div", "maximum", "minimum", "pow"]
COMPARISONS = ["equal", "less", "less_equal"]
REDUCTIONS = ["reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod"]

INFERRED: list[tuple[OpDef, str, str]] = [
    *[(make(name), "f32[2,3]", "f32[2,3]") for name in UNARY],
    (make("clip", lo=-1.0, hi=6.0), "u8[4]", "u8[4]"),
    (make("identity"), "bool[2]", "bool[2]"),
    (make("dropout", ratio=0.1), "i64[2]", "i64[2]"),
    (make("cast", to=DType.I8), "f32[2,3]", "i8[2,3]"),
    *[(make(name), "f32[4,1,3] f32[2,1]", "f32[4,2,3]") for name in ARITHMETIC],
    (make("add"), "i64[] i64[0]", "i64[0]"),
    *[(make(name), "i32[4,1] i32[3]", "bool[4,3]") for name in COMPARISONS],
    (make("equal"), "bool[2] bool[2]", "bool[2]"),
    (make("prelu"), "f32[2,3,4] f32[3]", "f32[2,3,4]"),
    (make("prelu"), "f32[5] f32[1]", "f32[5]"),
    (make("where"), "bool[3,1] f16[2] f16[]", "f16[3,2]"),
    (make("conv2d"), IMAGE + " f32[5,4,3,3]", "f32[2,5,5,4]"),
    (make("conv2d", stride=(2, 2)), "f32[1,3,227,227] f32[64,3,3,3] f32[64]", "f32[1,64,113,113]"),
    (make("conv2d", pads=(1, 0, 2, 1), stride=(2, 3), dilation=(1, 2)), IMAGE + " f32[5,4,3,3]", "f32[2,5,4,1]"),
    (make("conv2d", group=2, act=RELU), IMAGE + " f32[6,2,1,1] f32[6] f32[2,6,7,6]", "f32[2,6,7,6]"),
    (make("conv_transpose2d", stride=(2, 2)), IMAGE + " f32[4,5,3,3]", "f32[2,5,15,13]"),
    (
        make("conv_transpose2d", stride=(2, 3), pads=(1, 0, 2, 1), output_pads=(1, 2), group=2, dilation=(2, 1)),
        IMAGE + " f32[4,3,3,2] f32[6]",
        "f32[2,6,15,18]",
    ),
    (make("max_pool2d", kernel=(3, 3), stride=(2, 2)), "f32[1,1,56,113]", "f32[1,1,27,56]"),
    (make("max_pool2d", kernel=(3, 3), stride=(2, 2), rounding=CEIL), "f32[1,1,56,113]", "f32[1,1,28,56]"),
    # A last window that would start in the padding after the image does not count.
    (make("max_pool2d", kernel=(2, 2), stride=(2, 2), pads=(1, 0, 1, 0), rounding=CEIL), "i8[1,1,5,4]", "i8[1,1,3,2]"),
    (make("max_pool2d", kernel=(1, 1), stride=(3, 3), rounding=CEIL), "f32[1,1,2,4]", "f32[1,1,1,2]"),
    (make("max_pool2d", kernel=(2, 3), dilation=(3, 2)), "f32[1,1,9,9]", "f32[1,1,6,5]"),
    (make("avg_pool2d", kernel=(7, 6)), IMAGE, "f32[2,4,1,1]"),
    (make("batch_norm"), "f32[2,3] f32[3] f32[3] f32[3] f32[3]", "f32[2,3]"),
    (make("instance_norm"), "f32[2,3,4] f32[3] f32[3]", "f32[2,3,4]"),
    (make("lrn", size=5), IMAGE, IMAGE),
    (make("softmax", axes=(1, 3)), IMAGE, IMAGE),
    (make("linear"), "f32[2,9] f32[4,9] f32[4]", "f32[2,4]"),
    (make("matmul"), "f32[3,1,2,4] f32[5,4,6]", "f32[3,5,2,6]"),
    (make("matmul", trans_a=True, trans_b=True), "f32[4,2] f32[6,4]", "f32[2,6]"),
    (make("relayout"), IMAGE, IMAGE),
    (make("reshape", shape=(6, 28, 2)), IMAGE, "f32[6,28,2]"),
    (make("reshape", shape=()), "i64[1]", "i64[]"),
    (make("transpose", perm=(0, 2, 3, 1)), IMAGE, "f32[2,7,6,4]"),
    (make("concat", axis=1), "f32[2,3] f32[2,0] f32[2,4]", "f32[2,7]"),
    (make("slice", starts=(1, 5), sizes=(2, 3), steps=(1, -2)), "f32[3,6]", "f32[2,3]"),
    (make("slice", starts=(9,), sizes=(0,)), "f32[3]", "f32[0]"),
    (make("pad", pads=(0, 1, 2, 0)), "f32[3,4]", "f32[5,5]"),
    (make("pad", pads=(2, 2), mode=PadMode.REFLECT), "f32[3]", "f32[7]"),
    (make("expand", shape=(2, 3, 4)), "f32[3,1]", "f32[2,3,4]"),
    *[(make(name, axes=(0, 2)), "f32[2,3,4]", "f32[1,3,1]") for name in REDUCTIONS],
    *[(make(name, axes=(0, 2), keepdims=False), "i32[2,3,4]", "i32[3]") for name in REDUCTIONS],
    (make("reduce_max", axes=(1,)), "f32[0,0]", "f32[0,1]"),
    (make("argmax", axis=1), "f32[2,3]", "i64[2,1]"),
    (make("argmin", axis=0, keepdims=False), "u8[2,3]", "i64[3]"),
    (make("topk", k=2), "f16[4,5]", "f16[4,2] i64[4,2]"),
    (make("gather", axis=1), "f32[2,3,4] i64[5,6]", "f32[2,5,6,4]"),
    (make("resize2d", size=(9, 1)), IMAGE, "f32[2,4,9,1]"),
]


@pytest.mark.parametrize(("declared", "operands", "wanted"), INFERRED, ids=lambda x: str(x))
def test_inferred_types(declared: OpDef, operands: str, wanted: str) -> None:
    assert show(declared.result_types(types(operands))) == wanted


def test_every_op_is_inferred_here() -> None:
    assert {declared.name for declared, _, _ in INFERRED} == set(registry)


REFUSED: list[tuple[OpDef, str, str]] = [
    *[(make(name), "bool[2]", "a (type of numbers|float type)") for name in UNARY],
    *[(make(name), "i32[2]", "a float type") for name in ("sigmoid", "exp", "gelu", "floor", "leaky_relu")],
    (make("clip", hi=0.5), "i32[2]", "whole number"),
    *[(make(name), "f32[2] f64[2]", "element types differ") for name in ARITHMETIC + COMPARISONS],
    *[(make(name), "f32[2] f32[3]", "do not broadcast") for name in ARITHMETIC + COMPARISONS],
    *[(make(name), "bool[2] bool[2]", "a (type of numbers|float type)") for name in (*ARITHMETIC, "less")],
    (make("pow"), "i32[2] i32[2]", "a float type"),
    (make("relu"), "f32[2] f32[2]", "2 operands"),
    (make("prelu"), "f32[2,3] f32[2]", "1 or 3 elements"),
    (make("where"), "f32[2] f32[2] f32[2]", "element type bool"),
    (make("where"), "bool[2] f32[2] i8[2]", "element types differ"),
    (make("conv2d"), "f32[2,4,7] f32[5,4,3]", "rank 4"),
    (make("conv2d"), IMAGE + " f32[5,3,3,3]", "channels of input and weight"),
    (make("conv2d", group=2), IMAGE + " f32[5,2,3,3]", "multiple of group 2"),
    (make("conv2d"), IMAGE + " f32[5,4,3,3] f32[4]", "bias"),
    (make("conv2d"), IMAGE + " f32[5,4,3,3] f32[5] f32[2,5,7,6]", "residual"),
    (make("conv2d"), IMAGE + " f16[5,4,3,3]", "element types differ"),
    (make("conv2d"), IMAGE + " f32[5,4,8,3]", "window is larger"),
    (make("conv2d", dilation=(4, 1)), IMAGE + " f32[5,4,3,3]", "window is larger"),
    (make("conv_transpose2d"), IMAGE + " f32[5,4,3,3]", "channels of input and weight"),
    (make("conv_transpose2d", pads=(9, 0, 0, 0)), IMAGE + " f32[4,5,3,3]", "leaves nothing"),
    (make("conv_transpose2d"), IMAGE + " f32[4,5,3,3] f32[4]", "bias"),
    (make("max_pool2d", kernel=(8, 1)), IMAGE, "window is larger"),
    (make("max_pool2d", kernel=(1, 1)), "bool[1,1,1,1]", "type of numbers"),
    (make("avg_pool2d", kernel=(1, 1)), "i32[1,1,1,1]", "a float type"),
    (make("batch_norm"), "f32[2,3] f32[3] f32[3] f32[2] f32[3]", "mean"),
    (make("batch_norm"), "f32[2,3] f32[3] f32[3] f64[3] f32[3]", "element types differ"),
    (make("instance_norm"), "f32[2,3] f32[3] f32[3]", "one number per channel"),
    (make("lrn", size=3), "i32[1,1,1,1]", "a float type"),
    *[(make("softmax", axes=axes), "f32[2,3]", "different axes") for axes in ((), (2,), (-1,), (1, 1))],
    (make("linear"), "f32[2,9] f32[4,8]", "inner dimensions"),
    (make("linear"), "f32[2,9] f32[4,9] f32[9]", "bias"),
    (make("matmul"), "f32[2,3] f32[2,3]", "inner dimensions"),
    (make("matmul"), "f32[3] f32[3,3]", "rank at least 2"),
    (make("reshape", shape=(5,)), "f32[2,3]", "element count"),
    (make("transpose", perm=(0, 0)), "f32[2,3]", "permutation"),
    (make("concat", axis=0), "", "at least one"),
    (make("concat", axis=2), "f32[2,3]", "below 2"),
    (make("concat", axis=0), "f32[2,3] f32[2,4]", "do not fit"),
    (make("concat", axis=0), "f32[2,3] f64[2,3]", "do not fit"),
    (make("slice", starts=(1,), sizes=(3,)), "f32[3]", "leaves"),
    (make("slice", starts=(1,), sizes=(3,), steps=(-1,)), "f32[3]", "leaves"),
    (make("slice", starts=(0,), sizes=(1,), steps=(0,)), "f32[3]", "no zero step"),
    (make("slice", starts=(0, 0), sizes=(1,)), "f32[3]", "1 numbers each"),
    (make("pad", pads=(1,)), "f32[3]", "2 numbers"),
    (make("pad", pads=(3, 0), mode=PadMode.REFLECT), "f32[3]", "mirror image"),
    (make("pad", pads=(1, 0), mode=PadMode.EDGE), "f32[0]", "nothing to repeat"),
    (make("pad", pads=(1, 0), value=0.5), "i32[3]", "whole number"),
    (make("expand", shape=(3,)), "f32[2,3]", "does not broadcast"),
    (make("expand", shape=(4,)), "f32[3]", "do not broadcast"),
    *[(make(name, axes=(2,)), "f32[2,3]", "different axes") for name in REDUCTIONS],
    *[(make(name, axes=(1, 1)), "f32[2,3]", "different axes") for name in REDUCTIONS],
    *[(make(name, axes=(1,)), "f32[2,0]", "nothing to choose") for name in ("reduce_max", "reduce_min")],
    (make("argmax", axis=2), "f32[2,3]", "different axes"),
    (make("argmin", axis=0), "f32[0,3]", "nothing to choose"),
    (make("topk", k=4), "f32[2,3]", "at most the last dimension"),
    (make("gather", axis=2), "f32[2,3] i64[1]", "different axes"),
    (make("gather"), "f32[2,3] i32[1]", "element type i64"),
    (make("resize2d", size=(4,)), IMAGE, "height, width"),
]


@pytest.mark.parametrize(("declared", "operands", "words"), REFUSED, ids=lambda x: str(x))
def test_refused_operands(declared: OpDef, operands: str, words: str) -> None:
    with pytest.raises(VerifyError) as caught:
        declared.result_types(types(operands))
    assert re.search(words, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("name", "attrs", "words"),
    [
        ("conv2d", {"stride": (0, 1)}, "'stride' must be at least 1, got 0x1"),
        ("conv2d", {"pads": (0, 0, 0)}, "attribute 'pads'"),
        ("conv2d", {"strides": (1, 1)}, "no attribute 'strides'"),
        ("conv2d", {"act": "relu"}, "attribute 'act'"),
        ("conv2d", {"act": Activation("relou")}, "no activation 'relou'"),
        ("linear", {"act": Activation("add")}, "no activation 'add'"),
        ("conv_transpose2d", {"act": Activation("identity")}, "no activation 'identity'"),
        ("conv2d", {"act": Activation("clip", (0.0,))}, "activation 'clip' with 1 parameters"),
        ("max_pool2d", {}, "'kernel' is missing"),
        ("max_pool2d", {"kernel": (0, 1)}, "at least 1"),
        ("lrn", {"size": 0}, "at least 1"),
        ("topk", {"k": True}, "attribute 'k'"),
        ("reshape", {"shape": (-1,)}, "at least 0"),
        ("argmax", {"axis": -1}, "at least 0"),
        ("cast", {"to": "f32"}, "attribute 'to'"),
    ],
)
def test_refused_attributes(name: str, attrs: dict[str, Any], words: str) -> None:
    with pytest.raises(VerifyError, match=re.escape(words)):
        make(name, **attrs)


@pytest.mark.parametrize(
    ("declared", "operands", "macs", "flops"),
    [
        (make("conv2d"), IMAGE + " f32[5,4,3,3]", 200 * 36, 2 * 200 * 36),
        (make("conv2d"), IMAGE + " f32[5,4,3,3] f32[5]", 200 * 36, 2 * 200 * 36 + 200),
        (make("conv2d", act=RELU), IMAGE + " f32[5,4,3,3] f32[5] f32[2,5,5,4]", 200 * 36, 2 * 200 * 36 + 3 * 200),
        (make("conv2d", group=2), IMAGE + " f32[6,2,1,1]", 504 * 2, 2 * 504 * 2),
        (make("conv_transpose2d", act=RELU), "f32[1,2,3,3] f32[2,5,2,2] f32[5]", 18 * 20, 2 * 18 * 20 + 2 * 80),
        (make("linear", act=RELU), "f32[2,9] f32[4,9] f32[4]", 72, 144 + 16),
        (make("matmul", trans_a=True), "f32[3,4,2] f32[4,5]", 30 * 4, 240),
        (make("max_pool2d", kernel=(3, 3), stride=(2, 2), rounding=CEIL), "f32[1,1,56,56]", 0, 9 * 28 * 28),
        (make("avg_pool2d", kernel=(7, 6)), IMAGE, 0, 0),
        (make("relu"), "f32[2,3]", 0, 6),
        (make("identity"), "f32[2,3]", 0, 0),
        (make("dropout"), "f32[2,3]", 0, 0),
        (make("add"), "f32[2,1] f32[3]", 0, 6),
        (make("prelu"), "f32[2,3] f32[1]", 0, 12),
        (make("batch_norm"), "f32[2,3] f32[3] f32[3] f32[3] f32[3]", 0, 12),
        (make("concat", axis=0), "f32[2] f32[2]", 0, 0),
        (make("softmax", axes=(0,)), "f32[9]", 0, 0),
    ],
    ids=str,
)
def test_cost(declared: OpDef, operands: str, macs: int, flops: int) -> None:
    inputs = types(operands)
    outputs = declared.result_types(inputs)
    assert (declared.macs(inputs, outputs), declared.flops(inputs, outputs)) == (macs, flops)


@pytest.mark.parametrize("name", UNARY)
def test_an_activation_is_its_op(name: str) -> None:
    declared = registry[name]()
    act = declared.activation()  # type: ignore[attr-defined]
    assert act.as_op() == declared
    assert Activation.parse(str(act)) == act
