"""The pass `subsample-pointwise`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops import nn, shape
from sqzc.passes.base import PassContext, RewritePass, option
from sqzc.passes.rewriting import erase_unused, label, replace_node


@dataclass(frozen=True)
class SubsamplePointwise(RewritePass):
    """Collects the pixels that a 1 x 1 convolution with a stride reads, so that it becomes one without a stride.

    Where all of the image would be made channel-blocked for such convolutions, they are collected before, and only they
    are brought into blocks. An image in blocks is collected for many filters: then that costs next to nothing, and
    pixels that follow each other let the convolution use longer tiles and forms with fewer multiplications. A max pool
    over single pixels does it, which changes no bit.

    Before:
        graph @g(%x: f32[1,16,9,9]) {
          const %w = @w : f32[64,16,1,1]
          %b = relayout(%x) : f32[1,16,9,9]:nchw8c
          %y = conv2d(%b, %w) {stride=2x2, act=relu} : f32[1,64,5,5]:nchw8c @"y"
          %p = relayout(%y) : f32[1,64,5,5] @"y"
          yield %p as "y"
        }
    After:
        graph @g(%x: f32[1,16,9,9]) {
          const %w = @w : f32[64,16,1,1]
          %s = max_pool2d(%x) {kernel=1x1, stride=2x2} : f32[1,16,5,5]
          %b = relayout(%s) : f32[1,16,5,5]:nchw8c
          %y = conv2d(%b, %w) {act=relu} : f32[1,64,5,5]:nchw8c @"y"
          %p = relayout(%y) : f32[1,64,5,5] @"y"
          yield %p as "y"
        }
    """

    name: ClassVar[str] = "subsample-pointwise"
    filters: int = option(1024, "fewest output channels of a group for which an image in blocks is collected")

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        op = node.op
        if not isinstance(op, nn.Conv2d) or not _skips_pixels(node) or node.inputs[0].type.layout.is_plain:
            return False
        x = node.inputs[0]
        what = f"the pixels of {op.name} {label(node.output)}"
        relayout = _plain_source(graph, x)
        if relayout is None and node.inputs[1].type.shape[0] // op.group < self.filters:
            ctx.note(f"declined to collect {what}: in blocks already, and too few filters read them")
            return False
        if not ctx.take(f"collected {what}"):
            return False
        pool = nn.MaxPool2d(kernel=(1, 1), stride=op.stride)
        source = x if relayout is None else relayout
        types = [pool.result_types([source.type])[0].with_layout(source.type.layout)]
        pixels = graph.insert(pool, [source], names=[f"{source.name}.pixels"], before=node, types=types).output
        if relayout is not None:
            types = [pixels.type.with_layout(x.type.layout)]
            names = [f"{pixels.name}.{x.type.layout}"]
            pixels = graph.insert(shape.Relayout(), [pixels], names=names, before=node, types=types).output
        replace_node(graph, node, op.replace(stride=(1, 1)), [pixels, *node.inputs[1:]])
        erase_unused(graph, x)
        return True


def _skips_pixels(node: Node) -> bool:
    """Whether a node is a convolution that reads single pixels, some of them never."""
    op = node.op
    return (
        isinstance(op, nn.Conv2d)
        and op.stride != (1, 1)
        and not any(op.pads)
        and node.inputs[1].type.shape[2:] == (1, 1)
    )


def _plain_source(graph: Graph, x: Value) -> Value | None:
    """The row-major image that `x` is a copy of for nothing but convolutions that skip pixels; None for any other."""
    copy = x.producer
    if copy is None or not isinstance(copy.op, shape.Relayout) or not copy.inputs[0].type.layout.is_plain:
        return None
    if graph.is_output(x):
        return None
    return copy.inputs[0] if all(_skips_pixels(user) and user.inputs[0] is x for user in x.users) else None
