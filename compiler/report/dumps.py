"""Reading a folder that `--dump-ir` wrote.

The folder may come from anywhere: names in its index are only followed when they are those that a dump writes, and
everything else in it is checked before it is believed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqzc.diagnostics import FileError, Location
from sqzc.ir.files import SHARED_WEIGHTS, WeightStore, read_text
from sqzc.ir.graph import Graph
from sqzc.ir.parser import parse_graph
from sqzc.plan.program import Program
from sqzc.plan.text import parse_program

INDEX = "index.json"
PAGE = "index.html"

MAX_ENTRIES = 10_000
_FILE = re.compile(r"\d{2,}-[a-z0-9-]+\.(sqz|txt|ll|s)")


@dataclass(frozen=True)
class PassEntry:
    """One run of a pass. `file` is the graph that it left, None when it changed nothing.

    `check` is what `--verify-passes` measured, empty where it did not: `relative`, the largest difference to any value
    over that value's largest magnitude, and perhaps `exact` (the same in double precision), `max_abs`, `ulps`,
    `compared` (how many values) and `worst` (the name of one).
    """

    index: int
    spec: str
    file: str | None
    seconds: float
    ops_before: int
    ops_after: int
    rewrites: tuple[str, ...]
    notes: tuple[str, ...]
    check: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether the pass changed the graph."""
        return self.file is not None


@dataclass(frozen=True)
class Dumps:
    """What a folder holds. `graphs` and `texts` are by file name; `plan` is None when the compilation ended early."""

    folder: Path
    first: str
    passes: tuple[PassEntry, ...]
    files: tuple[str, ...]
    graphs: Mapping[str, Graph]
    texts: Mapping[str, str]
    plan: Program | None

    @property
    def last_graph(self) -> Graph:
        """The graph after all passes."""
        changed = [entry.file for entry in self.passes if entry.file is not None]
        return self.graphs[changed[-1] if changed else self.first]


def read_dumps(folder: Path) -> Dumps:
    """Reads the folder; FileError or ParseError when it holds no dump or a damaged one."""
    entries = _read_index(folder)
    files = [entry["file"] for entry in entries if entry.get("file") is not None]
    graphs_files = [file for file in files if file.endswith(".sqz")]
    if not graphs_files:
        raise _damaged(folder, "it lists no graph")
    passes = tuple(_read_pass(folder, entry) for entry in entries if "spec" in entry)
    store = WeightStore([folder / SHARED_WEIGHTS])
    texts = {file: read_text(folder / file) for file in graphs_files}
    graphs = {file: parse_graph(text, store, str(folder / file)) for file, text in texts.items()}
    plan = None
    for file in files:
        if file.endswith("-plan.txt"):
            texts[file] = read_text(folder / file)
            plan = parse_program(texts[file], store, str(folder / file))
    return Dumps(folder, graphs_files[0], passes, tuple(files), graphs, texts, plan)


def _read_index(folder: Path) -> list[dict[str, Any]]:
    path = folder / INDEX
    if not path.is_file():
        raise FileError(
            f"there is no dump in {folder}",
            expected=f"a folder with {INDEX}",
            hint="sqzc compile MODEL -o OUT --dump-ir DIR writes one",
        )
    try:
        data = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError):
        raise _damaged(folder, "it is no JSON") from None
    entries = data.get("dumps") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _damaged(folder, "it has no list of dumps")
    if len(entries) > MAX_ENTRIES:
        raise _damaged(folder, f"it lists {len(entries)} dumps, over {MAX_ENTRIES}")
    for entry in entries:
        file = entry.get("file")
        if file is not None and not (isinstance(file, str) and _FILE.fullmatch(file)):
            raise _damaged(folder, f"{file!r:.80} is no file of a dump")
    return entries


def _read_pass(folder: Path, entry: Mapping[str, Any]) -> PassEntry:
    """A pass's entry with every field checked."""

    def read(name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        value = entry.get(name, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _damaged(folder, f"'{name}' of a pass is {value!r:.80}")
        return value

    def words(name: str) -> tuple[str, ...]:
        value = read(name, list, [])
        if not all(isinstance(item, str) for item in value):
            raise _damaged(folder, f"'{name}' of a pass is no list of texts")
        return tuple(value)

    seconds = float(read("seconds", (int, float)))
    if not math.isfinite(seconds) or seconds < 0:
        raise _damaged(folder, f"a pass took {seconds} seconds")
    return PassEntry(
        index=read("index", int),
        spec=read("spec", str),
        file=entry.get("file"),
        seconds=seconds,
        ops_before=read("ops_before", int),
        ops_after=read("ops_after", int),
        rewrites=words("rewrites"),
        notes=words("notes"),
        check=_read_check(read("check", dict, {})),
    )


_MEASURED = ("relative", "exact", "max_abs", "ulps", "compared")


def _read_check(check: Mapping[str, Any]) -> dict[str, float | str]:
    """The numbers of a check; those that JSON cannot say are text, and anything else in it is of no interest here."""
    found: dict[str, float | str] = {}
    for name in (*_MEASURED, "worst"):
        value = check.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value if math.isfinite(value) else str(value)
        elif isinstance(value, str) and len(value) < 1000:
            found[name] = value
    return found


def _damaged(folder: Path, why: str) -> FileError:
    return FileError(
        "this index of a dump cannot be used",
        location=Location(str(folder / INDEX)),
        got=why,
        hint="write the dump again: sqzc compile MODEL -o OUT --dump-ir DIR",
    )
