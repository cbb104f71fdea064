"""Every so many-th pixel of row-major images: pools whose window is one pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.images import Image
from sqzc.backends.llvm.numbers import Numbers, computes
from sqzc.backends.llvm.phases import LARGEST_STRIDE, Phases, copy_phases
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import MaxPool2d
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class SubsampleRows:
    """y[i, j] = x[i * sh, j * sw], the largest of one pixel."""

    name: ClassVar[str] = "max_pool2d.pixels"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        if not isinstance(op, MaxPool2d) or op.kernel != (1, 1) or any(op.pads) or op.stride[1] > LARGEST_STRIDE:
            return None
        x, y = node.inputs[0].type, node.output.type
        if not computes(y.dtype) or not x.layout.is_plain or not y.layout.is_plain:
            return None
        # Rounded up, the last window may lie outside.
        inside = all((y.shape[axis + 2] - 1) * op.stride[axis] < x.shape[axis + 2] for axis in (0, 1))
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,)) if inside else None

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished()

    def items(self, program: Program, step: Step) -> int:
        n, c, oh, ow = program.buffers[step.writes[0]].type.shape
        return n * c if oh * ow else 0

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        op = step.ops[0]
        assert isinstance(op, MaxPool2d)
        x, y = Image.of(program, step.reads[0]), Image.of(program, step.writes[0])
        numbers = Numbers(e, y.type.dtype)
        _, c, oh, ow = y.type.shape
        sh, sw = op.stride
        width = e.lanes
        while width > ow:
            width //= 2
        plan = Phases(x.type.shape[3], 0, sw, sw, ow, width)

        def item(index: Val, _: list[Val]) -> list[Val]:
            image, channel = e.split(index, c)
            source, target = x.plane(e, args.reads[0], image, channel), y.plane(e, args.writes[0], image, channel)

            def row(i: Val, _: list[Val]) -> list[Val]:
                line = e.at(source, e.mul_add(i, sh * x.row_bytes))
                copy_phases(e, numbers, plan, line, e.at(target, e.mul_add(i, y.row_bytes)))
                return []

            e.loop(0, oh, 1, row)
            return []

        e.loop(args.begin, args.end, 1, item)
