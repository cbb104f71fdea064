"""Compiles graphs in process and runs them, for tests: no linker, any target that this CPU has, any thread count."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt

from sqzc.backends.llvm import codegen, elf, objects
from sqzc.backends.llvm.jit import create_jit
from sqzc.backends.llvm.library import Library
from sqzc.ir import Graph
from sqzc.plan.lower import lower
from sqzc.plan.program import Program
from sqzc.target import Target

Arrays = Mapping[str, npt.NDArray[np.generic]]

GUARD_BYTES = 256
"""Bytes beyond every buffer handed to compiled code; they must come back unchanged."""
FILL = 0xFF
"""What memory holds before a run: NaN in float32, so that what nobody wrote or what lies outside shows."""

_BARRIER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)


class Compiled:
    """A graph as machine code in this process, by the kernels of `library` where one is given."""

    def __init__(self, graph: Graph, target: Target, library: Library | None = None) -> None:
        self.graph = graph
        library = library or Library(target)
        self.program: Program = lower(graph, library)
        module = codegen.generate(self.program, library.families, target)
        exported = [codegen.NET] + ([codegen.PREPARE] if self.program.prepared_bytes else [])
        for name in exported:
            module.globals[name].linkage = "external"
        pool = codegen.constant_pool(self.program)
        constants = bytearray(max(pool.bytes, 1))
        for at, data in pool.parts:
            constants[at : at + len(data)] = data
        self.objects = [
            objects.compile_module(str(module), target),
            objects.data_object(codegen.CONSTANTS, [constants], target),
        ]
        unknown = set(elf.undefined_symbols(self.objects)) - objects.LIBC_SYMBOLS - {codegen.BARRIER}
        assert not unknown, f"the code calls {sorted(unknown)}, which no library has"
        self._sync: threading.Barrier | None = None
        self._barrier = _BARRIER(self._wait)
        address = ctypes.cast(self._barrier, ctypes.c_void_p).value
        assert address is not None
        self._jit = create_jit(target)
        builder = llvm.JITLibraryBuilder().add_current_process().import_symbol(codegen.BARRIER, address)
        for contents in self.objects:
            builder.add_object_img(contents)
        for name in exported:
            builder.export_symbol(name)
        self._tracker = builder.link(self._jit, "model")
        net = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p)
        self._net = net(self._tracker[codegen.NET])

    def prepared(self) -> npt.NDArray[np.uint8]:
        """The memory that the library fills from its constants once; empty where no kernel asks for any."""
        memory = _guarded(self.program.prepared_bytes)
        if self.program.prepared_bytes:
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._tracker[codegen.PREPARE])(memory.ctypes.data)
            assert (memory[-GUARD_BYTES:] == FILL).all(), "the code wrote past the end of the prepared memory"
        return memory

    def __del__(self) -> None:
        # Code must be unloaded before the JIT that holds it.
        self.__dict__.pop("_tracker", None)

    def _wait(self, sync: int | None, threads: int) -> None:
        assert self._sync is not None
        self._sync.wait()

    def __call__(
        self, inputs: Arrays, threads: int = 1, prepared: npt.NDArray[np.uint8] | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """All outputs by name; without `prepared` memory kernels do its work anew."""
        given = [np.ascontiguousarray(inputs[name]) for name in self.program.inputs]
        types = [self.program.buffers[name].type for _, name in self.program.outputs]
        results = [_guarded(t.physical_bytes) for t in types]
        scratch = -(-self.program.scratch_bytes // 64) * 64
        arena = _guarded(-(-self.program.arena_bytes // 64) * 64 + threads * scratch)
        pointers = (ctypes.c_void_p * max(len(given), 1))(*[x.ctypes.data for x in given])
        outputs = (ctypes.c_void_p * len(results))(*[y.ctypes.data for y in results])
        self._sync = threading.Barrier(threads)

        def work(thread: int) -> None:
            ready = None if prepared is None else prepared.ctypes.data
            self._net(arena.ctypes.data, pointers, outputs, ready, thread, threads, None)

        helpers = [threading.Thread(target=work, args=(t,)) for t in range(1, threads)]
        for helper in helpers:
            helper.start()
        work(0)
        for helper in helpers:
            helper.join()
        for memory in (arena, *results):
            assert (memory[-GUARD_BYTES:] == FILL).all(), "the code wrote past the end of a buffer"
        return {
            name: y[: t.physical_bytes].view(t.dtype.numpy).reshape(t.physical_shape)
            for (name, _), t, y in zip(self.program.outputs, types, results, strict=True)
        }


def _guarded(size: int) -> npt.NDArray[np.uint8]:
    """`size` bytes at a cache line, full of FILL, and the guard after them."""
    memory = np.full(size + GUARD_BYTES + 64, FILL, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size + GUARD_BYTES]
