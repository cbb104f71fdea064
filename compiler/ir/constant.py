"""Weights and other constants: immutable arrays shared by every graph that uses them."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sqzc.ir.types import DType, TensorType

INLINE_ELEMENTS = 16

Array = npt.NDArray[Any]


class Constant:
    """A named read-only array; `symbol` is its name in text IR and in the weights file.

    The array is row-major and never copied when a graph is cloned or rewritten.
    """

    def __init__(self, symbol: str, data: Array) -> None:
        array = np.asarray(data, order="C")
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        array = array.view()
        array.flags.writeable = False
        self.symbol = symbol
        self.data: Array = array

    @property
    def type(self) -> TensorType:
        """Row-major type of the array."""
        return TensorType(DType.of(self.data.dtype), tuple(int(d) for d in self.data.shape))

    @cached_property
    def sha(self) -> str:
        """First 16 hex digits of SHA-256 over type and bytes."""
        digest = hashlib.sha256(str(self.type).encode())
        digest.update(np.ascontiguousarray(self.data).tobytes())
        return digest.hexdigest()[:16]

    @property
    def key(self) -> str:
        """Name of the array in a weights file; two constants of one symbol but other data do not collide."""
        return f"{self.symbol}#{self.sha}"

    @property
    def is_inline(self) -> bool:
        """Whether the values are few enough to stand in the text."""
        return self.data.size <= INLINE_ELEMENTS
