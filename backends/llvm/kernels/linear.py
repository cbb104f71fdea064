"""Linear layers with constant weights, packed so that they are read once from start to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args, given
from sqzc.backends.llvm.kernels.matmul import PanelRows
from sqzc.backends.llvm.numbers import Numbers
from sqzc.backends.llvm.schedules.matrix import MatrixSchedule, choose
from sqzc.backends.llvm.selecting import conv_arrays
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Linear
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class LinearPacked:
    """y = act(x @ w.T + b); a work item is one panel of outputs, for all rows of x."""

    name: ClassVar[str] = "linear.packed"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        if not isinstance(op, Linear) or node.output.type.dtype is not DType.F32 or not node.output.type.elements:
            return None
        if not all(v.is_constant for v in node.inputs[1:]):
            return None
        arrays = conv_arrays(node)
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,), arrays, images=False)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        m, n = program.buffers[step.writes[0]].type.shape
        s = given(step, MatrixSchedule) or choose(m, n, target)
        bias = np.zeros(n, np.float32) if "b" not in arrays else np.asarray(arrays["b"], np.float32)
        starts = panel_starts(n, s)
        packed = {"w": pack_linear(np.asarray(arrays["w"], np.float32), s), "b": _columns(bias[None], starts, s.panel)}
        return Finished(s.to_fields(), packed)

    def items(self, program: Program, step: Step) -> int:
        s = MatrixSchedule.from_fields(step.schedule)
        return s.panels(program.buffers[step.writes[0]].type.shape[1])

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        op, s = step.ops[0], MatrixSchedule.from_fields(step.schedule)
        assert isinstance(op, Linear)
        m, n = program.buffers[step.writes[0]].type.shape
        k = program.buffers[step.reads[0]].type.shape[1]
        rows = PanelRows(e, Numbers(e, DType.F32), s, op.act, k, 4, min(s.panel, n))

        def item(index: Val, _: list[Val]) -> list[Val]:
            column = e.clamp_last(index, s.panel, n) if n >= s.panel else e.i64(0)
            weights = e.at(args.constants[0], e.mul_add(index, 4 * k * s.panel))
            bias = e.at(args.constants[1], e.mul_add(index, 4 * s.panel))
            y = e.at(args.writes[0], e.mul_add(column, 4))

            def tile(t: Val, _: list[Val]) -> list[Val]:
                row = e.clamp_last(t, s.rows, m)
                x = e.at(args.reads[0], e.mul_add(row, 4 * k))
                rows.emit(x, 4 * k, weights, 4 * s.panel, bias, e.at(y, e.mul_add(row, 4 * n)), 4 * n)
                return []

            e.loop(0, -(-m // s.rows), 1, tile)
            return []

        e.loop(args.begin, args.end, 1, item)


def panel_starts(n: int, s: MatrixSchedule) -> list[int]:
    """First column of every panel; the last panel is moved back to end at column n."""
    return [max(min(start, n - s.panel), 0) for start in range(0, n, s.panel)]


def pack_linear(w: Array, s: MatrixSchedule) -> Array:
    """[panel][K][column in panel] from [N, K]; zeros for columns past N."""
    return _columns(w.T, panel_starts(w.shape[0], s), s.panel)


def _columns(matrix: Array, starts: list[int], width: int) -> Array:
    spare = max(width - matrix.shape[1], 0)
    padded = np.pad(matrix, ((0, 0), (0, spare)))
    return np.ascontiguousarray(np.stack([padded[:, start : start + width] for start in starts]))
