"""Static types of values: element type, shape and memory layout."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sqzc.diagnostics import ParseError, VerifyError

MAX_RANK = 8
MAX_ELEMENTS = 1 << 31


class DType(enum.Enum):
    """Element types; the value is the spelling in text IR."""

    F32 = "f32"
    F64 = "f64"
    F16 = "f16"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    U64 = "u64"
    U32 = "u32"
    U16 = "u16"
    U8 = "u8"
    BOOL = "bool"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy dtype with the same bits."""
        return _NUMPY[self]

    @property
    def item_bytes(self) -> int:
        """Size of one element in bytes."""
        return _NUMPY[self].itemsize

    @property
    def is_float(self) -> bool:
        """Whether values are IEEE floating point numbers."""
        return self in (DType.F32, DType.F64, DType.F16)

    @property
    def is_unsigned(self) -> bool:
        """Whether values are whole numbers of at least zero, or truth values."""
        return _NUMPY[self].kind in "ub"

    @staticmethod
    def of(dtype: npt.DTypeLike) -> DType:
        """The DType of a numpy dtype; VerifyError for one the IR has no word for."""
        wanted = np.dtype(dtype)
        for candidate, known in _NUMPY.items():
            if known == wanted:
                return candidate
        raise VerifyError(f"the IR has no element type for numpy's {wanted}")


_NUMPY: dict[DType, np.dtype[np.generic]] = {
    DType.F32: np.dtype(np.float32),
    DType.F64: np.dtype(np.float64),
    DType.F16: np.dtype(np.float16),
    DType.I64: np.dtype(np.int64),
    DType.I32: np.dtype(np.int32),
    DType.I16: np.dtype(np.int16),
    DType.I8: np.dtype(np.int8),
    DType.U64: np.dtype(np.uint64),
    DType.U32: np.dtype(np.uint32),
    DType.U16: np.dtype(np.uint16),
    DType.U8: np.dtype(np.uint8),
    DType.BOOL: np.dtype(np.bool_),
}


@dataclass(frozen=True)
class Layout:
    """How the elements of a tensor lie in memory.

    `block == 0` is row-major over the logical shape and prints as nothing. `block == k` is channel-blocked,
    `nchw{k}c`: element (n, c, h, w) lies at index (((n * ceil(C/k) + c // k) * H + h) * W + w) * k + c % k; the lanes
    past C hold zeros.
    """

    block: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether the layout is row-major over the logical shape."""
        return self.block == 0

    def __str__(self) -> str:
        return "" if self.is_plain else f"nchw{self.block}c"

    @staticmethod
    def parse(text: str) -> Layout:
        """Reads `nchw16c`; the empty string is the row-major layout."""
        if text in ("", "plain"):
            return Layout()
        match = re.fullmatch(r"nchw([1-9][0-9]{0,2})c", text)
        if match is None:
            raise ParseError(f"unknown layout '{text}'", expected="nchw16c, nchw8c, nchw4c or none")
        return Layout(int(match.group(1)))


PLAIN = Layout()


@dataclass(frozen=True)
class TensorType:
    """Element type, logical shape and layout of a value; all static."""

    dtype: DType
    shape: tuple[int, ...]
    layout: Layout = PLAIN

    def __post_init__(self) -> None:
        if len(self.shape) > MAX_RANK:
            raise VerifyError(f"a tensor of rank {len(self.shape)}", expected=f"rank at most {MAX_RANK}")
        if any(dim < 0 for dim in self.shape):
            raise VerifyError(f"a negative dimension in shape {list(self.shape)}")
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise VerifyError(f"shape {list(self.shape)} has over {MAX_ELEMENTS} elements")
        if not self.layout.is_plain and len(self.shape) != 4:
            raise VerifyError(f"layout {self.layout} on shape {list(self.shape)}", expected="rank 4")

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def elements(self) -> int:
        """Number of logical elements."""
        return math.prod(self.shape)

    @property
    def physical_shape(self) -> tuple[int, ...]:
        """Shape of the row-major array that holds the tensor; [N, ceil(C/k), H, W, k] when channel-blocked."""
        if self.layout.is_plain:
            return self.shape
        n, c, h, w = self.shape
        block = self.layout.block
        return (n, -(-c // block), h, w, block)

    @property
    def physical_bytes(self) -> int:
        """Bytes in memory, the unused lanes of the last channel block included."""
        return math.prod(self.physical_shape) * self.dtype.item_bytes

    def with_layout(self, layout: Layout) -> TensorType:
        """The same logical tensor in another layout."""
        return replace(self, layout=layout)

    def with_shape(self, *shape: int) -> TensorType:
        """The same element type with another shape, row-major."""
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape and layout with another element type."""
        return replace(self, dtype=dtype)

    def __str__(self) -> str:
        text = f"{self.dtype.value}[{','.join(map(str, self.shape))}]"
        return text if self.layout.is_plain else f"{text}:{self.layout}"


def f32(*shape: int) -> TensorType:
    """Shorthand for a row-major float32 type."""
    return TensorType(DType.F32, tuple(shape))
