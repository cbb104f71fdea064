"""Passes with one mistake each, of the kinds that real passes have had. Tests register them and see them found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops import elementwise, nn, shape
from sqzc.passes.base import Pass, PassContext, RewritePass
from sqzc.passes.rewriting import forward, label, replace_node


def _conv_of(node: Node) -> Node | None:
    """The convolution whose result a relu reads."""
    if not isinstance(node.op, elementwise.Relu):
        return None
    conv = node.inputs[0].producer
    return conv if conv is not None and isinstance(conv.op, nn.Conv2d) and not conv.op.act else None


@dataclass(frozen=True)
class FuseAcrossUsers(RewritePass):
    """Fuses a relu that several ops read into its convolution; all readers but the first miss it."""

    name: ClassVar[str] = "bad-fuse-across-users"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        conv = _conv_of(node)
        users = node.output.users
        if conv is None or len(users) < 2 or not ctx.take(f"fused relu {label(node.output)}"):
            return False
        for user in users[1:]:
            graph.set_input(user, user.inputs.index(node.output), conv.output)
        replace_node(graph, node, conv.op.replace(act=node.op.activation()), conv.inputs, absorbed=[conv.output])
        return True


@dataclass(frozen=True)
class FuseDropsBias(RewritePass):
    """Fuses a relu into a padded convolution, whose bias it forgets."""

    name: ClassVar[str] = "bad-fuse-drops-bias"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        conv = _conv_of(node)
        if conv is None or graph.sole_user(conv.output) is None or not ctx.take(f"fused relu {label(node.output)}"):
            return False
        inputs = conv.inputs[:2] if any(conv.op.pads) else conv.inputs
        replace_node(graph, node, conv.op.replace(act=node.op.activation()), inputs, absorbed=[conv.output])
        graph.erase(conv)
        return True


@dataclass(frozen=True)
class ShiftPads(RewritePass):
    """Pads one row too few above and one too many below."""

    name: ClassVar[str] = "bad-shift-pads"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        if not isinstance(node.op, nn.Conv2d) or node.op.pads != (1, 1, 1, 1):
            return False
        if not ctx.take(f"moved the pads of {label(node.output)}"):
            return False
        replace_node(graph, node, node.op.replace(pads=(0, 1, 2, 1)), node.inputs)
        return True


@dataclass(frozen=True)
class FloorForCeil(Pass):
    """Rounds the size of a pool down where the model rounds it up; all that follows is smaller."""

    name: ClassVar[str] = "bad-floor-for-ceil"

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        fresh = Graph(graph.name)
        fresh.meta = graph.meta
        mapping: dict[int, Value] = {id(v): fresh.add_input(v.name, v.type, v.source) for v in graph.inputs}
        for value in graph.constants:
            assert value.constant is not None
            mapping[id(value)] = fresh.add_constant(value.constant, value.name, value.source)
        for node in graph.nodes:
            op = node.op
            is_ceil = isinstance(op, nn.MaxPool2d) and op.rounding is nn.Rounding.CEIL
            if is_ceil and ctx.take(f"simplified the size of {label(node.output)}"):
                op = op.replace(rounding=nn.Rounding.FLOOR)
            if isinstance(op, nn.AvgPool2d):  # A global pool stays one.
                op = op.replace(kernel=mapping[id(node.inputs[0])].type.shape[2:])
            names, sources = ([v.name for v in node.outputs], [v.source for v in node.outputs])
            copy = fresh.insert(op, [mapping[id(v)] for v in node.inputs], names=names, sources=sources)
            mapping.update({id(v): w for v, w in zip(node.outputs, copy.outputs, strict=True)})
        for name, value in graph.outputs:
            fresh.add_output(name, mapping[id(value)])
        if ctx.rewrites:
            graph.copy_from(fresh)
        return bool(ctx.rewrites)


@dataclass(frozen=True)
class SwapConcat(RewritePass):
    """Joins the operands of a concat in the wrong order."""

    name: ClassVar[str] = "bad-swap-concat"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        if not isinstance(node.op, shape.Concat) or node.op.placed or not ctx.take(f"placed {label(node.output)}"):
            return False
        replace_node(graph, node, node.op.replace(placed=True), node.inputs[::-1])
        return True


@dataclass(frozen=True)
class SoftmaxAxis(RewritePass):
    """Takes softmax over the images of the batch instead of the classes."""

    name: ClassVar[str] = "bad-softmax-axis"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        if not isinstance(node.op, nn.Softmax) or node.op.axes == (0,) or not ctx.take(f"turned {label(node.output)}"):
            return False
        replace_node(graph, node, node.op.replace(axes=(0,)), node.inputs)
        return True


@dataclass(frozen=True)
class ShareWeights(RewritePass):
    """Takes constants of the same type for the same constant."""

    name: ClassVar[str] = "bad-share-weights"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        for index, value in enumerate(node.inputs):
            if value.constant is None or value.type.rank != 4:
                continue
            first = next(v for v in graph.constants if v.type == value.type)
            if first is not value and ctx.take(f"{label(value)} is {label(first)}"):
                graph.set_input(node, index, first)
                return True
        return False


@dataclass(frozen=True)
class LosesRelu(RewritePass):
    """Takes a relu for useless and leaves it out."""

    name: ClassVar[str] = "bad-loses-relu"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        if _conv_of(node) is None or not ctx.take(f"left out relu {label(node.output)}"):
            return False
        forward(graph, node, node.inputs[0])
        return True


@dataclass(frozen=True)
class BreaksDown(Pass):
    """Stumbles over a pool whose size is rounded up."""

    name: ClassVar[str] = "bad-breaks-down"

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        for node in graph.nodes:
            if isinstance(node.op, nn.MaxPool2d):
                assert node.op.rounding is not nn.Rounding.CEIL, "sizes are rounded down"
        return False


PLANTED: tuple[type[Pass], ...] = (
    FuseAcrossUsers,
    FuseDropsBias,
    ShiftPads,
    FloorForCeil,
    SwapConcat,
    SoftmaxAxis,
    ShareWeights,
    LosesRelu,
    BreaksDown,
)


def pipeline(name: str) -> str:
    """A pipeline like O2 with a planted pass after the first few."""
    rest = "fuse-conv-relu,dead-code,assign-layout,elide-concat,dead-code"
    return f"drop-inference-noops,fold-constants,fold-mean,{name},{rest}"
