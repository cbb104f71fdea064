"""Parts of graphs as graphs of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops.shape import Relayout
from sqzc.ir.types import PLAIN


def extract(graph: Graph, nodes: Iterable[Node], outputs: Collection[Value] | None = None) -> Graph:
    """The nodes as a graph; SSA names, source names and layouts stay, constants are shared.

    What they read and do not make becomes an input. `outputs` are among their results; None takes every result that
    is read elsewhere, by nobody, or as an output of `graph`. Outputs are called as their values.
    """
    kept = {id(node) for node in nodes}
    part = Graph(graph.name)
    mapping: dict[int, Value] = {}
    ordered = [node for node in graph.nodes if id(node) in kept]
    made = {id(value) for node in ordered for value in node.outputs}
    for value in _read_by(ordered):
        if id(value) in made:
            continue
        if value.constant is not None:
            mapping[id(value)] = part.add_constant(value.constant, value.name, value.source)
        else:
            mapping[id(value)] = part.add_input(value.name, value.type, value.source or (value.name,))
    for node in ordered:
        fresh = part.insert(
            node.op,
            [mapping[id(value)] for value in node.inputs],
            names=[value.name for value in node.outputs],
            sources=[value.source for value in node.outputs],
            types=[value.type for value in node.outputs],
        )
        mapping.update({id(value): copy for value, copy in zip(node.outputs, fresh.outputs, strict=True)})
    results = [value for node in ordered for value in node.outputs]
    if outputs is None:
        outputs = [value for value in results if _leaves(graph, value, kept)]
    wanted = {id(value) for value in outputs}
    for value in results:
        if id(value) in wanted:
            part.add_output(value.name, mapping[id(value)])
    return part


def _read_by(nodes: Sequence[Node]) -> list[Value]:
    """Every value that the nodes read, once."""
    return list({id(value): value for node in nodes for value in node.inputs}.values())


def _leaves(graph: Graph, value: Value, kept: Collection[int]) -> bool:
    return graph.is_output(value) or not value.users or any(id(user) not in kept for user in value.users)


def nodes_between(targets: Iterable[Value], stops: Iterable[Value] = ()) -> list[Node]:
    """The nodes that the targets are computed by from the stops (and inputs and constants), in no special order."""
    stopped = {id(value) for value in stops}
    found: dict[int, Node] = {}
    todo = [value for value in targets if id(value) not in stopped]
    while todo:
        node = todo.pop().producer
        if node is not None and id(node) not in found:
            found[id(node)] = node
            todo += [value for value in node.inputs if id(value) not in stopped]
    return list(found.values())


def neighbours(graph: Graph, nodes: Iterable[Node]) -> list[Node]:
    """The nodes with everything that makes what they read, reads what they make, or reads what they read."""
    found = {id(node): node for node in nodes}
    for node in list(found.values()):
        for value in node.inputs:
            if value.constant is None:
                near = [*value.users, *([value.producer] if value.producer else [])]
                found.update({id(other): other for other in near})
        found.update({id(user): user for value in node.outputs for user in value.users})
    return [node for node in graph.nodes if id(node) in found]


def row_major_interface(graph: Graph) -> Graph:
    """The graph with row-major inputs and outputs: relayouts stand where it had others."""
    fresh = graph.clone()
    for value in list(fresh.inputs):
        if value.type.layout.is_plain:
            continue
        layout = value.type.layout
        value.type = value.type.with_layout(PLAIN)
        first = fresh.nodes[0] if fresh.nodes else None
        node = fresh.insert(
            Relayout(),
            [value],
            names=[f"{value.name}.{layout}"],
            sources=[value.source],
            before=first,
            types=[value.type.with_layout(layout)],
        )
        fresh.replace_uses(value, node.output, keep=[node])
    outputs = []
    for name, value in fresh.outputs:
        if not value.type.layout.is_plain:
            plain = [value.type.with_layout(PLAIN)]
            value = fresh.insert(
                Relayout(), [value], names=[f"{value.name}.plain"], sources=[value.source], types=plain
            ).output
        outputs.append((name, value))
    fresh.outputs = outputs
    return fresh
