"""Which models sqzc says it can run, told from their operators and element types alone, without trying."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnx import AttributeProto, TensorProto

from sqzc.frontends.onnx.lifts import table
from sqzc.frontends.onnx.loader import EXPANDED, STANDARD_DOMAINS
from sqzc.frontends.onnx.table import NEWEST_OPSET, OLDEST_OPSET, lifter
from sqzc.frontends.onnx.tensors import ir_dtype, type_name

BRANCHING = frozenset({"If"})
"""Operators that the importer itself takes apart."""

EXCEPTIONS = {
    "test_training_dropout": "random numbers",
    "test_training_dropout_default": "random numbers",
    "test_training_dropout_default_mask": "random numbers",
    "test_training_dropout_mask": "random numbers",
}
"""Node tests of known operators that are about something else than inference, by name, with what that is."""


def operators() -> frozenset[str]:
    """All operators of the standard domain that are lifted, at some operator set."""
    return frozenset({*table, *EXPANDED, *BRANCHING})


def operators_of(model: Any) -> set[str]:
    """Every operator in a model, `domain::name` outside of the standard domain; branches included."""
    found = set()
    for graph in _graphs(model.graph):
        for node in graph.node:
            standard = node.domain in STANDARD_DOMAINS
            found.add(str(node.op_type) if standard else f"{node.domain}::{node.op_type}")
    return found


def undeclared(model: Any) -> str | None:
    """Why a model is not among those that sqzc says it runs; None when it is."""
    opset = max((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), default=NEWEST_OPSET)
    for name in sorted(operators_of(model)):
        if name not in EXPANDED | BRANCHING and lifter(name, max(opset, OLDEST_OPSET)) is None:
            return f"operator {name}"
    for what in _types(model.graph):
        return what
    return None


def _graphs(graph: Any) -> Iterator[Any]:
    todo = [graph]
    while todo:
        current = todo.pop()
        yield current
        for node in current.node:
            for attr in node.attribute:
                if attr.type == AttributeProto.GRAPH:
                    todo.append(attr.g)


def _types(graph: Any) -> Iterator[str]:
    """Every element type that the IR has no word for, and everything that is no tensor."""
    for current in _graphs(graph):
        for info in (*current.input, *current.output):
            kind = info.type.WhichOneof("value")
            if kind is None:
                continue  # an output that is left out
            if kind != "tensor_type":
                yield f"{kind} values"
            elif ir_dtype(info.type.tensor_type.elem_type) is None:
                yield f"type {type_name(info.type.tensor_type.elem_type)}"
        for tensor in current.initializer:
            if ir_dtype(tensor.data_type) is None:
                yield f"type {type_name(tensor.data_type)}"
        for node in current.node:
            yield from _attribute_types(node)


def _attribute_types(node: Any) -> Iterator[str]:
    for attr in node.attribute:
        if attr.type == AttributeProto.TENSOR and ir_dtype(attr.t.data_type) is None:
            yield f"type {type_name(attr.t.data_type)}"
        is_type = (node.op_type, attr.name) == ("Cast", "to") or attr.name in ("dtype", "output_dtype", "precision")
        if is_type and attr.i != TensorProto.UNDEFINED and ir_dtype(attr.i) is None:
            yield f"type {type_name(attr.i)}"
