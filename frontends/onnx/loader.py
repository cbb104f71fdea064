"""Reading ONNX models: bytes on disk in, a checked graph of known operators and plain arrays out.

The standard's own package checks the model's form, inlines its functions and brings operator sets older than sqzc's
oldest up to date. What it says of shapes is not relied on: those are inferred by the IR.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import MutableSequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import checker, helper, inliner, version_converter

from sqzc.diagnostics import FileError, FrontendError, Location, UnsupportedError
from sqzc.frontends.onnx.external import ExternalData, refuse_external, tensors_of
from sqzc.frontends.onnx.table import NEWEST_OPSET, OLDEST_OPSET
from sqzc.frontends.onnx.tensors import Array, to_array

MAX_BYTES = (2 << 30) - 1  # protobuf itself goes no further
MAX_NODES = 100_000
MAX_TENSORS = 200_000
MAX_FUNCTIONS = 10_000

STANDARD_DOMAINS = ("", "ai.onnx")

EXPANDED = frozenset(
    {
        "AffineGrid",
        "CenterCropPad",
        "DynamicQuantizeLinear",
        "NegativeLogLikelihoodLoss",
        "SoftmaxCrossEntropyLoss",
    }
)
"""Operators that are lifted as the standard's own definition of them in terms of others."""

_FOREIGN = (
    (b"version https://git-lfs", "this is a Git LFS pointer, not the file it stands for: run `git lfs pull`"),
    (b"PK\x03\x04", "this is a zip archive, such as PyTorch's own format: export the model to ONNX"),
    (b"\x89HDF", "this is an HDF5 file"),
    (b"\x1f\x8b", "this is a gzip file"),
    (b"<", "this looks like a web page saved in place of the file"),
    (b"{", "this looks like JSON"),
)


@dataclass
class Model:
    """A model as read.

    `graph` is the main graph without its initializers, whose arrays are in `arrays`; `refused` says why an
    initializer has none. `outputs` are names with declared element types, 0 where there is none. `opset` is the
    operator set of the graph, `written` that of the file. `sha256` is that of the model file; `external` are the other
    files that were read.
    """

    graph: Any
    opset: int
    written: int
    file: str
    outputs: tuple[tuple[str, int], ...] = ()
    arrays: dict[str, Array] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    sha256: str = ""
    external: tuple[Path, ...] = ()
    notes: list[str] = field(default_factory=list)


def read_model(path: str | Path, *, allow_external_data: bool = False) -> Model:
    """Reads a model file. SqzcError for what is missing, too large or malformed."""
    data = _read_bytes(Path(path))
    proto = parse(data, str(path))
    model = check_model(proto, str(path), Path(path).parent if allow_external_data else None)
    model.sha256 = hashlib.sha256(data).hexdigest()
    return model


def _read_bytes(path: Path) -> bytes:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise FileError(f"{path} is not a regular file")
        if info.st_size > MAX_BYTES:
            raise FileError(f"{path} is too large", expected=f"at most {MAX_BYTES} bytes", got=str(info.st_size))
        with path.open("rb") as stream:
            data = stream.read(info.st_size + 1)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise FileError(f"cannot read {path}: {words}") from error
    if len(data) > info.st_size:
        raise FileError(f"{path} grew while it was read")
    if not data:
        raise FileError(f"{path} is empty")
    return data


def parse(data: bytes, file: str) -> Any:
    """The ModelProto; FrontendError for bytes that are none."""
    proto = onnx.ModelProto()
    words = "it has no nodes"
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        words = str(error)
    else:
        if proto.graph.node or proto.graph.output:
            return proto
    hint = next((text for magic, text in _FOREIGN if data[:64].lstrip().startswith(magic)), None)
    raise FrontendError(
        f"this is not an ONNX model, or a damaged one: {words}",
        location=Location(file),
        hint=hint or f"the file has {len(data)} bytes: is it complete?",
    )


def check_model(proto: Any, file: str, folder: Path | None = None) -> Model:
    """A parsed model as plain records; `proto` is used up on the way. External data is read below `folder` alone."""
    _check_text(proto, file)
    _check_counts(proto, file)
    refuse_external(proto.graph, file, but_initializers=folder is not None)
    for function in proto.functions:
        refuse_external(_as_graph(function), file)
    opset = _opset(proto, file)
    model = Model(proto.graph, opset, opset, file)
    _take_initializers(model, folder)
    _take_outputs(model)
    _check(proto, file)
    proto = _inlined(proto, file)
    if opset < OLDEST_OPSET:
        proto = _converted(proto, opset, file)
        model.notes.append(f"operator set {opset} was converted to {OLDEST_OPSET}")
        model.opset = OLDEST_OPSET
    proto = _expanded(proto, file)
    _check_counts(proto, file)
    model.graph = proto.graph
    return model


def _check_text(proto: Any, file: str) -> None:
    """FrontendError for a name that is no text: protobuf hands such a one on as bytes, or stumbles over it."""
    todo = [proto]
    try:
        while todo:
            for descriptor, value in todo.pop().ListFields():
                many = value if isinstance(value, MutableSequence) else [value]
                if descriptor.message_type is not None:
                    todo.extend(many)
                elif descriptor.type == descriptor.TYPE_STRING and any(isinstance(text, bytes) for text in many):
                    raise FrontendError("a name in the model is no UTF-8 text", location=Location(file))
    except UnicodeDecodeError as error:
        raise FrontendError("a name in the model is no UTF-8 text", location=Location(file)) from error


def _as_graph(function: Any) -> Any:
    return onnx.GraphProto(node=function.node)


def _check_counts(proto: Any, file: str) -> None:
    nodes = tensors = 0
    for graph in (proto.graph, *map(_as_graph, proto.functions)):
        tensors += sum(1 for _ in tensors_of(graph))
        nodes += _count_nodes(graph)
    for what, count, limit in (
        ("nodes", nodes, MAX_NODES),
        ("tensors", tensors, MAX_TENSORS),
        ("functions", len(proto.functions), MAX_FUNCTIONS),
    ):
        if count > limit:
            raise FrontendError(f"the model has {count} {what}", location=Location(file), expected=f"at most {limit}")


def _count_nodes(graph: Any) -> int:
    count, todo = 0, [graph]
    while todo:
        current = todo.pop()
        count += len(current.node)
        for node in current.node:
            for attr in node.attribute:
                todo.extend(attr.graphs)
                if attr.HasField("g"):
                    todo.append(attr.g)
    return count


def _opset(proto: Any, file: str) -> int:
    found = [entry.version for entry in proto.opset_import if entry.domain in STANDARD_DOMAINS]
    if not found and proto.opset_import:
        return NEWEST_OPSET  # only operators of other domains, which are refused one by one
    opset = int(max(found, default=1))
    newest = min(NEWEST_OPSET, onnx.defs.onnx_opset_version())
    if opset > newest:
        raise UnsupportedError(
            f"the model uses operator set {opset}",
            location=Location(file),
            expected=f"at most {newest}",
            hint=f"convert it with onnx.version_converter.convert_version(model, {newest})",
        )
    if opset < 1:
        raise FrontendError(f"the model uses operator set {opset}", location=Location(file))
    return opset


def _take_initializers(model: Model, folder: Path | None) -> None:
    """Moves the initializers out of the graph; names that were no inputs become some, so that the rest stays whole."""
    graph, file = model.graph, model.file
    elsewhere = None if folder is None else ExternalData(folder, file)
    inputs = {info.name for info in graph.input}
    for tensor in graph.initializer:
        what = f"initializer '{tensor.name}'"
        if tensor.name in model.arrays or tensor.name in model.refused or not tensor.name:
            raise FrontendError(f"{what} is given twice or has no name", location=Location(file))
        try:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                assert elsewhere is not None, "external data should have been refused"
                model.arrays[tensor.name] = elsewhere.read(tensor, what)
            else:
                model.arrays[tensor.name] = to_array(tensor, what)
        except UnsupportedError as error:
            model.refused[tensor.name] = error.message
        except FrontendError as error:
            error.location = error.location or Location(file)
            raise
        if tensor.name not in inputs:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    del graph.initializer[:]
    model.external = () if elsewhere is None else tuple(elsewhere.files)
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise UnsupportedError(f"initializer '{name}' is sparse", location=Location(file))


def _take_outputs(model: Model) -> None:
    """Notes the outputs, and completes them: a shape that is not written down is no fault here, but is to the checker.

    Types of intermediate results are dropped, as they are not relied on.
    """
    graph = model.graph
    model.outputs = tuple((str(info.name), int(info.type.tensor_type.elem_type)) for info in graph.output)
    for info in graph.output:
        tensor = info.type.tensor_type
        if info.type.WhichOneof("value") in (None, "tensor_type") and not (
            tensor.elem_type and tensor.HasField("shape")
        ):
            elem_type = tensor.elem_type or onnx.TensorProto.FLOAT
            info.CopyFrom(helper.make_tensor_value_info(info.name, elem_type, []))
    del graph.value_info[:]


def _check(proto: Any, file: str) -> None:
    try:
        checker.check_model(proto)
    except checker.ValidationError as error:
        raise FrontendError(f"the model is malformed: {_first_line(error)}", location=Location(file)) from error
    except (RuntimeError, ValueError) as error:
        raise FrontendError(f"the model cannot be checked: {_first_line(error)}", location=Location(file)) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


def _inlined(proto: Any, file: str) -> Any:
    """The model without functions of its own."""
    if not proto.functions:
        return proto
    _check_expansion(proto, file)
    try:
        return inliner.inline_local_functions(proto, convert_version=False)
    except (RuntimeError, ValueError) as error:
        words = f"the model's own functions cannot be inlined: {_first_line(error)}"
        raise UnsupportedError(words, location=Location(file)) from error


def _check_expansion(proto: Any, file: str) -> None:
    """FrontendError when functions call each other in a circle, or so often that the graph would be too large."""
    functions = {(function.domain, function.name): function for function in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    active: set[tuple[str, str]] = set()

    def size(key: tuple[str, str]) -> int:
        if key not in sizes:
            if key in active or len(active) > 100:
                words = "call each other in a circle" if key in active else "are nested too deeply"
                raise FrontendError(f"the model's functions {words}: {key[1]}", location=Location(file))
            active.add(key)
            sizes[key] = total(_as_graph(functions[key]))
            active.discard(key)
        return sizes[key]

    def total(graph: Any) -> int:
        count, todo = 0, [graph]
        while todo:
            current = todo.pop()
            for node in current.node:
                key = (node.domain, node.op_type)
                count += size(key) if key in functions else 1
                for attr in node.attribute:
                    todo.extend(attr.graphs)
                    if attr.HasField("g"):
                        todo.append(attr.g)
                if count > MAX_NODES:
                    raise FrontendError(
                        "the model's functions would be too many nodes",
                        location=Location(file),
                        expected=f"at most {MAX_NODES}",
                    )
        return count

    total(proto.graph)


def _converted(proto: Any, opset: int, file: str) -> Any:
    try:
        return version_converter.convert_version(proto, OLDEST_OPSET)
    except (RuntimeError, ValueError) as error:
        raise UnsupportedError(
            f"the model uses operator set {opset}, and cannot be brought to {OLDEST_OPSET}: {_first_line(error)}",
            location=Location(file),
            expected=f"operator set {OLDEST_OPSET} or newer",
        ) from error


def _expanded(proto: Any, file: str) -> Any:
    """The model with the operators of EXPANDED written out."""
    used = {node.op_type for node in proto.graph.node if node.domain in STANDARD_DOMAINS} & EXPANDED
    if not used:
        return proto
    try:
        return inliner.inline_selected_functions(
            proto, [("", name) for name in sorted(EXPANDED)], inline_schema_functions=True
        )
    except (RuntimeError, ValueError) as error:
        words = f"{', '.join(sorted(used))} cannot be written out in simpler operators: {_first_line(error)}"
        raise UnsupportedError(words, location=Location(file)) from error
