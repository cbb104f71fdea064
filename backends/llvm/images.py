"""Rows of images in any layout: where a channel lies, and vectors of neighbouring pixels of it."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from sqzc.backends.llvm.emit import I1, Emitter, Val
from sqzc.backends.llvm.numbers import Numbers, lanes_of
from sqzc.ir.types import TensorType
from sqzc.plan.program import Geometry, Program


@dataclass(frozen=True)
class Image:
    """A rank-4 buffer: its type, its distances in elements, and the number of channels that lie beside each other."""

    type: TensorType
    geometry: Geometry
    block: int

    @staticmethod
    def of(program: Program, name: str) -> Image:
        """The image in a buffer."""
        type_ = program.buffers[name].type
        return Image(type_, program.geometry(name), type_.layout.block or 1)

    @property
    def bytes(self) -> int:
        """Bytes of an element."""
        return self.type.dtype.item_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes from a row to the next."""
        return self.geometry.row * self.bytes

    @property
    def pixel_bytes(self) -> int:
        """Bytes from a pixel to the next one of the same channel."""
        return self.geometry.pixel * self.bytes

    @property
    def spare_lanes(self) -> int:
        """Lanes of the last block that belong to no channel and hold zeros."""
        return -self.type.shape[1] % self.block

    def plane(self, e: Emitter, pointer: Val, image: Val, channel: Val) -> Val:
        """Pixel (0, 0) of a channel."""
        g, size = self.geometry, self.bytes
        outer, lane = e.split(channel, self.block)
        start = e.mul_add(image, g.image * size, e.mul_add(outer, g.plane * size, g.origin * size))
        return e.at(e.at(pointer, start), e.mul_add(lane, size))

    def load(self, e: Emitter, numbers: Numbers, pixel: Val, lanes: int, count: int, staging: Val) -> Val:
        """`count` neighbouring pixels of a channel in the first lanes of a vector, zeros in the others.

        `staging` is memory for one vector.
        """
        if self.geometry.pixel == 1 and count == lanes:
            return numbers.load(pixel, lanes)
        if self.geometry.pixel == 1 and lanes > 1:
            return e.load_masked(pixel, _first(count, lanes), numbers.splat(0, lanes), self.bytes)
        numbers.store(numbers.splat(0, lanes), staging)
        self._one_by_one(e, numbers, count, (pixel, self.pixel_bytes), (staging, self.bytes))
        return numbers.load(staging, lanes)

    def store(self, e: Emitter, numbers: Numbers, value: Val, pixel: Val, count: int, staging: Val) -> None:
        """Stores the first `count` lanes as neighbouring pixels of a channel."""
        if self.geometry.pixel == 1 and count == lanes_of(value):
            numbers.store(value, pixel)
            return
        if self.geometry.pixel == 1 and lanes_of(value) > 1:
            e.store_masked(value, pixel, _first(count, lanes_of(value)), self.bytes)
            return
        numbers.store(value, staging)
        self._one_by_one(e, numbers, count, (staging, self.bytes), (pixel, self.pixel_bytes))

    def _one_by_one(
        self, e: Emitter, numbers: Numbers, count: int, source: tuple[Val, int], target: tuple[Val, int]
    ) -> None:
        def copy(i: Val, _: list[Val]) -> list[Val]:
            value = numbers.load(e.at(source[0], e.mul_add(i, source[1])))
            numbers.store(value, e.at(target[0], e.mul_add(i, target[1])))
            return []

        e.loop(0, count, 1, copy)

    def clear_spare_lanes(self, e: Emitter, numbers: Numbers, pointer: Val, image: Val, row: Val) -> None:
        """Zeros into the lanes past the channels along one row; nothing where there are none."""
        if not self.spare_lanes:
            return
        channels, width = self.type.shape[1], self.type.shape[3]
        line = e.at(self.plane(e, pointer, image, e.i64(channels - 1)), e.mul_add(row, self.row_bytes, self.bytes))

        def pixel(j: Val, _: list[Val]) -> list[Val]:
            for lane in range(self.spare_lanes):
                numbers.store(numbers.splat(0), e.at(line, e.mul_add(j, self.pixel_bytes, lane * self.bytes)))
            return []

        e.loop(0, width, 1, pixel)


def _first(count: int, lanes: int) -> Val:
    """The constant mask of the first lanes."""
    return ir.Constant(ir.VectorType(I1, lanes), [ir.Constant(I1, i < count) for i in range(lanes)])


def fill(e: Emitter, numbers: Numbers, pointer: Val, value: Val, count: int) -> None:
    """The scalar `value` into `count` consecutive elements."""
    lanes = e.lanes
    while lanes > count:
        lanes //= 2
    if not lanes:
        return
    wide = e.spread(value, lanes)

    def chunk(index: Val, _: list[Val]) -> list[Val]:
        numbers.store(wide, e.at(pointer, e.mul_add(e.clamp_last(index, lanes, count), numbers.bytes)))
        return []

    e.loop(0, -(-count // lanes), 1, chunk)
