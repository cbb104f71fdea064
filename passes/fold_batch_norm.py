"""The pass `fold-batch-norm`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops import nn
from sqzc.passes.affine import affine_of, fold_after
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import Weighted, erase_unused, label, replace_node, settle_name, with_bias


@dataclass(frozen=True)
class FoldBatchNorm(RewritePass):
    """Folds a per-channel affine op into the convolution or linear layer that feeds it.

    Applies to batch_norm and to add, sub, mul, div by a constant per channel, after a conv2d, conv_transpose2d or
    linear that nobody else reads and that has constant weights and no activation yet. The new weights are computed in
    float64 and rounded once: w' = scale * w, bias' = scale * bias + shift. A residual operand stands outside the
    weights, so with one only a shift folds.

    Before:
        graph @g(%x: f32[1,2,4,4]) {
          const %w = [1.0, 2.0, 3.0, 4.0] : f32[2,2,1,1]
          const %gain = [2.0, 0.5] : f32[2]
          const %offset = [1.0, -1.0] : f32[2]
          const %mean = [3.0, 4.0] : f32[2]
          const %var = [1.0, 4.0] : f32[2]
          %c = conv2d(%x, %w) : f32[1,2,4,4] @"conv"
          %n = batch_norm(%c, %gain, %offset, %mean, %var) {eps=0.0} : f32[1,2,4,4] @"norm"
          yield %n as "y"
        }
    After:
        graph @g(%x: f32[1,2,4,4]) {
          const %w = [2.0, 4.0, 0.75, 1.0] : f32[2,2,1,1]
          const %bias = [-5.0, -2.0] : f32[2]
          %n = conv2d(%x, %w, %bias) : f32[1,2,4,4] @"conv" @"norm"
          yield %n as "y"
        }
    """

    name: ClassVar[str] = "fold-batch-norm"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        affine = affine_of(node)
        if affine is None or affine.x.producer is None:
            return False
        conv = affine.x.producer
        if not isinstance(conv.op, Weighted):
            return False
        what = f"{node.op.name} {label(node.output)} into {conv.op.name} {label(conv.output)}"
        reason = _obstacle(graph, conv, bool(np.all(affine.scale == 1)))
        folded = None if reason else fold_after(conv, affine.scale, affine.shift)
        if folded is None:
            ctx.note(f"declined {what}: {reason or 'the weights are not constant or would leave their range'}")
            return False
        if not ctx.take(f"folded {what}"):
            return False
        old = [*conv.inputs, *node.inputs]
        inputs = with_bias(graph, conv, *folded)
        fused = replace_node(graph, node, conv.op, inputs, absorbed=[conv.output])
        erase_unused(graph, conv.output, *old)
        settle_name(graph, fused.output)
        return True


def _obstacle(graph: Graph, conv: Node, only_shifts: bool) -> str:
    if graph.sole_user(conv.output) is None:
        return f"{label(conv.output)} has other readers"
    assert isinstance(conv.op, Weighted)
    if conv.op.act:
        return f"activation {conv.op.act} stands in between"
    if isinstance(conv.op, nn.Conv2d) and conv.operand("residual") is not None and not only_shifts:
        return "its residual operand would have to be scaled too"
    return ""
