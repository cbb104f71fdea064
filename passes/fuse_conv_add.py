"""The pass `fuse-conv-add`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sqzc.ir.constant import Constant
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops import elementwise, nn
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import label, replace_node, settle_name


@dataclass(frozen=True)
class FuseConvAdd(RewritePass):
    """Lets a conv2d add the other operand of the sum that follows it, as its residual operand.

    Applies when both operands have the shape of the sum, and the conv2d has no activation or residual yet and no other
    reader. Of two such convolutions the later one takes the other's result. A conv2d without a bias gets one of zeros.
    An activation after the sum is fused by fuse-conv-relu.

    Before:
        graph @g(%x: f32[1,2,4,4], %r: f32[1,2,4,4]) {
          const %w = [1.0, 2.0, 3.0, 4.0] : f32[2,2,1,1]
          %c = conv2d(%x, %w) : f32[1,2,4,4] @"branch2c"
          %s = add(%r, %c) : f32[1,2,4,4] @"sum"
          yield %s as "y"
        }
    After:
        graph @g(%x: f32[1,2,4,4], %r: f32[1,2,4,4]) {
          const %w = [1.0, 2.0, 3.0, 4.0] : f32[2,2,1,1]
          const %zero = [0.0, 0.0] : f32[2]
          %s = conv2d(%x, %w, %zero, %r) : f32[1,2,4,4] @"branch2c" @"sum"
          yield %s as "y"
        }
    """

    name: ClassVar[str] = "fuse-conv-add"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        if not isinstance(node.op, elementwise.Add) or node.inputs[0].type != node.inputs[1].type:
            return False
        ready = [value for value in node.inputs if _takes_residual(graph, value, node, ctx)]
        if not ready:
            return False
        chosen = max(ready, key=lambda value: graph.index(_producer(value)))
        conv = _producer(chosen)
        other = node.inputs[1] if node.inputs[0] is chosen else node.inputs[0]
        if not ctx.take(f"fused add {label(node.output)} into conv2d {label(chosen)}"):
            return False
        inputs = list(conv.inputs)
        if len(inputs) == 2:
            zeros = np.zeros(chosen.type.shape[1], dtype=chosen.type.dtype.numpy)
            inputs.append(graph.add_constant(Constant(f"{chosen.name}_bias", zeros)))
        fused = replace_node(graph, node, conv.op, [*inputs, other], absorbed=[chosen])
        graph.erase(conv)
        settle_name(graph, fused.output)
        return True


def _producer(value: Value) -> Node:
    assert value.producer is not None
    return value.producer


def _takes_residual(graph: Graph, value: Value, node: Node, ctx: PassContext) -> bool:
    conv = value.producer
    if conv is None or not isinstance(conv.op, nn.Conv2d) or conv.op.act or conv.operand("residual") is not None:
        return False
    if graph.sole_user(value) is not node:
        ctx.note(f"declined add {label(node.output)} into conv2d {label(value)}: it has other readers")
        return False
    return True
