"""Reference kernels of the trigonometric functions."""

from __future__ import annotations

import numpy as np

from sqzc.backends.reference.registry import kernel
from sqzc.ir.constant import Array
from sqzc.ir.opdef import OpDef


@kernel("sin")
def sin(op: OpDef, x: Array) -> Array:
    """numpy's sine."""
    return np.asarray(np.sin(x))


@kernel("cos")
def cos(op: OpDef, x: Array) -> Array:
    """numpy's cosine."""
    return np.asarray(np.cos(x))


@kernel("atan")
def atan(op: OpDef, x: Array) -> Array:
    """numpy's arc tangent."""
    return np.asarray(np.arctan(x))
