"""ONNX forms of the elementwise ops."""

from __future__ import annotations

import math
from collections.abc import Callable

from sqzc.backends.onnx_export.emitter import Emitter, onnx_dtype
from sqzc.backends.onnx_export.registry import exporter
from sqzc.ir.graph import Node
from sqzc.ir.opdef import OpDef
from sqzc.ir.ops import elementwise as ops
from sqzc.ir.ops.activation import Activation
from sqzc.ir.types import DType

# IR name -> ONNX name, where operands and attributes (by name, all floats) are the same.
_SAME = {
    "relu": "Relu",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
    "selu": "Selu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hard_sigmoid": "HardSigmoid",
    "hard_swish": "HardSwish",
    "gelu": "Gelu",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "erf": "Erf",
    "abs": "Abs",
    "neg": "Neg",
    "reciprocal": "Reciprocal",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "sign": "Sign",
    "sin": "Sin",
    "cos": "Cos",
    "atan": "Atan",
    "identity": "Identity",
}
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "maximum": "Max", "minimum": "Min", "pow": "Pow"}
_COMPARE = {"equal": "Equal", "less": "Less", "less_equal": "LessOrEqual"}


def unary(e: Emitter, op: OpDef, x: str, dtype: DType) -> str:
    """A unary op on the tensor `x`; serves nodes and fused activations alike."""
    if isinstance(op, ops.Clip):
        return clip(e, op, x, dtype)
    if isinstance(op, ops.Swish):
        return e.emit("Mul", [x, e.emit("Sigmoid", [x])])
    if isinstance(op, ops.GeluTanh):
        return e.emit("Gelu", [x], approximate="tanh")
    if isinstance(op, ops.Dropout):
        return e.emit("Identity", [x])
    return e.emit(_SAME[op.name], [x], **op.attrs)


def activate(e: Emitter, act: Activation, y: str, dtype: DType) -> str:
    """A fused activation as a node of its own."""
    return unary(e, act.as_op(), y, dtype) if act else y


def clip(e: Emitter, op: ops.Clip, x: str, dtype: DType) -> str:
    """Infinite bounds are left out."""
    bounds = []
    for what, bound in (("min", op.lo), ("max", op.hi)):
        bounds.append("" if math.isinf(bound) else e.scalar(what, bound, dtype))
    return e.emit("Clip", [x, *bounds] if bounds[1] else [x, *bounds[:1]] if bounds[0] else [x])


def _register_tables() -> None:
    def as_unary(e: Emitter, node: Node) -> str:
        return unary(e, node.op, e.tensor(node.inputs[0]), node.inputs[0].type.dtype)

    def same_operands(onnx_name: str, dtype: DType | None) -> Callable[[Emitter, Node], str]:
        return lambda e, node: e.emit(onnx_name, e.operands(node), dtype=dtype)

    for name in (*_SAME, "clip", "swish", "gelu_tanh", "dropout"):
        exporter(name)(as_unary)
    for name, onnx_name in _BINARY.items():
        exporter(name)(same_operands(onnx_name, None))
    for name, onnx_name in _COMPARE.items():
        exporter(name)(same_operands(onnx_name, DType.BOOL))


_register_tables()


@exporter("cast")
def cast(e: Emitter, node: Node) -> str:
    """Cast."""
    assert isinstance(node.op, ops.Cast)
    return e.emit("Cast", e.operands(node), dtype=node.op.to, to=onnx_dtype(node.op.to))


@exporter("prelu")
def prelu(e: Emitter, node: Node) -> str:
    """PRelu lines the slope up with the last axes; one per channel therefore gets trailing ones."""
    x, slope = e.operands(node)
    trailing = max(node.inputs[0].type.rank - 2, 0)
    if trailing and node.inputs[1].type.elements > 1:
        slope = e.emit("Unsqueeze", [slope, e.integers("axes", range(1, 1 + trailing))])
    return e.emit("PRelu", [x, slope])


@exporter("where")
def where(e: Emitter, node: Node) -> str:
    """Where."""
    return e.emit("Where", e.operands(node), dtype=node.output.type.dtype)
