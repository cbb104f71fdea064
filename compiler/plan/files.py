"""Programs on disk: a `.plan` text file with its constants in a `.safetensors` file beside it."""

from __future__ import annotations

from pathlib import Path

from sqzc.ir.files import SHARED_WEIGHTS, WeightStore, read_text, save_weights, stored_arrays, write_text
from sqzc.plan.program import Program
from sqzc.plan.text import parse_program, print_program


def constants_path(path: Path) -> Path:
    """Where the constants of the program at `path` are: `net.plan` keeps them in `net.plan.safetensors`.

    The whole name counts, as `net.sqz` beside it has its weights in `net.safetensors`.
    """
    return path.with_name(path.name + ".safetensors")


def save_program(program: Program, path: Path, *, constants: bool = True) -> None:
    """Writes the text, and beside it the constants that do not stand in it unless `constants` is False."""
    if constants:
        save_weights(constants_path(path), stored_arrays(program.constants.values()))
    write_text(path, print_program(program))


def load_program(path: Path) -> Program:
    """Reads a program; its constants come from the file beside it, or from `weights.safetensors` in the same folder.

    FileError, ParseError or VerifyError when that fails.
    """
    files = [constants_path(path), path.parent / SHARED_WEIGHTS]
    return parse_program(read_text(path), WeightStore(files), str(path))
