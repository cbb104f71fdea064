"""The table of reference kernels: one numpy function per op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqzc.diagnostics import UnsupportedError
from sqzc.ir.constant import Array
from sqzc.ir.opdef import OpDef, registry

Kernel = Callable[..., Array | tuple[Array, ...]]

_kernels: dict[str, Kernel] = {}


def kernel(name: str) -> Callable[[Kernel], Kernel]:
    """Registers a function as the kernel of the op `name`.

    It is called with the op and one array per operand, in logical shape, and returns the result or a tuple of them.
    """

    def register(function: Kernel) -> Kernel:
        assert name in registry, f"there is no op {name}"
        assert name not in _kernels, f"op {name} has two reference kernels"
        _kernels[name] = function
        return function

    return register


def supported() -> frozenset[str]:
    """Names of the ops that have a kernel."""
    return frozenset(_kernels)


def apply(op: OpDef, *operands: Any) -> tuple[Array, ...]:
    """Results of one op; UnsupportedError when it has no kernel."""
    function = _kernels.get(op.name)
    if function is None:
        raise UnsupportedError(f"the reference backend has no kernel for op '{op.name}'")
    results = function(op, *operands)
    return results if isinstance(results, tuple) else (results,)
