"""Graph, node and value, and the only functions that change them.

A graph is a list of nodes in a topological order. Values know their producer and their users; every mutation keeps both
sides in step. Ops are pure, so a node without users can always be erased.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import networkx as nx

from sqzc.diagnostics import VerifyError
from sqzc.ir.constant import Array, Constant
from sqzc.ir.opdef import OpDef
from sqzc.ir.types import Layout, TensorType


class Value:
    """One SSA value. `source` lists the names it has in the model file, oldest first."""

    __slots__ = ("constant", "name", "producer", "source", "type", "users")

    def __init__(self, name: str, type: TensorType, source: tuple[str, ...] = ()) -> None:
        self.name = name
        self.type = type
        self.source = source
        self.producer: Node | None = None
        self.constant: Constant | None = None
        self.users: list[Node] = []

    @property
    def is_constant(self) -> bool:
        """Whether the value is known at compile time."""
        return self.constant is not None

    @property
    def data(self) -> Array:
        """The array of a constant; only to be asked of constants."""
        assert self.constant is not None, f"%{self.name} is not a constant"
        return self.constant.data

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


class Node:
    """One op applied to values. Change it through `Graph` only."""

    __slots__ = ("inputs", "op", "outputs")

    def __init__(self, op: OpDef, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        self.op = op
        self.inputs = list(inputs)
        self.outputs = list(outputs)

    @property
    def output(self) -> Value:
        """The result of a node that has one."""
        assert len(self.outputs) == 1, f"{self.op.name} has {len(self.outputs)} results"
        return self.outputs[0]

    @property
    def flops(self) -> int:
        """Floating point operations, by the op's own rule."""
        return self.op.flops([v.type for v in self.inputs], [v.type for v in self.outputs])

    @property
    def macs(self) -> int:
        """Multiply-accumulates, by the op's own rule."""
        return self.op.macs([v.type for v in self.inputs], [v.type for v in self.outputs])

    def operand(self, name: str) -> Value | None:
        """The operand declared as `name`, or None where an optional one is absent."""
        for index, declared in enumerate(self.op.operands):
            if declared.name == name:
                return self.inputs[index] if index < len(self.inputs) else None
        raise KeyError(f"{self.op.name} declares no operand '{name}'")

    def __repr__(self) -> str:
        outs = ", ".join(f"%{v.name}" for v in self.outputs)
        return f"{outs} = {self.op!r}({', '.join('%' + v.name for v in self.inputs)})"


class Graph:
    """A pure function from inputs to named outputs.

    `meta` is JSON-able data about the model (mean, channel order, licence, ...) that travels with every dump.
    """

    def __init__(self, name: str = "main") -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.outputs: list[tuple[str, Value]] = []
        self.nodes: list[Node] = []
        self.constants: list[Value] = []
        self.meta: dict[str, Any] = {}
        self._names: set[str] = set()

    # -- construction ---------------------------------------------------------------------------------------------

    def unique_name(self, wanted: str) -> str:
        """`wanted`, or it with a free numeric suffix; the name is taken from then on.

        Depends on the names taken now and on nothing that was there before, so that a graph read back from its text
        is continued with the same names. Logarithmic in the number of suffixes taken.
        """
        name = wanted or "v"
        if name in self._names:
            taken, free = 0, 1
            while f"{name}.{free}" in self._names:
                taken, free = free, 2 * free
            while free - taken > 1:
                middle = (taken + free) // 2
                if f"{name}.{middle}" in self._names:
                    taken = middle
                else:
                    free = middle
            name = f"{name}.{free}"
        self._names.add(name)
        return name

    def add_input(self, name: str, type: TensorType, source: tuple[str, ...] | None = None) -> Value:
        """Adds an input; its name is part of the model's interface and is never changed."""
        if name in self._names:
            raise VerifyError(f"two values are called %{name}")
        value = Value(self.unique_name(name), type, (name,) if source is None else source)
        self.inputs.append(value)
        return value

    def add_constant(self, constant: Constant, name: str | None = None, source: tuple[str, ...] = ()) -> Value:
        """Adds a constant without copying its array."""
        value = Value(self.unique_name(name or constant.symbol), constant.type, source)
        value.constant = constant
        self.constants.append(value)
        return value

    def add_output(self, name: str, value: Value) -> None:
        """Declares `value` as the output called `name`."""
        if any(name == known for known, _ in self.outputs):
            raise VerifyError(f"two outputs are called '{name}'")
        self.outputs.append((name, value))

    def insert(
        self,
        op: OpDef,
        inputs: Sequence[Value],
        *,
        names: Sequence[str] = (),
        sources: Sequence[tuple[str, ...]] = (),
        before: Node | None = None,
        types: Sequence[TensorType] | None = None,
    ) -> Node:
        """Adds a node before `before` (at the end when None) and infers its result types.

        `types` overrides the layouts of the results, nothing else.
        """
        inferred = op.result_types([v.type for v in inputs])
        if types is not None:
            plain = tuple(t.with_layout(Layout()) for t in types)
            if plain != inferred:
                raise VerifyError(
                    f"{op.name}: result type",
                    expected=", ".join(map(str, inferred)),
                    got=", ".join(map(str, types)),
                )
            inferred = tuple(types)
        outputs = []
        for index, type_ in enumerate(inferred):
            source = sources[index] if index < len(sources) else ()
            wanted = names[index] if index < len(names) else (source[-1] if source else op.name)
            outputs.append(Value(self.unique_name(wanted), type_, source))
        node = Node(op, inputs, outputs)
        for value in outputs:
            value.producer = node
        for value in inputs:
            value.users.append(node)
        if before is None:
            self.nodes.append(node)
        else:
            self.nodes.insert(self.index(before), node)
        return node

    # -- mutation -------------------------------------------------------------------------------------------------

    def index(self, node: Node) -> int:
        """Position of `node` in the order; linear."""
        for position, candidate in enumerate(self.nodes):
            if candidate is node:
                return position
        raise ValueError(f"{node!r} is not in graph @{self.name}")

    def set_input(self, node: Node, index: int, value: Value) -> None:
        """Makes `value` the operand at `index`."""
        node.inputs[index].users.remove(node)
        node.inputs[index] = value
        value.users.append(node)

    def replace_uses(self, old: Value, new: Value, *, keep: Iterable[Node] = ()) -> None:
        """Lets every user and output of `old` read `new` instead, except the nodes in `keep`."""
        kept = {id(node) for node in keep}
        for node in list(dict.fromkeys(old.users)):
            if id(node) in kept:
                continue
            for index, value in enumerate(node.inputs):
                if value is old:
                    self.set_input(node, index, new)
        self.outputs = [(name, new if value is old else value) for name, value in self.outputs]

    def erase(self, node: Node) -> None:
        """Removes a node whose results nobody reads."""
        for value in node.outputs:
            if self.is_used(value):
                raise VerifyError(f"%{value.name} is still used and cannot be erased")
            self._names.discard(value.name)
        for value in node.inputs:
            value.users.remove(node)
        del self.nodes[self.index(node)]

    def erase_constant(self, value: Value) -> None:
        """Removes a constant that nobody reads."""
        if self.is_used(value):
            raise VerifyError(f"%{value.name} is still used and cannot be erased")
        self._names.discard(value.name)
        self.constants = [known for known in self.constants if known is not value]

    def rename(self, value: Value, wanted: str) -> None:
        """Gives a value another SSA name; inputs keep theirs."""
        if any(value is known for known in self.inputs):
            raise VerifyError(f"the input %{value.name} cannot be renamed")
        self._names.discard(value.name)
        value.name = self.unique_name(wanted)

    def set_layout(self, value: Value, layout: Layout) -> None:
        """Changes the memory layout of a node's result; its users must take it or be changed too."""
        assert value.producer is not None, f"the layout of %{value.name} is not a node's choice"
        value.type = value.type.with_layout(layout)

    def sort(self) -> None:
        """Restores a topological order, keeping the present one where it already is."""
        position = {id(node): index for index, node in enumerate(self.nodes)}
        net = self.to_networkx()
        order = nx.lexicographical_topological_sort(net, key=lambda key: position[key])
        by_id = {id(node): node for node in self.nodes}
        try:
            self.nodes = [by_id[key] for key in order]
        except nx.NetworkXUnfeasible:
            raise VerifyError(f"graph @{self.name} has a cycle") from None

    # -- questions ------------------------------------------------------------------------------------------------

    def is_used(self, value: Value) -> bool:
        """Whether a node or an output reads `value`."""
        return bool(value.users) or self.is_output(value)

    def is_output(self, value: Value) -> bool:
        """Whether `value` is an output."""
        return any(value is known for _, known in self.outputs)

    def sole_user(self, value: Value) -> Node | None:
        """The one node that reads `value`, if there is exactly one read and `value` is no output."""
        return value.users[0] if len(value.users) == 1 and not self.is_output(value) else None

    def values(self) -> Iterator[Value]:
        """Inputs, constants and results, in this order."""
        yield from self.inputs
        yield from self.constants
        for node in self.nodes:
            yield from node.outputs

    def value(self, name: str) -> Value:
        """The value called `name`; KeyError when there is none."""
        for candidate in self.values():
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def to_networkx(self) -> nx.DiGraph:
        """Nodes by id(), one edge per data dependence; each carries its Node as `node`."""
        net = nx.DiGraph()
        for node in self.nodes:
            net.add_node(id(node), node=node)
        for node in self.nodes:
            for value in node.inputs:
                if value.producer is not None:
                    net.add_edge(id(value.producer), id(node))
        return net

    @property
    def flops(self) -> int:
        """Floating point operations of one evaluation."""
        return sum(node.flops for node in self.nodes)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one evaluation."""
        return sum(node.macs for node in self.nodes)

    @property
    def parameters(self) -> int:
        """Number of constant elements."""
        return sum(value.type.elements for value in self.constants)

    def clone(self) -> Graph:
        """A deep copy that shares every constant array."""
        other = Graph(self.name)
        other.meta = json.loads(json.dumps(self.meta))
        other._names = set(self._names)
        mapping: dict[int, Value] = {}

        def copy(value: Value) -> Value:
            fresh = Value(value.name, value.type, value.source)
            fresh.constant = value.constant
            mapping[id(value)] = fresh
            return fresh

        other.inputs = [copy(v) for v in self.inputs]
        other.constants = [copy(v) for v in self.constants]
        for node in self.nodes:
            fresh = Node(node.op, [mapping[id(v)] for v in node.inputs], [copy(v) for v in node.outputs])
            for value in fresh.outputs:
                value.producer = fresh
            for value in fresh.inputs:
                value.users.append(fresh)
            other.nodes.append(fresh)
        other.outputs = [(name, mapping[id(value)]) for name, value in self.outputs]
        return other

    def copy_from(self, other: Graph) -> None:
        """Becomes a clone of `other`, so that a caller's reference sees the new contents."""
        fresh = other.clone()
        self.__dict__.update(fresh.__dict__)

    def __str__(self) -> str:
        from sqzc.ir.printer import print_graph

        return print_graph(self)


def merged_sources(*values: Value, extra: Mapping[str, None] | None = None) -> tuple[str, ...]:
    """Source names of all values, in order, each once: what a fused result is called."""
    names: dict[str, None] = {}
    for value in values:
        names.update(dict.fromkeys(value.source))
    names.update(extra or {})
    return tuple(names)
