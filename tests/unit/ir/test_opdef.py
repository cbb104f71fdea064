"""How ops are declared: kinds of attributes, operands, and what derives from a declaration."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sqzc.diagnostics import ParseError, VerifyError
from sqzc.ir import opdef
from sqzc.ir.opdef import (
    BOOL,
    DTYPE,
    FLOAT,
    FLOATS,
    INT,
    INTS,
    PADS,
    PAIR,
    Attr,
    Kind,
    Layouts,
    OpDef,
    Operand,
    op,
    registry,
    show_float,
)
from sqzc.ir.ops.activation import ACT, Activation
from sqzc.ir.types import DType, Layout, TensorType, f32


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test declares is forgotten after it."""
    monkeypatch.setattr(opdef, "registry", dict(registry))


# -- kinds ------------------------------------------------------------------------------------------------------------

VALUES: list[tuple[Kind[Any], Any, str]] = [
    (INT, 3, "3"),
    (INT, -1, "-1"),
    (FLOAT, 0.1, "0.1"),
    (FLOAT, 3.0, "3.0"),
    (FLOAT, -0.0, "-0.0"),
    (FLOAT, 1e-300, "1e-300"),
    (FLOAT, math.inf, "inf"),
    (FLOAT, -math.inf, "-inf"),
    (BOOL, True, "true"),
    (BOOL, False, "false"),
    (INTS, (), "[]"),
    (INTS, (1, -2), "[1,-2]"),
    (PAIR, (3, 1), "3x1"),
    (PADS, (0, 1, 2, 3), "[0,1,2,3]"),
    (FLOATS, (1.0, math.inf), "[1.0,inf]"),
    (FLOATS, (), "[]"),
    (DTYPE, DType.I64, "i64"),
    (ACT, Activation(), "none"),
    (ACT, Activation("relu"), "relu"),
    (ACT, Activation("clip", (0.0, 6.0)), "clip(0.0,6.0)"),
]


@pytest.mark.parametrize(("kind", "value", "text"), VALUES, ids=[f"{k.name}-{t}" for k, _, t in VALUES])
def test_kind_both_ways(kind: Kind[Any], value: Any, text: str) -> None:
    assert kind.check(value) == value
    assert kind.show(value) == text
    assert kind.read(text) == value


@given(st.floats())
def test_floats_read_back_to_the_same_bits(value: float) -> None:
    again = FLOAT.read(show_float(value))
    assert np.float64(again).tobytes() == np.float64(value).tobytes() or math.isnan(value)
    assert math.isnan(again) == math.isnan(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (INT, 1.0),
        (INT, True),
        (INT, "1"),
        (FLOAT, "1"),
        (FLOAT, True),
        (FLOAT, None),
        (BOOL, 1),
        (INTS, 3),
        (INTS, (1, 2.0)),
        (INTS, (1, False)),
        (PAIR, (1,)),
        (PAIR, (1, 2, 3)),
        (PADS, (1, 2)),
        (DTYPE, "f32"),
        (ACT, "relu"),
    ],
    ids=lambda x: getattr(x, "name", repr(x)),
)
def test_kind_refuses_other_values(kind: Kind[Any], value: object) -> None:
    assert kind.check(value) is None


@pytest.mark.parametrize(
    ("kind", "value", "canonical"),
    [(INT, np.int64(3), 3), (FLOAT, 3, 3.0), (FLOAT, np.float32(0.5), 0.5), (INTS, [1, np.int8(2)], (1, 2))],
    ids=str,
)
def test_kind_makes_plain_python_values(kind: Kind[Any], value: object, canonical: object) -> None:
    got = kind.check(value)
    assert got == canonical
    assert type(got) is type(canonical)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (INT, "1.5", "'1.5' is not an integer"),
        (INT, "", "'' is not an integer"),
        (FLOAT, "one", "'one' is not a number"),
        (BOOL, "True", "'True' is not a truth value"),
        (INTS, "1,2", "'1,2' is not a list"),
        (INTS, "[1,x]", "'x' is not an integer"),
        (INTS, "[1,]", "'' is not an integer"),
        (PAIR, "3xx", "'3xx' is not a pair of integers"),
        (FLOATS, "[1.0,x]", "'x' is not a number"),
        (DTYPE, "f31", "unknown dtype 'f31'"),
        (ACT, "clip(1,2", "'clip\\(1,2' is not an activation"),
        (ACT, "clip(a)", "'clip\\(a\\)' has a parameter that is no number"),
    ],
    ids=lambda x: getattr(x, "name", repr(x)),
)
def test_kind_refuses_other_text(kind: Kind[Any], text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        kind.read(text)


# -- declarations -----------------------------------------------------------------------------------------------------


def declare() -> Any:
    @op("blend", layouts=Layouts.SAME)
    class Blend(OpDef):
        """A weighted sum."""

        x = Operand(rank=4, dtype=DType.F32)
        y = Operand(optional=True, doc="the other one")
        size = Attr(PAIR, at_least=1)
        rate = Attr(FLOAT, default=0.5, at_least=0)
        mode = Attr(DTYPE, default=DType.F32)

        def check(self) -> None:
            if self.size[0] > 9:
                raise VerifyError("blend: too tall")

        def infer(self, x: TensorType, y: TensorType | None = None) -> TensorType:
            return x

    return Blend


def test_declaration_registers_and_collects() -> None:
    cls = declare()
    assert opdef.registry["blend"] is cls
    assert cls.name == "blend"
    assert cls.layouts is Layouts.SAME
    assert [o.name for o in cls.operands] == ["x", "y"]
    assert list(cls.attributes) == ["size", "rate", "mode"]
    assert cls.attributes["size"].required
    assert not cls.attributes["rate"].required
    with pytest.raises(AssertionError, match="op blend is declared twice"):
        declare()


def test_attributes_are_typed_values() -> None:
    made = declare()(size=[2, np.int32(3)], rate=1)
    assert (made.size, made.rate, made.mode) == ((2, 3), 1.0, DType.F32)
    assert isinstance(made.rate, float)
    assert made.shown_attrs() == [("size", "2x3"), ("rate", "1.0")]
    assert repr(made) == "blend{size=2x3, rate=1.0}"


@pytest.mark.parametrize(
    ("given_attrs", "message", "expected"),
    [
        ({}, "blend: attribute 'size' is missing", None),
        ({"size": 3}, "blend: attribute 'size' is 3", "a value of kind pair"),
        ({"size": (0, 2)}, "blend: 'size' must be at least 1, got 0x2", None),
        ({"size": (1, 1), "rate": -0.5}, "blend: 'rate' must be at least 0, got -0.5", None),
        ({"size": (1, 1), "speed": 1}, "blend has no attribute 'speed'", "size, rate, mode"),
        ({"size": (10, 1)}, "blend: too tall", None),
    ],
    ids=str,
)
def test_bad_attributes(given_attrs: dict[str, object], message: str, expected: str | None) -> None:
    with pytest.raises(VerifyError) as caught:
        declare()(**given_attrs)
    assert caught.value.message == message
    assert caught.value.expected == expected


def test_replace_checks_again() -> None:
    made = declare()(size=(2, 3), rate=0.25)
    assert made.replace(size=(4, 4)).attrs == {"size": (4, 4), "rate": 0.25, "mode": DType.F32}
    assert made.size == (2, 3)
    with pytest.raises(VerifyError, match="too tall"):
        made.replace(size=(11, 1))


def test_ops_are_equal_when_they_print_equal() -> None:
    clip, nan = registry["clip"], float("nan")
    assert clip(lo=nan) == clip(lo=nan)
    assert hash(clip(lo=nan)) == hash(clip(lo=nan))
    assert clip(lo=0.0) != clip(lo=-0.0)
    assert clip(lo=1) == clip(lo=1.0)
    assert clip() != registry["relu"]()
    assert clip() != "clip"
    conv = registry["conv2d"]
    zero, minus = (conv(act=Activation("clip", (z, 6.0))) for z in (0.0, -0.0))
    assert zero != minus
    assert zero == conv(act=Activation("clip", (0.0, 6.0)))
    assert conv(stride=(1, 1)) == conv()
    assert hash(conv(stride=(1, 1))) == hash(conv())
    assert conv(stride=(1, 1)).shown_attrs() == []


@pytest.mark.parametrize(
    ("types", "message", "expected"),
    [
        ([], "blend: 0 operands", "1 to 2"),
        ([f32(1, 1, 1, 1)] * 3, "blend: 3 operands", "1 to 2"),
        ([f32(1, 1)], "blend: operand 'x'", "rank 4"),
        ([TensorType(DType.F64, (1, 1, 1, 1))], "blend: operand 'x'", "element type f32"),
    ],
    ids=str,
)
def test_bad_operands(types: list[TensorType], message: str, expected: str) -> None:
    with pytest.raises(VerifyError) as caught:
        declare()(size=(1, 1)).result_types(types)
    assert (caught.value.message, caught.value.expected) == (message, expected)


def test_inference_sees_logical_types_only() -> None:
    blocked = f32(1, 8, 2, 2).with_layout(Layout(8))
    made = declare()(size=(1, 1))
    assert made.result_types([blocked]) == (f32(1, 8, 2, 2),)
    assert [made.operand_name(i) for i in range(2)] == ["x", "y"]
    assert made.flops([], []) == made.macs([], []) == 0


def test_variadic_operands() -> None:
    concat = registry["concat"](axis=0)
    assert concat.operand_name(7) == "xs"
    assert concat.result_types([f32(2)] * 5) == (f32(10),)
    with pytest.raises(VerifyError, match="concat: no operands"):
        concat.result_types([])


def test_subclasses_inherit_operands_and_attributes() -> None:
    add = registry["add"]
    assert [o.name for o in add.operands] == ["a", "b"]
    assert list(registry["max_pool2d"].attributes)[:2] == ["kernel", "stride"]
