"""Runs the steps of a program one call at a time, over any ranges of their items."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt
from differential.compiling import FILL, GUARD_BYTES, Arrays

from sqzc.backends.llvm import codegen, objects
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


class Stepwise:
    """The kernels of a graph in this process, called from Python as `net` would call them."""

    def __init__(self, graph: Graph, target: Target) -> None:
        library = Library(target)
        self.families = library.families
        self.program: Program = lower(graph, library)
        module, self.symbols = codegen.generate_kernels(self.program, library.families, target)
        self.pool = codegen.constant_pool(self.program)
        self.constants = aligned(self.pool.bytes)
        for at, data in self.pool.parts:
            self.constants[at : at + len(data)] = np.frombuffer(data, np.uint8)
        self._barrier = _BARRIER(lambda sync, threads: None)
        address = ctypes.cast(self._barrier, ctypes.c_void_p).value
        assert address is not None
        self._jit = llvm.create_lljit_compiler(objects.target_machine(target), use_jit_link=True, suppress_errors=True)
        builder = llvm.JITLibraryBuilder().add_current_process().import_symbol(codegen.BARRIER, address)
        builder.import_symbol(codegen.CONSTANTS, self.constants.ctypes.data)
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

    def prepared(self) -> npt.NDArray[np.uint8]:
        """What all steps want to have computed from the constants."""
        memory = aligned(self.program.prepared_bytes)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._tracker[codegen.PREPARE])(memory.ctypes.data)
        return memory

    def __call__(
        self, inputs: Arrays, ranges: Ranges = whole, prepared: npt.NDArray[np.uint8] | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """All outputs by name; `arena` holds what the run left. Every call gets its own scratch memory, full of NaN."""
        program = self.program
        given = {name: np.ascontiguousarray(inputs[name]) for name in program.inputs}
        results = {program.root(name)[0].name: aligned(program.buffers[name].bytes) for _, name in program.outputs}
        self.arena = arena = aligned(program.arena_bytes)

        def address(name: str) -> int:
            root, offset = program.root(name)
            if root.role is Role.CONSTANT:
                return int(self.constants.ctypes.data) + self.pool.offsets[root.name] + offset
            if root.role is Role.ARENA:
                return int(arena.ctypes.data) + root.offset + offset
            return int((given if root.role is Role.INPUT else results)[root.name].ctypes.data) + offset

        at = 0
        for index, step in enumerate(program.steps):
            constants = [int(self.constants.ctypes.data) + self.pool.offsets[name] for name in step.constants]
            pointers = [*map(address, step.reads), *constants, *map(address, step.writes)]
            own = prepared.ctypes.data + at if prepared is not None and step.prepared else None
            at += -(-step.prepared // 64) * 64
            function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(pointers) + 2), *[ctypes.c_int64] * 2)
            call = function(self._tracker[self.symbols[index]])
            for begin, end in ranges(index, self.items(index)):
                scratch = aligned(step.scratch)
                call(*pointers, scratch.ctypes.data, own, begin, end)
                assert (scratch[-GUARD_BYTES:] == FILL).all(), f"{step.kernel} wrote past the end of its scratch memory"
        for memory in (arena, *results.values()):
            assert (memory[-GUARD_BYTES:] == FILL).all(), "the code wrote past the end of a buffer"
        found = {}
        for name, buffer in program.outputs:
            type_ = program.buffers[buffer].type
            memory = results[program.root(buffer)[0].name]
            found[name] = memory[: type_.physical_bytes].view(type_.dtype.numpy).reshape(type_.physical_shape)
        return found

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
        values = self.arena[buffer.offset : buffer.offset + buffer.bytes].view(np.float32).reshape(shape)
        used = np.zeros(shape, np.bool_)
        channels = np.arange(shape[1] * block).reshape(shape[1], 1, 1, block) < c
        used[:, :, top : top + h, left : left + w] = channels
        return values, used


def aligned(size: int) -> npt.NDArray[np.uint8]:
    """`size` bytes at a cache line and a guard behind them, all FILL."""
    memory = np.full(size + GUARD_BYTES + 64, FILL, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size + GUARD_BYTES]
