"""The pass `fold-mean`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops import nn, shape
from sqzc.passes.affine import Affine, affine_of, fold_before
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import erase_unused, label, replace_node, with_bias


@dataclass(frozen=True)
class FoldMean(RewritePass):
    """Folds a per-channel affine op, such as taking the mean off an image, into the convolutions that read it.

    Applies to batch_norm and to add, sub, mul, div by a constant per channel when all readers are conv2d or linear
    layers with constant weights. Taps in the padding of a convolution read 0 after the op, so they must not see the
    shift. Folding is exact
    - without padding, or when the op only scales: weights and bias take all of it;
    - with padding, when one number is mapped to 0 in every channel: that number is padded on explicitly.
    Otherwise the pass declines and says so.

    Before:
        graph @g(%x: f32[1,2,4,4]) {
          const %mean = [3.0, 4.0] : f32[1,2,1,1]
          const %w = [1.0, 2.0, 3.0, 4.0] : f32[2,2,1,1]
          const %b = [0.5, 0.5] : f32[2]
          %s = sub(%x, %mean) : f32[1,2,4,4] @"data"
          %c = conv2d(%s, %w, %b) : f32[1,2,4,4] @"conv"
          yield %c as "y"
        }
    After:
        graph @g(%x: f32[1,2,4,4]) {
          const %w = [1.0, 2.0, 3.0, 4.0] : f32[2,2,1,1]
          const %b = [-10.5, -24.5] : f32[2]
          %c = conv2d(%x, %w, %b) : f32[1,2,4,4] @"data" @"conv"
          yield %c as "y"
        }
    """

    name: ClassVar[str] = "fold-mean"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        affine = affine_of(node)
        if affine is None:
            return False
        value = node.output
        users = list(dict.fromkeys(value.users))
        if not any(isinstance(user.op, nn.Conv2d | nn.Linear) for user in users):
            return False
        border = _border(affine)
        folds = {}
        for user in users:
            reason = _obstacle(user, value, affine, border)
            folded = None if reason else fold_before(user, affine.scale, affine.shift)
            if folded is None:
                reason = reason or f"the weights of {label(user.output)} are not constant or would leave their range"
                ctx.note(f"declined {label(value)}: {reason}")
                return False
            folds[id(user)] = folded
        if graph.is_output(value):
            ctx.note(f"declined {label(value)}: it is an output of the graph")
            return False
        if not ctx.take(f"folded {node.op.name} {label(value)} into {', '.join(label(u.output) for u in users)}"):
            return False
        for user in users:
            _install(graph, user, affine, border, folds[id(user)])
        erase_unused(graph, value)
        return True


def _border(affine: Affine) -> float | None:
    """The one number that the map takes to 0 in every channel, if there is one."""
    if not np.all(affine.scale != 0):
        return None
    zeros = np.unique((-affine.shift / affine.scale).astype(affine.x.type.dtype.numpy))
    return float(zeros[0]) if zeros.size == 1 and np.isfinite(zeros[0]) else None


def _padded(user: Node, affine: Affine) -> bool:
    """Whether the convolution has taps in its padding that would see the shift."""
    return isinstance(user.op, nn.Conv2d) and any(user.op.pads) and bool(np.any(affine.shift != 0))


def _obstacle(user: Node, value: Value, affine: Affine, border: float | None) -> str:
    if not isinstance(user.op, nn.Conv2d | nn.Linear):
        return f"{user.op.name} {label(user.outputs[0])} reads it too"
    if user.inputs.count(value) > 1 or user.inputs[0] is not value:
        return f"{label(user.output)} reads it as another operand too"
    if _padded(user, affine) and not affine.x.type.layout.is_plain:
        return f"{label(user.output)} pads with zeros, and {label(affine.x)} is not row-major"
    if _padded(user, affine) and border is None:
        return f"{label(user.output)} pads with zeros, and no single border value stands for them in every channel"
    return ""


def _install(
    graph: Graph, user: Node, affine: Affine, border: float | None, folded: tuple[np.ndarray, np.ndarray]
) -> None:
    op, x = user.op, affine.x
    if _padded(user, affine):
        assert isinstance(op, nn.Conv2d)
        assert border is not None
        top, left, bottom, right = op.pads
        pad = shape.Pad(pads=(0, 0, top, left, 0, 0, bottom, right), value=border)
        x = graph.insert(pad, [x], names=[f"{user.output.name}.border"], before=user).output
        op = op.replace(pads=(0, 0, 0, 0))
    old = list(user.inputs)
    replace_node(graph, user, op, [x, *with_bias(graph, user, *folded)[1:]], absorbed=old[:1])
    erase_unused(graph, *old[1:3])
