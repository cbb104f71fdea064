"""Generated code run kernel by kernel in this process, with all of its memory in view."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt

from sqzc.backends.llvm import codegen
from sqzc.backends.llvm.jit import create_jit
from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.objects import compile_module, data_object
from sqzc.driver.debug.cases import Arrays
from sqzc.ir.constant import Array
from sqzc.plan.memory import align
from sqzc.plan.program import ALIGN, NO_BORDER, Program, Role, Step
from sqzc.target import Target

Memory = npt.NDArray[np.uint8]
Run = Callable[[], None]

_UNWRITTEN = 0xFF
"""What memory holds before a run: NaN in floats, so that what nobody wrote shows."""

_BARRIER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)


class Buffers:
    """The memory of one run, and the tensors in it in their logical shapes."""

    def __init__(self, program: Program, inputs: Arrays) -> None:
        self.program = program
        self.inputs = {name: np.ascontiguousarray(inputs[name]) for name in program.inputs}
        self.outputs = {name: _memory(program.buffers[name].bytes) for _, name in program.outputs}
        self.arena = _memory(align(program.arena_bytes))
        self.scratch = _memory(align(program.scratch_bytes))
        self.prepared = _memory(program.prepared_bytes)
        pool = codegen.constant_pool(program)
        self.offsets = pool.offsets
        self.constants = _memory(pool.bytes)
        for offset, data in pool.parts:
            self.constants[offset : offset + len(data)] = np.frombuffer(data, np.uint8)

    def place(self, name: str) -> tuple[Memory, int]:
        """The memory that a buffer is in, and the byte where it starts."""
        root, offset = self.program.root(name)
        if root.role is Role.CONSTANT:
            return self.constants, self.offsets[root.name] + offset
        if root.role is Role.ARENA:
            return self.arena, root.offset + offset
        if root.role is Role.INPUT:
            return self.inputs[root.name].reshape(-1).view(np.uint8), offset
        number = next(buf for _, buf in self.program.outputs if self.program.root(buf)[0] is root)
        return self.outputs[number], offset

    def address(self, name: str) -> int:
        """Where a buffer starts."""
        memory, offset = self.place(name)
        return int(memory.ctypes.data) + offset

    def tensor(self, name: str) -> Array:
        """A copy of what a buffer holds, in its logical shape."""
        type_ = self.program.buffers[name].type
        blocks = self._blocks(name, NO_BORDER)
        if type_.rank != 4:
            return blocks.copy()
        n, c, h, w = type_.shape
        return np.ascontiguousarray(blocks.transpose(0, 1, 4, 2, 3).reshape(n, -1, h, w)[:, :c])

    def spare_lanes(self, name: str) -> Array:
        """The elements of the last channel block that belong to no channel; they must be zeros."""
        type_ = self.program.buffers[name].type
        block = type_.layout.block
        spare = -type_.shape[1] % block if block else 0
        if not spare:
            return np.zeros(0, type_.dtype.numpy)
        return np.asarray(self._blocks(name, NO_BORDER)[:, -1, :, :, block - spare :])

    def border(self, name: str) -> Array:
        """What stands in the border around a buffer's planes, one row of numbers; they must be zeros."""
        border = self.program.buffers[name].border
        if border == NO_BORDER:
            return np.zeros(0, self.program.buffers[name].type.dtype.numpy)
        top, left, bottom, right = border
        whole = self._blocks(name, border)
        inside = np.zeros((whole.shape[2], whole.shape[3]), bool)
        inside[top : inside.shape[0] - bottom, left : inside.shape[1] - right] = True
        return np.asarray(whole[:, :, ~inside]).ravel()

    def _blocks(self, name: str, border: tuple[int, int, int, int]) -> Array:
        """A view [n, block of channels, h, w, lane] of an image with so much of its border; the tensor itself else."""
        memory, offset = self.place(name)
        type_ = self.program.buffers[name].type
        dtype = type_.dtype.numpy
        if type_.rank != 4:
            return np.ndarray(type_.shape, dtype, buffer=memory, offset=offset)
        (n, c, h, w), geometry = type_.shape, self.program.geometry(name)
        block = type_.layout.block or 1
        top, left, bottom, right = border
        start = offset + (geometry.origin - top * geometry.row - left * geometry.pixel) * dtype.itemsize
        strides = [s * dtype.itemsize for s in (geometry.image, geometry.plane, geometry.row, geometry.pixel, 1)]
        shape = (n, -(-c // block), h + top + bottom, w + left + right, block)
        if not np.prod(shape):
            return np.zeros(shape, dtype)
        return np.ndarray(shape, dtype, buffer=memory, offset=start, strides=strides)


class SteppedCode:
    """The kernels of a program as machine code in this process."""

    def __init__(self, program: Program, target: Target, effort: int) -> None:
        self.program = program
        self.families = Library(target).families
        module, self.symbols = codegen.generate_kernels(program, self.families, target)
        pool = codegen.constant_pool(program)
        data = bytearray(max(pool.bytes, 1))
        for offset, part in pool.parts:
            data[offset : offset + len(part)] = part
        objects = [
            compile_module(str(module), target, opt=effort),
            data_object(codegen.CONSTANTS, [bytes(data)], target),
        ]
        # One thread has nobody to wait for.
        self._barrier = _BARRIER(lambda sync, threads: None)
        address = ctypes.cast(self._barrier, ctypes.c_void_p).value
        assert address is not None
        self._jit = create_jit(target)
        builder = llvm.JITLibraryBuilder().add_current_process().import_symbol(codegen.BARRIER, address)
        for contents in objects:
            builder.add_object_img(contents)
        exported = [*dict.fromkeys(self.symbols), *([codegen.PREPARE] if program.prepared_bytes else [])]
        for name in exported:
            builder.export_symbol(name)
        self._tracker = builder.link(self._jit, "model")
        self._addresses = {name: int(self._tracker[name]) for name in exported}

    def __del__(self) -> None:
        # Code must be unloaded before the JIT that holds it.
        self.__dict__.pop("_tracker", None)

    def run(self, inputs: Arrays, *, prepare: bool = True, parts: int = 1) -> Iterator[tuple[int, Step, Buffers, Run]]:
        """Each step in turn with the memory as it is before it, and the function that makes it run.

        The function must be called before the next step is asked for. With `prepare`, kernels have the memory that a
        model's handle has. Each step's work is done in `parts`, as if by so many threads one after the other.
        """
        buffers = Buffers(self.program, inputs)
        if prepare and self.program.prepared_bytes:
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._addresses[codegen.PREPARE])(buffers.prepared.ctypes.data)
        prepared_at = 0
        for index, step in enumerate(self.program.steps):
            own = buffers.prepared.ctypes.data + prepared_at if prepare and step.prepared else None
            prepared_at += align(step.prepared)
            yield index, step, buffers, self._runner(index, step, buffers, own, parts)

    def _runner(self, index: int, step: Step, buffers: Buffers, prepared: int | None, parts: int) -> Run:
        constants = [buffers.constants.ctypes.data + buffers.offsets[name] for name in step.constants]
        reads, writes = ([buffers.address(name) for name in names] for names in (step.reads, step.writes))
        pointers: list[int | None] = [*reads, *constants, *writes, int(buffers.scratch.ctypes.data), prepared]
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers), ctypes.c_int64, ctypes.c_int64)
        kernel: Callable[..., Any] = kind(self._addresses[self.symbols[index]])
        items = self.families[step.kernel].items(self.program, step)

        def run() -> None:
            for part in range(parts):
                kernel(*pointers, part * items // parts, (part + 1) * items // parts)

        return run


def _memory(size: int) -> Memory:
    """Bytes at a cache line, as nobody has written them."""
    memory = np.full(size + ALIGN, _UNWRITTEN, np.uint8)
    start = -memory.ctypes.data % ALIGN
    return memory[start : start + size]
