"""Matrix products: batched, either side transposed; and linear layers whose weights are not constant.

A work item is one panel of columns of one matrix of the batch. Its part of the right side is copied to scratch as
[K][panel] where it is transposed or narrower than a vector; else it is read where it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args, given
from sqzc.backends.llvm.numbers import Numbers, computes
from sqzc.backends.llvm.schedules.matrix import MatrixSchedule, choose
from sqzc.backends.llvm.vector_math import apply_activation
from sqzc.backends.llvm.views import View, contiguous
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.activation import NONE, Activation
from sqzc.ir.ops.nn import Linear, MatMul
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target

# Steps along K unrolled in one loop body.
UNROLL = 4


@dataclass(frozen=True)
class MatrixProblem:
    """y[b, m, n] = act(bias[n] + sum over k of a[b, m, k] * c[b, k, n]); the views have these axes."""

    a: View
    c: View
    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    act: Activation
    bias: bool

    @property
    def packs(self) -> bool:
        """Whether neighbouring columns of the right side are not neighbours in memory."""
        return self.c.strides[-1] != 1


def matrix_problem(program: Program, step: Step) -> MatrixProblem:
    """The product that a step computes."""
    op = step.ops[0]
    types = [program.buffers[name].type for name in step.reads]
    views = [contiguous(t.dtype, t.shape) for t in types]
    y = program.buffers[step.writes[0]].type
    batch, m, n = y.shape[:-2], y.shape[-2], y.shape[-1]
    if isinstance(op, Linear):
        a, c = views[0], views[1].permuted((1, 0))
        return MatrixProblem(a, c, batch, m, n, a.shape[1], op.act, len(types) > 2)
    assert isinstance(op, MatMul)
    a = _swapped(views[0]) if op.trans_a else views[0]
    c = _swapped(views[1]) if op.trans_b else views[1]
    k = a.shape[-1]
    return MatrixProblem(a.broadcast((*batch, m, k)), c.broadcast((*batch, k, n)), batch, m, n, k, NONE, False)


def _swapped(view: View) -> View:
    rank = len(view.shape)
    return view.permuted((*range(rank - 2), rank - 1, rank - 2))


class MatrixProduct:
    """matmul, and linear with weights that are computed."""

    name: ClassVar[str] = "matmul"

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        op = node.op
        if not isinstance(op, MatMul | Linear):
            return None
        dtype = node.output.type.dtype
        if not computes(dtype) or (isinstance(op, Linear) and op.act and dtype is not DType.F32):
            return None
        return Selection(self.name, (node,), tuple(node.inputs), (node.output,), images=False)

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = matrix_problem(program, step)
        s = given(step, MatrixSchedule) or choose(max(p.m, 1), max(p.n, 1), target)
        packs = p.packs or p.n < s.width
        scratch = p.k * s.panel * p.a.dtype.item_bytes if packs else 0
        return Finished(s.to_fields(), scratch=scratch + s.panel * p.a.dtype.item_bytes)

    def items(self, program: Program, step: Step) -> int:
        p, s = matrix_problem(program, step), MatrixSchedule.from_fields(step.schedule)
        return math.prod(p.batch) * s.panels(p.n) if p.m else 0

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        p, s = matrix_problem(program, step), MatrixSchedule.from_fields(step.schedule)
        if not math.prod(p.batch) * p.m * p.n:
            return
        numbers = Numbers(e, p.a.dtype)
        size = numbers.bytes
        packs = p.packs or p.n < s.width

        def item(index: Val, _: list[Val]) -> list[Val]:
            *batch, panel = e.split_many(index, (*p.batch, s.panels(p.n)))
            column = e.clamp_last(panel, s.panel, p.n) if p.n >= s.panel else e.i64(0)
            a, c = args.reads[0], args.reads[1]
            for axis, position in enumerate(batch):
                a = e.at(a, e.mul_add(position, p.a.strides[axis] * size))
                c = e.at(c, e.mul_add(position, p.c.strides[axis] * size))
            c, step_bytes = e.at(c, e.mul_add(column, p.c.strides[-1] * size)), p.c.strides[-2] * size
            if packs:
                _pack(e, numbers, p, s, c, args.scratch)
                c, step_bytes = args.scratch, s.panel * size
            number = e.b.udiv(index, e.i64(s.panels(p.n)))
            y = e.at(args.writes[0], e.mul_add(number, p.m * p.n * size, e.mul_add(column, size)))
            bias = e.at(args.reads[2], e.mul_add(column, size)) if p.bias else None
            rows = PanelRows(e, numbers, s, p.act, p.k, p.a.strides[-1] * size, min(s.panel, p.n))

            def tile(t: Val, _: list[Val]) -> list[Val]:
                row = e.clamp_last(t, s.rows, p.m)
                at = e.at(a, e.mul_add(row, p.a.strides[-2] * size))
                rows.emit(at, p.a.strides[-2] * size, c, step_bytes, bias,
                          e.at(y, e.mul_add(row, p.n * size)), p.n * size)  # fmt: skip
                return []

            e.loop(0, -(-p.m // s.rows), 1, tile)
            return []

        e.loop(args.begin, args.end, 1, item)


def _pack(e: Emitter, numbers: Numbers, p: MatrixProblem, s: MatrixSchedule, c: Val, to: Val) -> None:
    """Copies a panel of the right side to [K][panel], zeros past its columns."""
    size, columns = numbers.bytes, min(s.panel, p.n)

    def row(k: Val, _: list[Val]) -> list[Val]:
        source = e.at(c, e.mul_add(k, p.c.strides[-2] * size))
        target = e.at(to, e.mul_add(k, s.panel * size))

        def column(j: Val, _: list[Val]) -> list[Val]:
            value = numbers.load(e.at(source, e.mul_add(j, p.c.strides[-1] * size)))
            numbers.store(value, e.at(target, e.mul_add(j, size)))
            return []

        e.loop(0, columns, 1, column)
        for spare in range(columns, s.panel):
            numbers.store(numbers.splat(0), e.at(target, spare * size))
        return []

    e.loop(0, p.k, 1, row)


@dataclass(frozen=True)
class PanelRows:
    """Emits `rows` rows of one panel: the register tile. `columns` of the panel are stored, the rest is padding."""

    e: Emitter
    numbers: Numbers
    s: MatrixSchedule
    act: Activation
    k: int
    a_step: int
    columns: int

    def emit(self, a: Val, a_row: int, c: Val, c_step: int, bias: Val | None, y: Val, y_row: int) -> None:
        """a: the first row; c: the panel; steps and row distances in bytes."""
        s, numbers = self.s, self.numbers
        zero = numbers.splat(0, s.width)
        starts = [self._bias(bias, j) if bias is not None else zero for j in range(s.vecs)]
        count = s.rows * s.vecs
        sums = starts * s.rows + [zero] * (count * (s.chains - 1))
        sums = self._reduce(a, a_row, c, c_step, sums)
        for chain in range(1, s.chains):
            sums[:count] = [numbers.add(sums[i], sums[chain * count + i]) for i in range(count)]
        for i in range(s.rows):
            for j in range(s.vecs):
                value = apply_activation(self.e, sums[i * s.vecs + j], self.act)
                self._store(value, self.e.at(y, i * y_row + j * s.width * numbers.bytes), self.columns - j * s.width)

    def _bias(self, bias: Val, j: int) -> Val:
        left = self.columns - j * self.s.width
        at = self.e.at(bias, j * self.s.width * self.numbers.bytes)
        if left >= self.s.width:
            return self.numbers.load(at, self.s.width)
        mask = self.e.first_lanes(self.e.i64(left), self.s.width)
        return self.e.load_masked(at, mask, self.numbers.splat(0, self.s.width), self.numbers.bytes)

    def _store(self, value: Val, pointer: Val, left: int) -> None:
        if left >= self.s.width:
            self.numbers.store(value, pointer)
        else:
            self.e.store_masked(value, pointer, self.e.first_lanes(self.e.i64(left), self.s.width), self.numbers.bytes)

    def _reduce(self, a: Val, a_row: int, c: Val, c_step: int, sums: list[Val]) -> list[Val]:
        """All of K: unrolled steps in turn through the chains, then the rest one by one."""
        e, s = self.e, self.s
        unroll = max(UNROLL, s.chains) if s.rows * s.vecs <= 8 else s.chains
        whole = self.k // unroll * unroll

        def several(k: Val, state: list[Val]) -> list[Val]:
            for step in range(unroll):
                state = self._step(e.b.add(k, e.i64(step)), a, a_row, c, c_step, state, step % s.chains)
            return state

        sums = e.loop(0, whole, unroll, several, sums)
        return e.loop(whole, self.k, 1, lambda k, state: self._step(k, a, a_row, c, c_step, state, 0), sums)

    def _step(self, k: Val, a: Val, a_row: int, c: Val, c_step: int, sums: list[Val], chain: int) -> list[Val]:
        e, s, numbers = self.e, self.s, self.numbers
        sums = list(sums)
        line = e.at(c, e.mul_add(k, c_step))
        vectors = [numbers.load(e.at(line, j * s.width * numbers.bytes), s.width) for j in range(s.vecs)]
        scalars = e.at(a, e.mul_add(k, self.a_step))
        for i in range(s.rows):
            left = e.spread(numbers.load(e.at(scalars, i * a_row)), s.width)
            for j in range(s.vecs):
                at = (chain * s.rows + i) * s.vecs + j
                sums[at] = numbers.mul_add(left, vectors[j], sums[at])
        return sums
