"""From tensor names to SSA values, with everything that is known at import time computed on the spot.

A constant is a value outside the graph until an op that cannot be computed needs it, so that the chains by which
exporters compute shapes leave nothing behind. ONNX names are bound once, so there is no rebinding here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from sqzc.diagnostics import FrontendError, InternalError, Location
from sqzc.frontends.onnx.tensors import Array
from sqzc.ir import Builder, OpDef, Value
from sqzc.ir.constant import Constant
from sqzc.ir.graph import Node
from sqzc.ir.ops.shape import Expand, Reshape, Transpose
from sqzc.ir.types import TensorType

Evaluate = Callable[[Node, Sequence[Array]], list[Array]]
"""Computes the results of one IR node from its operands."""

FOLD_ELEMENTS = 1 << 16
"""A result up to this size is computed whatever its operands; a larger one only when it is no larger than they are."""
FOLD_FLOPS = 1 << 26
MAX_FOLDED_BYTES = 1 << 30
"""What all computed constants of one model may take together; past it they stay ops of the graph."""


class BlockedError(InternalError):
    """A node reads what an unsupported one would have made; the importer skips it, as that is reported already."""


class Values:
    """The values of one graph under construction. A tensor without elements is a constant, whatever made it."""

    def __init__(self, builder: Builder, evaluate: Evaluate) -> None:
        self.builder = builder
        self._evaluate = evaluate
        self._names: dict[str, Value | None] = {}
        self._attached: dict[int, tuple[Value, Value]] = {}
        self._folded_bytes = 0

    # -- names ----------------------------------------------------------------------------------------------------

    def bind(self, name: str, value: Value | None) -> None:
        """Lets `name` mean `value`; None for what an unsupported node would make."""
        if name in self._names:
            raise FrontendError(f"tensor '{name}' is made twice")
        self._names[name] = value

    def rebind(self, name: str, value: Value) -> None:
        """Lets a name that is known already mean another value from here on."""
        assert name in self._names, f"'{name}' has no value to replace"
        self._names[name] = value

    def knows(self, name: str) -> bool:
        """Whether anything is bound to the name."""
        return name in self._names

    def get(self, name: str, where: Location) -> Value:
        """What `name` means; FrontendError when nothing makes it."""
        if name not in self._names:
            raise FrontendError(
                f"tensor '{name}' is read, but nothing makes it",
                location=where,
                hint="no node before, no input and no initializer gives it",
            )
        value = self._names[name]
        if value is None:
            raise BlockedError(name)
        return value

    # -- constants --------------------------------------------------------------------------------------------------

    def constant(self, symbol: str, array: Array) -> Value:
        """A constant that enters the graph when an op needs it."""
        constant = Constant(symbol, array)
        value = Value(symbol, constant.type, (symbol,))
        value.constant = constant
        return value

    def filled(self, symbol: str, fill: Array, shape: Sequence[int]) -> Value:
        """The single element of `fill` in every place of `shape`: a constant, or an op where that takes much memory."""
        if self._take(math.prod(shape) * fill.itemsize):
            return self.constant(symbol, np.full(tuple(shape), fill.reshape(()), fill.dtype))
        one = self.constant(f"{symbol}/fill", fill.reshape((1,) * len(shape)))
        return self.builder.add(Expand(shape=tuple(shape)), self.attach(one), source=(symbol,))

    def attach(self, value: Value) -> Value:
        """The value itself; a constant as a member of the graph."""
        if value.constant is None or value.producer is not None:
            return value
        known = self._attached.get(id(value))
        if known is None:
            # The first of the pair is held so that its id stays its own.
            inside = self.builder.graph.add_constant(value.constant, source=value.source)
            self._attached[id(value)] = known = (value, inside)
            self._attached[id(inside)] = (inside, inside)
        return known[1]

    def _take(self, size: int) -> bool:
        if self._folded_bytes + size > MAX_FOLDED_BYTES:
            return False
        self._folded_bytes += size
        return True

    # -- ops ----------------------------------------------------------------------------------------------------------

    def add(self, op: OpDef, operands: Sequence[Value], name: str) -> list[Value]:
        """The results of an op for the tensor `name`; computed here and now when all operands are known."""
        types = op.result_types([value.type for value in operands])
        if all(type_.elements == 0 for type_ in types):
            return [self.constant(name, np.empty(type_.shape, type_.dtype.numpy)) for type_ in types]
        if operands and all(value.is_constant for value in operands):
            given = sum(value.type.elements for value in operands)
            made = sum(type_.elements for type_ in types)
            cheap = op.flops([value.type for value in operands], types) <= FOLD_FLOPS
            if cheap and made <= max(FOLD_ELEMENTS, given) and self._affords(op, types):
                scratch = Node(op, operands, [Value(name, type_) for type_ in types])
                results = self._evaluate(scratch, [value.data for value in operands])
                return [self.constant(name, array) for array in results]
        attached = [self.attach(value) for value in operands]
        names, sources = [f"{name}/{op.name}"] * len(types), [(name,)] * len(types)
        return self.builder.graph.insert(op, attached, names=names, sources=sources).outputs

    def _affords(self, op: OpDef, types: Sequence[TensorType]) -> bool:
        # A reshape is a view of the same memory.
        return isinstance(op, Reshape) or self._take(sum(type_.physical_bytes for type_ in types))

    def reshape(self, value: Value, shape: Sequence[int], name: str) -> Value:
        """The value under another shape of as many elements; itself when the shape is the same."""
        return value if tuple(shape) == value.type.shape else self.add(Reshape(shape=tuple(shape)), [value], name)[0]

    def transpose(self, value: Value, perm: Sequence[int], name: str) -> Value:
        """The value with its axes permuted; moving unit axes only is a reshape."""
        if tuple(perm) == tuple(range(value.type.rank)):
            return value
        wide = [axis for axis in perm if value.type.shape[axis] != 1]
        if wide == sorted(wide):
            return self.reshape(value, [value.type.shape[axis] for axis in perm], name)
        return self.add(Transpose(perm=tuple(perm)), [value], name)[0]

    def inputs_behind(self, value: Value) -> tuple[str, ...]:
        """Names of the graph's inputs that a value depends on, in order of the interface."""
        seen: set[int] = set()
        todo = [value]
        while todo:
            current = todo.pop()
            if id(current) in seen:
                continue
            seen.add(id(current))
            if current.producer is not None:
                todo.extend(current.producer.inputs)
        return tuple(known.name for known in self.builder.graph.inputs if id(known) in seen)
