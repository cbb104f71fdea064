"""Elementary functions in double precision."""

from __future__ import annotations

from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.pointwise import Pointwise
from sqzc.backends.llvm.vector_math64 import apply_function, has_function, power
from sqzc.ir.graph import Node
from sqzc.ir.ops.elementwise import Identity, Pow, Unary
from sqzc.ir.types import DType
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class WideMap(Pointwise):
    """y = f(x) of float64."""

    name: ClassVar[str] = "unary.f64"

    def takes(self, node: Node, target: Target) -> bool:
        known = isinstance(node.op, Unary) and not isinstance(node.op, Identity) and has_function(node.op.name)
        return known and node.output.type.dtype is DType.F64

    def moves_zero(self, program: Program, step: Step) -> bool:
        return True

    def compute(self, e: Emitter, program: Program, step: Step, values: list[Val], lanes: int) -> Val:
        op = step.ops[0]
        assert isinstance(op, Unary)
        return apply_function(e, values[0], op.activation())


class WidePower(Pointwise):
    """y = a to the power b of float64, by numpy's broadcasting."""

    name: ClassVar[str] = "pow.f64"

    def takes(self, node: Node, target: Target) -> bool:
        return isinstance(node.op, Pow) and node.output.type.dtype is DType.F64

    def moves_zero(self, program: Program, step: Step) -> bool:
        return True

    def compute(self, e: Emitter, program: Program, step: Step, values: list[Val], lanes: int) -> Val:
        return power(e, *values)
