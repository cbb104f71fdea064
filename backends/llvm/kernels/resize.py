"""Bilinear resizing: two input rows are mixed, then neighbours within the mixed row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import F32, I64, Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.sampling import Samples, sample_positions
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.shape import Resize2d, ResizeMode
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class ResizeLinear:
    """Row-major images of float32. Constants: byte distances of lower and upper neighbours, and weights, per axis."""

    name: ClassVar[str] = "resize2d.linear"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        if not isinstance(op, Resize2d) or op.mode is not ResizeMode.LINEAR or node.output.type.dtype is not DType.F32:
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        op = step.ops[0]
        assert isinstance(op, Resize2d)
        x = program.buffers[step.reads[0]].type
        g = program.geometry(step.reads[0])
        rows = sample_positions(x.shape[2], op.size[0], op.scale_h, op.coordinates)
        columns = sample_positions(x.shape[3], op.size[1], op.scale_w, op.coordinates)
        constants = {
            "rows": _distances(rows, 4 * g.row),
            "row_weights": rows.weight,
            "columns": _distances(columns, 4),
            "column_weights": columns.weight,
        }
        # The mixed row, and room for its last vector.
        return Finished({}, constants, 4 * (x.shape[3] + target.vector_lanes))

    def items(self, program: Program, step: Step) -> int:
        n, c, h, _ = program.buffers[step.writes[0]].type.shape
        return n * c * h

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        width = program.buffers[step.reads[0]].type.shape[3]
        x, y = program.geometry(step.reads[0]), program.geometry(step.writes[0])
        shape = program.buffers[step.writes[0]].type.shape
        rows, row_weights, columns, column_weights = args.constants

        def row(index: Val, _: list[Val]) -> list[Val]:
            n, c, i = e.split_many(index, shape[:3])
            plane = e.at(args.reads[0], e.mul_add(n, 4 * x.image, e.mul_add(c, 4 * x.plane, 4 * x.origin)))
            out = e.mul_add(n, 4 * y.image, e.mul_add(c, 4 * y.plane, e.mul_add(i, 4 * y.row, 4 * y.origin)))
            upper, lower = (e.at(plane, _distance(e, rows, i, part)) for part in (1, 0))
            _mix_rows(e, lower, upper, e.load(e.at(row_weights, e.mul_add(i, 4)), 0, 1), args.scratch, width)

            def column(j: Val, _: list[Val]) -> list[Val]:
                low, high = (e.load(e.at(args.scratch, _distance(e, columns, j, part)), 0, 1) for part in (0, 1))
                weight = e.load(e.at(column_weights, e.mul_add(j, 4)), 0, 1)
                e.store(_mix(e, low, high, weight), e.at(args.writes[0], e.b.add(out, e.mul_add(j, 4))))
                return []

            e.loop(0, shape[3], 1, column)
            return []

        e.loop(args.begin, args.end, 1, row)


def _distances(samples: Samples, step: int) -> Array:
    """[output sample][lower, upper] in bytes."""
    return np.ascontiguousarray(np.stack([samples.lower, samples.upper], axis=1) * step, np.int64)


def _distance(e: Emitter, table: Val, index: Val, part: int) -> Val:
    return e.b.load(e.at(table, e.mul_add(index, 16, 8 * part)), typ=I64, align=8)


def _mix(e: Emitter, low: Val, high: Val, weight: Val) -> Val:
    """low * (1 - weight) + high * weight."""
    lanes = getattr(low.type, "count", 1)
    rest = e.b.fsub(e.splat(1.0, lanes), weight)
    return e.fma(high, weight, e.b.fmul(low, rest))


def _mix_rows(e: Emitter, lower: Val, upper: Val, weight: Val, to: Val, width: int) -> None:
    lanes = e.lanes
    while lanes > width:
        lanes //= 2

    def chunk(index: Val, _: list[Val]) -> list[Val]:
        at = e.mul_add(e.clamp_last(index, lanes, width), 4)
        low, high = (e.load(e.at(pointer, at), 0, lanes, F32) for pointer in (lower, upper))
        e.store(_mix(e, low, high, e.spread(weight, lanes)), e.at(to, at))
        return []

    e.loop(0, -(-width // lanes), 1, chunk)
