"""sqzc: an ahead-of-time compiler from Caffe2 and ONNX CNNs to one self-contained native library.

Everything here is imported on first use, so that loading a compiled library needs numpy alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqzc.diagnostics import SqzcError
    from sqzc.driver import compile, evaluate, lift, optimize, parse
    from sqzc.ir.graph import Graph
    from sqzc.runtime import Model, load

__version__ = "0.1.0"

__all__ = ["Graph", "Model", "SqzcError", "compile", "evaluate", "lift", "load", "optimize", "parse"]

_HOMES = {
    "Graph": "sqzc.ir.graph",
    "Model": "sqzc.runtime",
    "SqzcError": "sqzc.diagnostics",
    "compile": "sqzc.driver",
    "evaluate": "sqzc.driver",
    "lift": "sqzc.driver",
    "load": "sqzc.runtime",
    "optimize": "sqzc.driver",
    "parse": "sqzc.driver",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sqzc' has no attribute '{name}'")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
