"""The table of lifting functions by operator and version, and what each of them is given about its node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sqzc.diagnostics import FrontendError, Location, UnsupportedError
from sqzc.frontends.common import LiftTable
from sqzc.frontends.onnx.attributes import AttrReader
from sqzc.frontends.onnx.tensors import Array
from sqzc.frontends.onnx.values import Values
from sqzc.ir import OpDef, Value
from sqzc.ir.types import DType

OLDEST_OPSET = 7
NEWEST_OPSET = 28
"""The newest operator set whose changes have been gone through; what comes after may mean something else."""

MAX_KNOWN = 1 << 16


class DynamicError(UnsupportedError):
    """A value that must be known at compile time depends on the network's inputs, which `inputs` names."""

    def __init__(self, message: str, inputs: Sequence[str], location: Location) -> None:
        super().__init__(message, location=location)
        self.inputs = tuple(inputs)


@dataclass(frozen=True)
class OpView:
    """One node as a lifting function sees it. `written` is the operator set of the file, before any conversion."""

    node: Any
    opset: int
    written: int
    location: Location
    attrs: AttrReader
    values: Values

    @property
    def type(self) -> str:
        """The operator."""
        return str(self.node.op_type)

    @property
    def out(self) -> str:
        """The first output's name: what the ops of this node are called."""
        return next(str(name) for name in self.node.output if name)

    @property
    def count(self) -> int:
        """Number of inputs, with those left out in between."""
        return len(self.node.input)

    # -- operands -------------------------------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Whether the input is given."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def wants(self, index: int) -> bool:
        """Whether the output has a name, so that somebody may read it."""
        return index < len(self.node.output) and bool(self.node.output[index])

    def input(self, index: int) -> Value:
        """An input that must be there."""
        value = self.optional(index)
        if value is None:
            raise self.error(f"input {index} of {self.type} is missing")
        return value

    def optional(self, index: int) -> Value | None:
        """An input, or None where it is left out."""
        return self.values.get(self.node.input[index], self.location) if self.has(index) else None

    def inputs(self) -> list[Value]:
        """All inputs of a variadic operator; at least one."""
        return [self.input(index) for index in range(max(self.count, 1))]

    def known(self, index: int, what: str) -> Array:
        """Contents of an input that must be known at compile time; DynamicError when it is computed."""
        value = self.input(index)
        if value.is_constant:
            return value.data
        raise DynamicError(
            f"{what} of {self.type} is computed at run time by '{self.node.input[index]}'",
            self.values.inputs_behind(value),
            self.location,
        )

    def known_ints(self, index: int, what: str) -> tuple[int, ...]:
        """A list of whole numbers that must be known at compile time."""
        array = self.known(index, what)
        if array.dtype.kind not in "iu" or array.ndim > 1 or array.size > MAX_KNOWN:
            raise self.error(
                f"{what} of {self.type}",
                expected=f"a list of at most {MAX_KNOWN} whole numbers",
                got=f"{array.dtype.name}{list(array.shape)}",
            )
        return tuple(int(number) for number in array.ravel())

    def known_number(self, index: int, what: str) -> float:
        """One number that must be known at compile time."""
        array = self.known(index, what)
        if array.size != 1:
            raise self.error(f"{what} of {self.type}", expected="one number", got=f"shape {list(array.shape)}")
        return float(array.ravel()[0])

    def ints(self, name: str, index: int, attr_until: int) -> tuple[int, ...] | None:
        """Whole numbers that are an attribute before opset `attr_until` and an input from then on."""
        if self.opset < attr_until:
            return self.attrs.ints(name)
        return self.known_ints(index, f"'{name}'") if self.has(index) else None

    # -- results --------------------------------------------------------------------------------------------------

    def add(self, op: OpDef, *operands: Value) -> Value:
        """The one result of an IR op."""
        return self.values.add(op, operands, self.out)[0]

    def add_multi(self, op: OpDef, *operands: Value) -> list[Value]:
        """All results of an IR op."""
        return self.values.add(op, operands, self.out)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """The value under another shape."""
        return self.values.reshape(value, shape, self.out)

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """The value with its axes permuted."""
        return self.values.transpose(value, perm, self.out)

    def constant(self, array: Array, what: str = "") -> Value:
        """A constant of this node's own making."""
        return self.values.constant(f"{self.out}/{what}" if what else self.out, array)

    def filled(self, fill: float | bool, dtype: DType, shape: Sequence[int]) -> Value:
        """A constant with one number everywhere."""
        return self.values.filled(self.out, np.asarray(fill).astype(dtype.numpy), shape)

    def number(self, value: float, like: Value, what: str = "number") -> Value:
        """A constant of rank 0 with the element type of `like`."""
        return self.constant(np.asarray(value).astype(like.type.dtype.numpy), what)

    # -- errors -----------------------------------------------------------------------------------------------------

    def axis(self, axis: int, rank: int, what: str = "axis") -> int:
        """An axis counted from the front; FrontendError when there is none such."""
        if not -rank <= axis < rank:
            raise self.error(
                f"{what} {axis} of a tensor of rank {rank}",
                expected=f"{-rank} to {rank - 1}" if rank else "a tensor with axes",
            )
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Different axes counted from the front."""
        found = tuple(self.axis(axis, rank, "axes:") for axis in axes)
        if len(set(found)) != len(found):
            raise self.error(f"axes {list(axes)} name one twice")
        return found

    def error(self, message: str, *, expected: str | None = None, got: str | None = None) -> FrontendError:
        """A FrontendError at this node, to be raised."""
        return FrontendError(message, location=self.location, expected=expected, got=got)

    def unsupported(self, words: str) -> UnsupportedError:
        """An UnsupportedError at this node, to be raised; the importer lists all of a net at once."""
        return UnsupportedError(words, location=self.location)


Results = Value | Sequence[Value | None]
LiftFunction = Callable[[OpView], Results]


class Versions:
    """The lifting functions of one operator by the operator set that each is good from."""

    def __init__(self) -> None:
        self._by_since: dict[int, LiftFunction] = {}

    def add(self, since: int, function: LiftFunction) -> None:
        """Enters a function, once for each operator set."""
        assert since not in self._by_since, f"two functions from opset {since} on"
        self._by_since[since] = function

    def at(self, opset: int) -> LiftFunction | None:
        """The function with the highest `since` that is not above `opset`."""
        fitting = [since for since in self._by_since if since <= opset]
        return self._by_since[max(fitting)] if fitting else None

    @property
    def sinces(self) -> list[int]:
        """The operator sets that functions are good from, in order."""
        return sorted(self._by_since)

    @property
    def oldest(self) -> int:
        """The operator set that the oldest function is good from."""
        return min(self._by_since)


table: LiftTable[Versions] = LiftTable("ONNX")


def lift(*types: str, since: int) -> Callable[[LiftFunction], LiftFunction]:
    """Registers a lifting function for operators, good from operator set `since` until one with a higher `since`.

    It returns one value, or one for each output in order; outputs that nobody `wants` may be None or left off.
    """

    def register(function: LiftFunction) -> LiftFunction:
        for type_ in types:
            versions = table.get(type_)
            if versions is None:
                versions = Versions()
                table.add(type_, versions)
            versions.add(since, function)
        return function

    return register


def lifter(type_: str, opset: int) -> LiftFunction | None:
    """What lifts an operator at an operator set, or None."""
    versions = table.get(type_)
    return None if versions is None else versions.at(opset)
