"""Walks a graph in order and applies the reference kernels.

Arrays are always row-major in the logical shape of their value: memory layouts do not exist here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sqzc.backends.reference.registry import apply
from sqzc.diagnostics import Location, UsageError, nearest
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.types import TensorType

Precision = Literal["float32", "float64"]


def evaluate(
    graph: Graph,
    inputs: Mapping[str, npt.ArrayLike],
    *,
    dtype: Precision = "float32",
    taps: Iterable[str] | Literal["all"] = (),
) -> dict[str, Array]:
    """The outputs by name, and the tapped values by the name that was asked for.

    `dtype` "float32" computes every value in its declared type; "float64" computes every floating point value in
    double precision. A tap is a source name, meaning the last value that carries it (Caffe2 rebinds names in place),
    else an SSA name; "all" taps every value under its SSA name. Where a tap is called like an output, the output wins.
    UsageError for inputs that do not fit and for unknown taps.
    """
    if taps == "all":
        wanted = {value.name: value for value in graph.values()}
    else:
        wanted = {name: find_tap(graph, name) for name in taps}
    wanted.update(dict(graph.outputs))
    keep = {id(value) for value in wanted.values()}
    kept: dict[int, Array] = {}
    for value, array in _run(graph, inputs, dtype):
        if id(value) in keep:
            kept[id(value)] = array
    # Copies, so that no result shares memory with an input, a weight or another result.
    return {name: np.array(kept[id(value)]) for name, value in wanted.items()}


def evaluate_values(
    graph: Graph, inputs: Mapping[str, npt.ArrayLike], dtype: Precision = "float32"
) -> dict[str, Array]:
    """Every value of the graph by SSA name: inputs, constants and all results. Arrays may share memory."""
    return {value.name: array for value, array in _run(graph, inputs, dtype)}


def iterate(
    graph: Graph, inputs: Mapping[str, npt.ArrayLike], dtype: Precision = "float32"
) -> Iterator[tuple[Node, tuple[Array, ...]]]:
    """Each node with its results, in order; a value is let go after its last use, so memory stays near the live set."""
    results: list[Array] = []
    for value, array in _run(graph, inputs, dtype):
        node = value.producer
        if node is None:
            continue
        results.append(array)
        if len(results) == len(node.outputs):
            yield node, tuple(results)
            results = []


def evaluate_node(node: Node, operands: Sequence[Array], dtype: Precision = "float32") -> list[Array]:
    """Results of one node for these operands, which are in the types of this precision; see `evaluate`."""
    return _run_node(node, list(operands), dtype)


def find_tap(graph: Graph, name: str) -> Value:
    """The last value that carries the source name `name`, else the value of that SSA name; UsageError if none."""
    by_source = {source: value for value in graph.values() for source in value.source}
    by_name = {value.name: value for value in graph.values()}
    found = by_source.get(name) or by_name.get(name)
    if found is None:
        raise UsageError(
            f"graph @{graph.name} has no value called '{name}'", hint=nearest(name, {**by_source, **by_name})
        )
    return found


def _run(graph: Graph, inputs: Mapping[str, npt.ArrayLike], dtype: Precision) -> Iterator[tuple[Value, Array]]:
    """Every value as soon as it is known; dead ones are forgotten."""
    env: dict[int, Array] = {}
    uses_left = {id(value): len(value.users) for value in graph.values()}
    for value, array in _start_values(graph, inputs, dtype):
        env[id(value)] = array
        yield value, array
    for node in graph.nodes:
        results = _run_node(node, [env[id(value)] for value in node.inputs], dtype)
        for value in node.inputs:
            uses_left[id(value)] -= 1
            if not uses_left[id(value)]:
                del env[id(value)]
        for value, array in zip(node.outputs, results, strict=True):
            if uses_left[id(value)]:
                env[id(value)] = array
            yield value, array
        del results


def _run_node(node: Node, operands: list[Array], dtype: Precision) -> list[Array]:
    # Half precision is storage only: computed in float32 and rounded when stored.
    operands = [array.astype(np.float32) if array.dtype == np.float16 else array for array in operands]
    # Inf, NaN and overflow are results like any other.
    with np.errstate(all="ignore"):
        results = apply(node.op, *operands)
        return [_store(array, value, dtype) for array, value in zip(results, node.outputs, strict=True)]


def _store(array: Array, value: Value, dtype: Precision) -> Array:
    """`array` in the type that `value` has at this precision; another shape or kind of numbers is a kernel's bug."""
    array = np.asarray(array)
    wanted = stored_dtype(value.type, dtype)
    assert array.shape == value.type.shape, f"the kernel of {value} gave shape {array.shape}"
    assert array.dtype == wanted or wanted.kind == "f", f"{value} came out as {array.dtype}"
    return array.astype(wanted, copy=False)


def stored_dtype(type: TensorType, dtype: Precision) -> np.dtype[np.generic]:
    """The numpy type of the arrays that stand for values of `type`."""
    return np.dtype(np.float64) if dtype == "float64" and type.dtype.is_float else type.dtype.numpy


def _start_values(graph: Graph, inputs: Mapping[str, npt.ArrayLike], dtype: Precision) -> Iterator[tuple[Value, Array]]:
    """Inputs, checked, and constants."""
    if dtype not in ("float32", "float64"):
        raise UsageError(f"unknown precision '{dtype}'", expected="float32 or float64")
    known = [value.name for value in graph.inputs]
    for name in inputs:
        if name not in known:
            raise UsageError(f"graph @{graph.name} has no input '{name}'", expected=", ".join(known) or "no inputs")
    for value in graph.inputs:
        if value.name not in inputs:
            raise UsageError(f"input '{value.name}' is missing", expected=str(value.type))
        yield value, _check_input(graph, value, np.asarray(inputs[value.name]), dtype)
    for value in graph.constants:
        yield value, value.data.astype(stored_dtype(value.type, dtype), copy=False)


def _check_input(graph: Graph, value: Value, array: Array, dtype: Precision) -> Array:
    wanted = stored_dtype(value.type, dtype)
    if array.shape != value.type.shape or array.dtype not in (value.type.dtype.numpy, wanted):
        words = f"{array.dtype.name}{list(array.shape)}"
        location = Location(f"@{graph.name}", f"input '{value.name}'")
        raise UsageError("the array does not fit the input", location=location, expected=str(value.type), got=words)
    return array.astype(wanted, copy=False)
