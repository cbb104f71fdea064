"""Typed construction of graphs: results are inferred, constants are shared."""

from __future__ import annotations

from sqzc.ir.constant import Array, Constant
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.opdef import OpDef


class Builder:
    """Appends to `graph`, or inserts before `before` when given."""

    def __init__(self, graph: Graph, before: Node | None = None) -> None:
        self.graph = graph
        self.before = before

    def add(self, op: OpDef, *inputs: Value, source: tuple[str, ...] = (), name: str = "") -> Value:
        """Adds an op with one result and returns it."""
        names = (name,) if name else ()
        return self.graph.insert(op, inputs, names=names, sources=(source,), before=self.before).output

    def add_multi(self, op: OpDef, *inputs: Value, sources: tuple[tuple[str, ...], ...] = ()) -> list[Value]:
        """Adds an op with any number of results and returns them."""
        return self.graph.insert(op, inputs, sources=sources, before=self.before).outputs

    def constant(self, symbol: str, data: Array, source: tuple[str, ...] = ()) -> Value:
        """Adds a constant; `symbol` is its name in text IR."""
        return self.graph.add_constant(Constant(symbol, data), source=source)
