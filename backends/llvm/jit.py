"""Object files to callable memory of this process, without a linker program.

LLVM's JIT linker is used rather than MCJIT: a symbol that is missing or out of reach is an error to catch there, where
MCJIT ends the process or computes a wrong address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import llvmlite.binding as llvm

from sqzc.backends.llvm.elf import exported_functions
from sqzc.backends.llvm.objects import check_symbols, target_machine
from sqzc.diagnostics import InternalError
from sqzc.target import Target, tile_state


class LoadedCode:
    """Code and constants in memory, and `addresses`: where each exported function is.

    The memory is given back when this object goes, so it must outlive every call and every handle.
    """

    def __init__(self, jit: llvm.LLJIT, tracker: llvm.ResourceTracker, names: Sequence[str]) -> None:
        self.addresses: Mapping[str, int] = {name: tracker[name] for name in names}
        # The tracker must go before its JIT: attributes are dropped in the order in which they were set.
        self._tracker = tracker
        self._jit = jit


def create_jit(target: Target) -> llvm.LLJIT:
    """A linker of code for `target` into this process, which it gets ready to run that.

    The exported functions of a model ask the system for the state of tile registers themselves; code that is called
    beside them relies on this. Where the system refuses, or the CPU has none, nothing is said here.
    """
    if target.tile_products:
        tile_state()
    return llvm.create_lljit_compiler(target_machine(target), use_jit_link=True, suppress_errors=True)


def load_in_process(objects: Sequence[bytes], target: Target) -> LoadedCode:
    """Links `objects`, which were compiled for `target`, into this process.

    Every exported function can be called at its address; libc's functions are those of the process. Whether the CPU
    has the features of `target` is left to the code's own test.
    """
    check_symbols(objects)
    names = exported_functions(objects)
    jit = create_jit(target)
    builder = llvm.JITLibraryBuilder().add_current_process()
    for contents in objects:
        builder.add_object_img(contents)
    for name in names:
        builder.export_symbol(name)
    try:
        tracker = builder.link(jit, "model")
    except RuntimeError as error:
        raise InternalError(f"the generated code cannot be linked in process: {error}") from error
    return LoadedCode(jit, tracker, names)
