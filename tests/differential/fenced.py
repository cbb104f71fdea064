"""Memory between pages that nobody may touch, and a run of kernels on it: an access outside ends the process.

`python -m differential.fenced TARGET` prints each case before it runs it, so that the last line names the culprit.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
import pytest
from differential.case import build, feeds
from differential.cases_fast import cases, prepare
from differential.compiling import FILL
from differential.stepwise import Memory, Stepwise

from sqzc.target import resolve, runs_here

_NO_ACCESS, _READ_WRITE, _PRIVATE_ANONYMOUS = 0, 3, 0x22


class Fence:
    """Gives memory whose last byte is the last of a page."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mmap.restype = ctypes.c_void_p
        self.libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self.libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.mapped: list[tuple[int, int]] = []

    def __call__(self, size: int, alignment: int) -> Memory:
        """Fenced memory; up to `alignment` - 1 bytes behind it can be touched unnoticed."""
        page = mmap.PAGESIZE
        inside = -(-max(size, 1) // page) * page
        base = self.libc.mmap(None, inside + 2 * page, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
        assert base not in (None, ctypes.c_void_p(-1).value)
        for fence in (base, base + page + inside):
            assert self.libc.mprotect(fence, page, _NO_ACCESS) == 0
        self.mapped.append((base, inside + 2 * page))
        start = base + page + inside - -(-size // alignment) * alignment
        data = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(start))
        data[:] = FILL
        return Memory(data)

    def forget(self) -> None:
        """Gives all memory back."""
        while self.mapped:
            self.libc.munmap(*self.mapped.pop())


def main(target_name: str) -> None:
    """Runs all cases of the fast kernels, with and without prepared memory."""
    target, fence = resolve(target_name), Fence()
    assert runs_here(target), target_name
    for name, (item, schedule) in cases(target.vector_lanes, target.tile_products).items():
        with pytest.MonkeyPatch.context() as patch:
            prepare(patch, item, schedule)
            print(f"{target_name}: {name}", flush=True)
            steps = Stepwise(build(item, target), target, fence)
            assert item.kernel in {step.kernel for step in steps.program.steps}
            steps(feeds(item))
            if steps.program.prepared_bytes:
                steps(feeds(item), prepared=steps.prepared())
            del steps
        fence.forget()
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
