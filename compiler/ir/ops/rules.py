"""Rules about element types that many op declarations share."""

from __future__ import annotations

from sqzc.diagnostics import VerifyError
from sqzc.ir.types import DType, TensorType


def require_numbers(op_name: str, x: TensorType) -> TensorType:
    """`x`; VerifyError when its elements are truth values."""
    if x.dtype is DType.BOOL:
        raise VerifyError(f"{op_name}: operand 'x'", expected="a type of numbers", got=str(x))
    return x


def require_floats(op_name: str, x: TensorType) -> TensorType:
    """`x`; VerifyError when its elements are not floating point numbers."""
    if not x.dtype.is_float:
        raise VerifyError(f"{op_name}: operand 'x'", expected="a float type", got=str(x))
    return x


def require_same_dtype(op_name: str, first: TensorType, *others: TensorType | None) -> None:
    """VerifyError unless all operands given have one element type."""
    if any(other is not None and other.dtype != first.dtype for other in others):
        given = ", ".join(str(t) for t in (first, *others) if t is not None)
        raise VerifyError(f"{op_name}: element types differ", got=given)
