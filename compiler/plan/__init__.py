"""The buffer program: kernels chosen, schedules fixed, every byte of memory placed.

graph IR --lower--> Program --backends.llvm--> object code
"""

from __future__ import annotations

from sqzc.plan.library import KernelLibrary, Selection
from sqzc.plan.program import Buffer, Program, Role, Step

__all__ = ["Buffer", "KernelLibrary", "Program", "Role", "Selection", "Step"]
