"""Builds small Caffe2 nets, writes them as files and runs them through the frontend and the reference backend."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sqzc.backends.reference import evaluate
from sqzc.frontends.caffe2 import caffe2_pb2, lift
from sqzc.ir import DType, Graph, TensorType
from sqzc.ir.verifier import verify

Array = npt.NDArray[Any]


def make_arg(name: str, value: object) -> Any:
    """An Argument message whose field follows the value's Python type."""
    arg = caffe2_pb2.Argument(name=name)
    if isinstance(value, bool | int):
        arg.i = int(value)
    elif isinstance(value, float):
        arg.f = value
    elif isinstance(value, str):
        arg.s = value.encode()
    elif isinstance(value, bytes):
        arg.s = value
    else:
        values = list(np.asarray(value).ravel().tolist())
        (arg.floats if any(isinstance(v, float) for v in values) else arg.ints).extend(values)
    return arg


class Caffe2Maker:
    """What tests call; one per test, with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def op(self, type_: str, inputs: str | Sequence[str], outputs: str | Sequence[str], **args: object) -> Any:
        """An OperatorDef; blob names are separated by blanks."""
        message = caffe2_pb2.OperatorDef(type=type_)
        message.input.extend(inputs.split() if isinstance(inputs, str) else inputs)
        message.output.extend(outputs.split() if isinstance(outputs, str) else outputs)
        message.arg.extend(make_arg(name, value) for name, value in args.items())
        return message

    def net(self, ops: Sequence[Any], inputs: str = "", outputs: str = "", name: str = "net") -> Any:
        """A NetDef; with no `inputs` its external_input is empty."""
        message = caffe2_pb2.NetDef(name=name)
        message.op.extend(ops)
        message.external_input.extend(inputs.split())
        message.external_output.extend(outputs.split())
        return message

    def init(self, params: Mapping[str, Array]) -> Any:
        """An init net with one given fill per parameter."""
        types = {"f": "GivenTensorFill", "i": "GivenTensorInt64Fill", "b": "GivenTensorBoolFill"}
        ops = []
        for name, array in params.items():
            kind = "GivenTensorIntFill" if array.dtype == np.int32 else types[array.dtype.kind]
            fill = self.op(kind, "", [name], shape=array.shape)
            values = caffe2_pb2.Argument(name="values")
            (values.floats if array.dtype.kind == "f" else values.ints).extend(array.ravel().tolist())
            fill.arg.append(values)
            ops.append(fill)
        return self.net(ops, outputs=" ".join(params), name="init")

    def write(self, message: Any, name: str = "predict_net.pb") -> Path:
        """Writes a net in binary form."""
        path = self.folder / name
        path.write_bytes(message.SerializeToString())
        return path

    def lift(
        self,
        net: Any,
        inputs: Mapping[str, Array] | None = None,
        params: Mapping[str, Array] | None = None,
        **options: Any,
    ) -> Graph:
        """The verified graph of a net for inputs of these types."""
        predict = self.write(net)
        init = self.write(self.init(params), "init_net.pb") if params else None
        types = {k: TensorType(DType.of(v.dtype), v.shape) for k, v in (inputs or {}).items()}
        graph = lift(predict, init, input_shapes=types, **options)
        verify(graph)
        return graph

    def run(
        self, net: Any, inputs: Mapping[str, Array] | None = None, params: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """All outputs by the reference backend."""
        graph = self.lift(net, inputs, params)
        return evaluate(graph, {value.name: (inputs or {})[value.name] for value in graph.inputs})

    def run_op(
        self,
        type_: str,
        inputs: Mapping[str, Array],
        params: Mapping[str, Array] | None = None,
        outputs: str = "Y",
        **args: object,
    ) -> Any:
        """The outputs of one operator that reads all inputs, then all parameters; one array if it has one output."""
        names = [*inputs, *(params or {})]
        net = self.net([self.op(type_, names, outputs, **args)], " ".join(names), outputs)
        got = self.run(net, inputs, params)
        return got[outputs] if " " not in outputs else tuple(got[name] for name in outputs.split())

    def unpacked(self, name: str, field: int, values: Sequence[float]) -> bytes:
        """An argument on the wire as Caffe2 writes it: one tag per number."""
        body = b"\x0a" + bytes([len(name)]) + name.encode()
        return body + b"".join(bytes([field << 3 | 5]) + struct.pack("<f", value) for value in values)


@pytest.fixture
def c2(tmp_path: Path) -> Caffe2Maker:
    """A maker of Caffe2 nets."""
    return Caffe2Maker(tmp_path)


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(7)
