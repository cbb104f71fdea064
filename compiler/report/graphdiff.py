"""What differs between the graphs before and after a pass, node by node.

A node is known by the name of its first result. Of a node with the same name on both sides it is said what changed in
it; a node that is gone is followed by its source names to the nodes that have taken them over, as those survive every
rewrite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqzc.ir.graph import Graph, Node, Value

SAME, ADDED, REMOVED, CHANGED, MERGED, REWIRED = "same", "added", "removed", "changed", "merged", "rewired"
"""States of a node. `merged`: gone, but another node bears its source name now. `rewired`: reads other values, and is
otherwise what it was."""


@dataclass
class NodeState:
    """What became of a node, or where it came from.

    `differences` are (what, before, after); `related` are the nodes of the other graph that it went into or was made
    of, besides the one of its own name.
    """

    state: str = SAME
    differences: list[tuple[str, str, str]] = field(default_factory=list)
    related: list[str] = field(default_factory=list)

    def to_json(self) -> list[Any]:
        """The state as JSON-able data."""
        return [self.state, [list(entry) for entry in self.differences], self.related]


OPERAND = "operand "


def key(node: Node) -> str:
    """By what a node is known in its graph."""
    return node.outputs[0].name


def compare(before: Graph, after: Graph) -> tuple[dict[str, NodeState], dict[str, NodeState]]:
    """The states of all nodes of both graphs, by key."""
    old, new = {key(node): node for node in before.nodes}, {key(node): node for node in after.nodes}
    left = {name: NodeState() for name in old}
    right = {name: NodeState() for name in new}
    heirs = _by_source(after)
    for name, node in old.items():
        if name in new:
            differences = node_differences(node, new[name])
            if differences:
                state = REWIRED if all(what.startswith(OPERAND) for what, _, _ in differences) else CHANGED
                left[name], right[name] = NodeState(state, differences), NodeState(state, differences)
            continue
        related = [heir for heir in _heirs(node, heirs) if heir not in old or node_differences(old[heir], new[heir])]
        left[name] = NodeState(MERGED if related else REMOVED, related=related)
    for name in new:
        if name not in old:
            right[name] = NodeState(ADDED)
    for name, gone in left.items():
        for heir in gone.related:
            right[heir].related.append(name)
    return left, right


def node_differences(before: Node, after: Node) -> list[tuple[str, str, str]]:
    """What differs between two nodes, as (what, before, after); empty when nothing does."""
    found: list[tuple[str, str, str]] = []

    def note(what: str, old: str, new: str) -> None:
        if old != new:
            found.append((what, old, new))

    note("op", before.op.name, after.op.name)
    old_attrs, new_attrs = dict(before.op.shown_attrs()), dict(after.op.shown_attrs())
    for name in dict.fromkeys([*old_attrs, *new_attrs]):
        note(name, old_attrs.get(name, "(default)"), new_attrs.get(name, "(default)"))
    for index in range(max(len(before.inputs), len(after.inputs))):
        note(operand_name(before, after, index), _shown(before.inputs, index), _shown(after.inputs, index))
    note("type", _types(before.outputs), _types(after.outputs))
    note("sources", _sources(before.outputs), _sources(after.outputs))
    return found


def operand_name(before: Node, after: Node, index: int) -> str:
    """What to call the operand at a position."""
    longer = after if index < len(after.inputs) else before
    declared = longer.op.operands
    if index < len(declared):
        return f"{OPERAND}{declared[index].name}"
    return f"{OPERAND}{index}"


def _shown(values: Sequence[Value], index: int) -> str:
    """An operand: its name, and for a constant its contents' hash, as a pass may put others in under the same name."""
    if index >= len(values):
        return "(none)"
    value = values[index]
    return f"%{value.name}: {value.type}" + (f" sha={value.constant.sha}" if value.constant is not None else "")


def _types(values: Sequence[Value]) -> str:
    return ", ".join(str(value.type) for value in values)


def _sources(values: Sequence[Value]) -> str:
    return ", ".join(name for value in values for name in value.source)


def _by_source(graph: Graph) -> dict[str, list[str]]:
    """Keys of the nodes that bear each source name."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        for name in dict.fromkeys(name for value in node.outputs for name in value.source):
            found.setdefault(name, []).append(key(node))
    return found


def _heirs(node: Node, heirs: Mapping[str, Sequence[str]]) -> list[str]:
    """The nodes that bear the last of a node's source names: its own, as those of what went into it come before."""
    names = [value.source[-1] for value in node.outputs if value.source]
    return list(dict.fromkeys(heir for name in names for heir in heirs.get(name, ())))
