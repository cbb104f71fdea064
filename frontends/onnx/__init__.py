"""ONNX models in, graph IR out.

`lift` does all of it. The stages, each usable alone: `loader` (a file to a checked graph and arrays), `lifts` (the
table of operators by version), `importer` (the net, node by node).
"""

from __future__ import annotations

from sqzc.frontends.onnx.importer import Imported, UnsupportedModelError, lift, lift_proto

__all__ = ["Imported", "UnsupportedModelError", "lift", "lift_proto"]
