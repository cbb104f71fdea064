"""The LLVM backend: buffer program in, object code out.

`library` chooses kernels, `schedules` and `kernels` hold one module per family, `codegen` turns a program into a
module, `objects` and `link` into files, `jit` into callable memory.
"""
