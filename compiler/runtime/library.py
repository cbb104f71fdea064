"""From a shared library, or from the addresses of functions made in process, to typed functions that can be called.

No function of the library runs here but `abi_version`, `metadata` and `strerror`, which use no wide instructions.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqzc.diagnostics import LibraryError, Location
from sqzc.runtime.abi import ABI_VERSION, FUNCTION_NAMES, LOADER_PREFIX, Status
from sqzc.runtime.metadata import Metadata, loads

_Pointers = ctypes.POINTER(ctypes.c_void_p)

_PROTOTYPES: dict[str, Any] = {
    "abi_version": ctypes.CFUNCTYPE(ctypes.c_int32),
    "metadata": ctypes.CFUNCTYPE(ctypes.c_char_p),
    "create": ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int32),
    "run": ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, _Pointers, _Pointers),
    "destroy": ctypes.CFUNCTYPE(None, ctypes.c_void_p),
    "workspace_bytes": ctypes.CFUNCTYPE(ctypes.c_size_t),
    "run_in": ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, _Pointers, _Pointers),
    "strerror": ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_int32),
}
"""Calls through these let go of the interpreter lock, so handles in different Python threads compute at once."""


@dataclass(frozen=True)
class Functions:
    """The functions of one compiled model, ready to call, and whatever keeps their code in memory."""

    abi_version: Callable[[], int]
    metadata: Callable[[], bytes]
    create: Callable[[Any, int], int]
    run: Callable[[Any, int, Any, Any], int]
    destroy: Callable[[Any], None]
    workspace_bytes: Callable[[], int]
    run_in: Callable[[Any, int, Any, Any], int]
    strerror: Callable[[int], bytes]
    origin: str
    keepalive: object

    @classmethod
    def from_addresses(cls, addresses: Mapping[str, int], keepalive: object, origin: str) -> Functions:
        """`addresses` maps every name of `abi.FUNCTION_NAMES` to where the function's code is.

        The code must be that of a compiled model and stay there as long as `keepalive` lives; a wrong address crashes
        the process. `origin` names the model in messages.
        """
        bound = {name: prototype(addresses[name]) for name, prototype in _PROTOTYPES.items()}
        return cls(**bound, origin=origin, keepalive=keepalive)

    def explain(self, status: int) -> str:
        """The library's own words for a status code."""
        return (self.strerror(status) or b"no text").decode("utf-8", "replace")

    def read_metadata(self) -> Metadata:
        """Checks the ABI version, then reads what the model says about itself. Raises LibraryError."""
        version = self.abi_version()
        if version != ABI_VERSION:
            raise LibraryError(
                "the library was built for another version of sqzc's ABI",
                location=Location(self.origin),
                expected=f"ABI version {ABI_VERSION}",
                got=f"ABI version {version}",
                hint="compile the model again with this version of sqzc",
            )
        return loads(self.metadata() or b"", self.origin)

    def check(self, status: int, doing: str) -> None:
        """Raises LibraryError with the library's own words unless `status` is OK."""
        if status == Status.OK:
            return
        hint = "compile the model with --target native on this machine" if status == Status.ERR_CPU else None
        raise LibraryError(
            f"{doing} failed: {self.explain(status)} (status {status})",
            location=Location(self.origin),
            hint=hint,
        )


class _Generations:
    """How often the file behind each path was seen to change, so that a new file is never mistaken for the old one.

    The dynamic loader knows a library by the text of its path and answers with what it has already loaded, even when
    another file has been moved to that path since. A changed file is therefore asked for under another spelling of
    its path, with one `/.` more each time; an unchanged file keeps its spelling and its pages are shared.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[tuple[int, ...], int]] = {}

    def spelling(self, path: Path) -> str:
        facts = path.stat()
        identity = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        known = self._seen.get(path)
        if known is None:
            generation = 0
        else:
            generation = known[1] if known[0] == identity else known[1] + 1
        self._seen[path] = (identity, generation)
        return f"{path.parent}{'/.' * generation}/{path.name}"


_generations = _Generations()


def open_library(path: str | os.PathLike[str]) -> Functions:
    """The functions of the library at `path`, with its ABI not yet checked.

    Raises LibraryError when the file is missing, is no shared library for this machine, or was not made by sqzc.
    """
    absolute = Path(os.path.abspath(path))
    origin = str(absolute)
    if not absolute.is_file():
        words = "is not a file" if absolute.exists() else "does not exist"
        raise LibraryError(
            f"the library {words}", location=Location(origin), hint="sqzc compile MODEL -o OUT makes one"
        )
    try:
        library = ctypes.CDLL(_generations.spelling(absolute))
    except OSError as error:
        raise LibraryError(
            "the file cannot be loaded as a shared library",
            location=Location(origin),
            expected="a shared library for this machine",
            got=str(error),
        ) from error
    addresses = {}
    for name in FUNCTION_NAMES:
        symbol = f"{LOADER_PREFIX}_{name}"
        try:
            function = getattr(library, symbol)
        except AttributeError as error:
            raise LibraryError(
                "the file is a shared library, but not one that sqzc compiled",
                location=Location(origin),
                expected=f"an exported function {symbol}",
                got="none",
            ) from error
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None, f"{symbol} resolved to NULL"
        addresses[name] = address
    return Functions.from_addresses(addresses, library, origin)
