"""Finding and reading Caffe2 model files: bytes on disk in, checked records out.

A model is a folder with `predict_net.pb` and `init_net.pb` (or their `.pbtxt` forms) and perhaps a `value_info.json`,
or the path of a predict net with the init net beside it. Nothing named inside a file is ever opened.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from sqzc.diagnostics import FileError, FrontendError, Location
from sqzc.frontends.caffe2 import caffe2_pb2
from sqzc.frontends.caffe2.model import Net, net_from_message, numpy_dtype
from sqzc.frontends.caffe2.wire import check_counts
from sqzc.ir.types import DType, TensorType

MAX_PREDICT_BYTES = 64 << 20
MAX_INIT_BYTES = (2 << 30) - 1  # protobuf itself goes no further
MAX_TEXT_BYTES = 64 << 20
MAX_VALUE_INFO_BYTES = 1 << 20
MAX_OPS = 100_000
MAX_ARGS = 1_000_000
MAX_DIMS = 8

PREDICT_NAMES = ("predict_net.pb", "predict_net.pbtxt")
INIT_NAMES = ("init_net.pb", "init_net.pbtxt")
_TEXT_SUFFIXES = (".pbtxt", ".prototxt", ".txt")

_FOREIGN = (
    (b"version https://git-lfs", "this is a Git LFS pointer, not the file it stands for: run `git lfs pull`"),
    (b"PK\x03\x04", "this is a zip archive"),
    (b"\x89HDF", "this is an HDF5 file"),
    (b"\x1f\x8b", "this is a gzip file"),
    (b"\x08", "an ONNX model should have the suffix .onnx"),
    (b"<", "this looks like a web page saved in place of the file"),
    (b"{", "this looks like JSON"),
)


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model; `init` and `value_info` are None where there is none."""

    predict: Path
    init: Path | None
    value_info: Path | None


@dataclass(frozen=True)
class Model:
    """A model as read: its nets, what is known of its inputs, and the SHA-256 of every file by role."""

    predict: Net
    init: Net | None
    input_types: dict[str, TensorType]
    sha256: dict[str, str]


def find_files(model: str | Path, init: str | Path | None = None) -> ModelFiles:
    """Resolves a folder or the path of a predict net; FileError naming what was looked for.

    Without `init` the init net is looked for beside the predict net: `init_net.pb`, `init_net.pbtxt`, or the predict
    net's own name with `init` for `predict`. Its absence is no error here.
    """
    path = Path(model)
    try:
        return _find(path, init)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot look for a model at {path}: {error}") from error


def _find(path: Path, init: str | Path | None) -> ModelFiles:
    if path.is_dir():
        predict = _first(path, PREDICT_NAMES)
        if predict is None:
            raise FileError(
                f"no Caffe2 net in folder {path}",
                expected=" or ".join(PREDICT_NAMES),
                hint="give the predict net's path",
            )
    else:
        predict = path
        if not path.exists():
            raise FileError(f"there is no file or folder {path}")
    folder = predict.parent
    if init is None:
        swapped = predict.name.replace("predict", "init")
        candidates = (swapped, *INIT_NAMES) if swapped != predict.name else INIT_NAMES
        init_path = _first(folder, candidates)
    else:
        init_path = Path(init)
        if init_path.is_dir():
            init_path = _first(init_path, INIT_NAMES) or init_path / INIT_NAMES[0]
    return ModelFiles(predict, init_path, _first(folder, ("value_info.json",)))


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def load_model(model: str | Path, init: str | Path | None = None) -> Model:
    """Reads all files of a model. SqzcError for what is missing, too large or malformed."""
    files = find_files(model, init)
    data = read_bytes(files.predict, MAX_PREDICT_BYTES)
    predict = parse_net(data, str(files.predict))
    digests = {"predict_net": hashlib.sha256(data).hexdigest()}
    init_net = None
    if files.init is not None:
        data = read_bytes(files.init, MAX_INIT_BYTES)
        digests["init_net"] = hashlib.sha256(data).hexdigest()
        init_net = parse_net(data, str(files.init), may_be_empty=True)
        del data
    types = read_value_info(files.value_info) if files.value_info is not None else {}
    return Model(predict, init_net, types, digests)


def read_bytes(path: Path, limit: int) -> bytes:
    """Contents of a regular file of 1 to `limit` bytes; FileError otherwise."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise FileError(f"{path} is not a regular file")
        if info.st_size > limit:
            raise FileError(f"{path} is too large", expected=f"at most {limit} bytes", got=str(info.st_size))
        with path.open("rb") as stream:
            # One byte more than the file had: reading up to the limit would allocate all of it.
            data = stream.read(info.st_size + 1)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    if not data:
        raise FileError(f"{path} is empty")
    if len(data) > info.st_size:
        raise FileError(f"{path} grew while it was read")
    return data


def parse_net(data: bytes, file: str, *, may_be_empty: bool = False) -> Net:
    """A binary or text NetDef; FrontendError for anything else.

    A net without operators is refused too, but with `may_be_empty` only if it looks like some other kind of file.
    """
    message = caffe2_pb2.NetDef()
    if _is_text(data, file):
        _parse_text(data, file, message)
    else:
        _parse_binary(data, file, message)
    if not message.op and not (may_be_empty and message.name and _is_all_known(message)):
        raise FrontendError(
            "this is not a Caffe2 net: it has no operators", location=Location(file), hint=_foreign_hint(data)
        )
    return net_from_message(message, file)


def _is_all_known(message: Any) -> bool:
    """Whether the message had no field but those of the format."""
    size: int = message.ByteSize()
    message.DiscardUnknownFields()
    return bool(size == message.ByteSize())


def _is_text(data: bytes, file: str) -> bool:
    """Whether the file is a text net. A binary one has the byte 0x12 (an operator's tag) early on, text never does."""
    if file.endswith(_TEXT_SUFFIXES):
        return True
    return all(byte >= 0x20 or byte in b"\t\r\n" for byte in data[:4096])


def _parse_binary(data: bytes, file: str, message: Any) -> None:
    try:
        check_counts(memoryview(data), MAX_OPS, MAX_ARGS)
        message.ParseFromString(data)
    except (FrontendError, DecodeError) as error:
        words = error.message if isinstance(error, FrontendError) else str(error)
        raise FrontendError(
            f"this is not a Caffe2 net, or a damaged one: {words}",
            location=Location(file),
            hint=_foreign_hint(data) or f"the file has {len(data)} bytes: is it complete?",
        ) from error


def _parse_text(data: bytes, file: str, message: Any) -> None:
    if len(data) > MAX_TEXT_BYTES:
        raise FrontendError(
            "the text net is too large", location=Location(file), expected=f"at most {MAX_TEXT_BYTES} bytes"
        )
    try:
        text_format.Parse(data.decode("utf-8"), message)
    except UnicodeDecodeError as error:
        raise FrontendError("the text net is not UTF-8", location=Location(file)) from error
    except (text_format.ParseError, RecursionError, ValueError) as error:
        # ValueError: numbers out of the range of their field reach the message unchecked.
        words = str(error) or type(error).__name__
        raise FrontendError(
            f"this is not a Caffe2 text net: {words}", location=Location(file), hint=_foreign_hint(data)
        ) from error
    if len(message.op) > MAX_OPS:
        raise FrontendError(f"the net has more than {MAX_OPS} operators", location=Location(file))


def _foreign_hint(data: bytes) -> str | None:
    head = data[:64].lstrip()
    return next((words for magic, words in _FOREIGN if head.startswith(magic)), None)


def read_value_info(path: Path) -> dict[str, TensorType]:
    """Input types from `value_info.json`: {"data": [1, [1, 3, 227, 227]]}, where 1 is Caffe2's number for float32."""
    where = Location(str(path))
    data = read_bytes(path, MAX_VALUE_INFO_BYTES)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FrontendError(f"value_info.json is not valid JSON: {error}", location=where) from error
    if not isinstance(content, dict):
        raise FrontendError("value_info.json holds no object", location=where)
    types = {}
    for name, entry in content.items():
        good = isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is int and isinstance(entry[1], list)
        dtype = numpy_dtype(entry[0]) if good else None
        if dtype is None:
            raise FrontendError(
                f"value_info.json: entry '{name}'",
                location=where,
                expected="[data type, [dimensions]]",
                got=repr(entry),
            )
        types[name] = TensorType(DType.of(np.dtype(dtype)), check_dims(entry[1], f"the shape of '{name}'", where))
    return types


def check_dims(dims: object, what: str, where: Location | None) -> tuple[int, ...]:
    """A shape of at most 8 positive dimensions whose element count the IR can hold; FrontendError otherwise."""
    good = isinstance(dims, list | tuple) and len(dims) <= MAX_DIMS and all(type(d) is int and d > 0 for d in dims)
    if not good:
        raise FrontendError(
            f"{what} is no shape", location=where, expected=f"up to {MAX_DIMS} positive whole numbers", got=repr(dims)
        )
    assert isinstance(dims, list | tuple)
    elements = 1
    for dim in dims:
        elements *= dim
    if elements > 1 << 31:
        raise FrontendError(f"{what} has {elements} elements", location=where, expected=f"at most {1 << 31}")
    return tuple(dims)
