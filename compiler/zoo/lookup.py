"""Finding the files of a zoo model: local folders first, then the user's cache, then the published addresses.

A local folder is the user's own: a file there that is not the published one is used, with a warning. What comes over
the network is used only when it is the published file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from sqzc.diagnostics import ZooError
from sqzc.zoo.fetch import Progress, fetch
from sqzc.zoo.manifest import FileEntry, Manifest, ModelEntry, check_file, look_up, published


@dataclass(frozen=True)
class FoundFile:
    """One file of a model on this machine."""

    path: Path
    sha256: str
    verified: bool
    """Whether it is the published file."""


@dataclass(frozen=True)
class ZooModel:
    """A zoo model whose files are on this machine."""

    entry: ModelEntry
    where: str
    """`model-dir`, `search-path`, `cache` or `network`."""
    folder: Path
    files: dict[str, FoundFile]
    """By published name."""
    warnings: tuple[str, ...]
    """One line for each file that is not the published one; the caller shows them."""
    labels: Path | None
    """The file with the class names, when the folder has one."""

    @property
    def paths(self) -> dict[str, Path]:
        """Where each file is, by its published name."""
        return {name: file.path for name, file in self.files.items()}

    @property
    def verified(self) -> bool:
        """Whether every file is the published one."""
        return all(file.verified for file in self.files.values())


def default_cache_dir() -> Path:
    """The folder in which downloaded models are kept, one folder each."""
    return platformdirs.user_cache_path("sqzc", appauthor=False) / "models"


def find(
    name: str,
    model_dir: Path | None = None,
    search_path: Sequence[Path] = (),
    cache_dir: Path | None = None,
    allow_network: bool = True,
    progress: Progress | None = None,
    *,
    weights: bool = True,
    manifest: Manifest | None = None,
) -> ZooModel:
    """The files of the zoo model `name`, from the first place that has them all.

    `model_dir` is a model's own folder or one that holds model folders; the folders of `search_path` hold model
    folders. `weights=False` asks for the network's structure alone. `progress` counts the bytes of all files that are
    downloaded. Raises ZooError for an unknown name, and when no place has the files: it then says which places were
    looked at, what was wrong with each, and which checksums were expected.
    """
    entry = look_up(name, published() if manifest is None else manifest)
    wanted = [file for file in entry.files if weights or file.role == "graph"]
    tried = _Tried()
    local = [] if model_dir is None else [("model-dir", model_dir / name), ("model-dir", model_dir)]
    local += [("search-path", folder / name) for folder in search_path]
    for where, folder in local:
        if tried.holds(folder, wanted):
            return _describe(entry, where, folder, wanted)
    cache = (default_cache_dir() if cache_dir is None else cache_dir) / name
    if tried.holds(cache, wanted):
        cached = _describe(entry, "cache", cache, wanted)
        if cached.verified:
            return cached
        tried.replace_last("damaged")
    if not allow_network:
        tried.add("the published addresses", "not asked, the network is not to be used")
        raise _not_found(entry, wanted, tried)
    try:
        _fetch_all(wanted, cache, progress)
    except ZooError as error:
        tried.add("the published addresses", error.message)
        raise _not_found(entry, wanted, tried) from error
    return _describe(entry, "network", cache, wanted)


@dataclass
class _Tried:
    """The places looked at so far, each with what was wrong with it."""

    places: list[tuple[str, str]] = field(default_factory=list)

    def add(self, place: str, fault: str) -> None:
        self.places.append((place, fault))

    def replace_last(self, fault: str) -> None:
        self.places[-1] = (self.places[-1][0], fault)

    def holds(self, folder: Path, wanted: Sequence[FileEntry]) -> bool:
        """Whether `folder` has all the files; notes it, and what it lacks."""
        missing = [file.name for file in wanted if not (folder / file.name).is_file()]
        if not folder.is_dir():
            self.add(str(folder), "no such folder")
        else:
            self.add(str(folder), f"no {', no '.join(missing)}" if missing else "")
        return not missing


def _describe(entry: ModelEntry, where: str, folder: Path, wanted: Sequence[FileEntry]) -> ZooModel:
    """The model in `folder`, which has all the files, with each file compared with the published one."""
    files, warnings = {}, []
    for file in wanted:
        path = folder / file.name
        try:
            check = check_file(path, file)
        except OSError as error:
            raise ZooError(f"'{path}' cannot be read: {error.strerror}") from error
        files[file.name] = FoundFile(path, check.sha256, check.matches)
        if not check.matches:
            warnings.append(
                f"{path} is unverified: it is not the published file"
                f" ({check.bytes} bytes, sha256 {check.sha256[:12]}...;"
                f" published {file.bytes} bytes, sha256 {file.sha256[:12]}...)"
            )
    labels = folder / entry.labels if entry.labels else None
    has_labels = labels is not None and labels.is_file()
    return ZooModel(entry, where, folder, files, tuple(warnings), labels if has_labels else None)


def _fetch_all(wanted: Sequence[FileEntry], folder: Path, progress: Progress | None) -> None:
    """Downloads what is missing or damaged; `progress` sees the files as one."""
    total = sum(file.bytes for file in wanted)
    before = 0
    for file in wanted:

        def count(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        fetch(file, folder, count)
        before += file.bytes
    if progress is not None:
        progress(total, total)


def _not_found(entry: ModelEntry, wanted: Sequence[FileEntry], tried: _Tried) -> ZooError:
    looked = "".join(f"\n  {place}: {fault}" for place, fault in tried.places)
    expected = "".join(
        f"\n    {file.name}: {file.bytes} bytes\n      sha256 {file.sha256}\n      sha384 {file.sha384}"
        for file in wanted
    )
    hint = "--model-dir DIR names a folder that has the files"
    if any(file.role == "weights" for file in wanted):
        hint += "; --weights random compiles the network with random weights"
    return ZooError(f"the files of '{entry.name}' were found nowhere; looked in{looked}", expected=expected, hint=hint)
