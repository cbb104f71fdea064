"""Brings a graph to what the kernels can do, where that takes no kernel of its own.

Half precision is a way to store numbers: arithmetic on it is done in float32 and rounded when stored, as the reference
does it. So every op that does more than move half precision numbers gets casts around it, and nothing else changes.
A softmax in double precision is said in simpler ops, and an activation fused into an op of another type than float32 is
an op again.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqzc.ir.constant import Constant
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.opdef import OpDef
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops import nn, shape
from sqzc.ir.ops.activation import NONE, Activation
from sqzc.ir.types import DType, TensorType

_MOVES: tuple[type[OpDef], ...] = (
    ew.Identity,
    ew.Where,
    shape.Concat,
    shape.Expand,
    shape.Gather,
    shape.Pad,
    shape.Relayout,
    shape.Reshape,
    shape.Slice,
    shape.Transpose,
)
"""Ops that give bits another place. Dropout is an identity."""


def legalize(graph: Graph) -> Graph:
    """`graph` itself where every op has a kernel of its type, else a rewritten copy."""
    if not any(_is_wide_softmax(node) or _activates_wide(node) or _needs_casts(node) for node in graph.nodes):
        return graph
    result = graph.clone()
    for node in [node for node in result.nodes if _activates_wide(node)]:
        _split_activation(result, node)
    for node in [node for node in result.nodes if _is_wide_softmax(node)]:
        _spell_out_softmax(result, node)
    widened: dict[int, Value] = {}
    for node in [node for node in result.nodes if _needs_casts(node)]:
        _cast_around(result, node, widened)
    return result


def _is_half(value: Value) -> bool:
    return value.type.dtype is DType.F16


def _needs_casts(node: Node) -> bool:
    if isinstance(node.op, _MOVES) or not any(map(_is_half, (*node.inputs, *node.outputs))):
        return False
    # The processor converts between half and single precision, nothing else.
    types = {value.type.dtype for value in (*node.inputs, *node.outputs)}
    return not (isinstance(node.op, ew.Cast) and types <= {DType.F16, DType.F32})


def _is_wide_softmax(node: Node) -> bool:
    return isinstance(node.op, nn.Softmax) and node.output.type.dtype is DType.F64


def _activates_wide(node: Node) -> bool:
    return bool(node.op.attrs.get("act")) and node.output.type.dtype not in (DType.F32, DType.F16)


def _split_activation(graph: Graph, node: Node) -> None:
    """The activation as an op of its own, after the op that applied it."""
    old, act = node.output, node.op.attrs["act"]
    assert isinstance(act, Activation)
    name = old.name
    graph.rename(old, f"{name}.old")
    (plain,) = _insert(
        graph, node, node.op.replace(act=NONE), node.inputs, [old.type], [old.source], [f"{name}.linear"]
    )
    (result,) = _insert(graph, node, act.as_op(), [plain], [old.type], [old.source], [name])
    graph.replace_uses(old, result)
    graph.erase(node)


def _cast_around(graph: Graph, node: Node, widened: dict[int, Value]) -> None:
    inputs = [_wide(graph, node, value, widened) if _is_half(value) else value for value in node.inputs]
    types = [value.type.with_dtype(DType.F32) if _is_half(value) else value.type for value in node.outputs]
    op = node.op.replace(to=DType.F32) if isinstance(node.op, ew.Cast) and _is_half(node.output) else node.op
    names = [f"{value.name}.f32" if _is_half(value) else value.name for value in node.outputs]
    for value in node.outputs:
        graph.rename(value, f"{value.name}.old")
    made = _insert(graph, node, op, inputs, types, [value.source for value in node.outputs], names)
    for old, new in zip(node.outputs, made, strict=True):
        if _is_half(old):
            name = new.name.removesuffix(".f32")
            (new,) = _insert(graph, node, ew.Cast(to=DType.F16), [new], [old.type], [old.source], [name])
        graph.replace_uses(old, new)
    graph.erase(node)


def _insert(
    graph: Graph,
    before: Node,
    op: OpDef,
    inputs: Sequence[Value],
    types: Sequence[TensorType],
    sources: Sequence[tuple[str, ...]],
    names: Sequence[str],
) -> list[Value]:
    return graph.insert(op, inputs, names=names, sources=sources, before=before, types=types).outputs


def _wide(graph: Graph, user: Node, value: Value, widened: dict[int, Value]) -> Value:
    """The value in float32; a constant is converted here, anything else once, before its first user."""
    known = widened.get(id(value))
    if known is None:
        if value.constant is not None:
            data = value.data.astype(DType.F32.numpy)
            known = graph.add_constant(Constant(f"{value.constant.symbol}.f32", data), source=value.source)
        else:
            type_ = value.type.with_dtype(DType.F32)
            name = f"{value.name}.wide"
            (known,) = _insert(graph, user, ew.Cast(to=DType.F32), [value], [type_], [value.source], [name])
        widened[id(value)] = known
    return known


def _spell_out_softmax(graph: Graph, node: Node) -> None:
    assert isinstance(node.op, nn.Softmax)
    (x,), old = node.inputs, node.output
    name, axes = old.name, node.op.axes
    graph.rename(old, f"{name}.old")

    def add(op: OpDef, *operands: Value, last: bool = False) -> Value:
        wanted = name if last else f"{name}/{op.name}"
        return graph.insert(op, operands, names=[wanted], sources=[old.source], before=node).output

    powers = add(ew.Exp(), add(ew.Sub(), x, add(shape.ReduceMax(axes=axes), x)))
    result = add(ew.Div(), powers, add(shape.ReduceSum(axes=axes), powers), last=True)
    graph.replace_uses(old, result)
    graph.erase(node)
