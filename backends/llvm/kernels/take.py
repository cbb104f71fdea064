"""Ops that read x at positions known when compiling: y[i, j, ...] = x[t0[i], t1[j], ...].

Paddings that repeat or mirror, and nearest-neighbour resizing. An axis whose table is the identity needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import I64, Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.kernels.move import as_bits
from sqzc.backends.llvm.numbers import Numbers
from sqzc.backends.llvm.sampling import sample_positions
from sqzc.backends.llvm.views import View, view_of
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.opdef import OpDef
from sqzc.ir.ops.shape import Pad, PadMode, Resize2d, ResizeMode
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


def _tables(op: OpDef, shape: tuple[int, ...]) -> list[Array | None]:
    """For each axis of x where every result index reads; None for as it is."""
    if isinstance(op, Resize2d):
        rows = sample_positions(shape[2], op.size[0], op.scale_h, op.coordinates)
        columns = sample_positions(shape[3], op.size[1], op.scale_w, op.coordinates)
        return [None, None, rows.lower, columns.lower]
    assert isinstance(op, Pad)
    return [
        _padded(op.mode, size, op.pads[axis], op.pads[axis + len(shape)]) if size else None
        for axis, size in enumerate(shape)
    ]


def _padded(mode: PadMode, size: int, before: int, after: int) -> Array | None:
    if not before and not after:
        return None
    index = np.arange(-before, size + after)
    if mode is PadMode.EDGE:
        return np.clip(index, 0, size - 1)
    if mode is PadMode.WRAP:
        return index % size
    # A mirror image repeats after there and back.
    period = max(2 * size - 2, 1)
    return size - 1 - np.abs(size - 1 - index % period)


class TableTake:
    """Copies element by element through tables of element distances, one after the other in the constant `index`."""

    name: ClassVar[str] = "take.table"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        nearest = isinstance(op, Resize2d) and op.mode is ResizeMode.NEAREST
        repeated = isinstance(op, Pad) and op.mode is not PadMode.CONSTANT
        if not nearest and not repeated:
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        x = view_of(program, step.reads[0])
        parts = [
            table * stride * x.dtype.item_bytes
            for table, stride in zip(_tables(step.ops[0], x.shape), x.strides, strict=True)
            if table is not None
        ]
        return Finished({}, {"index": np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)})

    def items(self, program: Program, step: Step) -> int:
        shape = view_of(program, step.writes[0]).shape
        return int(np.prod(shape[:-1], dtype=np.int64)) if 0 not in shape else 0

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        x, y = as_bits(view_of(program, step.reads[0])), as_bits(view_of(program, step.writes[0]))
        if 0 in y.shape:
            return
        size = x.dtype.item_bytes
        tables = _table_pointers(e, step, x, y, args.constants[0])
        numbers = Numbers(e, x.dtype)

        def distance(axis: int, position: Val) -> Val:
            table = tables[axis]
            if table is None:
                return e.mul_add(position, x.strides[axis] * size)
            return e.b.load(e.at(table, e.mul_add(position, 8)), typ=I64, align=8)

        def row(index: Val, _: list[Val]) -> list[Val]:
            outer = e.split_many(index, y.shape[:-1]) if len(y.shape) > 1 else []
            source, target = e.at(args.reads[0], x.offset * size), e.at(args.writes[0], y.offset * size)
            for axis, position in enumerate(outer):
                source = e.at(source, distance(axis, position))
                target = e.at(target, e.mul_add(position, y.strides[axis] * size))
            last = len(y.shape) - 1

            def column(j: Val, _: list[Val]) -> list[Val]:
                value = numbers.load(e.at(source, distance(last, j)))
                numbers.store(value, e.at(target, e.mul_add(j, y.strides[last] * size)))
                return []

            e.loop(0, y.shape[last], 1, column)
            return []

        e.loop(args.begin, args.end, 1, row)


def _table_pointers(e: Emitter, step: Step, x: View, y: View, constant: Val) -> list[Val | None]:
    """Start of each axis' table within the constant."""
    pointers: list[Val | None] = []
    at = 0
    for axis, table in enumerate(_tables(step.ops[0], x.shape)):
        pointers.append(None if table is None else e.at(constant, 8 * at))
        at += y.shape[axis] if table is not None else 0
    return pointers
