"""Graph IR to ONNX, for other tools to read.

Fused activations and residuals become nodes of their own and memory layouts vanish; results are the same numbers.
"""

from __future__ import annotations

import json

import onnx
from onnx import helper

import sqzc
from sqzc.backends.onnx_export import elementwise, nn, shape  # noqa: F401  (registers the exporters)
from sqzc.backends.onnx_export.emitter import IR_VERSION, OPSET, Emitter, onnx_dtype
from sqzc.backends.onnx_export.registry import exporter, exporter_of, supported
from sqzc.diagnostics import UnsupportedError
from sqzc.ir.graph import Graph
from sqzc.ir.types import TensorType

# A protobuf message ends at 2 GiB; the rest is room for everything but weights.
MAX_WEIGHT_BYTES = (1 << 31) - (64 << 20)

__all__ = ["OPSET", "export", "exporter", "supported", "to_bytes"]


def export(graph: Graph) -> onnx.ModelProto:
    """The graph as an ONNX model with the same inputs and outputs.

    Tensors are called as SSA values, nodes after the last source name; `doc_string` of a node lists all its source
    names, `metadata_props` holds the graph's meta data as JSON. UnsupportedError names every op that ONNX cannot say.
    """
    weight_bytes = sum(value.type.physical_bytes for value in graph.constants)
    if weight_bytes > MAX_WEIGHT_BYTES:
        raise UnsupportedError("the weights do not fit into one ONNX file", got=f"{weight_bytes} bytes")
    emitter = Emitter(graph)
    for value in graph.constants:
        emitter.initializer(emitter.tensor(value), value.data)
    _emit_nodes(graph, emitter)
    _emit_output_aliases(graph, emitter)
    onnx_graph = helper.make_graph(
        emitter.nodes,
        graph.name or "main",
        [_value_info(value.name, value.type) for value in graph.inputs],
        [_value_info(name, value.type) for name, value in graph.outputs],
        initializer=emitter.initializers,
        value_info=_intermediates(graph, emitter),
    )
    model = helper.make_model(
        onnx_graph,
        producer_name="sqzc",
        producer_version=sqzc.__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, {key: json.dumps(value) for key, value in graph.meta.items()})
    return model


def to_bytes(graph: Graph) -> bytes:
    """The contents of an .onnx file; equal graphs give equal bytes."""
    data: bytes = export(graph).SerializeToString(deterministic=True)
    return data


def _emit_nodes(graph: Graph, emitter: Emitter) -> None:
    problems: dict[str, None] = {}
    for node in graph.nodes:
        sources = tuple(dict.fromkeys(name for value in node.outputs for name in value.source))
        emitter.begin(sources, node.outputs[0].name)
        function = exporter_of(node.op.name)
        if function is None:
            problems[f"{node.op.name}: ONNX has no such op"] = None
            continue
        try:
            results = function(emitter, node)
        except UnsupportedError as error:
            problems[f"{node.op.name}: {error.message}"] = None
            emitter.abandon()
            continue
        names = results if isinstance(results, tuple) else (results,)
        emitter.finish(names, [emitter.tensor(value) for value in node.outputs], ", ".join(sources))
    if problems:
        raise UnsupportedError(f"graph @{graph.name} cannot be said in ONNX", got="; ".join(problems))


def _emit_output_aliases(graph: Graph, emitter: Emitter) -> None:
    """An output that is an input, a constant, or a value that already bears another output's name."""
    for name, value in graph.outputs:
        tensor = emitter.tensor(value)
        if tensor != name:
            emitter.begin((), name)
            emitter.finish([tensor], [name], "")


def _intermediates(graph: Graph, emitter: Emitter) -> list[onnx.ValueInfoProto]:
    outputs = {name for name, _ in graph.outputs}
    values = [value for node in graph.nodes for value in node.outputs if emitter.tensor(value) not in outputs]
    return [_value_info(emitter.tensor(value), value.type) for value in values]


def _value_info(name: str, type: TensorType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx_dtype(type.dtype), list(type.shape))
