"""Weights kept outside the model file: refused unless asked for, and then only from regular files below its folder.

Nothing else named in a model file is ever opened. A path that leaves the folder, by `..`, by being absolute or through
a symbolic link, is refused before it is looked at any further.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from onnx import TensorProto

from sqzc.diagnostics import FileError, FrontendError, Location
from sqzc.frontends.onnx.tensors import Array, dims_of, require_dtype

MAX_EXTERNAL_BYTES = 8 << 30  # of all weights of a model together


def tensors_of(graph: Any) -> Iterator[tuple[str, Any]]:
    """(what it is, TensorProto) of every tensor in a graph, those in attributes and branches included."""
    todo = [graph]
    while todo:
        current = todo.pop()
        for tensor in current.initializer:
            yield f"initializer '{tensor.name}'", tensor
        for sparse in current.sparse_initializer:
            yield f"sparse initializer '{sparse.values.name}'", sparse.values
        for node in current.node:
            for attr in node.attribute:
                if attr.HasField("t"):
                    yield f"attribute '{attr.name}' of node '{node.name}'", attr.t
                for tensor in attr.tensors:
                    yield f"attribute '{attr.name}' of node '{node.name}'", tensor
                if attr.HasField("g"):
                    todo.append(attr.g)
                todo.extend(attr.graphs)


def refuse_external(graph: Any, file: str, *, but_initializers: bool = False) -> None:
    """FrontendError for the first tensor whose data is elsewhere; with `but_initializers` the graph's own may be."""
    skipped = len(graph.initializer) if but_initializers else 0
    # The graph's own initializers come first.
    for index, (what, tensor) in enumerate(tensors_of(graph)):
        if (tensor.data_location == TensorProto.EXTERNAL or tensor.external_data) and index >= skipped:
            words = "which only an initializer may have" if but_initializers else "which is not read unless asked for"
            ask = "--external-data (in Python external_data=True) reads it, from below the model's folder only"
            hint = None if but_initializers else ask
            raise FrontendError(f"{what} has its data in another file, {words}", location=Location(file), hint=hint)


@dataclass
class ExternalData:
    """What the initializers of the model in `file` keep in files below `folder`; `files` are those read so far."""

    folder: Path
    file: str
    files: list[Path] = field(default_factory=list)
    bytes: int = 0

    def read(self, tensor: Any, what: str) -> Array:
        """The data of one initializer."""
        where = Location(self.file, what)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        dtype, dims = require_dtype(tensor.data_type, what), dims_of(tensor, what)
        wanted = math.prod(dims) * dtype.item_bytes
        offset, length = _number(entries, "offset", 0, where), _number(entries, "length", wanted, where)
        if length != wanted:
            raise FrontendError(
                "the external data does not fit", location=where, expected=f"{wanted} bytes", got=str(length)
            )
        self.bytes += wanted
        if self.bytes > MAX_EXTERNAL_BYTES:
            limit = f"at most {MAX_EXTERNAL_BYTES} bytes in one model"
            raise FrontendError("too much external data", location=where, expected=limit, got=f"{self.bytes} or more")
        path = _below(self.folder, entries.get("location", ""), where)
        data = _read(path, offset, wanted, where)
        if path not in self.files:
            self.files.append(path)
        return np.frombuffer(data, dtype.numpy.newbyteorder("<")).astype(dtype.numpy, copy=False).reshape(dims)


def _read(path: Path, offset: int, wanted: int, where: Location) -> bytes:
    try:
        # O_NOFOLLOW: the last part of the path is looked up again here, and must still be the file that was checked.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as stream:
            info = os.fstat(stream.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise FileError(f"{path} is not a regular file", location=where)
            if offset + wanted > info.st_size:
                raise FrontendError(
                    f"{path} is too short", location=where, expected=f"{offset + wanted} bytes", got=str(info.st_size)
                )
            stream.seek(offset)
            data = stream.read(wanted)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}", location=where) from error
    if len(data) != wanted:
        raise FrontendError(f"{path} changed while it was read", location=where)
    return data


def _number(entries: dict[str, str], key: str, default: int, where: Location) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise FrontendError(f"external data with {key} '{text[:40]}'", location=where, expected="a whole number")
    return int(text)


def _below(folder: Path, name: str, where: Location) -> Path:
    """The file `name` below `folder`; FrontendError when it may lie anywhere else."""
    parts = PurePosixPath(name.replace("\\", "/"))
    bad = not name or "\0" in name or parts.is_absolute() or ".." in parts.parts or ":" in name
    if not bad:
        try:
            root = folder.resolve(strict=True)
            path = root
            for part in parts.parts:
                path = path / part
                # A link may point anywhere, also after this check: none is followed, wherever it points.
                bad = bad or path.is_symlink()
        except OSError as error:
            raise FileError(f"cannot look for '{name}' in {folder}: {error}", location=where) from error
    if bad:
        raise FrontendError(
            f"external data in '{name[:80]}' is refused",
            location=where,
            expected="a path below the model's folder, without '..' and links",
        )
    return path
