"""Cases of the elementwise ops: unary, casts, arithmetic with broadcasting, comparisons, choices."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from differential.case import Case, case, hundreds, positive, specials

from sqzc.ir import DType, TensorType
from sqzc.ir.opdef import registry
from sqzc.ir.ops import elementwise as ops
from sqzc.ir.ops.nn import BatchNorm
from sqzc.ir.types import f32

NUMBERS = (DType.F32, DType.I32, DType.I64, DType.U8)
INTEGERS = (DType.I64, DType.I32, DType.I16, DType.I8, DType.U8)
SIZES = (1, 3, 4, 7, 8, 9, 15, 16, 17, 33)

UNARY = sorted(
    name for name, cls in registry.items() if issubclass(cls, ops.Unary) and not issubclass(cls, ops.Identity)
)
BOUNDED = {"clip": {"lo": -0.5, "hi": 0.75}, "elu": {"alpha": 0.7}, "leaky_relu": {"alpha": 0.2}}


def unary() -> Iterator[Case]:
    """Every function on ordinary and on special numbers; edge sizes; blocks that are not full."""
    for name in UNARY:
        op = registry[name](**BOUNDED.get(name, {}))
        yield case("unary", op, f32(2, 3, 37))
        yield case("unary", op, f32(77), makers={0: specials}, note="specials")
        yield case("unary", op, f32(1, 21, 3, 5), layout="blocked", makers={0: positive})
    for size in SIZES:
        yield case("unary", ops.Relu(), f32(size))
        yield case("unary", ops.Sigmoid(), f32(3, size))
    yield case("unary", ops.Relu(), f32())
    yield case("unary", ops.Abs(), f32(0, 4))
    yield case("unary", ops.Neg(), f32(70_001))
    yield case("unary", ops.Relu(), f32(2, 64, 14, 14), layout="blocked")
    yield case("unary", ops.Clip(lo=1.0, hi=6.0), f32(2, 5, 4, 3), layout="blocked", note="moves zero")
    for dtype in INTEGERS:
        x = TensorType(dtype, (5, 19))
        for name in ("relu", "abs", "neg", "sign"):
            yield case("unary", registry[name](), x, length=0)
        yield case("unary", ops.Clip(lo=-math.inf, hi=20.0), x, length=0)
        yield case("unary", ops.Clip(lo=3.0, hi=300.0), x, length=0)


def casts() -> Iterator[Case]:
    """All pairs of types; half precision only where the CPU converts it."""
    types = [t for t in DType if t is not DType.F16]
    for source in types:
        for target in types:
            yield case("cast", ops.Cast(to=target), TensorType(source, (3, 37)), length=0, makers={0: hundreds})
    yield case("cast", ops.Cast(to=DType.BOOL), f32(64), length=0, makers={0: specials}, note="specials")


BROADCASTS = (
    ((5,), (5,)), ((), (3, 4)), ((64,), (1,)), ((2, 3, 14, 14), (1, 3, 1, 1)), ((2, 3, 14, 14), (14,)),
    ((4, 1, 6), (1, 5, 1)), ((2, 5, 3, 3), (2, 1, 3, 3)), ((4, 1, 18), (3, 1)), ((3, 1), (1, 40)), ((0, 3), (3,)),
    ((2, 1, 3, 1, 5), (4, 1, 7, 1)),
)  # fmt: skip
BLOCKED_BROADCASTS = (
    ((2, 20, 5, 5), (2, 20, 5, 5)), ((2, 20, 5, 5), (2, 20, 1, 1)), ((2, 20, 5, 5), (1, 20, 1, 5)),
    ((2, 20, 5, 5), ()), ((2, 20, 5, 5), (1, 1, 1, 1)), ((1, 20, 1, 1), (2, 20, 4, 4)), ((2, 32, 5, 5), (1, 32, 1, 1)),
)  # fmt: skip


def arithmetic() -> Iterator[Case]:
    """Every op on every kind of number; every way to broadcast."""
    for name in ("add", "sub", "mul", "div", "maximum", "minimum"):
        for dtype in NUMBERS:
            a, b = TensorType(dtype, (4, 1, 17)), TensorType(dtype, (3, 1))
            yield case("binary", registry[name](), a, b, length=int(dtype.is_float))
        yield case("binary", registry[name](), f32(300), f32(300), makers={0: specials, 1: specials}, note="specials")
    for name in ("add", "div"):
        for a_shape, b_shape in BLOCKED_BROADCASTS:
            yield case("binary", registry[name](), f32(*a_shape), f32(*b_shape), layout="blocked")
    for a_shape, b_shape in BROADCASTS:
        yield case("binary", ops.Add(), f32(*a_shape), f32(*b_shape))
        yield case("binary", ops.Sub(), f32(*b_shape), f32(*a_shape))
        yield case("compare", ops.Less(), f32(*a_shape), f32(*b_shape))
    for size in SIZES:
        yield case("binary", ops.Mul(), f32(2, size), f32(size))
    yield case("binary", ops.Pow(), f32(500), f32(500), makers={0: positive})
    yield case("binary", ops.Pow(), f32(900), f32(900), makers={0: specials, 1: specials}, note="specials")
    draw = random.Random(7)
    for _ in range(12):
        shape = [draw.choice((1, 2, 3, 5, 16, 19)) for _ in range(draw.randint(1, 4))]
        other = [draw.choice((1, size)) for size in shape][draw.randint(0, len(shape) - 1) :]
        yield case("binary", ops.Add(), f32(*shape), f32(*other), note="random")


def choices() -> Iterator[Case]:
    """Comparisons and `where`."""
    for name in ("equal", "less", "less_equal"):
        for dtype in NUMBERS:
            yield case("compare", registry[name](), TensorType(dtype, (6, 19)), TensorType(dtype, (19,)), length=0)
        yield case("compare", registry[name](), f32(200), f32(200), makers={0: specials, 1: specials}, note="specials")
    yield case("compare", ops.Equal(), TensorType(DType.BOOL, (5, 9)), TensorType(DType.BOOL, (9,)), length=0)
    for dtype in DType:
        a, b = TensorType(dtype, (5, 33)), TensorType(dtype, (1,))
        yield case("where", ops.Where(), TensorType(DType.BOOL, (5, 1)), a, b, length=0)
    yield case("where", ops.Where(), TensorType(DType.BOOL, (2, 1, 33)), f32(5, 1), f32(33), length=0)


def per_channel() -> Iterator[Case]:
    """Batch norm and PReLU, with constant and computed parameters, in both layouts."""
    for shape in ((2, 20, 5, 5), (3, 7), (2, 5, 9), (1, 16, 3, 3), (1, 1, 5, 5), (2, 3, 4, 5, 2)):
        c = shape[1]
        layouts = ("plain", "blocked") if len(shape) == 4 else ("plain",)
        for layout in layouts:
            norm = case("batch_norm", BatchNorm(eps=1e-3), f32(*shape), *[f32(c)] * 4, makers={4: positive}, length=4)
            yield Case(**{**vars(norm), "layout": layout})
            for slopes in {1, c}:
                yield case("prelu", ops.Prelu(), f32(*shape), f32(slopes), layout=layout)
                if layout == "plain" or c % 16 == 0:
                    yield case("prelu", ops.Prelu(), f32(*shape), f32(slopes), layout=layout, constant=frozenset())
            if layout == "plain" or c % 16 == 0:
                yield Case(**{**vars(norm), "layout": layout, "constant": frozenset()})
    yield case("prelu", ops.Prelu(), f32(9), f32(1))
    yield case("prelu", ops.Prelu(), f32(4, 30), f32(30), makers={0: specials}, note="specials")


CASES = [*unary(), *casts(), *arithmetic(), *choices(), *per_channel()]
