"""The pass `elide-concat`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops import elementwise, nn, shape
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import label, replace_node

_SLICE_WRITERS = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Pool2d,
    nn.BatchNorm,
    elementwise.Unary,
    elementwise.Binary,
    elementwise.Prelu,
)
"""Ops whose kernels can write into a slice of a larger image instead of a buffer of their own."""


@dataclass(frozen=True)
class ElideConcat(RewritePass):
    """Marks concats whose operands can be made in place, each inside its slice of the result: nothing is copied.

    Applies to a concat of images along channels when every operand is made by a convolution, pool or elementwise op,
    stands in this concat once and in no other placed one, and is no output; and when in a channel-blocked layout every
    operand begins at a whole block.

    Before:
        graph @g(%x: f32[1,4,5,5]) {
          const %w1 = @w1 : f32[8,4,1,1]
          const %w3 = @w3 : f32[8,4,3,3]
          %a = conv2d(%x, %w1) {act=relu} : f32[1,8,5,5]
          %b = conv2d(%x, %w3) {pads=[1,1,1,1], act=relu} : f32[1,8,5,5]
          %c = concat(%a, %b) {axis=1} : f32[1,16,5,5]
          yield %c as "y"
        }
    After:
        graph @g(%x: f32[1,4,5,5]) {
          const %w1 = @w1 : f32[8,4,1,1]
          const %w3 = @w3 : f32[8,4,3,3]
          %a = conv2d(%x, %w1) {act=relu} : f32[1,8,5,5]
          %b = conv2d(%x, %w3) {pads=[1,1,1,1], act=relu} : f32[1,8,5,5]
          %c = concat(%a, %b) {axis=1, placed=true} : f32[1,16,5,5]
          yield %c as "y"
        }
    """

    name: ClassVar[str] = "elide-concat"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        if not isinstance(node.op, shape.Concat) or node.op.placed:
            return False
        reason = _obstacle(graph, node)
        if reason:
            ctx.note(f"declined {label(node.output)}: {reason}")
            return False
        if not ctx.take(f"placed the operands of {label(node.output)}"):
            return False
        replace_node(graph, node, node.op.replace(placed=True), node.inputs)
        return True


def _obstacle(graph: Graph, node: Node) -> str:
    op = node.op
    assert isinstance(op, shape.Concat)
    if node.output.type.rank != 4 or op.axis != 1:
        return "it does not join images along their channels"
    block = node.output.type.layout.block or 1
    offset = 0
    for value in node.inputs:
        if offset % block:
            return f"{label(value)} would begin at channel {offset}, within a block of {block}"
        offset += value.type.shape[1]
        reason = _operand_obstacle(graph, node, value)
        if reason:
            return f"{label(value)} {reason}"
    return ""


def _operand_obstacle(graph: Graph, node: Node, value: Value) -> str:
    if value.producer is None:
        return "is an input or a constant"
    # An identity has no memory of its own: its result is its operand's.
    if not isinstance(value.producer.op, _SLICE_WRITERS) or isinstance(value.producer.op, elementwise.Identity):
        return f"is made by {value.producer.op.name}, which writes no slices"
    if graph.is_output(value):
        return "is an output"
    for user in value.users:
        if user is not node and isinstance(user.op, shape.Concat) and user.op.placed:
            return f"is placed in {label(user.output)} already"
    return "stands in it more than once" if node.inputs.count(value) > 1 else ""
