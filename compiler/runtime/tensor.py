"""What goes into and comes out of a compiled model, and the checks of the arrays that a caller gives.

Nothing is cast, copied or transposed on the caller's behalf: an array that does not fit is refused with what was
expected, what came, and what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sqzc.diagnostics import Location, SqzcError, nearest
from sqzc.runtime.metadata import TensorMeta

Array = npt.NDArray[Any]

_NUMPY_NAMES = {
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u64": "uint64",
    "u32": "uint32",
    "u16": "uint16",
    "u8": "uint8",
    "bool": "bool",
}


class InputTypeError(SqzcError, TypeError):
    """An input that is no array or whose elements are of another type than the model's."""

    code = "RT01"


class InputValueError(SqzcError, ValueError):
    """Inputs with a wrong name, shape, layout in memory, or batch."""

    code = "RT02"


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model.

    `shape` is for a batch of 1: an array's first dimension may be any multiple of its own.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    layout: str
    """What the dimensions mean (`nchw`, ...); empty when nothing is known."""

    @classmethod
    def from_metadata(cls, meta: TensorMeta) -> TensorInfo:
        """The same facts, with numpy's notion of the dtype."""
        return cls(meta["name"], tuple(meta["shape"]), np.dtype(_NUMPY_NAMES[meta["dtype"]]), meta["layout"])

    def batch_shape(self, batch: int) -> tuple[int, ...]:
        """The shape of `batch` units; a tensor without dimensions has just the one."""
        return (self.shape[0] * batch, *self.shape[1:]) if self.shape else ()

    def __str__(self) -> str:
        dims = ", ".join(str(dim) for dim in self.shape)
        layout = f" {self.layout.upper()}" if self.layout else ""
        return f"{self.dtype.name}[{dims}]{layout}"


def check_inputs(infos: Sequence[TensorInfo], inputs: Mapping[str, object]) -> tuple[int, list[Array]]:
    """The batch that `inputs` make, and the arrays in the model's order.

    Raises InputTypeError or InputValueError when a name is missing or unknown, an array does not fit, or two arrays
    disagree about the batch.
    """
    _check_names([info.name for info in infos], inputs)
    arrays: list[Array] = []
    batch: int | None = None
    for info in infos:
        array, own_batch = _check_array(info, inputs[info.name])
        if batch is not None and own_batch != batch:
            raise InputValueError(
                "the inputs disagree about the batch",
                location=Location(place=f"input '{info.name}'"),
                expected=f"a batch of {batch}, as in input '{infos[0].name}'",
                got=f"a batch of {own_batch} (shape {array.shape})",
            )
        batch = own_batch
        arrays.append(array)
    assert batch is not None, "a model has at least one input"
    return batch, arrays


def check_batch_fits(infos: Sequence[TensorInfo], batch: int) -> None:
    """Refuses any batch but 1 when one of `infos` has no dimension to carry it."""
    flat = [info.name for info in infos if not info.shape]
    if flat and batch != 1:
        raise InputValueError(
            f"this model runs on a batch of 1 alone: '{flat[0]}' has no dimensions",
            expected="a batch of 1",
            got=f"a batch of {batch}",
        )


def _check_names(names: Sequence[str], inputs: Mapping[str, object]) -> None:
    if not isinstance(inputs, Mapping):
        raise InputTypeError(
            "the inputs must be given by name",
            expected=f"a dict such as {{'{names[0]}': array}}",
            got=type(inputs).__name__,
        )
    known = ", ".join(f"'{name}'" for name in names)
    for name in inputs:
        if name not in names:
            raise InputValueError(
                f"the model has no input {name!r}", expected=known, got=repr(name), hint=nearest(str(name), names)
            )
    missing = [name for name in names if name not in inputs]
    if missing:
        given = ", ".join(repr(name) for name in inputs) or "no inputs"
        raise InputValueError(f"input '{missing[0]}' is missing", expected=known, got=given)


def _check_array(info: TensorInfo, array: object) -> tuple[Array, int]:
    """`array` itself, now known to fit, and its batch."""
    location = Location(place=f"input '{info.name}'")
    if not isinstance(array, np.ndarray):
        raise InputTypeError(
            "an input must be a numpy array",
            location=location,
            expected=str(info),
            got=type(array).__name__,
            hint=f"np.asarray(x, dtype=np.{info.dtype.name})",
        )
    if array.dtype != info.dtype:
        raise InputTypeError(
            "an input has the wrong dtype; nothing is cast silently",
            location=location,
            expected=info.dtype.name,
            got=array.dtype.name if array.dtype.isnative else f"{array.dtype.name} in foreign byte order",
            hint=f"x.astype(np.{info.dtype.name})",
        )
    batch = _batch_of(info, array.shape)
    if batch is None:
        raise InputValueError(
            "an input has the wrong shape",
            location=location,
            expected=_shape_words(info),
            got=str(array.shape),
            hint=_shape_hint(info, array.shape),
        )
    if not array.flags.c_contiguous or not array.flags.aligned:
        raise InputValueError(
            "an input is not laid out densely in row-major order",
            location=location,
            expected="a C-contiguous, aligned array",
            got=f"strides {array.strides} for shape {array.shape}",
            hint="np.ascontiguousarray(x)" if array.flags.aligned else "x.copy()",
        )
    return array, batch


def _batch_of(info: TensorInfo, shape: tuple[int, ...]) -> int | None:
    """How many units an array of `shape` holds, or None when it holds no whole number of them."""
    if len(shape) != len(info.shape) or shape[1:] != info.shape[1:]:
        return None
    if not shape:
        return 1
    batch, rest = divmod(shape[0], info.shape[0])
    return None if rest else batch


def _shape_words(info: TensorInfo) -> str:
    if not info.shape:
        return "() with a batch of 1"
    first = "N" if info.shape[0] == 1 else f"{info.shape[0]}*N"
    dims = ", ".join([first, *(str(dim) for dim in info.shape[1:])])
    layout = f", layout {info.layout.upper()}" if info.layout else ""
    return f"({dims}{',' if len(info.shape) == 1 else ''}) for a batch of N{layout}"


def _shape_hint(info: TensorInfo, shape: tuple[int, ...]) -> str | None:
    """What to write instead, for the commonest mistakes with pictures."""
    if shape == info.shape[1:]:
        return "add the batch dimension: x[np.newaxis]"
    if info.layout in ("nchw", "") and len(info.shape) == 4:
        channels, height, width = info.shape[1:]
        if shape == (height, width, channels):
            return "channels come first: np.ascontiguousarray(x.transpose(2, 0, 1)[np.newaxis])"
        if len(shape) == 4 and shape[1:] == (height, width, channels):
            return "channels come first: np.ascontiguousarray(x.transpose(0, 3, 1, 2))"
    return None
