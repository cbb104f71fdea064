"""`sqzc run`: arrays through a compiled library."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import click
import numpy as np

from sqzc.cli.console import PATH, Command
from sqzc.diagnostics import FileError, UsageError
from sqzc.driver.emit import check_output
from sqzc.ir.files import replacing
from sqzc.runtime import Model, load
from sqzc.runtime.tensor import Array

EXAMPLES = """
sqzc run libsqz.so --input data=x.npy -o out.npy
sqzc run libnet.so --input left=a.npy --input right=b.npy -o out.npz --threads 2
"""


@click.command(name="run", cls=Command, examples=EXAMPLES)
@click.argument("lib", type=PATH)
@click.option("--input", "inputs", multiple=True, required=True, metavar="NAME=FILE", help="An input, as a .npy file.")
@click.option("-o", "--output", type=PATH, required=True, help=".npy for a single output, .npz for all by name.")
@click.option("--threads", type=int, default=1, show_default=True, help="0 means one for each core.")
def command(lib: Path, inputs: Sequence[str], output: Path, threads: int) -> None:
    """Run the compiled library LIB on arrays from files.

    The first dimension of the arrays may be any multiple of the model's own.
    """
    check_output(output)
    if output.suffix not in (".npy", ".npz"):
        raise UsageError(f"the output {output}", expected="a file called .npy or .npz")
    with load(lib, threads=threads) as model:
        if output.suffix == ".npy" and len(model.outputs) != 1:
            raise UsageError(f"the model has {len(model.outputs)} outputs", expected="-o FILE.npz, which holds all")
        results = model.run(_read_inputs(model, inputs))
    with replacing(output) as handle:
        if output.suffix == ".npy":
            (only,) = results.values()
            np.save(handle, only)
        else:
            _save_all(handle, results)
    for name, array in results.items():
        click.echo(f"{output}: {name} {array.dtype}{list(array.shape)}")


def _save_all(handle: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """A .npz file. numpy's own function takes names as keywords, of which it has some itself."""
    with zipfile.ZipFile(handle, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read_inputs(model: Model, inputs: Sequence[str]) -> dict[str, Array]:
    """The arrays by name; the name may be left out where there is one input."""
    arrays: dict[str, Array] = {}
    known = [info.name for info in model.inputs]
    for text in inputs:
        name, found, file = text.rpartition("=")
        if not found and len(known) == 1:
            name = known[0]
        if not name:
            raise UsageError(f"input '{text}'", expected=f"NAME=FILE with a name of {', '.join(known)}")
        if name in arrays:
            raise UsageError(f"input '{name}' is given twice")
        arrays[name] = read_array(Path(file))
    return arrays


def read_array(path: Path) -> Array:
    """The array in a .npy file; FileError for anything else. Pickled objects are refused."""
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise FileError(f"cannot read {path}", got=error.strerror or str(error)) from None
    except (ValueError, EOFError) as error:
        raise FileError(f"{path} is not a .npy file", got=str(error)) from None
    if not isinstance(array, np.ndarray):
        raise FileError(f"{path} holds several arrays", expected="a .npy file with one")
    return array
