"""The pass `assign-layout`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sqzc.diagnostics import PassError
from sqzc.ir.equality import first_difference
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops import shape
from sqzc.ir.types import PLAIN, Layout
from sqzc.passes.base import Pass, PassContext, option
from sqzc.passes.layout_choice import Decision, best_layouts
from sqzc.passes.rewriting import forward, label


@dataclass(frozen=True)
class AssignLayout(Pass):
    """Decides which images are channel-blocked (`nchw{lanes}c`), and inserts the relayouts that takes.

    Convolutions and pools want blocks where there are channels to fill them; elementwise ops and concats follow; other
    ops, inputs and outputs are row-major. The choice that costs least in all, wrong layouts and relayouts together, is
    a minimum cut between 'blocked' and 'row-major' through the graph, so it is the best one under the cost model of
    `layout_cost`. Layouts that the graph came with are forgotten first, those of its inputs and outputs aside.

    Before:
        graph @g(%x: f32[1,3,9,9]) {
          const %w1 = @w1 : f32[8,3,3,3]
          const %w2 = @w2 : f32[8,8,3,3]
          %a = conv2d(%x, %w1) {act=relu} : f32[1,8,7,7] @"a"
          %b = conv2d(%a, %w2) {pads=[1,1,1,1]} : f32[1,8,7,7] @"b"
          %s = add(%a, %b) : f32[1,8,7,7] @"s"
          yield %s as "y"
        }
    After {lanes=8}:
        graph @g(%x: f32[1,3,9,9]) {
          const %w1 = @w1 : f32[8,3,3,3]
          const %w2 = @w2 : f32[8,8,3,3]
          %a = conv2d(%x, %w1) {act=relu} : f32[1,8,7,7]:nchw8c @"a"
          %b = conv2d(%a, %w2) {pads=[1,1,1,1]} : f32[1,8,7,7]:nchw8c @"b"
          %s = add(%a, %b) : f32[1,8,7,7]:nchw8c @"s"
          %p = relayout(%s) : f32[1,8,7,7] @"s"
          yield %p as "y"
        }
    """

    name: ClassVar[str] = "assign-layout"
    lanes: int = option(0, "channels per block; 0 takes the target's vector length")

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        lanes = self.lanes or ctx.lanes
        if not 2 <= lanes <= 256:
            raise PassError(f"assign-layout with blocks of {lanes} channels", expected="2 to 256")
        fresh = graph.clone()
        interface = [value.type.layout for _, value in fresh.outputs]
        _make_plain(fresh)
        decisions = best_layouts(fresh, lanes, interface)
        made = _Relayouts(fresh)
        for node in list(fresh.nodes):
            decision = decisions.get(id(node))
            if decision is None or not ctx.take(f"blocked {node.op.name} {label(node.output)}"):
                decision = Decision((False,) * len(node.inputs), False)
            if decision.result:
                fresh.set_layout(node.output, Layout(lanes))
            for index, blocked in enumerate(decision.operands):
                wanted = Layout(lanes) if blocked else PLAIN
                fresh.set_input(node, index, made.get(node.inputs[index], wanted, node))
        fresh.outputs = [
            (name, made.get(value, layout, None))
            for (name, value), layout in zip(fresh.outputs, interface, strict=True)
        ]
        if first_difference(graph, fresh) is None:
            ctx.rewrites.clear()
            return False
        graph.copy_from(fresh)
        return True


def _make_plain(graph: Graph) -> None:
    """Takes all relayouts out; every result becomes row-major."""
    for node in list(graph.nodes):
        if isinstance(node.op, shape.Relayout):
            forward(graph, node, node.inputs[0])
        else:
            for value in node.outputs:
                graph.set_layout(value, PLAIN)


class _Relayouts:
    """Makes each value available in each layout once, where it is first needed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made: dict[tuple[int, Layout], Value] = {}

    def get(self, value: Value, layout: Layout, before: Node | None) -> Value:
        """`value` in `layout`."""
        if value.type.layout == layout:
            return value
        key = (id(value), layout)
        if key not in self.made:
            node = self.graph.insert(
                shape.Relayout(),
                [value],
                names=[f"{value.name}.{'plain' if layout.is_plain else layout}"],
                sources=[value.source],
                before=before,
                types=[value.type.with_layout(layout)],
            )
            self.made[key] = node.output
        return self.made[key]
