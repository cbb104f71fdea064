"""One element in, one out: the unary ops and casts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.numbers import Numbers, computes, integer_range
from sqzc.backends.llvm.pointwise import Pointwise
from sqzc.backends.llvm.vector_math import apply_activation, has_activation, keeps_zero
from sqzc.ir.graph import Node
from sqzc.ir.ops.elementwise import Cast, Clip, Identity, Unary
from sqzc.ir.types import DType
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class UnaryMap(Pointwise):
    """y = f(x): every unary op on float32, and on integers those that have a meaning there."""

    name: ClassVar[str] = "unary"

    def takes(self, node: Node, target: Target) -> bool:
        op = node.op
        if not isinstance(op, Unary) or isinstance(op, Identity):
            return False
        dtype = node.output.type.dtype
        if dtype is DType.F32:
            return has_activation(op.name)
        return op.name in _INTEGER and computes(dtype) and not dtype.is_float

    def moves_zero(self, program: Program, step: Step) -> bool:
        op = step.ops[0]
        assert isinstance(op, Unary)
        return not keeps_zero(op.activation())

    def compute(self, e: Emitter, program: Program, step: Step, values: list[Val], lanes: int) -> Val:
        op = step.ops[0]
        assert isinstance(op, Unary)
        dtype = program.buffers[step.writes[0]].type.dtype
        if dtype is DType.F32:
            return apply_activation(e, values[0], op.activation())
        return _INTEGER[op.name](Numbers(e, dtype), op, values[0], lanes)


def _relu(n: Numbers, op: Unary, x: Val, lanes: int) -> Val:
    return n.maximum(x, n.splat(0, lanes))


def _clip(n: Numbers, op: Unary, x: Val, lanes: int) -> Val:
    assert isinstance(op, Clip)
    lowest, highest = integer_range(n.dtype)

    def bound(value: float) -> int:
        """The integer of the type that is nearest to a whole or infinite bound."""
        whole = int(math.copysign(2**65, value)) if math.isinf(value) else int(value)
        return min(max(whole, lowest), highest)

    return n.minimum(n.maximum(x, n.splat(bound(op.lo), lanes)), n.splat(bound(op.hi), lanes))


_INTEGER: dict[str, Callable[[Numbers, Unary, Val, int], Val]] = {
    "relu": _relu,
    "clip": _clip,
    "abs": lambda n, op, x, lanes: n.abs(x),
    "neg": lambda n, op, x, lanes: n.neg(x),
    "sign": lambda n, op, x, lanes: n.sign(x),
}


class CastMap(Pointwise):
    """y = x in another element type. Half precision needs the processor's own conversion."""

    name: ClassVar[str] = "cast"

    def takes(self, node: Node, target: Target) -> bool:
        if not isinstance(node.op, Cast):
            return False
        types = {node.inputs[0].type.dtype, node.output.type.dtype}
        if DType.F16 in types and len(types) > 1:
            return "f16c" in target.features and types <= {DType.F16, DType.F32}
        return True

    def moves_zero(self, program: Program, step: Step) -> bool:
        return False

    def compute(self, e: Emitter, program: Program, step: Step, values: list[Val], lanes: int) -> Val:
        source = program.buffers[step.reads[0]].type.dtype
        return Numbers(e, source).convert(values[0], program.buffers[step.writes[0]].type.dtype)
