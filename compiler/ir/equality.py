"""Structural equality of graphs: SSA names and order of independent nodes aside, everything counts."""

from __future__ import annotations

from sqzc.ir.graph import Graph, Node, Value


def first_difference(a: Graph, b: Graph, *, sources: bool = True) -> str | None:
    """None when the graphs are equal, else one sentence naming the first difference.

    Values are matched by position of definition; SSA names do not count, names of inputs, outputs and (when `sources`)
    source names do. Constants count by data.
    """
    if a.meta != b.meta and sources:
        keys = [k for k in {**a.meta, **b.meta} if a.meta.get(k) != b.meta.get(k)]
        return f"meta '{keys[0]}' differs: {a.meta.get(keys[0])!r} and {b.meta.get(keys[0])!r}"
    if [(v.name, v.type) for v in a.inputs] != [(v.name, v.type) for v in b.inputs]:
        return f"inputs differ: {a.inputs} and {b.inputs}"
    if [name for name, _ in a.outputs] != [name for name, _ in b.outputs]:
        return "outputs differ in name"
    paired: dict[int, Value] = {id(x): y for x, y in zip(a.inputs, b.inputs, strict=True)}
    for left, right in zip(a.nodes, b.nodes, strict=False):
        words = _node_difference(left, right, paired, sources)
        if words:
            return words
        paired.update({id(x): y for x, y in zip(left.outputs, right.outputs, strict=True)})
    if len(a.nodes) != len(b.nodes):
        longer = max(a.nodes, b.nodes, key=len)
        return (
            f"{len(a.nodes)} nodes and {len(b.nodes)}; the first extra one is {longer[min(len(a.nodes), len(b.nodes))]}"
        )
    for (name, left_value), (_, right_value) in zip(a.outputs, b.outputs, strict=True):
        if not _same_value(left_value, right_value, paired):
            return f"output '{name}' is %{left_value.name} and %{right_value.name}"
    return None


def _node_difference(left: Node, right: Node, paired: dict[int, Value], sources: bool) -> str | None:
    if left.op != right.op:
        return f"{left!r} and {right!r} are different ops"
    if len(left.inputs) != len(right.inputs):
        return f"{left!r} and {right!r} have different numbers of operands"
    for x, y in zip(left.inputs, right.inputs, strict=True):
        if not _same_value(x, y, paired):
            return f"{left!r} reads %{x.name}, {right!r} reads %{y.name}"
    for x, y in zip(left.outputs, right.outputs, strict=True):
        if x.type != y.type:
            return f"%{x.name} is {x.type} and %{y.name} is {y.type}"
        if sources and x.source != y.source:
            return f"%{x.name} comes from {x.source} and %{y.name} from {y.source}"
    return None


def _same_value(left: Value, right: Value, paired: dict[int, Value]) -> bool:
    if left.constant is not None and right.constant is not None:
        return left.constant is right.constant or left.constant.sha == right.constant.sha
    return paired.get(id(left)) is right


def equal(a: Graph, b: Graph, *, sources: bool = True) -> bool:
    """Whether the graphs are structurally equal."""
    return first_difference(a, b, sources=sources) is None
