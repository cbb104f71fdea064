"""The graph IR: typed SSA values, ops by one declaration each, text form both ways.

Nothing here knows a frontend, a pass or a backend.
"""

from __future__ import annotations

import sqzc.ir.ops  # noqa: F401  (registers every op)
from sqzc.ir.builder import Builder
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.opdef import OpDef, registry
from sqzc.ir.types import DType, Layout, TensorType

__all__ = ["Builder", "DType", "Graph", "Layout", "Node", "OpDef", "TensorType", "Value", "registry"]
