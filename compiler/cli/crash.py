"""What is kept of a bug: a folder with the command line, versions, traceback, and the IR that the bug was met with."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import sqzc

PACKAGES = ("llvmlite", "networkx", "numpy", "onnx", "protobuf", "safetensors")


def save_reproducer(error: BaseException, arguments: Sequence[str]) -> str:
    """Saves what is needed to look into `error`, and gives the text to show: traceback, request, path."""
    trace = "".join(traceback.format_exception(error))
    words = "this is a bug in sqzc, not a mistake of yours"
    try:
        folder = Path(tempfile.mkdtemp(prefix="sqzc-bug-"))
        (folder / "command.txt").write_text(shlex.join(["sqzc", *arguments]) + "\n", encoding="utf-8")
        (folder / "traceback.txt").write_text(trace, encoding="utf-8")
        (folder / "versions.json").write_text(json.dumps(_versions(), indent=1) + "\n", encoding="utf-8")
        saved = _save_graph(error, folder) + _save_small(error, folder)
    except OSError as problem:
        return f"{trace}\n{words}; no reproducer could be saved: {problem.strerror}"
    return f"{trace}\n{words}. What reproduces it is in\n  {folder}{saved}"


def _versions() -> dict[str, str]:
    found = {"sqzc": sqzc.__version__, "python": sys.version.split()[0], "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _save_small(error: BaseException, folder: Path) -> str:
    """Lets an error that can do so save the few ops that show it, with the command to see it again by."""
    for cause in _causes(error):
        save = getattr(cause, "save_reproducer", None)
        if save is not None:
            try:
                return f"\nand a few ops that show it in repro.sqz:\n  {save(folder)}"
            except Exception as problem:  # as above: what is known already is worth more
                return f"\n(no smaller reproducer could be made: {problem})"
    return ""


def _save_graph(error: BaseException, folder: Path) -> str:
    """Saves the graph that a failed pass or stage was given, where the error holds one."""
    from sqzc.ir.files import save_graph
    from sqzc.ir.graph import Graph

    for cause in _causes(error):
        graph = getattr(cause, "before", None)
        if isinstance(graph, Graph):
            try:
                save_graph(graph, folder / "before.sqz")
            except Exception as problem:  # the graph may be what is broken; the traceback is worth more than this
                return f"\n(the IR could not be saved: {problem})"
            return "\nwith the IR before the failing stage in before.sqz"
    return ""
