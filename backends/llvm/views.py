"""Strided views of buffers, and the loop nests that walk several of them in step.

A view says where the elements of a tensor lie; slices, transpositions and broadcasts are other views of the same
memory. A `Nest` is the smallest set of nested loops over views of one shape; a `Walk` cuts a nest into work items,
loops and vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.numbers import Numbers
from sqzc.ir.types import DType
from sqzc.plan.program import Program

GRAIN = 1024
"""Elements that a work item should have at least, so that its own cost does not matter."""


@dataclass(frozen=True)
class View:
    """Element i of the array lies `offset + sum(i[k] * strides[k])` elements past the buffer's first."""

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def broadcast(self, shape: Sequence[int]) -> View:
        """The view repeated to `shape`, by numpy's rule."""
        missing = len(shape) - len(self.shape)
        assert missing >= 0, f"{self.shape} does not broadcast to {tuple(shape)}"
        strides = [0] * missing + [
            0 if have == 1 and want != 1 else stride
            for have, want, stride in zip(self.shape, shape[missing:], self.strides, strict=True)
        ]
        return replace(self, shape=tuple(shape), strides=tuple(strides))

    def permuted(self, perm: Sequence[int]) -> View:
        """Axis i of the result is axis perm[i]."""
        return replace(self, shape=tuple(self.shape[p] for p in perm), strides=tuple(self.strides[p] for p in perm))

    def window(self, starts: Sequence[int], sizes: Sequence[int], steps: Sequence[int] | None = None) -> View:
        """Along every axis the elements start, start + step, ..., `size` of them."""
        offset = self.offset + sum(start * stride for start, stride in zip(starts, self.strides, strict=True))
        strides = self.strides if steps is None else tuple(a * b for a, b in zip(steps, self.strides, strict=True))
        return replace(self, shape=tuple(sizes), strides=strides, offset=offset)

    def lanes(self, axis: int, rank: int, block: int = 0) -> View:
        """A vector as an array of `rank` axes along `axis`; split into blocks, the lanes being the last axis."""
        (size,), (stride,) = self.shape, self.strides
        if not block:
            return replace(
                self,
                shape=tuple(size if i == axis else 1 for i in range(rank)),
                strides=tuple(stride if i == axis else 0 for i in range(rank)),
            )
        shape = [1] * rank
        strides = [0] * rank
        shape[axis], strides[axis] = -(-size // block), block * stride
        shape[-1], strides[-1] = block, stride
        return replace(self, shape=tuple(shape), strides=tuple(strides))


def contiguous(dtype: DType, shape: Sequence[int]) -> View:
    """A row-major array without gaps."""
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return View(dtype, tuple(shape), strides)


def view_of(program: Program, name: str) -> View:
    """The physical array of a buffer: [N, ceil(C/k), H, W, k] when channel-blocked."""
    type_ = program.buffers[name].type
    if type_.rank != 4:
        return contiguous(type_.dtype, type_.shape)
    g = program.geometry(name)
    strides: tuple[int, ...] = (g.image, g.plane, g.row, g.pixel)
    if type_.layout.block:
        strides = (*strides, 1)
    return View(type_.dtype, type_.physical_shape, strides, g.origin)


@dataclass(frozen=True)
class Nest:
    """Loops over views of one shape: `sizes` per loop, outermost first, and `strides` per view and loop."""

    views: tuple[View, ...]
    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @staticmethod
    def over(views: Sequence[View]) -> Nest:
        """The nest that visits every element once: axes of one element dropped, axes that lie in line merged."""
        shape = views[0].shape
        assert all(view.shape == shape for view in views), f"views of different shapes: {[v.shape for v in views]}"
        sizes: list[int] = []
        strides: list[list[int]] = [[] for _ in views]
        for axis, size in enumerate(shape):
            if size == 1:
                continue
            steps = [view.strides[axis] for view in views]
            if sizes and all(old[-1] == step * size for old, step in zip(strides, steps, strict=True)):
                sizes[-1] *= size
                for old, step in zip(strides, steps, strict=True):
                    old[-1] = step
            else:
                sizes.append(size)
                for old, step in zip(strides, steps, strict=True):
                    old.append(step)
        if not sizes:
            sizes, strides = [1], [[0] for _ in views]
        return Nest(tuple(views), tuple(sizes), tuple(tuple(s) for s in strides))

    @property
    def elements(self) -> int:
        """How many elements are visited."""
        return math.prod(self.sizes)


Fn = Callable[[list[Val], int], Val]


def _vector_width(size: int, lanes: int) -> int:
    """The widest vector, a whole one or a power of two below it, that `size` elements fill; 1 for very few."""
    width = lanes
    while width > size:
        width //= 2
    return width if width >= 4 else 1


class Walk:
    """How a nest is walked; the first view is written, the others are read.

    `width` elements are handled at once: along the last axis in chunks, of which the last is moved back to end with the
    axis; or, where the last axis is exactly one vector, along the axis before it. Where neither is possible the width
    is 1. A work item covers the axes from `split` on, or a block of the innermost loop where that is long.
    """

    def __init__(self, nest: Nest, lanes: int) -> None:
        self.nest = nest
        sizes, strides = nest.sizes, nest.strides
        unit = strides[0][-1] == 1 and all(step[-1] in (0, 1) for step in strides)
        self.width = _vector_width(sizes[-1], lanes) if unit else 1
        whole = sizes[-1] == self.width and len(sizes) > 1 and self.width > 1
        self.chunked = self.width > 1 and not whole
        self.axis = len(sizes) - 2 if whole else len(sizes) - 1
        self.count = -(-sizes[-1] // self.width) if self.chunked else sizes[self.axis]
        self.split, self.block = self._cut()
        self.outer = sizes[: self.split]
        self.blocks = -(-self.count // self.block)

    def _cut(self) -> tuple[int, int]:
        """Number of axes outside a work item, and iterations of the innermost loop inside it."""
        grain = max(GRAIN // self.width, 1)
        if self.count >= 2 * grain:
            return self.axis, grain
        split, work = self.axis, max(self.count, 1)
        while split > 0 and work < grain:
            split -= 1
            work *= self.nest.sizes[split]
        return split, max(self.count, 1)

    @property
    def items(self) -> int:
        """Number of work items."""
        return math.prod(self.outer) * self.blocks if self.nest.elements else 0

    def emit(self, e: Emitter, pointers: Sequence[Val], begin: Val, end: Val, fn: Fn) -> None:
        """Appends code that stores fn(elements read, lanes) for the items begin..end."""
        if not self.nest.elements:
            return
        bases = [
            e.at(pointer, view.offset * view.dtype.item_bytes)
            for pointer, view in zip(pointers, self.nest.views, strict=True)
        ]

        def item(index: Val, _: list[Val]) -> list[Val]:
            *outer, block = e.split_many(index, (*self.outer, self.blocks))
            at = bases
            for axis, position in enumerate(outer):
                at = self._moved(e, at, axis, position)
            self._inner_axes(e, at, self.split, block, fn)
            return []

        e.loop(begin, end, 1, item)

    def _moved(self, e: Emitter, pointers: Sequence[Val], axis: int, position: Val) -> list[Val]:
        """The pointers `position` steps further along an axis."""
        moved = []
        for pointer, view, strides in zip(pointers, self.nest.views, self.nest.strides, strict=True):
            step = strides[axis] * view.dtype.item_bytes
            moved.append(e.at(pointer, e.mul_add(position, step)) if step else pointer)
        return moved

    def _inner_axes(self, e: Emitter, at: Sequence[Val], axis: int, block: Val, fn: Fn) -> None:
        if axis == self.axis:
            self._innermost(e, at, block, fn)
            return

        def step(position: Val, _: list[Val]) -> list[Val]:
            self._inner_axes(e, self._moved(e, at, axis, position), axis + 1, block, fn)
            return []

        e.loop(0, self.nest.sizes[axis], 1, step)

    def _innermost(self, e: Emitter, at: Sequence[Val], block: Val, fn: Fn) -> None:
        """One block of iterations along `self.axis`; what does not change along it is loaded before."""
        fixed = {i: self._load(e, i, at[i]) for i in range(1, len(at)) if self.nest.strides[i][self.axis] == 0}

        def step(number: Val, _: list[Val]) -> list[Val]:
            position = e.clamp_last(number, self.width, self.nest.sizes[-1]) if self.chunked else number
            moved = self._moved(e, at, self.axis, position)
            values = [fixed[i] if i in fixed else self._load(e, i, moved[i]) for i in range(1, len(at))]
            Numbers(e, self.nest.views[0].dtype).store(fn(values, self.width), moved[0])
            return []

        if self.blocks == 1:
            e.loop(0, self.count, 1, step)
            return
        first = e.mul_add(block, self.block)
        last = e.b.add(first, e.i64(self.block))
        total = e.i64(self.count)
        e.loop(first, e.b.select(e.b.icmp_signed("<", last, total), last, total), 1, step)

    def _load(self, e: Emitter, index: int, pointer: Val) -> Val:
        """Operand `index` at the present position, in all lanes."""
        numbers = Numbers(e, self.nest.views[index].dtype)
        if self.width > 1 and self.nest.strides[index][-1] == 1:
            return numbers.load(pointer, self.width)
        return e.spread(numbers.load(pointer), self.width)


def clipped(e: Emitter, begin: Val, end: Val, first: int, count: int) -> tuple[Val, Val]:
    """The part of the items begin..end that falls into first..first + count, counted from `first`."""

    def inside(index: Val) -> Val:
        shifted = e.b.sub(index, e.i64(first))
        low = e.b.select(e.b.icmp_signed("<", shifted, e.i64(0)), e.i64(0), shifted)
        return e.b.select(e.b.icmp_signed(">", low, e.i64(count)), e.i64(count), low)

    return inside(begin), inside(end)
