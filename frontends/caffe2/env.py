"""What each blob name means at this point of the net: SSA values from names that are rebound all the time.

A blob is bound to an IR value together with the order of its axes, so that a net in NHWC lifts to NCHW ops without a
transpose around each: the transpose is made when somebody needs the blob's own axes (a generic op, an output), once.
Parameters become constants of the graph when they are first read. Side outputs are made on demand or refuse to be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sqzc.diagnostics import FrontendError, InternalError, Location
from sqzc.ir import Builder, Value
from sqzc.ir.ops.shape import Reshape, Transpose
from sqzc.ir.types import DType, TensorType

Array = npt.NDArray[Any]
Perm = tuple[int, ...]

MAX_FILLED_BYTES = 1 << 30
MAX_KNOWN_INTS = 64


class BlockedError(InternalError):
    """An operator reads what an unsupported one would have made; the driver skips it, the report is made already."""


@dataclass(frozen=True)
class Bound:
    """An IR value that stands for a blob: the blob's axis i is the value's axis perm[i]."""

    value: Value
    perm: Perm

    @property
    def is_plain(self) -> bool:
        """Whether the value has the blob's own axes."""
        return self.perm == tuple(range(len(self.perm)))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape as Caffe2 sees it."""
        return tuple(self.value.type.shape[axis] for axis in self.perm)


def inverse(perm: Sequence[int]) -> Perm:
    """The permutation that undoes `perm`."""
    return tuple(sorted(range(len(perm)), key=lambda axis: perm[axis]))


def channels_last(rank: int) -> Perm:
    """How Caffe2's NHWC axes (N, spatial, C) read a value in NCHW order: (0, 2, ..., rank - 1, 1)."""
    return (0, *range(2, rank), 1)


class _Entry:
    """A blob's state: a value, one not made yet, or a reason why there is none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bound: Bound | None = None
        self.plain: Value | None = None  # the blob in its own axes, once somebody needed that
        self.image: Value | None = None  # an NHWC blob whose value is in its own axes, brought to NCHW once
        self.array: Array | None = None
        self.make: Callable[[], Value] | None = None
        self.poison: str | None = None
        self.blocked = False


class NameEnv:
    """Blob names to their present meaning. `use` gives the blob itself, `raw` and `image` avoid transposes."""

    def __init__(self, builder: Builder, file: str) -> None:
        self._builder = builder
        self._file = file
        self._entries: dict[str, _Entry] = {}
        self._where = Location(file)
        self._filled_bytes = 0

    # -- binding --------------------------------------------------------------------------------------------------

    def bind(self, name: str, value: Value, perm: Perm | None = None) -> None:
        """Lets `name` mean `value` from here on; `perm` where the value's axes are not the blob's."""
        if value.type.elements == 0:
            raise FrontendError(f"blob '{name}' would have no elements", location=self._where, got=str(value.type))
        entry = self._fresh(name)
        entry.bound = Bound(value, tuple(range(value.type.rank)) if perm is None else perm)

    def bind_image(self, name: str, value: Value, order: str) -> None:
        """Binds the NCHW result of an operator that works in `order`."""
        self.bind(name, value, channels_last(value.type.rank) if order == "NHWC" else None)

    def bind_array(self, name: str, array: Array) -> None:
        """Binds a blob whose contents are known; it becomes a constant when it is read."""
        if 0 in array.strides and array.size > 1:
            # A filled blob costs the file nothing; together they must not cost the machine everything.
            self._filled_bytes += array.nbytes
            if self._filled_bytes > MAX_FILLED_BYTES:
                raise FrontendError(f"constant fills of over {MAX_FILLED_BYTES} bytes", location=self._where)
        self._fresh(name).array = array

    def bind_lazy(self, name: str, make: Callable[[], Value]) -> None:
        """Binds a side output that `make` builds if anybody reads it."""
        self._fresh(name).make = make

    def poison(self, name: str, reason: str) -> None:
        """Binds a blob that must not be read; `reason` completes "blob 'x' cannot be read: "."""
        self._fresh(name).poison = reason

    def block(self, name: str) -> None:
        """Binds what an unsupported operator makes: reading it raises BlockedError."""
        self._fresh(name).blocked = True

    def _fresh(self, name: str) -> _Entry:
        self._entries[name] = entry = _Entry(name)
        return entry

    def at(self, where: Location) -> None:
        """Sets the place that errors about blobs name."""
        self._where = where

    # -- reading --------------------------------------------------------------------------------------------------

    def knows(self, name: str) -> bool:
        """Whether anything is bound to the name."""
        return name in self._entries

    def raw(self, name: str) -> Bound:
        """The blob as it is, whatever the order of its axes."""
        entry = self._entry(name)
        if entry.bound is None:
            if entry.make is not None:
                value = entry.make()
            else:
                assert entry.array is not None
                value = self._builder.constant(name, entry.array, source=(name,))
            entry.bound = Bound(value, tuple(range(value.type.rank)))
        return entry.bound

    def use(self, name: str) -> Value:
        """The blob in its own axes; makes the transpose if its value has other ones."""
        bound = self.raw(name)
        if bound.is_plain:
            return bound.value
        entry = self._entry(name)
        if entry.plain is None:
            entry.plain = self.transpose(bound.value, bound.perm, (name,))
        return entry.plain

    def image(self, name: str, order: str) -> Value:
        """The blob as an image [N, C, spatial...], for an operator that works in `order`."""
        if order == "NCHW":
            return self.use(name)
        bound = self.raw(name)
        rank = len(bound.perm)
        if rank < 3:
            raise FrontendError(
                f"blob '{name}' is no NHWC image",
                location=self._where,
                expected="rank 3 or 4",
                got=str(self.type(name)),
            )
        if bound.perm == channels_last(rank):
            return bound.value
        entry = self._entry(name)
        if entry.image is None:
            back = inverse(channels_last(rank))
            entry.image = self.transpose(bound.value, tuple(bound.perm[axis] for axis in back))
        return entry.image

    def type(self, name: str) -> TensorType:
        """Element type and shape as Caffe2 sees them, without making anything of a parameter."""
        entry = self._entry(name)
        if entry.array is not None and entry.bound is None:
            shape = tuple(int(dim) for dim in entry.array.shape)
            return TensorType(DType.of(entry.array.dtype), shape)
        bound = self.raw(name)
        return bound.value.type.with_shape(*bound.shape)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape as Caffe2 sees it."""
        return self.type(name).shape

    def is_known(self, name: str) -> bool:
        """Whether the blob's contents are known at compile time."""
        entry = self._entry(name)
        return entry.array is not None or (entry.bound is not None and entry.bound.value.is_constant)

    def known(self, name: str, what: str) -> Array:
        """Contents of a blob that must be known at compile time; FrontendError when it is computed."""
        entry = self._entry(name)
        if entry.array is not None:
            return entry.array
        bound = self.raw(name)
        if bound.value.is_constant:
            return np.transpose(bound.value.data, bound.perm)
        raise FrontendError(
            f"blob '{name}' must be known at compile time: it gives {what}",
            location=self._where,
            got=f"a computed value of type {self.type(name)}",
        )

    def known_ints(self, name: str, what: str) -> list[int]:
        """A few whole numbers that must be known at compile time."""
        array = self.known(name, what)
        if array.dtype.kind not in "iu" or array.size > MAX_KNOWN_INTS:
            raise FrontendError(
                f"blob '{name}' gives {what}",
                location=self._where,
                expected=f"at most {MAX_KNOWN_INTS} whole numbers",
                got=str(self.type(name)),
            )
        return [int(number) for number in array.ravel()]

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise FrontendError(
                f"blob '{name}' is read, but nothing makes it",
                location=self._where,
                hint="no operator before, no input and no init net gives it",
            )
        if entry.blocked:
            raise BlockedError(name)
        if entry.poison is not None:
            raise FrontendError(f"blob '{name}' cannot be read: {entry.poison}", location=self._where)
        return entry

    # -- shape plumbing that costs nothing on constants -------------------------------------------------------------

    def transpose(self, value: Value, perm: Sequence[int], source: tuple[str, ...] = ()) -> Value:
        """The value with its axes permuted; a constant is permuted here and now, moving unit axes is a reshape."""
        if tuple(perm) == tuple(range(value.type.rank)):
            return value
        if value.constant is not None:
            array = np.ascontiguousarray(np.transpose(value.data, perm))
            return self._builder.constant(value.constant.symbol, array, source=value.source)
        wide = [axis for axis in perm if value.type.shape[axis] != 1]
        if wide == sorted(wide):
            return self.reshape(value, [value.type.shape[axis] for axis in perm], source)
        return self._builder.add(Transpose(perm=tuple(perm)), value, source=source)

    def reshape(self, value: Value, shape: Sequence[int], source: tuple[str, ...] = ()) -> Value:
        """The value under another shape of as many elements; a constant is reshaped here and now."""
        if tuple(shape) == value.type.shape:
            return value
        if value.constant is not None and math.prod(shape) == value.type.elements:
            return self._builder.constant(value.constant.symbol, value.data.reshape(shape), source=value.source)
        return self._builder.add(Reshape(shape=tuple(shape)), value, source=source)

    def aligned(self, name: str, shape: Sequence[int], perm: Perm) -> Value:
        """The blob reshaped to `shape`, as a value whose axis perm[i] is axis i of that shape."""
        bound = self.raw(name)
        if bound.shape == tuple(shape) and bound.perm == perm:
            return bound.value
        return self.transpose(self.reshape(self.use(name), shape), inverse(perm))

    def number(self, symbol: str, value: float, like: TensorType) -> Value:
        """A constant of rank 0 with the element type of `like`; FrontendError when the type cannot hold it."""
        if not like.dtype.is_float and not (
            math.isfinite(value) and float(value).is_integer() and abs(value) < 1 << 31
        ):
            raise FrontendError(
                f"'{symbol}' of {value:g} for a blob of whole numbers", location=self._where, got=str(like)
            )
        return self._builder.constant(symbol, np.asarray(value, like.dtype.numpy))

    def finish(self) -> None:
        """Drops the constants that nobody reads in the end and gives the others their own names back."""
        graph = self._builder.graph
        for value in [constant for constant in graph.constants if not graph.is_used(constant)]:
            graph.erase_constant(value)
        for value in graph.constants:
            if value.constant is not None and value.name != value.constant.symbol:
                graph.rename(value, value.constant.symbol)
