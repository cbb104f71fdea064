"""The pass `cancel-transposes`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sqzc.ir.constant import Constant
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.opdef import OpDef
from sqzc.ir.ops import elementwise, shape
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import erase_unused, forward, label, replace_node

Perm = tuple[int, ...]


@dataclass(frozen=True)
class CancelTransposes(RewritePass):
    """Composes and cancels transposes, reshapes and relayouts, and sinks transposes toward those that cancel them.

    - transpose of transpose, reshape of reshape, relayout of relayout: one op, or none.
    - a transpose that only moves axes of length 1: a reshape.
    - elementwise op, concat, pad or reduction of transposed operands: the op first, then one transpose, when that makes
      no more transposes than there were. Constant operands are transposed at compile time. Where transposes have
      several readers, all are moved before them or none, whichever leaves fewer elements to transpose.

    Before:
        graph @g(%x: f32[1,2,4,3]) {
          const %b = [1.0, 2.0] : f32[2]
          %t = transpose(%x) {perm=[0,2,3,1]} : f32[1,4,3,2] @"t"
          %a = add(%t, %b) : f32[1,4,3,2] @"a"
          %u = transpose(%a) {perm=[0,3,1,2]} : f32[1,2,4,3] @"u"
          yield %u as "y"
        }
    After:
        graph @g(%x: f32[1,2,4,3]) {
          const %b = [1.0, 2.0] : f32[1,2,1,1]
          %a = add(%x, %b) : f32[1,2,4,3] @"a.moved" @"u"
          yield %a as "y"
        }
    """

    name: ClassVar[str] = "cancel-transposes"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        return _compose(graph, node, ctx) or _as_reshape(graph, node, ctx) or _sink(graph, node, ctx, _gains)

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        changed = super().run(graph, ctx)
        if not any(len(node.output.users) > 1 for node in graph.nodes if isinstance(node.op, shape.Transpose)):
            return changed
        trial = graph.clone()
        attempt = PassContext(limit=None if ctx.limit is None else ctx.limit - len(ctx.rewrites))
        _Eager().run(trial, attempt)
        if _moved_elements(trial) >= _moved_elements(graph):
            return changed
        graph.copy_from(trial)
        ctx.rewrites.extend(attempt.rewrites)
        return True


@dataclass(frozen=True)
class _Eager(RewritePass):
    """Also sinks transposes that have other readers, as long as those let it pass too; may make more of them."""

    name: ClassVar[str] = "cancel-transposes"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        return _compose(graph, node, ctx) or _as_reshape(graph, node, ctx) or _sink(graph, node, ctx, _may_gain)


def _moved_elements(graph: Graph) -> int:
    return sum(node.output.type.elements for node in graph.nodes if isinstance(node.op, shape.Transpose))


def _compose(graph: Graph, node: Node, ctx: PassContext) -> bool:
    """Pairs of transpose, reshape or relayout."""
    op = node.op
    inner = node.inputs[0].producer if len(node.inputs) == 1 else None
    if inner is None or type(inner.op) is not type(op):
        return False
    if not isinstance(op, shape.Transpose | shape.Reshape | shape.Relayout):
        return False
    middle, x = node.inputs[0], inner.inputs[0]
    if isinstance(op, shape.Transpose):
        assert isinstance(inner.op, shape.Transpose)
        op = op.replace(perm=tuple(inner.op.perm[axis] for axis in op.perm))
    if not ctx.take(f"composed {node.op.name} {label(middle)} and {label(node.output)}"):
        return False
    identity = isinstance(op, shape.Transpose) and op.perm == tuple(range(len(op.perm)))
    if x.type == node.output.type and (identity or not isinstance(op, shape.Transpose)):
        forward(graph, node, x)
    else:
        replace_node(graph, node, op, [x])
    erase_unused(graph, middle)
    return True


def _as_reshape(graph: Graph, node: Node, ctx: PassContext) -> bool:
    if not isinstance(node.op, shape.Transpose):
        return False
    dims = node.inputs[0].type.shape
    moved = [axis for axis in node.op.perm if dims[axis] != 1]
    if moved != sorted(moved) or not ctx.take(f"transpose {label(node.output)} is a reshape"):
        return False
    replace_node(graph, node, shape.Reshape(shape=node.output.type.shape), node.inputs)
    return True


def _sink(graph: Graph, node: Node, ctx: PassContext, worthwhile: Callable[[Graph, Node], bool]) -> bool:
    """op(transpose(x), ...) becomes transpose(op'(x, ...))."""
    rule = next((rule for kind, rule in _SINKS.items() if isinstance(node.op, kind)), None)
    perm = next((_perm_of(v) for v in node.inputs if _perm_of(v)), None)
    if rule is None or perm is None or not worthwhile(graph, node):
        return False
    moved = rule(node, perm)
    if moved is None:
        return False
    op, out_perm = moved
    plans = [_plan_operand(value, perm, node.output.type.rank) for value in node.inputs]
    if any(plan is None for plan in plans):
        return False
    if not ctx.take(f"sank the transpose of {label(node.inputs[0])} below {node.op.name} {label(node.output)}"):
        return False
    old = list(node.inputs)
    inputs = [plan(graph) for plan in plans if plan is not None]
    if out_perm == tuple(range(len(out_perm))):
        replace_node(graph, node, op, inputs)
    else:
        # The same numbers in another order: a name of its own, so that nobody compares it with the original.
        source = tuple(f"{name}.moved" for name in node.output.source[-1:])
        names = [f"{node.output.name}.moved"]
        result = graph.insert(op, inputs, names=names, sources=[source], before=node).output
        replace_node(graph, node, shape.Transpose(perm=out_perm), [result])
    erase_unused(graph, *old)
    return True


def _perm_of(value: Value) -> Perm | None:
    producer = value.producer
    return producer.op.perm if producer is not None and isinstance(producer.op, shape.Transpose) else None


def _gains(graph: Graph, node: Node) -> bool:
    """Whether at least one of the transposes that feed `node` goes away when it reads past them."""
    return any(
        all(user is node for user in value.users) and not graph.is_output(value)
        for value in node.inputs
        if _perm_of(value)
    )


def _may_gain(graph: Graph, node: Node) -> bool:
    """Whether one of the transposes that feed `node` could go away once all its readers have read past it."""
    return any(
        all(isinstance(user.op, _PASSABLE) for user in value.users) and not graph.is_output(value)
        for value in node.inputs
        if _perm_of(value)
    )


def _plan_operand(value: Value, perm: Perm, rank: int) -> Callable[[Graph], Value] | None:
    """How to come by `value` with its axes put back; None when it cannot be had for free."""
    if _perm_of(value) == perm:
        assert value.producer is not None
        x = value.producer.inputs[0]
        return lambda graph: x
    if value.type.elements == 1 and value.type.rank <= 1:
        return lambda graph: value
    constant = value.constant
    if constant is None or len(perm) != rank:
        return None
    full = constant.data.reshape((1,) * (rank - constant.data.ndim) + constant.data.shape)
    data = np.ascontiguousarray(full.transpose(_inverse(perm)))
    return lambda graph: graph.add_constant(Constant(constant.symbol, data), source=value.source)


def _inverse(perm: Sequence[int]) -> Perm:
    return tuple(int(axis) for axis in np.argsort(perm))


def _elementwise(node: Node, perm: Perm) -> tuple[OpDef, Perm] | None:
    return (node.op, perm) if node.output.type.rank == len(perm) else None


def _concat(node: Node, perm: Perm) -> tuple[OpDef, Perm] | None:
    assert isinstance(node.op, shape.Concat)
    return None if node.op.placed else (node.op.replace(axis=perm[node.op.axis]), perm)


def _pad(node: Node, perm: Perm) -> tuple[OpDef, Perm] | None:
    assert isinstance(node.op, shape.Pad)
    rank, back = len(perm), _inverse(perm)
    before, after = node.op.pads[:rank], node.op.pads[rank:]
    pads = tuple(before[axis] for axis in back) + tuple(after[axis] for axis in back)
    return node.op.replace(pads=pads), perm


def _reduce(node: Node, perm: Perm) -> tuple[OpDef, Perm] | None:
    assert isinstance(node.op, shape.Reduce)
    axes = tuple(sorted(perm[axis] for axis in node.op.axes))
    kept = perm if node.op.keepdims else tuple(axis for axis in perm if axis not in axes)
    # Axes are renumbered by their rank among those that are left.
    return node.op.replace(axes=axes), tuple(sorted(kept).index(axis) for axis in kept)


_SINKS: dict[type[OpDef], Callable[[Node, Perm], tuple[OpDef, Perm] | None]] = {
    elementwise.Unary: _elementwise,
    elementwise.Cast: _elementwise,
    elementwise.Binary: _elementwise,
    elementwise.Where: _elementwise,
    shape.Concat: _concat,
    shape.Pad: _pad,
    shape.Reduce: _reduce,
}

_PASSABLE = (*_SINKS, shape.Transpose)
