"""Buffers, steps and the program made of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqzc.ir.constant import Constant
from sqzc.ir.opdef import OpDef
from sqzc.ir.types import TensorType

ALIGN = 64

Border = tuple[int, int, int, int]
NO_BORDER: Border = (0, 0, 0, 0)

# The one kernel with a meaning to the plan: zeros into the border of an image, which no other kernel writes.
CLEAR_BORDER = "border.clear"

ScheduleFields = Mapping[str, int | str]


class Role(enum.Enum):
    """Where a buffer's memory comes from.

    INPUT and OUTPUT: the caller's arrays, row-major. CONSTANT: read-only data of the library. ARENA: the workspace.
    VIEW: part or all of another buffer.
    """

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"
    ARENA = "arena"
    VIEW = "view"


@dataclass(frozen=True)
class Geometry:
    """Distances within a rank-4 image buffer, in elements.

    Element (n, c, h, w) of a channel-blocked buffer with block k lies at origin + n * image + (c // k) * plane +
    h * row + w * pixel + c % k; of a row-major one at origin + n * image + c * plane + h * row + w * pixel.
    """

    origin: int
    image: int
    plane: int
    row: int
    pixel: int


@dataclass(frozen=True)
class Buffer:
    """A tensor in memory.

    `border` is the number of zero pixels kept above, left of, below and right of every channel plane. `offset` is in
    bytes from the start of the arena, or of the parent for a view. `channel` is the first channel of the parent that a
    view covers. `live` are the first and last steps that touch the memory (-1 before the first, len(steps) after the
    last).
    """

    name: str
    type: TensorType
    role: Role
    border: Border = NO_BORDER
    parent: str = ""
    channel: int = 0
    offset: int = 0
    live: tuple[int, int] = (0, 0)

    @property
    def bytes(self) -> int:
        """Bytes from the first to past the last element, border and unused lanes included."""
        if self.type.rank != 4 or self.border == NO_BORDER:
            return self.type.physical_bytes
        top, left, bottom, right = self.border
        n, c, h, w = self.type.shape
        block = self.type.layout.block or 1
        return n * -(-c // block) * (h + top + bottom) * (w + left + right) * block * self.type.dtype.item_bytes

    @property
    def geometry(self) -> Geometry:
        """Distances of a rank-4 buffer that is not a view of channels; see `Program.geometry` for those."""
        return image_geometry(self.type, self.border)


def image_geometry(type_: TensorType, border: Border) -> Geometry:
    """Distances within a rank-4 buffer of its own memory."""
    top, left, bottom, right = border
    _, c, h, w = type_.shape
    block = type_.layout.block or 1
    pixel = block
    row = (w + left + right) * pixel
    plane = (h + top + bottom) * row
    return Geometry(top * row + left * pixel, -(-c // block) * plane, plane, row, pixel)


@dataclass(frozen=True)
class Step:
    """One kernel call.

    `ops` are the graph ops it stands for, in order, and `facts` what the kernel must know that neither they nor the
    buffers say (such as the size of a packed filter). `scratch` is private memory per thread in bytes.
    `prepared` is memory per handle that holds what can be computed from the constants alone, filled once when the
    handle is made; callers without a handle run without it. `schedule` is read by the kernel's family alone.
    """

    kernel: str
    ops: tuple[OpDef, ...]
    reads: tuple[str, ...]
    constants: tuple[str, ...]
    writes: tuple[str, ...]
    facts: ScheduleFields = field(default_factory=dict)
    schedule: ScheduleFields = field(default_factory=dict)
    scratch: int = 0
    sources: tuple[str, ...] = ()
    flops: int = 0
    prepared: int = 0


@dataclass
class Program:
    """A straight line of steps over placed buffers.

    `arena_bytes` is the workspace without scratch; `bound_bytes` the largest set of arena bytes live at one step,
    below which no placement can go; `scratch_bytes` the largest scratch of any step, wanted once per thread.
    """

    name: str
    target: str
    buffers: dict[str, Buffer] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[tuple[str, str]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    arena_bytes: int = 0
    bound_bytes: int = 0

    @property
    def scratch_bytes(self) -> int:
        """Private bytes that every thread needs."""
        return max((step.scratch for step in self.steps), default=0)

    @property
    def prepared_bytes(self) -> int:
        """Bytes that a handle fills once, all steps together; each step's part is aligned to 64."""
        return sum(-(-step.prepared // ALIGN) * ALIGN for step in self.steps)

    def root(self, name: str) -> tuple[Buffer, int]:
        """The buffer that owns the memory of `name`, and the byte offset of `name` within it."""
        buffer, offset = self.buffers[name], 0
        while buffer.role is Role.VIEW:
            offset += buffer.offset
            buffer = self.buffers[buffer.parent]
        return buffer, offset

    def geometry(self, name: str) -> Geometry:
        """Distances of a rank-4 buffer; a channel view has those of its parent."""
        return self.geometry(self.buffers[name].parent) if self.is_slice(name) else self.buffers[name].geometry

    def is_slice(self, name: str) -> bool:
        """Whether the buffer is a channel slice of another one (as opposed to another shape of the same memory)."""
        buffer = self.buffers[name]
        if buffer.role is not Role.VIEW or buffer.type.rank != 4:
            return False
        parent = self.buffers[buffer.parent].type
        # As many channels of another number of images, or of another layout, lie elsewhere.
        alike = buffer.type.dtype == parent.dtype and buffer.type.layout == parent.layout
        return alike and parent.shape[0] == buffer.type.shape[0] and parent.shape[2:] == buffer.type.shape[2:]

    def is_gapless(self, name: str) -> bool:
        """Whether the images of the buffer follow each other without memory of others in between."""
        buffer = self.buffers[name]
        while buffer.role is Role.VIEW:
            parent = self.buffers[buffer.parent]
            if self.is_slice(buffer.name) and buffer.type.shape[0] > 1 and buffer.type.shape[1] < parent.type.shape[1]:
                return False
            buffer = parent
        return True

    def shares_memory(self, a: str, b: str) -> bool:
        """Whether the two buffers have a byte in common; True when in doubt."""
        left, right = self._path(a), self._path(b)
        if left[0] != right[0]:
            return False
        for x, y in zip(left[1:], right[1:], strict=False):
            if x is y:
                continue
            if self.is_slice(x.name) and self.is_slice(y.name):
                return x.channel < y.channel + y.type.shape[1] and y.channel < x.channel + x.type.shape[1]
            if not (self.is_gapless(x.name) and self.is_gapless(y.name)):
                return True
            return x.offset < y.offset + y.bytes and y.offset < x.offset + x.bytes
        return True

    def may_touch(self, a: str, b: str) -> bool:
        """Whether kernels on the two buffers may touch the same bytes; True when in doubt.

        Beyond `shares_memory`: buffers that follow each other in one place of the arena, and vectors that the channels
        of two slices have in common.
        """
        left, right = self.root(a)[0], self.root(b)[0]
        if left is right:
            return self.shares_memory(a, b) or not (self._fills_vectors(a) and self._fills_vectors(b))
        if left.role is not Role.ARENA or right.role is not Role.ARENA:
            return False
        return left.offset < right.offset + right.bytes and right.offset < left.offset + left.bytes

    def _fills_vectors(self, name: str) -> bool:
        """Whether no vector of the buffer has channels of another slice of the same memory."""
        for buffer in self._path(name)[1:]:
            block = buffer.type.layout.block or 1
            if self.is_slice(buffer.name) and (buffer.channel % block or buffer.type.shape[1] % block):
                return False
        return True

    def must_follow(self, earlier: Step, later: Step) -> bool:
        """Whether one step must be over before the other begins: one of them writes what the other touches."""
        written = [(x, y) for x in earlier.writes for y in (*later.reads, *later.writes)]
        read = [(x, y) for x in earlier.reads for y in later.writes]
        return any(self.may_touch(x, y) for x, y in (*written, *read))

    def _path(self, name: str) -> list[Buffer]:
        """The buffer that owns the memory, then the views that lead to `name`."""
        path = [self.buffers[name]]
        while path[-1].role is Role.VIEW:
            path.append(self.buffers[path[-1].parent])
        return path[::-1]
