"""Small functions made with an `Emitter`, compiled and called in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from sqzc.backends.llvm.emit import I64, PTR, VOID, Emitter, Val
from sqzc.backends.llvm.jit import load_in_process
from sqzc.backends.llvm.objects import assembly, compile_module
from sqzc.target import TARGETS, Target, resolve, runs_here

TARGET_NAMES = tuple(TARGETS)

Body = Callable[..., None]
"""Called with the emitter and the function's arguments; stores its results."""


def target_or_skip(name: str) -> Target:
    """The target, if this CPU runs it."""
    target = resolve(name)
    if not runs_here(target):
        pytest.skip(f"this CPU does not run {name}")
    return target


def module_of(target: Target, arguments: Sequence[Val], body: Body) -> ir.Module:
    """A module with the function `f` of the body."""
    module = ir.Module("test")
    module.triple = target.triple
    function = ir.Function(module, ir.FunctionType(VOID, list(arguments)), "f")
    e = Emitter(ir.IRBuilder(function.append_basic_block("entry")), target)
    body(e, *function.args)
    e.b.ret_void()
    return module


def assembly_of(target: Target, arguments: Sequence[Val], body: Body) -> list[str]:
    """The instructions of the body, without labels and directives."""
    lines = (
        line.split("#")[0].strip() for line in assembly(str(module_of(target, arguments, body)), target).splitlines()
    )
    return [line for line in lines if line and not line.endswith(":") and not line.startswith(".")]


def call(target: Target, body: Body, *values: Any) -> None:
    """Runs the body; arrays are passed as pointers to their first element, whole numbers as 64-bit integers."""
    types = [PTR if isinstance(value, np.ndarray) else I64 for value in values]
    code = load_in_process([compile_module(str(module_of(target, types, body)), target)], target)
    ctypes_of = [ctypes.c_void_p if isinstance(value, np.ndarray) else ctypes.c_int64 for value in values]
    function = ctypes.CFUNCTYPE(None, *ctypes_of)(code.addresses["f"])
    function(*[value.ctypes.data if isinstance(value, np.ndarray) else value for value in values])


def floats(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Normally distributed numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
