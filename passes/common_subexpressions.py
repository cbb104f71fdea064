"""The pass `common-subexpressions`."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops import elementwise
from sqzc.passes.base import Pass, PassContext
from sqzc.passes.rewriting import label, share_names

_COMMUTATIVE = (elementwise.Add, elementwise.Mul, elementwise.Maximum, elementwise.Minimum, elementwise.Equal)


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Keeps one of several constants with the same data, and one of several nodes that compute the same.

    Nodes are the same when op, attributes, operands (in any order where the op commutes) and result types are. The
    first one stays and takes the source names of the others.

    Before:
        graph @g(%x: f32[1,2,4,4]) {
          const %c = [3.0] : f32[1]
          const %d = [3.0] : f32[1]
          %a = mul(%x, %c) : f32[1,2,4,4] @"a"
          %b = mul(%d, %x) : f32[1,2,4,4] @"b"
          %s = sub(%a, %b) : f32[1,2,4,4]
          yield %s as "y"
        }
    After:
        graph @g(%x: f32[1,2,4,4]) {
          const %c = [3.0] : f32[1]
          %a = mul(%x, %c) : f32[1,2,4,4] @"a" @"b"
          %s = sub(%a, %a) : f32[1,2,4,4]
          yield %s as "y"
        }
    """

    name: ClassVar[str] = "common-subexpressions"

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        constants: dict[Hashable, Value] = {}
        for value in list(graph.constants):
            assert value.constant is not None
            kept = constants.setdefault((value.constant.sha, value.type), value)
            if kept is not value and ctx.take(f"merged constant %{value.name} into %{kept.name}"):
                _merge(graph, kept, value)
                graph.erase_constant(value)
        nodes: dict[Hashable, Node] = {}
        for node in list(graph.nodes):
            first = nodes.setdefault(_key(node), node)
            if first is node:
                continue
            if ctx.take(f"merged {node.op.name} {label(node.outputs[0])} into {label(first.outputs[0])}"):
                for kept, value in zip(first.outputs, node.outputs, strict=True):
                    _merge(graph, kept, value)
                graph.erase(node)
        return bool(ctx.rewrites)


def _merge(graph: Graph, kept: Value, value: Value) -> None:
    share_names(kept, value)
    graph.replace_uses(value, kept)


def _key(node: Node) -> Hashable:
    operands = [id(value) for value in node.inputs]
    if isinstance(node.op, _COMMUTATIVE):
        operands.sort()
    return (node.op, tuple(operands), tuple(value.type for value in node.outputs))
