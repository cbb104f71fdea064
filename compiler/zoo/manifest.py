"""The published facts about each zoo model, read from `models.toml` beside this file."""

from __future__ import annotations

import functools
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from sqzc.diagnostics import ZooError, nearest

_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class FileEntry:
    """One published file."""

    name: str
    role: str
    """`graph` for the network's structure, `weights` for its parameters."""
    bytes: int
    sha256: str
    sha384: str
    urls: tuple[str, ...]
    """Where it is published, in the order to try."""


@dataclass(frozen=True)
class InputEntry:
    """The network's input, which its files do not describe."""

    name: str
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    """What is to be subtracted from pixel values 0..255, per channel in `channel_order`."""
    channel_order: str


@dataclass(frozen=True)
class ModelEntry:
    """One model of the zoo."""

    name: str
    description: str
    licence: str
    licence_url: str
    input: InputEntry
    output: str
    files: tuple[FileEntry, ...]
    labels: str | None = None
    """The name of a file with the class names, used when a model's folder has one; it is not published."""


Manifest = Mapping[str, ModelEntry]


@functools.cache
def published() -> Manifest:
    """The models that this version of sqzc knows, by name."""
    return parse_manifest(resources.files("sqzc.zoo").joinpath("models.toml").read_text(encoding="utf-8"))


def parse_manifest(text: str) -> Manifest:
    """The models in a manifest's TOML text. The text is part of sqzc: a mistake in it is a bug, not the user's."""
    return {table["name"]: _model(table) for table in tomllib.loads(text)["model"]}


def look_up(name: str, manifest: Manifest) -> ModelEntry:
    """The entry called `name`; raises ZooError with the nearest name and the whole list when there is none."""
    entry = manifest.get(name)
    if entry is None:
        raise ZooError(
            f"the zoo has no model '{name}'",
            expected=f"one of {', '.join(sorted(manifest))}",
            hint=nearest(name, manifest),
        )
    return entry


@dataclass(frozen=True)
class FileCheck:
    """How a file on disk compares with the published one."""

    bytes: int
    sha256: str
    matches: bool
    """Size and both checksums are the published ones."""


def check_file(path: Path, entry: FileEntry) -> FileCheck:
    """Reads the file once and compares it with `entry`. Raises OSError when it cannot be read."""
    tally = Tally()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            tally.add(chunk)
    return tally.compare(entry)


class Tally:
    """Size and checksums of bytes that come in pieces."""

    def __init__(self) -> None:
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self._sha384 = hashlib.sha384()

    def add(self, chunk: bytes) -> None:
        """Takes the next piece."""
        self.bytes += len(chunk)
        self._sha256.update(chunk)
        self._sha384.update(chunk)

    def compare(self, entry: FileEntry) -> FileCheck:
        """What has come so far against the published file."""
        sha256 = self._sha256.hexdigest()
        matches = (self.bytes, sha256, self._sha384.hexdigest()) == (entry.bytes, entry.sha256, entry.sha384)
        return FileCheck(self.bytes, sha256, matches)


def _model(table: dict[str, Any]) -> ModelEntry:
    described = table["input"]
    return ModelEntry(
        name=table["name"],
        description=table["description"],
        licence=table["licence"],
        licence_url=table["licence-url"],
        input=InputEntry(
            name=described["name"],
            shape=tuple(described["shape"]),
            mean=tuple(described["mean"]),
            channel_order=described["channel-order"],
        ),
        output=table["output"],
        files=tuple(_file(file) for file in table["file"]),
        labels=table.get("labels"),
    )


def _file(table: dict[str, Any]) -> FileEntry:
    assert table["role"] in ("graph", "weights"), table["role"]
    assert Path(table["name"]).name == table["name"], table["name"]
    return FileEntry(**{**table, "urls": tuple(table["urls"])})
