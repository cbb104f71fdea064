"""Copies that need no table: each is a few strided pieces of memory, of any element type.

Transpositions, slices and broadcasts are one piece with another view of the operand; a concat is one piece an operand;
a constant padding is the inside and the slabs around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.numbers import Numbers
from sqzc.backends.llvm.views import Nest, View, Walk, clipped, contiguous, view_of
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.shape import Concat, Expand, Pad, PadMode, Relayout, Slice, Transpose
from sqzc.ir.types import DType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


@dataclass(frozen=True)
class Piece:
    """A part of the result, and the part of operand `read` that it is copied from; without one, filled with `value`."""

    target: View
    source: View | None = None
    read: int = 0
    value: float = 0.0


class Mover:
    """Copies pieces. Schedule: `lanes` of the vectors."""

    name: ClassVar[str]

    def takes(self, node: Node) -> bool:
        """Whether the family runs `node`."""
        raise NotImplementedError

    def pieces(self, program: Program, step: Step) -> list[Piece]:
        """What to copy; every element of the result in exactly one piece."""
        raise NotImplementedError

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not self.takes(node):
            return None
        return Selection(self.name, (node,), tuple(node.inputs), tuple(node.outputs))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished({"lanes": target.vector_lanes})

    def _walks(self, program: Program, step: Step) -> list[tuple[Piece, Walk]]:
        lanes = int(step.schedule["lanes"])
        walks = []
        for piece in self.pieces(program, step):
            views = [piece.target] if piece.source is None else [piece.target, piece.source]
            walks.append((piece, Walk(Nest.over([as_bits(view) for view in views]), lanes)))
        return walks

    def items(self, program: Program, step: Step) -> int:
        return sum(walk.items for _, walk in self._walks(program, step))

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        walks = self._walks(program, step)
        first = 0
        for piece, walk in walks:
            begin, end = args.begin, args.end
            if len(walks) > 1:
                begin, end = clipped(e, begin, end, first, walk.items)
            first += walk.items
            if piece.source is None:
                numbers = Numbers(e, as_bits(piece.target).dtype)
                value = _bits(piece.value, piece.target.dtype)

                def fill(_: list[Val], lanes: int, numbers: Numbers = numbers, value: int = value) -> Val:
                    return numbers.splat(value, lanes)

                walk.emit(e, [args.writes[0]], begin, end, fill)
            else:
                walk.emit(e, [args.writes[0], args.reads[piece.read]], begin, end, lambda values, lanes: values[0])


_BITS = {8: DType.I64, 4: DType.I32, 2: DType.I16, 1: DType.I8}


def as_bits(view: View) -> View:
    """The view with integers of the same size as elements: what any processor can move."""
    return replace(view, dtype=_BITS[view.dtype.item_bytes])


def _bits(value: float, dtype: DType) -> int:
    """The bits of a number of type `dtype` as a signed integer; integers wrap around."""
    number = np.asarray(value if dtype.is_float else int(value)).astype(dtype.numpy)
    return int(number.view(_BITS[dtype.item_bytes].numpy))


class CopyFlat(Mover):
    """y = x, where both lie in memory in the same way."""

    name: ClassVar[str] = "copy.flat"

    def takes(self, node: Node) -> bool:
        return False

    def pieces(self, program: Program, step: Step) -> list[Piece]:
        x, y = view_of(program, step.reads[0]), view_of(program, step.writes[0])
        if x.shape != y.shape:
            x, y = (contiguous(v.dtype, (program.buffers[step.writes[0]].type.elements,)) for v in (x, y))
        return [Piece(y, x)]


class TransposeCopy(Mover):
    """Axis i of y is axis perm[i] of x."""

    name: ClassVar[str] = "transpose"

    def takes(self, node: Node) -> bool:
        return isinstance(node.op, Transpose)

    def pieces(self, program: Program, step: Step) -> list[Piece]:
        op = step.ops[0]
        assert isinstance(op, Transpose)
        return [Piece(view_of(program, step.writes[0]), view_of(program, step.reads[0]).permuted(op.perm))]


class SliceCopy(Mover):
    """Every steps[i]-th element along axis i."""

    name: ClassVar[str] = "slice"

    def takes(self, node: Node) -> bool:
        return isinstance(node.op, Slice)

    def pieces(self, program: Program, step: Step) -> list[Piece]:
        op = step.ops[0]
        assert isinstance(op, Slice)
        steps = op.steps or None
        source = view_of(program, step.reads[0]).window(op.starts, op.sizes, steps)
        return [Piece(view_of(program, step.writes[0]), source)]


class ExpandCopy(Mover):
    """x repeated along the axes that it broadcasts along."""

    name: ClassVar[str] = "expand"

    def takes(self, node: Node) -> bool:
        return isinstance(node.op, Expand)

    def pieces(self, program: Program, step: Step) -> list[Piece]:
        y = view_of(program, step.writes[0])
        return [Piece(y, view_of(program, step.reads[0]).broadcast(y.shape))]


class PadConstant(Mover):
    """x with slabs of one value around it."""

    name: ClassVar[str] = "pad.constant"

    def takes(self, node: Node) -> bool:
        return isinstance(node.op, Pad) and node.op.mode is PadMode.CONSTANT

    def pieces(self, program: Program, step: Step) -> list[Piece]:
        op = step.ops[0]
        assert isinstance(op, Pad)
        x, rest = view_of(program, step.reads[0]), view_of(program, step.writes[0])
        pieces = []
        for axis in range(len(x.shape)):
            before, size = op.pads[axis], x.shape[axis]
            for start, stop in ((0, before), (before + size, rest.shape[axis])):
                if stop > start:
                    pieces.append(Piece(_cut(rest, axis, start, stop - start), value=op.value))
            rest = _cut(rest, axis, before, size)
        return [Piece(rest, x), *pieces]


def _cut(view: View, axis: int, start: int, size: int) -> View:
    """The view with an axis cut down to start..start + size."""
    starts, sizes = [0] * len(view.shape), list(view.shape)
    starts[axis], sizes[axis] = start, size
    return view.window(starts, sizes)


class ConcatCopy(Mover):
    """The operands one after the other; in a channel-blocked layout they may begin inside a block."""

    name: ClassVar[str] = "concat"

    def takes(self, node: Node) -> bool:
        return isinstance(node.op, Concat)

    def pieces(self, program: Program, step: Step) -> list[Piece]:
        op = step.ops[0]
        assert isinstance(op, Concat)
        y = view_of(program, step.writes[0])
        types = [program.buffers[name].type for name in step.reads]
        block = types[0].layout.block
        if block and op.axis == 1 and any(t.shape[1] % block for t in types[:-1]):
            return _lane_pieces(program, step, y, block)
        pieces, start = [], 0
        for index, name in enumerate(step.reads):
            x = view_of(program, name)
            pieces.append(Piece(_cut(y, op.axis, start, x.shape[op.axis]), x, index))
            start += x.shape[op.axis]
        return pieces


def _lane_pieces(program: Program, step: Step, y: View, block: int) -> list[Piece]:
    """Pieces of operands whose channels lie in other lanes of the result than of themselves.

    A whole block of an operand that begins in lane s fills the lanes from s of one block and those below s of the next.
    """
    pieces: list[Piece] = []
    start = 0
    for index, name in enumerate(step.reads):
        x, channels = view_of(program, name), program.buffers[name].type.shape[1]
        for first, count, width in _block_runs(channels, block):
            for low, high in _split(width, block - start % block):
                group, lane = divmod(start + first * block + low, block)
                source = _cut(_cut(x, 1, first, count), 4, low, high - low)
                pieces.append(Piece(_cut(_cut(y, 1, group, count), 4, lane, high - low), source, index))
        start += channels
    if start % block:
        last = _cut(y, 1, start // block, 1)
        pieces.append(Piece(_cut(last, 4, start % block, block - start % block)))
    return pieces


def _block_runs(channels: int, block: int) -> list[tuple[int, int, int]]:
    """(first block, number of blocks, channels in each): the whole blocks and the last one if it is not whole."""
    whole, rest = divmod(channels, block)
    return [run for run in ((0, whole, block), (whole, 1, rest)) if run[1] and run[2]]


def _split(width: int, at: int) -> Sequence[tuple[int, int]]:
    """0..width, cut in two at `at` when that is inside."""
    return [(0, width)] if at >= width else [(0, at), (at, width)]


class RelayoutCopy(Mover):
    """Between row-major and channel-blocked, of any size of element; float32 has a faster family."""

    name: ClassVar[str] = "relayout"

    def takes(self, node: Node) -> bool:
        if not isinstance(node.op, Relayout):
            return False
        blocks = {node.inputs[0].type.layout.block, node.output.type.layout.block}
        return len(blocks) == 1 or 0 in blocks

    def pieces(self, program: Program, step: Step) -> list[Piece]:
        x, y = view_of(program, step.reads[0]), view_of(program, step.writes[0])
        if len(x.shape) == len(y.shape):
            return [Piece(y, x)]
        blocked, channels = (x, y.shape[1]) if len(x.shape) == 5 else (y, x.shape[1])
        block = blocked.shape[-1]
        pieces = []
        for first, count, width in _block_runs(channels, block):
            cut = _cut(_cut(blocked, 1, first, count), 4, 0, width)
            if blocked is y:
                pieces.append(Piece(cut, _in_blocks(x, first * block, count, width)))
            else:
                pieces.append(Piece(_in_blocks(y, first * block, count, width), cut))
        if blocked is y and channels % block:
            last = _cut(y, 1, channels // block, 1)
            pieces.append(Piece(_cut(last, 4, channels % block, block - channels % block)))
        return pieces


def _in_blocks(view: View, first: int, count: int, width: int) -> View:
    """Channels first.. of a row-major image as [N, count, H, W, width], block by block."""
    n, _, h, w = view.shape
    image, plane, row, pixel = view.strides
    return View(
        view.dtype, (n, count, h, w, width), (image, width * plane, row, pixel, plane), view.offset + first * plane
    )
