"""Shrinking a graph that shows a failure to the few ops that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqzc.backends.reference import evaluate_values
from sqzc.driver.debug.cases import Arrays
from sqzc.driver.debug.extract import extract, neighbours, row_major_interface
from sqzc.ir.graph import Graph, Node, Value

Fails = Callable[[Graph, Arrays], bool]
"""Whether a graph with these inputs shows the failure. It leaves the graph as it is, and takes graphs of any kind."""


@dataclass(frozen=True)
class Reduced:
    """A graph that still fails, and the inputs with which it does."""

    graph: Graph
    inputs: Arrays


class _Reducer:
    def __init__(self, graph: Graph, inputs: Arrays, fails: Fails, seconds: float, row_major: bool) -> None:
        self.graph, self.fails, self.row_major = graph, fails, row_major
        self.values = evaluate_values(graph, inputs)
        self.deadline = time.monotonic() + seconds
        # Values that are outputs of every part that has them. Only used where the failure does not show without.
        self.watched: list[Value] = []

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def part(self, nodes: Iterable[Node], outputs: Sequence[Value] | None = None) -> Reduced:
        nodes = list(nodes)
        if outputs is None and self.watched:
            made = {id(value) for node in nodes for value in node.outputs}
            leaving = {name for name, _ in extract(self.graph, nodes).outputs}
            results = [value for node in nodes for value in node.outputs]
            watched = {id(value) for value in self.watched if id(value) in made}
            outputs = [value for value in results if value.name in leaving or id(value) in watched]
        graph = extract(self.graph, nodes, outputs)
        inputs = {value.name: self.values[value.name] for value in graph.inputs}
        return Reduced(row_major_interface(graph) if self.row_major else graph, inputs)

    def test(self, nodes: Sequence[Node], outputs: Sequence[Value] | None = None) -> bool:
        if not nodes:
            return False
        part = self.part(nodes, outputs)
        return self.fails(part.graph, part.inputs)

    def grow(self, seeds: Sequence[Node]) -> list[Node] | None:
        """The smallest surroundings of the seeds that fail; None when not even the whole graph does."""
        nodes = self.in_order(seeds)
        while not self.shows(nodes, seeds):
            wider = neighbours(self.graph, nodes)
            if len(wider) == len(nodes) or self.late:
                nodes = list(self.graph.nodes)
                return nodes if self.shows(nodes, seeds) else None
            nodes = wider
        return nodes

    def shows(self, nodes: Sequence[Node], seeds: Sequence[Node]) -> bool:
        """Whether nodes fail as they are, or else with the results of the seeds made outputs."""
        if self.test(nodes):
            return True
        self.watched = [value for node in seeds for value in node.outputs]
        if self.test(nodes):
            return True
        self.watched = []
        return False

    def in_order(self, nodes: Iterable[Node]) -> list[Node]:
        kept = {id(node) for node in nodes}
        return [node for node in self.graph.nodes if id(node) in kept]

    def thin(self, nodes: list[Node]) -> list[Node]:
        """Leaves out runs of nodes, long ones first, until no single node can go."""
        size = max(len(nodes) // 2, 1)
        while not self.late:
            start, shrunk = 0, False
            while start < len(nodes) and not self.late:
                rest = nodes[:start] + nodes[start + size :]
                if self.test(rest):
                    nodes, shrunk = rest, True
                else:
                    start += size
            if size > 1:
                size //= 2
            elif not shrunk:
                break
        return nodes

    def drop_outputs(self, nodes: list[Node]) -> list[Value]:
        """Keeps the outputs that the failure needs, at least one."""
        names = [name for name, _ in self.part(nodes).graph.outputs]
        by_name = {value.name: value for node in nodes for value in node.outputs}
        kept = [by_name[name] for name in names]
        for value in list(kept):
            rest = [other for other in kept if other is not value]
            if rest and not self.late and self.test(nodes, rest):
                kept = rest
        return kept


def reduce(
    graph: Graph, inputs: Arrays, seeds: Sequence[Node], fails: Fails, *, seconds: float = 20.0, row_major: bool = False
) -> Reduced | None:
    """A part of the graph, around the seeds, that fails when fed with what the reference computes for it.

    None when no part does, the whole included. Takes about `seconds` at most. With `row_major`, inputs and outputs
    have no other layouts, as compiled code needs them.
    """
    reducer = _Reducer(graph, inputs, fails, seconds, row_major)
    nodes = reducer.grow(seeds)
    if nodes is None:
        return None
    nodes = reducer.thin(nodes)
    return reducer.part(nodes, reducer.drop_outputs(nodes))
