"""Chooses memory layouts for a whole graph at once, as a minimum cut.

Every image and every use of an image is a variable that is either channel-blocked or row-major. What an op costs with
one or the other (`layout_cost`), and a relayout between a value and its uses, are capacities of edges between the
variables; several uses that need the same relayout share it. The cheapest assignment is a minimum cut (such costs are
submodular), found by networkx. Of equally cheap ones it is the one with the fewest blocked variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx

from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.opdef import Layouts
from sqzc.ir.types import Layout
from sqzc.passes.layout_cost import (
    Freedom,
    Preference,
    freedom,
    input_preference,
    is_image,
    output_preference,
    relayout_cost,
    tied_preference,
)

Variable = tuple[str, int]
PLAIN: Variable = ("plain", -1)
BLOCKED: Variable = ("blocked", -1)


@dataclass(frozen=True)
class Decision:
    """Which operands and whether the result of a node are channel-blocked."""

    operands: tuple[bool, ...]
    result: bool


def best_layouts(graph: Graph, lanes: int, outputs: Sequence[Layout] = ()) -> dict[int, Decision]:
    """The decision for every node, by id(), that has anything blocked.

    The graph's results must all be row-major; `outputs` are the layouts that its outputs have to have, row-major when
    empty.
    """
    problem = _Problem(graph, lanes, outputs)
    _, (_, blocked) = nx.minimum_cut(problem.net, PLAIN, BLOCKED)
    decisions = {}
    for node in graph.nodes:
        if problem.freedom[id(node)] is Freedom.PLAIN:
            continue
        operands = tuple(problem.use(node, index) in blocked for index in range(len(node.inputs)))
        decision = Decision(operands, problem.result(node.output) in blocked)
        if decision.result or any(operands):
            decisions[id(node)] = decision
    return decisions


class _Problem:
    """The flow network. A variable on the side of PLAIN is row-major, on the side of BLOCKED channel-blocked."""

    def __init__(self, graph: Graph, lanes: int, outputs: Sequence[Layout]) -> None:
        self.lanes = lanes
        self.outputs = [
            (value, BLOCKED if layout.block == lanes else PLAIN)
            for (_, value), layout in zip(graph.outputs, outputs or [Layout()] * len(graph.outputs), strict=True)
        ]
        self.net = nx.DiGraph()
        self.net.add_nodes_from((PLAIN, BLOCKED))
        self.number = {id(node): index for index, node in enumerate(graph.nodes)}
        self.freedom = {id(node): freedom(node, lanes) for node in graph.nodes}
        for node in graph.nodes:
            self._add_preferences(node)
        for index, value in enumerate(graph.values()):
            if is_image(value.type):
                self._add_relayouts(index, value)

    def result(self, value: Value) -> Variable:
        """The variable of a value as it is made."""
        node = value.producer
        if node is None:
            return BLOCKED if value.type.layout.block == self.lanes else PLAIN
        if self.freedom[id(node)] is Freedom.PLAIN:
            return PLAIN
        return ("result", self.number[id(node)])

    def use(self, node: Node, index: int) -> Variable:
        """The variable of an operand as the node reads it."""
        if self.freedom[id(node)] is Freedom.PLAIN or not is_image(node.inputs[index].type):
            return PLAIN
        if node.op.layouts is Layouts.IMAGE and node.op.operand_name(index) not in node.op.image_operands:
            return PLAIN
        if node.op.layouts is Layouts.BROADCAST and node.inputs[index].type.elements == 1:
            return PLAIN
        if self.freedom[id(node)] is Freedom.FREE and index == 0:
            return ("operand", self.number[id(node)])
        return ("result", self.number[id(node)])

    def _add_preferences(self, node: Node) -> None:
        kind = self.freedom[id(node)]
        if kind is Freedom.FREE:
            self._prefer(self.use(node, 0), input_preference(node, self.lanes))
            self._prefer(self.result(node.output), output_preference(node, self.lanes))
        elif kind is Freedom.TIED:
            self._prefer(self.result(node.output), tied_preference(node, self.lanes))

    def _prefer(self, variable: Variable, preference: Preference) -> None:
        self._pay(plain=variable, blocked=BLOCKED, cost=preference.plain)
        self._pay(plain=PLAIN, blocked=variable, cost=preference.blocked)

    def _add_relayouts(self, index: int, value: Value) -> None:
        made = self.result(value)
        uses = {self.use(node, i) for node in value.users for i, v in enumerate(node.inputs) if v is value}
        uses.update(wanted for output, wanted in self.outputs if output is value)
        if uses <= {made}:
            return
        cost = relayout_cost(value.type, self.lanes)
        for_blocked, for_plain = ("blocked copy of", index), ("plain copy of", index)
        for use in sorted(uses):
            self._pay(plain=for_blocked, blocked=use, cost=None)
            self._pay(plain=use, blocked=for_plain, cost=None)
        self._pay(plain=made, blocked=for_blocked, cost=cost)
        self._pay(plain=for_plain, blocked=made, cost=cost)

    def _pay(self, *, plain: Variable, blocked: Variable, cost: int | None) -> None:
        """The first variable row-major while the second is blocked costs this much; None forbids it."""
        if cost == 0 or plain == blocked or plain == BLOCKED or blocked == PLAIN:
            return
        if cost is None:
            self.net.add_edge(plain, blocked)
        elif not self.net.has_edge(plain, blocked):
            self.net.add_edge(plain, blocked, capacity=cost)
        elif "capacity" in self.net[plain][blocked]:
            self.net[plain][blocked]["capacity"] += cost
