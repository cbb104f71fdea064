"""The base of all families whose result elements each depend on one element of every operand.

Operands are broadcast views of their buffers, in any layout that the op's rule allows. A channel-blocked result whose
channels do not fill the last block may need a mask: its unused lanes must stay zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.numbers import Numbers
from sqzc.backends.llvm.views import Nest, View, Walk, contiguous, view_of
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class Pointwise:
    """y[i] = compute(operands at i). Schedule: `lanes` of the vectors, and whether the result is `masked`."""

    name: ClassVar[str]

    def takes(self, node: Node, target: Target) -> bool:
        """Whether the family runs `node`."""
        raise NotImplementedError

    def compute(self, e: Emitter, program: Program, step: Step, values: list[Val], lanes: int) -> Val:
        """The result's elements from those of the operands, packed constants after them."""
        raise NotImplementedError

    def moves_zero(self, program: Program, step: Step) -> bool:
        """Whether zeros in all image operands could give anything but zero."""
        raise NotImplementedError

    def packed(self, program: Program, step: Step, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Constants to store beside those that are buffers."""
        return {}

    def operands(self, program: Program, step: Step) -> list[View]:
        """Views of the reads and the packed constants, each of the result's physical shape."""
        shape = view_of(program, step.writes[0]).shape
        return [view_of(program, name).broadcast(shape) for name in step.reads]

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not self.takes(node, target):
            return None
        return Selection(self.name, (node,), tuple(node.inputs), tuple(node.outputs))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        constants = self.packed(program, step, arrays)
        y = program.buffers[step.writes[0]].type
        block = y.layout.block
        masked = bool(block) and y.shape[1] % block != 0 and self.moves_zero(program, step)
        if masked:
            blocks = -(-y.shape[1] // block)
            constants["mask"] = (np.arange(blocks * block) < y.shape[1]).astype(np.float32)
        return Finished({"lanes": target.vector_lanes, "masked": int(masked)}, constants)

    def items(self, program: Program, step: Step) -> int:
        return self._walk(program, step).items

    def _walk(self, program: Program, step: Step) -> Walk:
        y = view_of(program, step.writes[0])
        views = [y, *self.operands(program, step)]
        if step.schedule["masked"]:
            block = y.shape[-1]
            views.append(contiguous(DType.F32, (y.shape[1] * block,)).lanes(1, 5, block).broadcast(y.shape))
        return Walk(Nest.over(views), int(step.schedule["lanes"]))

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        masked = bool(step.schedule["masked"])

        def fn(values: list[Val], lanes: int) -> Val:
            if not masked:
                return self.compute(e, program, step, values, lanes)
            *values, mask = values
            result = self.compute(e, program, step, values, lanes)
            inside = Numbers(e, DType.F32).condition(mask)
            zero = Numbers(e, program.buffers[step.writes[0]].type.dtype).splat(0, lanes)
            return e.b.select(inside, result, zero)

        pointers = [args.writes[0], *args.reads, *args.constants]
        self._walk(program, step).emit(e, pointers, args.begin, args.end, fn)
