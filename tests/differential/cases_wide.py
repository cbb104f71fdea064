"""Cases of double precision functions, the trigonometric ones, and unsigned integers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from differential.case import Array, Case, case, positive

from sqzc.backends.llvm.vector_math64 import has_function
from sqzc.ir import DType, TensorType
from sqzc.ir.opdef import registry
from sqzc.ir.ops import elementwise as ops
from sqzc.ir.ops import extra_trigonometry as tr
from sqzc.ir.ops import shape as sh
from sqzc.ir.types import f32

UNSIGNED = (DType.U64, DType.U32, DType.U16)


def f64(*shape: int) -> TensorType:
    """A row-major float64 type."""
    return TensorType(DType.F64, shape)


def odd_doubles(rng: np.random.Generator, type: TensorType) -> Array:
    """Normal numbers, every fourth of which is a zero, an infinity, NaN, or near an end of the range."""
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-310, 1e300, -1e300, 1.0, -1.0, 709.0, -745.0])
    return np.where(rng.random(type.shape) < 0.25, rng.choice(odd, type.shape), rng.standard_normal(type.shape))


def angles(rng: np.random.Generator, type: TensorType) -> Array:
    """Angles of all sizes and both signs."""
    return (rng.choice((-1, 1), type.shape) * 10.0 ** rng.uniform(-30, 38, type.shape)).astype(np.float32)


def large(rng: np.random.Generator, type: TensorType) -> Array:
    """Whole numbers over the whole range of the type."""
    info = np.iinfo(str(type.dtype.numpy))
    return rng.integers(info.min, info.max, type.shape, type.dtype.numpy, endpoint=True)


def doubles() -> Iterator[Case]:
    """Every function of float64, on ordinary and on special numbers, and powers."""
    for name, cls in sorted(registry.items()):
        if not has_function(name) or not issubclass(cls, ops.Unary):
            continue
        yield case("unary.f64", cls(), f64(2, 3, 37))
        # gelu_tanh multiplies what overflows by what vanishes.
        if name != "gelu_tanh":
            yield case("unary.f64", cls(), f64(301), makers={0: odd_doubles}, note="specials")
    yield case("unary.f64", ops.Log(), f64(500), makers={0: positive})
    yield case("unary.f64", ops.Clip(lo=-0.25, hi=1.5), f64(50))
    yield case("pow.f64", ops.Pow(), f64(4, 50), f64(50), makers={0: positive})
    whole = {0: lambda rng, t: rng.integers(-9, 10, t.shape), 1: lambda rng, t: rng.integers(0, 12, t.shape)}
    yield case("pow.f64", ops.Pow(), f64(400), f64(400), makers=whole, length=0, note="whole")


def angles_of_all_sizes() -> Iterator[Case]:
    """Absolute errors stay small up to the largest float32."""
    for op in (tr.Sin(), tr.Cos(), tr.Atan()):
        yield case("unary", op, f32(5000), makers={0: angles}, note="all sizes")


def unsigned() -> Iterator[Case]:
    """Arithmetic, comparisons, reductions, searches and conversions where the top bit is no sign."""
    for dtype in UNSIGNED:
        a, b = TensorType(dtype, (5, 37)), TensorType(dtype, (37,))
        both = {0: large, 1: large}
        for name in ("add", "sub", "mul", "div", "maximum", "minimum"):
            yield case("binary", registry[name](), a, b, makers=both, length=0, note="large")
        for name in ("equal", "less", "less_equal"):
            yield case("compare", registry[name](), a, b, makers=both, length=0, note="large")
        for op in (ops.Relu(), ops.Abs(), ops.Sign(), ops.Clip(lo=3.0, hi=60000.0)):
            yield case("unary", op, a, makers=both, length=0, note="large")
        for axis_op in (sh.ReduceMax(axes=(1,)), sh.ReduceMin(axes=(0,)), sh.ReduceSum(axes=(1,))):
            yield case("reduce*", axis_op, a, makers=both, length=0, note="large")
        yield case("arg*", sh.ArgMax(axis=1), a, makers=both, length=0, note="large")
        yield case("topk*", sh.TopK(k=3), a, makers=both, length=0, note="large")
        for wanted in (DType.F64, DType.F32, DType.I64, DType.U8):
            yield case("cast", ops.Cast(to=wanted), a, makers=both, length=0, note="large")
        fits = {0: lambda rng, t, d=dtype: rng.uniform(0, 2.0 ** (8 * d.item_bytes) * 0.999, t.shape)}
        yield case("cast", ops.Cast(to=dtype), f64(500), makers=fits, length=0, note="whole range")


CASES: list[Case] = [*doubles(), *angles_of_all_sizes(), *unsigned()]
