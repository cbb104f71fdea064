"""The pass `forward-slices`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops import shape
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import erase_unused, forward, label, replace_node


@dataclass(frozen=True)
class ForwardSlices(RewritePass):
    """Lets slices and concats read past each other.

    A slice of a concat that lies within one operand reads that operand. A slice of a slice is one slice. A concat of
    neighbouring slices of one value is a slice of it, or the value itself. A concat along the axis of another one that
    nobody else reads takes that one's operands.

    Before:
        graph @g(%a: f32[1,2,4,4], %b: f32[1,3,4,4]) {
          %c = concat(%a, %b) {axis=1} : f32[1,5,4,4] @"c"
          %s = slice(%c) {starts=[0,2,0,0], sizes=[1,2,4,4]} : f32[1,2,4,4] @"s"
          yield %s as "y"
        }
    After:
        graph @g(%a: f32[1,2,4,4], %b: f32[1,3,4,4]) {
          %s = slice(%b) {starts=[0,0,0,0], sizes=[1,2,4,4]} : f32[1,2,4,4] @"s"
          yield %s as "y"
        }
    """

    name: ClassVar[str] = "forward-slices"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        if isinstance(node.op, shape.Slice):
            return _slice_of_concat(graph, node, ctx) or _slice_of_slice(graph, node, ctx)
        if isinstance(node.op, shape.Concat):
            return _concat_of_slices(graph, node, ctx) or _concat_of_concat(graph, node, ctx)
        return False


def _steps(op: shape.Slice) -> tuple[int, ...]:
    return op.steps or (1,) * len(op.starts)


def _slice_of_concat(graph: Graph, node: Node, ctx: PassContext) -> bool:
    op, whole = node.op, node.inputs[0]
    assert isinstance(op, shape.Slice)
    if whole.producer is None or not isinstance(whole.producer.op, shape.Concat) or node.output.type.elements == 0:
        return False
    axis = whole.producer.op.axis
    ends = (op.starts[axis], op.starts[axis] + (op.sizes[axis] - 1) * _steps(op)[axis])
    offset = 0
    for part in whole.producer.inputs:
        size = part.type.shape[axis]
        if offset <= min(ends) and max(ends) < offset + size:
            break
        offset += size
    else:
        return False
    if not part.type.layout.is_plain or not ctx.take(f"slice {label(node.output)} reads {label(part)}"):
        return False
    starts = tuple(start - offset * (i == axis) for i, start in enumerate(op.starts))
    replace_node(graph, node, op.replace(starts=starts), [part])
    erase_unused(graph, whole)
    return True


def _slice_of_slice(graph: Graph, node: Node, ctx: PassContext) -> bool:
    op, middle = node.op, node.inputs[0]
    assert isinstance(op, shape.Slice)
    if middle.producer is None or not isinstance(middle.producer.op, shape.Slice):
        return False
    inner = middle.producer.op
    if not ctx.take(f"slice {label(node.output)} reads past slice {label(middle)}"):
        return False
    starts = tuple(s + t * d for s, t, d in zip(inner.starts, op.starts, _steps(inner), strict=True))
    steps = tuple(a * b for a, b in zip(_steps(inner), _steps(op), strict=True))
    if all(step == 1 for step in steps):
        steps = ()
    replace_node(graph, node, op.replace(starts=starts, steps=steps), [middle.producer.inputs[0]])
    erase_unused(graph, middle)
    return True


def _concat_of_slices(graph: Graph, node: Node, ctx: PassContext) -> bool:
    op = node.op
    assert isinstance(op, shape.Concat)
    joined = _joined(node.inputs, op.axis)
    if joined is None or len(node.inputs) < 2:
        return False
    x, whole = joined
    if not ctx.take(f"concat {label(node.output)} of neighbouring slices reads {label(x)}"):
        return False
    old = list(node.inputs)
    if x.type == node.output.type and not any(whole.starts):
        forward(graph, node, x)
    else:
        replace_node(graph, node, whole, [x])
    erase_unused(graph, *old)
    return True


def _joined(parts: list[Value], axis: int) -> tuple[Value, shape.Slice] | None:
    """The value and the one slice of it that the parts make when laid end to end along `axis`."""
    slices: list[shape.Slice] = []
    for part in parts:
        producer = part.producer
        if producer is None or not isinstance(producer.op, shape.Slice) or any(s != 1 for s in producer.op.steps):
            return None
        if slices:
            before, assumed = slices[-1], list(producer.op.starts)
            assumed[axis] -= before.sizes[axis]
            first = parts[0].producer
            if tuple(assumed) != before.starts or first is None or producer.inputs[0] is not first.inputs[0]:
                return None
        slices.append(producer.op)
    first = parts[0].producer
    assert first is not None
    sizes = list(slices[0].sizes)
    sizes[axis] = sum(part.sizes[axis] for part in slices)
    return first.inputs[0], shape.Slice(starts=slices[0].starts, sizes=tuple(sizes))


def _concat_of_concat(graph: Graph, node: Node, ctx: PassContext) -> bool:
    op = node.op
    assert isinstance(op, shape.Concat)
    for index, value in enumerate(node.inputs):
        inner = value.producer
        if inner is None or not isinstance(inner.op, shape.Concat) or inner.op.axis != op.axis:
            continue
        if graph.sole_user(value) is not node or op.placed or inner.op.placed:
            continue
        if not ctx.take(f"concat {label(node.output)} takes the operands of concat {label(value)}"):
            return False
        operands = [*node.inputs[:index], *inner.inputs, *node.inputs[index + 1 :]]
        replace_node(graph, node, op, operands)
        graph.erase(inner)
        return True
    return False
