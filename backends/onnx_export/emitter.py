"""Builds the node list of an ONNX graph: tensor and node names, helper constants, element types."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sqzc.diagnostics import UnsupportedError
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.types import DType

# The lowest operator set with Gelu, wrapping Pad and dilated AveragePool, and the file format that goes with it.
OPSET = 20
IR_VERSION = 9


def onnx_dtype(dtype: DType) -> int:
    """The TensorProto element type."""
    return int(helper.np_dtype_to_tensor_dtype(dtype.numpy))


class Emitter:
    """Collects ONNX nodes for one IR node at a time.

    Exporters take tensor names and give tensor names; `finish` renames what an exporter returned to the names of the
    node's results, so that no exporter has to know which of its ONNX nodes is the last.
    """

    def __init__(self, graph: Graph) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._dtypes: dict[str, DType] = {}
        self._names: set[str] = set()
        self._node_names: set[str] = set()
        self._tensors: dict[int, str] = {}
        self._pending: list[onnx.NodeProto] = []
        self._base = ""
        self._name_interface(graph)

    def _name_interface(self, graph: Graph) -> None:
        """Inputs and outputs keep their names; every other value steps aside for them."""
        for value in graph.inputs:
            self._claim(value, value.name)
        inputs = set(self._names)
        for name, value in graph.outputs:
            if name in inputs and self._tensors.get(id(value)) != name:
                raise UnsupportedError(f"ONNX cannot call an input and a computed output both '{name}'")
            self._names.add(name)
            if value.producer is not None and id(value) not in self._tensors:
                self._claim(value, name)
        for value in graph.values():
            if id(value) not in self._tensors:
                self._claim(value, self.fresh(value.name))

    def _claim(self, value: Value, name: str) -> None:
        self._names.add(name)
        self._tensors[id(value)] = name
        self._dtypes[name] = value.type.dtype

    def fresh(self, wanted: str) -> str:
        """`wanted`, or it with the first free number; taken from then on."""
        name, count = wanted, 0
        while name in self._names:
            count += 1
            name = f"{wanted}.{count}"
        self._names.add(name)
        return name

    def tensor(self, value: Value) -> str:
        """Tensor name of an IR value."""
        return self._tensors[id(value)]

    def operands(self, node: Node) -> list[str]:
        """Tensor names of all operands."""
        return [self.tensor(value) for value in node.inputs]

    # -- for exporters --------------------------------------------------------------------------------------------

    def emit(self, op_type: str, inputs: Sequence[str], *, dtype: DType | None = None, **attributes: object) -> str:
        """Adds an ONNX node with one result and returns its name. `dtype` when it is not that of the first input."""
        return self.emit_multi(op_type, inputs, (dtype or self._dtypes[inputs[0]],), **attributes)[0]

    def emit_multi(
        self, op_type: str, inputs: Sequence[str], dtypes: Sequence[DType], **attributes: object
    ) -> tuple[str, ...]:
        """Adds an ONNX node with one result per element type. UnsupportedError when ONNX's op refuses an input's."""
        self._check_dtypes(op_type, inputs)
        outputs = tuple(self.fresh(f"{self._base}/{op_type}") for _ in dtypes)
        self._dtypes.update(zip(outputs, dtypes, strict=True))
        self._pending.append(helper.make_node(op_type, list(inputs), list(outputs), **attributes))
        return outputs

    def _check_dtypes(self, op_type: str, inputs: Sequence[str]) -> None:
        formals = onnx.defs.get_schema(op_type, OPSET, "").inputs
        for index, name in enumerate(inputs):
            if not name:
                continue  # an optional input left out
            dtype = self._dtypes[name]
            spelling = f"tensor({onnx.TensorProto.DataType.Name(onnx_dtype(dtype)).lower()})"
            if spelling not in formals[min(index, len(formals) - 1)].types:
                raise UnsupportedError(f"ONNX's {op_type} does not take {dtype.value}")

    def initializer(self, name: str, data: Array) -> str:
        """Adds constant data under `name`."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(data).reshape(data.shape), name))
        self._dtypes[name] = DType.of(data.dtype)
        return name

    def constant(self, what: str, data: Array) -> str:
        """Adds a small constant that an ONNX op takes as an input."""
        return self.initializer(self.fresh(f"{self._base}/{what}"), data)

    def integers(self, what: str, values: Sequence[int]) -> str:
        """Adds a vector of i64."""
        return self.constant(what, np.array(values, np.int64))

    def scalar(self, what: str, value: float, dtype: DType) -> str:
        """Adds a single number."""
        return self.constant(what, np.array(value).astype(dtype.numpy))

    # -- one IR node at a time ------------------------------------------------------------------------------------

    def begin(self, sources: Sequence[str], fallback: str) -> None:
        """Starts an IR node; its ONNX nodes are called after its last source name."""
        self._base = sources[-1] if sources else fallback

    def abandon(self) -> None:
        """Forgets what the present IR node has emitted."""
        self._pending = []

    def finish(self, results: Sequence[str], wanted: Sequence[str], doc: str) -> None:
        """Gives the results their final names and the ONNX nodes theirs."""
        made = {name for node in self._pending for name in node.output}
        renamed: dict[str, str] = {}
        for result, final in zip(results, wanted, strict=True):
            if result in made and result not in renamed:
                renamed[result] = final
            else:
                self._pending.append(helper.make_node("Identity", [result], [final]))
        for index, node in enumerate(self._pending):
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]
            node.name = self._fresh_node_name(self._base if index == 0 else f"{self._base}/{node.op_type}")
            node.doc_string = doc
        self.nodes.extend(self._pending)
        self._pending = []

    def _fresh_node_name(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._node_names:
            count += 1
            name = f"{wanted}.{count}"
        self._node_names.add(name)
        return name
