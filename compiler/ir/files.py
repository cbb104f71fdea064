"""Graphs on disk: a `.sqz` text file with its weights in a `.safetensors` file beside it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import safetensors.numpy
from safetensors import SafetensorError, safe_open

from sqzc.diagnostics import FileError, Location
from sqzc.ir.constant import Array, Constant
from sqzc.ir.graph import Graph
from sqzc.ir.lexer import MAX_TEXT
from sqzc.ir.parser import parse_graph
from sqzc.ir.printer import print_graph

SHARED_WEIGHTS = "weights.safetensors"
MAX_WEIGHTS = 8 << 30


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file that becomes `path` when the block ends well and vanishes otherwise; FileError on failure."""
    try:
        handle = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)
    except OSError as error:
        raise FileError(
            f"cannot write {path}", got=error.strerror, hint="check that the folder exists and is writable"
        ) from None
    try:
        with handle:
            yield handle
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(handle.name, 0o666 & ~umask)
        os.replace(handle.name, path)
    except BaseException as error:
        Path(handle.name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FileError(f"cannot write {path}", got=error.strerror) from None
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a whole text file or nothing."""
    with replacing(path) as handle:
        handle.write(text.encode())


def read_text(path: Path) -> str:
    """The text of a file that may hold text IR; FileError when it cannot be read or is too large or no text."""
    try:
        if path.stat().st_size > MAX_TEXT:
            raise FileError(f"{path} is too large for text IR", expected=f"at most {MAX_TEXT} bytes")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot read {path}", got=error.strerror) from None
    except UnicodeDecodeError:
        raise FileError(f"{path} is not text IR", expected="UTF-8 text") from None


def weights_of(*graphs: Graph) -> dict[str, Array]:
    """The arrays that the text of the graphs leaves out, by key."""
    return stored_arrays(v.constant for graph in graphs for v in graph.constants if v.constant is not None)


def stored_arrays(constants: Iterable[Constant]) -> dict[str, Array]:
    """The arrays of those constants that do not stand in the text, by key."""
    return {constant.key: constant.data for constant in constants if not constant.is_inline}


def save_weights(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes a weights file whose bytes depend on names and data only."""
    with replacing(path) as handle:
        handle.write(safetensors.numpy.save({name: arrays[name] for name in sorted(arrays)}))


def save_graph(graph: Graph, path: Path, *, weights: bool = True) -> None:
    """Writes the text, and beside it `<stem>.safetensors` unless `weights` is False."""
    if weights:
        save_weights(path.with_suffix(".safetensors"), weights_of(graph))
    write_text(path, print_graph(graph))


def load_graph(path: Path) -> Graph:
    """Reads a `.sqz` file; weights come from `<stem>.safetensors` or `weights.safetensors` in its own folder."""
    files = [path.with_suffix(".safetensors"), path.parent / SHARED_WEIGHTS]
    return parse_graph(read_text(path), WeightStore(files), str(path))


class WeightStore:
    """Looks constants up in those of the weights files that exist, reading only the arrays asked for."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.handles = []
        for file in files:
            if not file.is_file():
                continue
            if file.stat().st_size > MAX_WEIGHTS:
                raise FileError(f"{file} is too large", expected=f"at most {MAX_WEIGHTS} bytes")
            try:
                handle = safe_open(str(file), framework="numpy")
            except (SafetensorError, OSError) as error:
                raise FileError("not a readable weights file", location=Location(str(file)), got=str(error)) from None
            keys = set(handle.keys())  # type: ignore[no-untyped-call]
            self.handles.append((file, handle, keys))

    def __call__(self, symbol: str, sha: str) -> Array | None:
        for wanted in (f"{symbol}#{sha}", symbol):
            for file, handle, keys in self.handles:
                if wanted in keys:
                    try:
                        data: Array = handle.get_tensor(wanted)  # type: ignore[no-untyped-call]
                    except SafetensorError as error:
                        raise FileError(f"{file} is damaged", got=str(error)) from None
                    return data
        return None
