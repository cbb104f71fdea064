"""What is kept of a wrong pass or kernel: a small graph, inputs, right outputs, and the command that shows it.

A folder with repro.sqz, repro.safetensors, inputs.npz, expected.npz and report.txt.
"""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sqzc.backends.reference import evaluate
from sqzc.diagnostics import FileError
from sqzc.driver.debug.cases import Arrays
from sqzc.driver.debug.reduce import Reduced
from sqzc.ir.constant import Array
from sqzc.ir.files import replacing, save_graph, write_text
from sqzc.ir.graph import Graph

GRAPH, INPUTS, EXPECTED, REPORT = "repro.sqz", "inputs.npz", "expected.npz", "report.txt"

MAX_ARRAYS = 4 << 30
"""Bytes of arrays that are read from one file."""


# -- arrays in files --------------------------------------------------------------------------------------------------


def save_arrays(path: Path, arrays: Arrays) -> None:
    """A .npz file whose bytes depend on names and data only. Names may hold anything, a slash among it."""
    with replacing(path) as handle, zipfile.ZipFile(handle, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays in a .npz file by name, or the one of a .npy file under the name ''. FileError for anything else."""
    try:
        size = path.stat().st_size
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
        if size > MAX_ARRAYS:
            raise FileError(f"{path} is too large", expected=f"at most {MAX_ARRAYS} bytes of arrays")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise FileError(f"cannot read {path}", got=error.strerror or str(error)) from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FileError(f"{path} is no .npy or .npz file", got=str(error)) from None


# -- saving -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reproducer:
    """A small graph with inputs that show a failure; `options` of `sqzc bisect` say which passes to run on it."""

    reduced: Reduced
    options: Sequence[str]

    @property
    def ops(self) -> int:
        """The number of ops."""
        return len(self.reduced.graph.nodes)

    def command(self, folder: Path) -> list[str]:
        """The command line that shows the failure."""
        files = ["--input", str(folder / INPUTS), "--expect", str(folder / EXPECTED)]
        return ["sqzc", "bisect", str(folder / GRAPH), *self.options, *files, "--replay"]

    def save(self, folder: Path, report: str = "") -> str:
        """Writes all files and gives the command; FileError when that is not possible."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot write to {folder}", got=error.strerror) from None
        graph, inputs = self.reduced.graph, self.reduced.inputs
        save_graph(graph, folder / GRAPH)
        save_arrays(folder / INPUTS, inputs)
        save_arrays(folder / EXPECTED, right_outputs(graph, inputs))
        command = shlex.join(self.command(folder))
        write_text(folder / REPORT, f"{report}\n\n{command}\n".lstrip())
        return command


def right_outputs(graph: Graph, inputs: Arrays) -> dict[str, Array]:
    """The outputs in double precision, rounded to their types."""
    exact = evaluate(graph, inputs, dtype="float64")
    with np.errstate(over="ignore", under="ignore"):
        return {name: exact[name].astype(value.type.dtype.numpy) for name, value in graph.outputs}
