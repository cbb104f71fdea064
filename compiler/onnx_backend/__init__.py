"""sqzc behind ONNX's own backend interface, `onnx.backend.base.Backend`.

    import sqzc.onnx_backend as backend
    outputs = backend.prepare(onnx.load("model.onnx")).run([image])

`CompiledBackend`, which the functions of this module use, runs machine code; `ReferenceBackend` evaluates the graph by
the numpy reference. Neither ever does the other's work: what the code generator cannot do is an error.

`python -m sqzc.onnx_backend --table` runs ONNX's own node tests and prints docs/onnx.md.
"""

from __future__ import annotations

from sqzc.onnx_backend.backend import CompiledBackend, ReferenceBackend, SqzcBackend, SqzcBackendRep

prepare = CompiledBackend.prepare
run_model = CompiledBackend.run_model
run_node = CompiledBackend.run_node
supports_device = CompiledBackend.supports_device
is_compatible = CompiledBackend.is_compatible

__all__ = [
    "CompiledBackend",
    "ReferenceBackend",
    "SqzcBackend",
    "SqzcBackendRep",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]
