"""Ops with one parameter per channel: batch normalisation and PReLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.numbers import Numbers
from sqzc.backends.llvm.packing import pad_axis
from sqzc.backends.llvm.pointwise import Pointwise
from sqzc.backends.llvm.views import View, contiguous, view_of
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.elementwise import Prelu
from sqzc.ir.ops.nn import BatchNorm
from sqzc.ir.types import DType, TensorType
from sqzc.plan.library import Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class PerChannel(Pointwise):
    """An image and vectors along axis 1: packed when they are constants, else read where they are.

    Vectors that are no constants are read in whole blocks, so they need channels that fill their blocks. A vector of
    one element serves all channels. Fact: `length` of the vectors.
    """

    packed_count: ClassVar[int]

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not self.takes(node, target):
            return None
        x, *vectors = node.inputs
        channels, block = _channels(x.type), x.type.layout.block
        if x.type.layout != node.output.type.layout:
            return None
        facts: dict[str, int | str] = {"length": vectors[0].type.elements}
        if all(v.is_constant for v in vectors):
            names = [node.op.operand_name(i + 1) for i in range(len(vectors))]
            arrays = {name: v.data for name, v in zip(names, vectors, strict=True)}
            return Selection(self.name, (node,), (x,), tuple(node.outputs), arrays, facts=facts)
        if block and facts["length"] == channels and channels % block:
            return None
        return Selection(self.name, (node,), tuple(node.inputs), tuple(node.outputs), facts=facts)

    def vectors(self, program: Program, step: Step, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The vectors as `compute` reads them, from the raw constants."""
        return dict(arrays)

    def packed(self, program: Program, step: Step, arrays: Mapping[str, Array]) -> dict[str, Array]:
        type_ = program.buffers[step.writes[0]].type
        multiple = (type_.layout.block or 1) if step.facts["length"] == _channels(type_) else 1
        packed = self.vectors(program, step, arrays)
        return {name: np.ascontiguousarray(pad_axis(array, 0, multiple)) for name, array in packed.items()}

    def operands(self, program: Program, step: Step) -> list[View]:
        type_ = program.buffers[step.writes[0]].type
        shape = view_of(program, step.writes[0]).shape
        length = int(step.facts["length"])
        vector = View(type_.dtype, (), ())
        if length == _channels(type_) and type_.rank:
            vector = contiguous(type_.dtype, (length,)).lanes(min(1, type_.rank - 1), len(shape), type_.layout.block)
        count = len(step.reads) - 1 or self.packed_count
        return [view_of(program, step.reads[0]), *[vector.broadcast(shape)] * count]


def _channels(type_: TensorType) -> int:
    return type_.shape[1] if type_.rank > 1 else 1


class BatchNormMap(PerChannel):
    """(x - mean) * (scale / sqrt(var + eps)) + bias; the factor is computed at compile time where it can be."""

    name: ClassVar[str] = "batch_norm"
    packed_count: ClassVar[int] = 3

    def takes(self, node: Node, target: Target) -> bool:
        return isinstance(node.op, BatchNorm) and node.output.type.dtype is DType.F32

    def moves_zero(self, program: Program, step: Step) -> bool:
        # Packed vectors are zero past the channels; others fill their blocks.
        return False

    def vectors(self, program: Program, step: Step, arrays: Mapping[str, Array]) -> dict[str, Array]:
        if not arrays:
            return {}
        op = step.ops[0]
        assert isinstance(op, BatchNorm)
        with np.errstate(all="ignore"):
            factor = arrays["scale"].astype(np.float64) / np.sqrt(arrays["var"].astype(np.float64) + op.eps)
            return {"mean": arrays["mean"], "factor": factor.astype(np.float32), "bias": arrays["bias"]}

    def compute(self, e: Emitter, program: Program, step: Step, values: list[Val], lanes: int) -> Val:
        if len(values) == 4:
            x, mean, factor, bias = values
        else:
            op = step.ops[0]
            assert isinstance(op, BatchNorm)
            x, scale, bias, mean, var = values
            factor = e.b.fdiv(scale, e.math("sqrt", e.b.fadd(var, e.splat(op.eps, lanes))))
        return e.fma(e.b.fsub(x, mean), factor, bias)


class PreluMap(PerChannel):
    """x where x >= 0, else slope * x."""

    name: ClassVar[str] = "prelu"
    packed_count: ClassVar[int] = 1

    def takes(self, node: Node, target: Target) -> bool:
        return isinstance(node.op, Prelu) and node.output.type.dtype is DType.F32

    def moves_zero(self, program: Program, step: Step) -> bool:
        return False

    def compute(self, e: Emitter, program: Program, step: Step, values: list[Val], lanes: int) -> Val:
        x, slope = values
        numbers = Numbers(e, DType.F32)
        return e.b.select(numbers.less(x, numbers.splat(0, lanes)), e.b.fmul(x, slope), x)
