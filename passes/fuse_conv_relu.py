"""The pass `fuse-conv-relu`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops import elementwise
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import Weighted, label, replace_node, settle_name


@dataclass(frozen=True)
class FuseConvRelu(RewritePass):
    """Lets a convolution or linear layer apply the activation that follows it, whichever of the unary ones it is.

    Applies to conv2d, conv_transpose2d and linear without an activation yet, when nobody else reads their result. With
    a residual operand the activation comes after the sum.

    Before:
        graph @g(%x: f32[1,3,8,8]) {
          const %w = @w : f32[4,3,3,3]
          %c = conv2d(%x, %w) {stride=2x2} : f32[1,4,3,3] @"conv"
          %r = relu(%c) : f32[1,4,3,3] @"relu"
          yield %r as "y"
        }
    After:
        graph @g(%x: f32[1,3,8,8]) {
          const %w = @w : f32[4,3,3,3]
          %r = conv2d(%x, %w) {stride=2x2, act=relu} : f32[1,4,3,3] @"conv" @"relu"
          yield %r as "y"
        }
    """

    name: ClassVar[str] = "fuse-conv-relu"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        if not isinstance(node.op, elementwise.Unary) or not node.op.is_activation:
            return False
        conv = node.inputs[0].producer
        if conv is None or not isinstance(conv.op, Weighted) or conv.op.act:
            return False
        what = f"{node.op.name} {label(node.output)} into {conv.op.name} {label(conv.output)}"
        if graph.sole_user(conv.output) is None:
            ctx.note(f"declined {what}: {label(conv.output)} has other readers")
            return False
        if not ctx.take(f"fused {what}"):
            return False
        fused = replace_node(
            graph, node, conv.op.replace(act=node.op.activation()), conv.inputs, absorbed=[conv.output]
        )
        graph.erase(conv)
        settle_name(graph, fused.output)
        return True
