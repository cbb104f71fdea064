"""Arithmetic, comparison and choice between operands that broadcast against each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.numbers import Numbers, computes
from sqzc.backends.llvm.pointwise import Pointwise
from sqzc.backends.llvm.vector_pow import power
from sqzc.ir.graph import Node
from sqzc.ir.ops.elementwise import Binary, Compare, Where
from sqzc.ir.types import DType
from sqzc.plan.program import Program, Step
from sqzc.target import Target

_ARITHMETIC: dict[str, Callable[[Numbers, Val, Val], Val]] = {
    "add": lambda n, a, c: n.add(a, c),
    "sub": lambda n, a, c: n.sub(a, c),
    "mul": lambda n, a, c: n.mul(a, c),
    "div": lambda n, a, c: n.div(a, c),
    "maximum": lambda n, a, c: n.maximum(a, c),
    "minimum": lambda n, a, c: n.minimum(a, c),
    "pow": lambda n, a, c: power(n.e, a, c),
}

_COMPARISON: dict[str, Callable[[Numbers, Val, Val], Val]] = {
    "equal": lambda n, a, c: n.equal(a, c),
    "less": lambda n, a, c: n.less(a, c),
    "less_equal": lambda n, a, c: n.less_equal(a, c),
}


class BinaryMap(Pointwise):
    """y = f(a, b) by numpy's broadcasting."""

    name: ClassVar[str] = "binary"

    def takes(self, node: Node, target: Target) -> bool:
        op = node.op
        if not isinstance(op, Binary) or op.name not in _ARITHMETIC:
            return False
        dtype = node.output.type.dtype
        return dtype is DType.F32 if op.name == "pow" else computes(dtype)

    def moves_zero(self, program: Program, step: Step) -> bool:
        single = any(program.buffers[name].type.elements == 1 for name in step.reads)
        return step.ops[0].name == "div" or single

    def compute(self, e: Emitter, program: Program, step: Step, values: list[Val], lanes: int) -> Val:
        numbers = Numbers(e, program.buffers[step.writes[0]].type.dtype)
        return _ARITHMETIC[step.ops[0].name](numbers, *values)


class CompareMap(Pointwise):
    """y = whether a relates to b, by numpy's broadcasting."""

    name: ClassVar[str] = "compare"

    def takes(self, node: Node, target: Target) -> bool:
        dtype = node.inputs[0].type.dtype if node.inputs else DType.BOOL
        known = isinstance(node.op, Compare) and node.op.name in _COMPARISON
        return known and (computes(dtype) or dtype is DType.BOOL)

    def moves_zero(self, program: Program, step: Step) -> bool:
        return True

    def compute(self, e: Emitter, program: Program, step: Step, values: list[Val], lanes: int) -> Val:
        numbers = Numbers(e, program.buffers[step.reads[0]].type.dtype)
        return numbers.truth(_COMPARISON[step.ops[0].name](numbers, *values))


class WhereMap(Pointwise):
    """y = a where the condition holds, else b, of any element type."""

    name: ClassVar[str] = "where"

    def takes(self, node: Node, target: Target) -> bool:
        return isinstance(node.op, Where)

    def moves_zero(self, program: Program, step: Step) -> bool:
        return False

    def compute(self, e: Emitter, program: Program, step: Step, values: list[Val], lanes: int) -> Val:
        condition, a, c = values
        return e.b.select(Numbers(e, DType.BOOL).condition(condition), a, c)
