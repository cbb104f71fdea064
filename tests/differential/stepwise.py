"""Runs the steps of a program one call at a time, over any ranges of their items."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt
from differential.compiling import FILL, GUARD_BYTES, Arrays

from sqzc.backends.llvm import codegen, objects
from sqzc.backends.llvm.jit import create_jit
from sqzc.backends.llvm.library import Library
from sqzc.ir import Graph
from sqzc.plan.lower import lower
from sqzc.plan.program import Program, Role
from sqzc.target import Target

Ranges = Callable[[int, int], Iterable[tuple[int, int]]]
"""(step, number of its items) -> the ranges that are run one after the other."""

_BARRIER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)


def whole(step: int, items: int) -> list[tuple[int, int]]:
    """All items in one call."""
    return [(0, items)]


@dataclass(frozen=True)
class Memory:
    """Bytes that code is given, all FILL; `intact` says whether it left alone what lies behind them."""

    data: npt.NDArray[np.uint8]
    intact: Callable[[], bool] = lambda: True

    @property
    def address(self) -> int:
        """Of the first byte."""
        return int(self.data.ctypes.data)


Allocate = Callable[[int, int], Memory]
"""(bytes, alignment) -> memory."""


def guarded(size: int, alignment: int) -> Memory:
    """Memory with a guard behind it."""
    whole = np.full(size + GUARD_BYTES + alignment, FILL, np.uint8)
    start = -whole.ctypes.data % alignment
    guard = whole[start + size : start + size + GUARD_BYTES]
    return Memory(whole[start : start + size], lambda: bool((guard == FILL).all()))


class Stepwise:
    """The kernels of a graph in this process, called from Python as `net` would call them."""

    def __init__(self, graph: Graph, target: Target, allocate: Allocate = guarded) -> None:
        library = Library(target)
        self.families = library.families
        self.program: Program = lower(graph, library)
        module, self.symbols = codegen.generate_kernels(self.program, library.families, target)
        self.pool = codegen.constant_pool(self.program)
        self.allocate = allocate
        self.constants = allocate(self.pool.bytes, 64)
        for at, data in self.pool.parts:
            self.constants.data[at : at + len(data)] = np.frombuffer(data, np.uint8)
        self._barrier = _BARRIER(lambda sync, threads: None)
        address = ctypes.cast(self._barrier, ctypes.c_void_p).value
        assert address is not None
        self._jit = create_jit(target)
        builder = llvm.JITLibraryBuilder().add_current_process().import_symbol(codegen.BARRIER, address)
        builder.import_symbol(codegen.CONSTANTS, self.constants.address)
        builder.add_object_img(objects.compile_module(str(module), target))
        builder.export_symbol(codegen.PREPARE if self.program.prepared_bytes else self.symbols[0])
        for name in set(self.symbols):
            builder.export_symbol(name)
        self._tracker = builder.link(self._jit, "steps")

    def __del__(self) -> None:
        # Code must be unloaded before the JIT that holds it.
        self.__dict__.pop("_tracker", None)

    def items(self, index: int) -> int:
        """Work items of a step."""
        step = self.program.steps[index]
        return self.families[step.kernel].items(self.program, step)

    def step(self, kernel: str) -> int:
        """The number of the only step that runs a kernel family."""
        (index,) = [i for i, step in enumerate(self.program.steps) if step.kernel == kernel]
        return index

    def prepared(self) -> Memory:
        """What all steps want to have computed from the constants."""
        memory = self.allocate(self.program.prepared_bytes, 64)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._tracker[codegen.PREPARE])(memory.address)
        assert memory.intact(), "the code wrote past the end of the prepared memory"
        return memory

    def __call__(
        self, inputs: Arrays, ranges: Ranges = whole, prepared: Memory | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """All outputs by name; `arena` holds what the run left. Every call gets its own scratch memory, full of NaN."""
        program = self.program
        memory = {name: self.placed(inputs[name]) for name in program.inputs}
        for _, name in program.outputs:
            root = program.root(name)[0]
            memory[root.name] = self.allocate(root.bytes, root.type.dtype.item_bytes)
        self.arena = self.allocate(program.arena_bytes, 64)

        def address(name: str) -> int:
            root, offset = program.root(name)
            if root.role is Role.CONSTANT:
                return self.constants.address + self.pool.offsets[root.name] + offset
            if root.role is Role.ARENA:
                return self.arena.address + root.offset + offset
            return memory[root.name].address + offset

        at = 0
        for index, step in enumerate(program.steps):
            constants = [self.constants.address + self.pool.offsets[name] for name in step.constants]
            pointers = [*map(address, step.reads), *constants, *map(address, step.writes)]
            own = prepared.address + at if prepared is not None and step.prepared else None
            at += -(-step.prepared // 64) * 64
            function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(pointers) + 2), *[ctypes.c_int64] * 2)
            call = function(self._tracker[self.symbols[index]])
            for begin, end in ranges(index, self.items(index)):
                scratch = self.allocate(step.scratch, 64)
                call(*pointers, scratch.address, own, begin, end)
                assert scratch.intact(), f"{step.kernel} wrote past the end of its scratch memory"
        for used in (self.arena, *memory.values()):
            assert used.intact(), "the code wrote past the end of a buffer"
        found = {}
        for name, buffer in program.outputs:
            type_ = program.buffers[buffer].type
            data = memory[program.root(buffer)[0].name].data
            found[name] = data[: type_.physical_bytes].view(type_.dtype.numpy).reshape(type_.physical_shape)
        return found

    def placed(self, array: npt.NDArray[np.generic]) -> Memory:
        """The array in memory of its own, at an address that is right for its elements and no more."""
        memory = self.allocate(array.nbytes, array.itemsize)
        memory.data[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return memory

    def image(self, name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """A buffer of the arena after a run: [image, channel block, row, column, lane] with its border.

        The second array is true where an element of the tensor lies, and false in the border and in unused lanes.
        """
        buffer = self.program.buffers[name]
        assert buffer.role is Role.ARENA
        top, left, bottom, right = buffer.border
        n, c, h, w = buffer.type.shape
        block = buffer.type.layout.block or 1
        shape = (n, -(-c // block), h + top + bottom, w + left + right, block)
        values = self.arena.data[buffer.offset : buffer.offset + buffer.bytes].view(np.float32).reshape(shape)
        used = np.zeros(shape, np.bool_)
        channels = np.arange(shape[1] * block).reshape(shape[1], 1, 1, block) < c
        used[:, :, top : top + h, left : left + w] = channels
        return values, used
