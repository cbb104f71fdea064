"""Small helpers that passes share: replacing nodes with names kept, and questions about constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sqzc.ir.constant import Array, Constant
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.opdef import OpDef
from sqzc.ir.ops import elementwise, nn

Weighted = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
"""Ops with operands x, w and bias and an activation of their own."""


def fused_source(final: Value, *absorbed: Value) -> tuple[str, ...]:
    """Source names of a value that stands for `final` and has taken the `absorbed` ones in.

    Oldest first. The last name is always that of the value itself; where `final` has none, its SSA name stands in, so
    that nothing passes for a value that was computed on the way to it.
    """
    own = final.source or (final.name,)
    names = dict.fromkeys(name for value in absorbed for name in value.source if name not in own)
    return (*names, *own) if names else final.source


def replace_node(
    graph: Graph, node: Node, op: OpDef, inputs: Sequence[Value], *, absorbed: Sequence[Value] = ()
) -> Node:
    """Puts `op` in the place of a node with one result; the result keeps its name, layout and source names."""
    old = node.output
    name, source = old.name, fused_source(old, *absorbed)
    graph.rename(old, f"{name}.old")
    fresh = graph.insert(
        op,
        inputs,
        names=[name],
        sources=[source],
        before=node,
        types=[old.type] if not old.type.layout.is_plain else None,
    )
    graph.replace_uses(old, fresh.output)
    graph.erase(node)
    return fresh


def share_names(kept: Value, other: Value) -> None:
    """Gives `kept` the source names of a value that is equal to it."""
    kept.source = tuple(dict.fromkeys((*kept.source, *other.source)))


def settle_name(graph: Graph, value: Value) -> None:
    """Drops the suffix from an SSA name like `conv1.1` once `conv1`, its source name, is free again."""
    if value.source and value.name.startswith(f"{value.source[-1]}."):
        graph.rename(value, value.source[-1])


def forward(graph: Graph, node: Node, value: Value) -> None:
    """Lets `value` stand for the one result of `node`, which goes away."""
    old = node.output
    share_names(value, old)
    graph.replace_uses(old, value)
    graph.erase(node)


def erase_unused(graph: Graph, *values: Value | None) -> None:
    """Erases the producers of values that nobody reads any more, and the constants among them.

    Values that are gone from the graph already may be among `values`.
    """
    for value in values:
        if value is None or graph.is_used(value):
            continue
        producer = value.producer
        if producer is not None:
            gone = all(known is not producer for known in graph.nodes)
            if gone or any(graph.is_used(result) for result in producer.outputs):
                continue
            inputs = list(dict.fromkeys(producer.inputs))
            graph.erase(producer)
            erase_unused(graph, *inputs)
        elif value.is_constant and any(value is known for known in graph.constants):
            graph.erase_constant(value)


def with_bias(graph: Graph, node: Node, weight: Array, bias: Array) -> list[Value]:
    """The operands of a conv2d, conv_transpose2d or linear with other weights, added as constants of the old names.

    Where there was no bias, one of zeros is left out.
    """
    x, w, *rest = node.inputs
    fresh = _like(graph, node, w, weight)
    if rest:
        return [x, fresh, _like(graph, node, rest[0], bias), *rest[1:]]
    if not bias.any():
        return [x, fresh]
    assert w.constant is not None
    return [x, fresh, graph.add_constant(Constant(f"{w.constant.symbol}_bias", bias))]


def _like(graph: Graph, node: Node, old: Value, data: Array) -> Value:
    """A constant in the place of `old`; with its very name too if only `node` reads that."""
    assert old.constant is not None
    name = old.name
    if graph.sole_user(old) is node:
        graph.rename(old, f"{name}.old")
    return graph.add_constant(Constant(old.constant.symbol, data), name, source=old.source)


def constant_operand(node: Node) -> tuple[Value, Value] | None:
    """(other operand, constant operand) of a binary node with exactly one constant operand."""
    if not isinstance(node.op, elementwise.Binary):
        return None
    a, b = node.inputs
    if a.is_constant == b.is_constant:
        return None
    return (b, a) if a.is_constant else (a, b)


def rounded(values: Array, dtype: np.dtype[np.generic]) -> Array | None:
    """float64 results rounded once to `dtype`; None when one of them leaves its range."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result = np.asarray(values).astype(dtype)
    return result if bool(np.isfinite(result).all()) else None


def label(value: Value) -> str:
    """A value in a note or a rewrite's description: its SSA name, with its source name where that differs."""
    source = value.source[-1] if value.source else value.name
    return f"%{value.name}" if source == value.name else f"%{value.name} ('{source}')"
