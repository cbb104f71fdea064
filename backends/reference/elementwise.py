"""Reference kernels of the elementwise ops.

Attributes enter as Python floats, which numpy rounds to the type of the array: float32 arithmetic stays float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sqzc.backends.reference.nn import per_channel
from sqzc.backends.reference.registry import kernel
from sqzc.ir.constant import Array
from sqzc.ir.opdef import OpDef
from sqzc.ir.ops import elementwise as ops
from sqzc.ir.types import DType

_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: Array) -> Array:
    """The Gauss error function, computed in double and rounded to the type of x."""
    return np.asarray(_erf(x).astype(x.dtype))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)); an overflow of exp gives the right limit, 0."""
    return np.asarray(1 / (1 + np.exp(-x)))


def exp_below_zero(x: Array) -> Array:
    """exp(x) - 1 where x <= 0; meaningless but finite above."""
    return np.asarray(np.expm1(np.minimum(x, 0)))


def gelu_tanh(x: Array) -> Array:
    """The approximation of gelu by tanh."""
    return np.asarray(x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2)


# Formulas without attributes, as in the declarations. np.maximum and np.minimum return NaN if either operand is NaN.
_UNARY: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "swish": lambda x: x * sigmoid(x),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": gelu_tanh,
    "softplus": lambda x: np.logaddexp(x, np.zeros_like(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "erf": erf,
    "abs": np.abs,
    "neg": np.negative,
    "reciprocal": np.reciprocal,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sign": np.sign,
    "identity": lambda x: x,
    "dropout": lambda x: x,
}

_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "pow": np.power,
    "equal": np.equal,
    "less": np.less,
    "less_equal": np.less_equal,
}


def _register_tables() -> None:
    def unary(formula: Callable[[Array], Array]) -> Callable[[OpDef, Array], Array]:
        return lambda op, x: formula(x)

    def binary(formula: Callable[[Array, Array], Array]) -> Callable[[OpDef, Array, Array], Array]:
        return lambda op, a, b: formula(a, b)

    for name, one in _UNARY.items():
        kernel(name)(unary(one))
    for name, two in _BINARY.items():
        kernel(name)(binary(two))


_register_tables()


@kernel("leaky_relu")
def leaky_relu(op: ops.LeakyRelu, x: Array) -> Array:
    """NaN fails the comparison and stays NaN in the product."""
    return np.where(x >= 0, x, op.alpha * x)


@kernel("elu")
def elu(op: ops.Elu, x: Array) -> Array:
    """The declared formula."""
    return np.where(x > 0, x, op.alpha * exp_below_zero(x))


@kernel("selu")
def selu(op: ops.Selu, x: Array) -> Array:
    """The declared formula."""
    return np.asarray(op.gamma * np.where(x > 0, x, op.alpha * exp_below_zero(x)))


@kernel("clip")
def clip(op: ops.Clip, x: Array) -> Array:
    """An infinite bound is none; integers are compared with integers, whatever their width."""
    if x.dtype.kind == "f":
        return np.asarray(np.minimum(np.maximum(x, op.lo), op.hi))
    return np.asarray(np.minimum(np.maximum(x, int_bound(op.lo, x.dtype)), int_bound(op.hi, x.dtype)))


def int_bound(bound: float, dtype: np.dtype[Any]) -> int:
    """The integer of type `dtype` nearest to a whole or infinite bound."""
    info = np.iinfo(dtype)
    whole = int(math.copysign(2**65, bound)) if math.isinf(bound) else int(bound)
    return min(max(whole, int(info.min)), int(info.max))


@kernel("hard_sigmoid")
def hard_sigmoid(op: ops.HardSigmoid, x: Array) -> Array:
    """The declared formula."""
    return np.asarray(np.clip(op.alpha * x + op.beta, 0, 1))


@kernel("cast")
def cast(op: ops.Cast, x: Array) -> Array:
    """numpy's astype truncates; a value that does not fit an integer gives an unspecified one."""
    if op.to is DType.BOOL:
        return np.asarray(x != 0)
    if op.to.is_float:
        return x  # rounded once, when the result is stored in the type of the value or in float64
    return x.astype(op.to.numpy)


@kernel("div")
def div(op: ops.Div, a: Array, b: Array) -> Array:
    """Integer division in numpy rounds down; one is added where that differs from truncation."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    quotient, rest = np.floor_divide(a, b), np.remainder(a, b)
    return np.asarray(quotient + ((rest != 0) & ((a < 0) != (b < 0))).astype(a.dtype))


@kernel("prelu")
def prelu(op: ops.Prelu, x: Array, slope: Array) -> Array:
    """One slope for all is a vector of length one, which broadcasts too."""
    return np.where(x >= 0, x, x * (per_channel(slope, x.ndim) if x.ndim > 1 else slope))


@kernel("where")
def where(op: ops.Where, condition: Array, a: Array, b: Array) -> Array:
    """np.where broadcasts."""
    return np.where(condition, a, b)
