"""The pass `drop-inference-noops`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops import elementwise, nn, shape
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import constant_operand, forward, label


def _same_type(node: Node) -> bool:
    return node.inputs[0].type == node.output.type


def _unit_window(node: Node) -> bool:
    assert isinstance(node.op, nn.Pool2d)
    return node.op.kernel == node.op.stride == (1, 1) and not any(node.op.pads)


def _sorted_perm(node: Node) -> bool:
    assert isinstance(node.op, shape.Transpose)
    return node.op.perm == tuple(range(len(node.op.perm)))


def _whole_slice(node: Node) -> bool:
    assert isinstance(node.op, shape.Slice)
    forwards = all(step == 1 for step in node.op.steps)
    return forwards and _same_type(node)


def _unscaled(node: Node) -> bool:
    assert isinstance(node.op, shape.Resize2d)
    return _same_type(node) and node.op.scale_h in (0.0, 1.0) and node.op.scale_w in (0.0, 1.0)


def _neutral_constant(node: Node) -> bool:
    """x - 0, x * 1 and x / 1 are x for every x; x + 0 is not for -0."""
    pair = constant_operand(node)
    if pair is None or pair[0].type != node.output.type or pair[1] is not node.inputs[1]:
        return False
    wanted = 0 if isinstance(node.op, elementwise.Sub) else 1
    data = pair[1].data
    return bool(np.all(data == wanted)) and not bool(np.any(np.signbit(data)))


_NOOPS: dict[type, Callable[[Node], bool]] = {
    elementwise.Dropout: lambda node: True,
    elementwise.Identity: lambda node: True,
    elementwise.Cast: _same_type,
    elementwise.Clip: lambda node: node.op.attrs["lo"] == float("-inf") and node.op.attrs["hi"] == float("inf"),
    elementwise.Sub: _neutral_constant,
    elementwise.Mul: _neutral_constant,
    elementwise.Div: _neutral_constant,
    nn.MaxPool2d: _unit_window,
    nn.AvgPool2d: _unit_window,
    shape.Concat: lambda node: len(node.inputs) == 1,
    shape.Expand: _same_type,
    shape.Pad: _same_type,
    shape.Relayout: _same_type,
    shape.Reshape: _same_type,
    shape.Resize2d: _unscaled,
    shape.Slice: _whole_slice,
    shape.Transpose: _sorted_perm,
}


@dataclass(frozen=True)
class DropInferenceNoops(RewritePass):
    """Removes ops that hand their operand through unchanged.

    Dropout and identity always; cast, reshape, expand, pad, slice, transpose, resize, relayout, pools, clip, and
    arithmetic with a neutral constant when they turn out to change nothing; a concat of one operand. Bits are kept.

    Before:
        graph @g(%x: f32[1,2,3,3]) {
          %a = relu(%x) : f32[1,2,3,3] @"a"
          %b = dropout(%a) : f32[1,2,3,3] @"b"
          %c = reshape(%b) {shape=[1,2,3,3]} : f32[1,2,3,3] @"c"
          %d = tanh(%c) : f32[1,2,3,3] @"d"
          yield %d as "y"
        }
    After:
        graph @g(%x: f32[1,2,3,3]) {
          %a = relu(%x) : f32[1,2,3,3] @"a" @"b" @"c"
          %d = tanh(%a) : f32[1,2,3,3] @"d"
          yield %d as "y"
        }
    """

    name: ClassVar[str] = "drop-inference-noops"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        applies = _NOOPS.get(type(node.op))
        if applies is None or not applies(node):
            return False
        if not ctx.take(f"dropped {node.op.name} {label(node.output)}"):
            return False
        forward(graph, node, node.inputs[0])
        return True
