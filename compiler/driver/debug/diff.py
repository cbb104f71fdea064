"""How two graphs differ, op by op.

Ops are paired by what they make: by the SSA name of their first result, then by its last source name, then by being
the same op on operands that are paired already. Constants are compared by data.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from sqzc.ir.equality import first_difference
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.printer import print_constant, print_node

ADDED, REMOVED, CHANGED = "added", "removed", "changed"


@dataclass(frozen=True)
class Change:
    """One difference. `kind` is a constant above, `where` the value or part of the graph, `text` what is different."""

    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        sign = {ADDED: "+", REMOVED: "-", CHANGED: "~"}[self.kind]
        return f"{sign} {self.text}" if self.kind != CHANGED else f"{sign} {self.where}: {self.text}"


def differences(a: Graph, b: Graph, *, meta: bool = False, sources: bool = True) -> list[Change]:
    """What `b` has otherwise than `a`; empty exactly when they are equal (SSA names aside).

    `meta` compares the graphs' meta data too; `sources` the source names of values.
    """
    if not meta:
        a, b = _without_meta(a), _without_meta(b)
    first = first_difference(a, b, sources=sources)
    if first is None:
        return []
    changes = list(_Diff(a, b, sources).run())
    # The same ops in another order, or anything else that has no place in a list by op.
    return changes or [Change(CHANGED, f"@{a.name}", first)]


def _without_meta(graph: Graph) -> Graph:
    copy = graph.clone()
    copy.meta = {}
    return copy


class _Diff:
    def __init__(self, a: Graph, b: Graph, sources: bool) -> None:
        self.a, self.b, self.sources = a, b, sources
        self.pairs: dict[int, Node] = {}
        self.values: dict[int, Value] = {}

    def run(self) -> Iterator[Change]:
        yield from self.meta()
        yield from self.inputs()
        self.pair_nodes()
        taken = {id(node) for node in self.pairs.values()}
        for node in self.a.nodes:
            other = self.pairs.get(id(node))
            if other is None:
                yield Change(REMOVED, _name(node), print_node(node))
            else:
                yield from self.node(node, other)
        for node in self.b.nodes:
            if id(node) not in taken:
                yield Change(ADDED, _name(node), print_node(node))
        yield from self.outputs()

    def meta(self) -> Iterator[Change]:
        for key in {**self.a.meta, **self.b.meta}:
            old, new = self.a.meta.get(key), self.b.meta.get(key)
            if old != new:
                yield Change(CHANGED, f"meta '{key}'", f"{old!r} -> {new!r}")

    def inputs(self) -> Iterator[Change]:
        old, new = ({v.name: v for v in graph.inputs} for graph in (self.a, self.b))
        for name, value in old.items():
            if name not in new:
                yield Change(REMOVED, f"%{name}", f"input {value}")
            else:
                self.values[id(value)] = new[name]
                if value.type != new[name].type:
                    yield Change(CHANGED, f"input %{name}", f"{value.type} -> {new[name].type}")
        yield from (Change(ADDED, f"%{n}", f"input {v}") for n, v in new.items() if n not in old)

    def outputs(self) -> Iterator[Change]:
        old, new = dict(self.a.outputs), dict(self.b.outputs)
        for name, value in old.items():
            if name not in new:
                yield Change(REMOVED, f"output '{name}'", f"output '{name}' of %{value.name}")
            elif not self.same(value, new[name]):
                yield Change(CHANGED, f"output '{name}'", f"%{value.name} -> %{new[name].name}")
        yield from (
            Change(ADDED, f"output '{n}'", f"output '{n}' of %{v.name}") for n, v in new.items() if n not in old
        )

    # -- pairing

    def pair_nodes(self) -> None:
        self.pair_by(lambda node, own: (node.op.name, node.outputs[0].name) if node.outputs else None)
        self.pair_by(lambda node, own: (node.op.name, node.outputs[0].source[-1:]) if _named(node) else None)
        self.pair_by(lambda node, own: (node.op, *(self.key(v, own) for v in node.inputs)))
        self.pair_heirs()

    def pair_by(self, key_of: Callable[[Node, bool], Hashable | None]) -> None:
        """Pairs nodes of equal keys, in order, that have no partner yet. The key is told whether a node is a's."""
        taken = {id(node) for node in self.pairs.values()}
        free: dict[Hashable, list[Node]] = {}
        for node in self.b.nodes:
            key = key_of(node, False)
            if id(node) not in taken and key is not None:
                free.setdefault(key, []).append(node)
        for node in self.a.nodes:
            if id(node) in self.pairs:
                continue
            key = key_of(node, True)
            if key is not None and free.get(key):
                other = free[key].pop(0)
                self.pairs[id(node)] = other
                self.values.update({id(x): y for x, y in zip(node.outputs, other.outputs, strict=False)})

    def pair_heirs(self) -> None:
        """Lets the value that has the name of one that went away stand for it, as where an op was fused."""
        named = {value.source[-1]: value for node in self.b.nodes for value in node.outputs if value.source}
        for node in self.a.nodes:
            for value in node.outputs:
                if id(value) not in self.values and value.source and value.source[-1] in named:
                    self.values[id(value)] = named[value.source[-1]]

    def key(self, value: Value, own: bool) -> Hashable:
        """Equal for values of the two graphs that are the same."""
        if value.constant is not None:
            return value.constant.sha
        return id(self.values.get(id(value), value)) if own else id(value)

    def same(self, x: Value, y: Value) -> bool:
        if (x.constant is None) != (y.constant is None):
            return False
        return self.key(x, True) == self.key(y, False)

    # -- one pair

    def node(self, x: Node, y: Node) -> Iterator[Change]:
        where = _name(x) if _name(x) == _name(y) else f"{_name(x)} / {_name(y)}"
        old, new = x.op.attrs, y.op.attrs
        shown = {name: attr.kind.show for name, attr in x.op.attributes.items()}
        for name, show in shown.items():
            if show(old[name]) != show(new[name]):
                yield Change(CHANGED, where, f"{x.op.name} {name}={show(old[name])} -> {show(new[name])}")
        for index in range(max(len(x.inputs), len(y.inputs))):
            left = x.inputs[index] if index < len(x.inputs) else None
            right = y.inputs[index] if index < len(y.inputs) else None
            if left is None or right is None or not self.same(left, right):
                operand = x.op.operand_name(index)
                yield Change(CHANGED, where, f"{x.op.name} {operand}: {_show(left)} -> {_show(right)}")
        for before, after in zip(x.outputs, y.outputs, strict=False):
            if before.type != after.type:
                yield Change(CHANGED, where, f"type {before.type} -> {after.type}")
            if self.sources and before.source != after.source:
                yield Change(CHANGED, where, f"comes from {_names(before)} -> {_names(after)}")


def _named(node: Node) -> bool:
    return bool(node.outputs) and bool(node.outputs[0].source)


def _name(node: Node) -> str:
    return ", ".join(f"%{value.name}" for value in node.outputs)


def _names(value: Value) -> str:
    return ", ".join(f"'{name}'" for name in value.source) or "nothing"


def _show(value: Value | None) -> str:
    if value is None:
        return "nothing"
    if value.constant is None:
        return f"%{value.name}"
    text = print_constant(value.name, value.constant).removeprefix("const ")
    return text if len(text) <= 80 else f"%{value.name} : {value.type} sha={value.constant.sha}"
