"""The pass `dead-code`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sqzc.ir.graph import Graph
from sqzc.passes.base import Pass, PassContext
from sqzc.passes.rewriting import label


@dataclass(frozen=True)
class DeadCode(Pass):
    """Removes nodes and constants that no output depends on.

    Before:
        graph @g(%x: f32[1,2]) {
          const %c = [1.0, 2.0] : f32[2]
          %a = relu(%x) : f32[1,2]
          %b = add(%a, %c) : f32[1,2]
          yield %a as "y"
        }
    After:
        graph @g(%x: f32[1,2]) {
          %a = relu(%x) : f32[1,2]
          yield %a as "y"
        }
    """

    name: ClassVar[str] = "dead-code"

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        for node in reversed(list(graph.nodes)):
            if any(graph.is_used(value) for value in node.outputs):
                continue
            if ctx.take(f"erased {node.op.name} {', '.join(map(label, node.outputs))}"):
                graph.erase(node)
        for value in list(graph.constants):
            if not graph.is_used(value) and ctx.take(f"erased constant %{value.name}"):
                graph.erase_constant(value)
        return bool(ctx.rewrites)
