"""ONNX element types and tensors as numpy knows them. Every length is checked before anything is allocated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from sqzc.diagnostics import FrontendError, UnsupportedError, VerifyError
from sqzc.ir.types import MAX_ELEMENTS, MAX_RANK, DType

Array = npt.NDArray[Any]

# The typed field that holds each element type where raw_data does not, and how many of its entries make one element.
_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    **dict.fromkeys((TensorProto.UINT32, TensorProto.UINT64), "uint64_data"),
    **dict.fromkeys(
        (
            TensorProto.INT32,
            TensorProto.INT16,
            TensorProto.INT8,
            TensorProto.UINT16,
            TensorProto.UINT8,
            TensorProto.BOOL,
            TensorProto.FLOAT16,
        ),
        "int32_data",
    ),
}


def type_name(elem_type: int) -> str:
    """ONNX's name of an element type, such as FLOAT16."""
    names: dict[int, str] = {number: name for name, number in TensorProto.DataType.items()}
    return names.get(elem_type, f"number {elem_type}")


def ir_dtype(elem_type: int) -> DType | None:
    """The IR's element type, or None where it has none."""
    if elem_type not in _FIELDS:
        return None
    try:
        return DType.of(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except VerifyError:
        return None


def require_dtype(elem_type: int, what: str) -> DType:
    """The IR's element type; UnsupportedError when it has none."""
    dtype = ir_dtype(elem_type)
    if dtype is None:
        raise UnsupportedError(f"{what} has elements of type {type_name(elem_type)}")
    return dtype


def dims_of(tensor: Any, what: str) -> tuple[int, ...]:
    """The shape of a TensorProto; FrontendError when no value can have it."""
    if len(tensor.dims) > MAX_RANK:
        raise FrontendError(f"{what} has rank {len(tensor.dims)}", expected=f"rank at most {MAX_RANK}")
    dims = tuple(int(dim) for dim in tensor.dims)
    if any(dim < 0 for dim in dims) or math.prod(dims) > MAX_ELEMENTS:
        raise FrontendError(f"{what} has shape {list(dims)}", expected=f"at most {MAX_ELEMENTS} elements")
    return dims


def to_array(tensor: Any, what: str) -> Array:
    """The contents of a TensorProto whose data is in the file.

    FrontendError when the data does not fill the shape, UnsupportedError for an element type that the IR has no word
    for.
    """
    dtype = require_dtype(tensor.data_type, what)
    dims = dims_of(tensor, what)
    if tensor.data_location == TensorProto.EXTERNAL:
        raise FrontendError(f"{what} has its data outside the file")
    if tensor.HasField("raw_data"):
        wanted, given, unit = math.prod(dims) * dtype.item_bytes, len(tensor.raw_data), "bytes"
    else:
        wanted, given, unit = math.prod(dims), len(getattr(tensor, _FIELDS[tensor.data_type])), "numbers"
    if wanted != given:
        raise FrontendError(
            f"the data of {what} does not fill its shape {list(dims)}",
            expected=f"{wanted} {unit}",
            got=str(given),
            hint="the file may be cut off",
        )
    return np.asarray(numpy_helper.to_array(tensor))


def int_range(dtype: DType) -> tuple[int, int]:
    """The lowest and the highest number of an integer type."""
    info = np.iinfo(str(dtype.numpy))
    return int(info.min), int(info.max)
