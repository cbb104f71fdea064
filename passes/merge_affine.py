"""The pass `merge-affine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sqzc.ir.constant import Constant
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops import nn
from sqzc.passes.affine import Affine, affine_of, compose
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import erase_unused, label, replace_node, rounded


@dataclass(frozen=True)
class MergeAffine(RewritePass):
    """Merges per-channel affine ops on an image into one batch_norm of mean 0 and variance 1.

    Two or more in a row become one, when nobody reads the results in between; a lone add, sub, mul or div by one
    number per channel becomes one too, because batch_norm also works on channel-blocked images. Arithmetic with one
    number for all channels stays as it is.

    Before:
        graph @g(%x: f32[1,2,4,4]) {
          const %gain = [2.0, 0.5] : f32[2,1,1]
          const %offset = [1.0, -1.0] : f32[2,1,1]
          %a = mul(%x, %gain) : f32[1,2,4,4] @"a"
          %b = add(%a, %offset) : f32[1,2,4,4] @"b"
          yield %b as "y"
        }
    After:
        graph @g(%x: f32[1,2,4,4]) {
          const %s = [2.0, 0.5] : f32[2]
          const %t = [1.0, -1.0] : f32[2]
          const %zero = [0.0, 0.0] : f32[2]
          const %one = [1.0, 1.0] : f32[2]
          %b = batch_norm(%x, %s, %t, %zero, %one) {eps=0.0} : f32[1,2,4,4] @"a" @"b"
          yield %b as "y"
        }
    """

    name: ClassVar[str] = "merge-affine"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        affine = affine_of(node)
        if affine is None or node.output.type.rank != 4:
            return False
        absorbed: list[Value] = []
        whole = affine
        while graph.sole_user(whole.x) is not None and whole.x.producer is not None:
            inner = affine_of(whole.x.producer)
            if inner is None:
                break
            absorbed.append(whole.x)
            whole = compose(whole, inner)
        if not absorbed and (isinstance(node.op, nn.BatchNorm) or _is_uniform(affine)):
            return False
        if _is_uniform(whole) and len(absorbed) < 2:
            # mul and add by one number each are as few passes over memory after fusion, and simpler.
            return False
        dtype = node.output.type.dtype.numpy
        scale, shift = rounded(whole.scale, dtype), rounded(whole.shift, dtype)
        if scale is None or shift is None:
            ctx.note(f"declined {label(node.output)}: a merged constant would leave the range of {dtype}")
            return False
        if not ctx.take(f"merged {len(absorbed) + 1} ops into batch_norm {label(node.output)}"):
            return False
        vectors = {"scale": scale, "shift": shift, "mean": np.zeros_like(scale), "var": np.ones_like(scale)}
        name = node.output.name
        constants = [graph.add_constant(Constant(f"{name}_{part}", data)) for part, data in vectors.items()]
        old = [*absorbed, *node.inputs]
        absorbed.reverse()
        replace_node(graph, node, nn.BatchNorm(eps=0.0), [whole.x, *constants], absorbed=absorbed)
        erase_unused(graph, *old)
        return True


def _is_uniform(affine: Affine) -> bool:
    return len(set(affine.scale.tolist())) <= 1 and len(set(affine.shift.tolist())) <= 1
