"""Evaluating graph after graph on the same inputs, computing only what the graph before did not have."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np

from sqzc.backends.reference import Precision, evaluate_node
from sqzc.backends.reference.evaluate import stored_dtype
from sqzc.driver.debug.compare import NOTHING, Difference, compare
from sqzc.ir.constant import Array, Constant
from sqzc.ir.graph import Graph

Values = Mapping[str, Array]


class Evaluator:
    """The values of graphs on one set of inputs; arrays are shared, and not to be written to.

    A node gives the very arrays of the last graph's when it is the same op on the very same operands, or when its
    results turn out equal to those of the last graph's values of the same names. Holds all values of the last graph.
    """

    def __init__(self, inputs: Values) -> None:
        self.inputs = inputs
        self._known: dict[Precision, _Known] = {}
        self._measured: dict[tuple[int, int], tuple[Array, Array, Difference]] = {}

    def values(self, graph: Graph, dtype: Precision, *, remember: bool = True) -> dict[str, Array]:
        """Every value of the graph by SSA name. Without `remember` the next graph is not compared with this one."""
        old, new = self._known.get(dtype, _Known()), _Known()
        for value in graph.inputs:
            array = old.inputs.get(value.name)
            if array is None:
                array = np.asarray(self.inputs[value.name]).astype(stored_dtype(value.type, dtype), copy=False)
            new.inputs[value.name] = new.values[value.name] = array
        for value in graph.constants:
            assert value.constant is not None
            _, array = old.constants.get(id(value.constant), (None, None))
            if array is None:
                array = value.data.astype(stored_dtype(value.type, dtype), copy=False)
            new.constants[id(value.constant)] = value.constant, array
            new.values[value.name] = array
        for node in graph.nodes:
            operands = [new.values[value.name] for value in node.inputs]
            key = (node.op, *(id(array) for array in operands))
            results = old.results.get(key)
            if results is None:
                results = evaluate_node(node, operands, dtype)
                results = [old.same(v.name, array) for v, array in zip(node.outputs, results, strict=True)]
            new.results[key] = results
            new.values.update({v.name: array for v, array in zip(node.outputs, results, strict=True)})
        if remember:
            self._known[dtype] = new
        return dict(new.values)

    def difference(self, got: Array, expected: Array) -> Difference:
        """`compare`, remembered for as long as `forget` is not called."""
        if got is expected:
            return NOTHING
        key = (id(got), id(expected))
        if key not in self._measured:
            # The arrays are kept with the answer, so that no other array gets their ids.
            self._measured[key] = got, expected, compare(got, expected)
        return self._measured[key][2]

    def trim(self) -> None:
        """Forgets measurements of arrays that the last graph does not have."""
        alive = {id(array) for known in self._known.values() for array in known.values.values()}
        self._measured = {key: entry for key, entry in self._measured.items() if alive.issuperset(key)}

    def forget(self) -> None:
        """Lets go of everything but the inputs."""
        self._known.clear()
        self._measured.clear()

    @property
    def bytes(self) -> int:
        """Bytes of the arrays held."""
        arrays = [array for known in self._known.values() for array in known.values.values()]
        return sum({id(array): array.nbytes for array in arrays}.values())


class _Known:
    """What one graph came to. The arrays behind the ids in keys are among the values here, so no other has them."""

    def __init__(self) -> None:
        self.inputs: dict[str, Array] = {}
        self.constants: dict[int, tuple[Constant, Array]] = {}
        self.results: dict[Hashable, list[Array]] = {}
        self.values: dict[str, Array] = {}

    def same(self, name: str, array: Array) -> Array:
        """The array of that name, if it is equal."""
        old = self.values.get(name)
        equal = old is not None and old.dtype == array.dtype and np.array_equal(old, array)
        return old if equal and old is not None else array
