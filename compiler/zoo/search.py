"""Where to look for model folders: what the environment and the nearest `pyproject.toml` say."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from sqzc.diagnostics import FileError, Location

VARIABLE = "SQZC_MODEL_PATH"
"""Folders separated as in PATH; each holds model folders."""

MAX_PYPROJECT_BYTES = 2**20


def search_path(env: Mapping[str, str], cwd: Path) -> list[Path]:
    """The folders that hold model folders, first the ones in `$SQZC_MODEL_PATH`, then those of `[tool.sqzc]`.

    The latter stand in `model-path` of the nearest `pyproject.toml` upwards from `cwd` that has such a table, and are
    relative to it. Folders need not exist. Raises FileError for a `pyproject.toml` that cannot be read.
    """
    from_variable = [cwd / Path(entry).expanduser() for entry in env.get(VARIABLE, "").split(os.pathsep) if entry]
    return from_variable + _from_pyproject(cwd)


def _from_pyproject(cwd: Path) -> list[Path]:
    """The folders in the nearest [tool.sqzc]; a pyproject.toml without one is passed over, as ruff does."""
    here = cwd.resolve()
    for folder in (here, *here.parents):
        path = folder / "pyproject.toml"
        table = _tool_table(path) if path.is_file() else None
        if table is not None:
            entries = table.get("model-path", [])
            if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
                raise FileError(
                    "'model-path' must be a list of folders",
                    location=Location(str(path), "[tool.sqzc]"),
                    expected='for example model-path = ["models"]',
                    got=repr(entries),
                )
            return [folder / Path(entry).expanduser() for entry in entries]
    return []


def _tool_table(path: Path) -> dict[str, object] | None:
    """The table [tool.sqzc], or None when the file has none."""
    location = Location(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PYPROJECT_BYTES + 1)
        if len(data) > MAX_PYPROJECT_BYTES:
            raise FileError("the file is too large", location=location, expected=f"at most {MAX_PYPROJECT_BYTES} bytes")
        document = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise FileError(f"the file cannot be read: {error.strerror}", location=location) from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"the file is not valid TOML: {error}", location=location) from error
    tool = document.get("tool")
    table = tool.get("sqzc") if isinstance(tool, dict) else None
    return table if isinstance(table, dict) else None
