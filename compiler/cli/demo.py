"""`sqzc demo`: the whole tour in the current folder, with random weights when there are no others to be had."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import click

from sqzc.cli.compile import summarise, summary_text
from sqzc.cli.console import PATH, Command, reporting, show_predictions, show_table, size_text, warn
from sqzc.cli.info import show_layers
from sqzc.cli.models import read_model_options
from sqzc.diagnostics import ZooError
from sqzc.driver.api import Result, WatchOptions, build
from sqzc.driver.emit import check_output, header_text
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.ir.files import write_text
from sqzc.runtime import load
from sqzc.zoo.pictures import PICTURES

MODEL = "squeezenet1.1"
LIBRARY, HEADER, DUMPS = "libsqz.so", "libsqz.h", "dumps"

EXAMPLES = """
sqzc demo
sqzc demo --model-dir ./models
"""

_RANDOM = """\
************************************************************************
* NO TRAINED WEIGHTS COULD BE FOUND OR FETCHED.                        *
* The demo goes on with RANDOM weights: everything works as it would,  *
* but what the network says of the picture means nothing.              *
************************************************************************"""


@click.command(name="demo", cls=Command, examples=EXAMPLES)
@click.option("--model-dir", type=PATH, help="Where to look first for the network's files.")
@click.option("--picture", type=click.Choice(list(PICTURES)), default=next(iter(PICTURES)), show_default=True)
@click.option("--offline", is_flag=True, help="Fetch nothing.")
def command(model_dir: Path | None, picture: str, offline: bool) -> None:
    """Compile SqueezeNet 1.1, load it, and let it say what a drawn picture shows.

    Leaves libsqz.so, libsqz.h and dumps/ in the current folder.
    """
    folder = Path.cwd()
    for name in (LIBRARY, HEADER):
        check_output(folder / name)
    start = time.perf_counter()
    result = _build(folder, model_dir, offline)
    assert result.code is not None
    write_text(folder / HEADER, header_text(result.code))
    seconds = time.perf_counter() - start
    warn(result.warnings)
    click.echo(summary_text(summarise(result, "so", Path(LIBRARY), seconds)))
    click.echo()
    _classify(folder / LIBRARY, picture)
    click.echo()
    show_layers(result.code.metadata["layers"])
    click.echo()
    for name, words in (
        (LIBRARY, f"the library, {size_text((folder / LIBRARY).stat().st_size)}: sqzc classify {LIBRARY} IMAGE"),
        (HEADER, "its C interface"),
        (DUMPS, f"the IR after every pass: diff {DUMPS}/00-input.sqz {DUMPS}/{_last_dump(folder / DUMPS)}"),
    ):
        click.echo(f"{name:10} {words}")


def _build(folder: Path, model_dir: Path | None, offline: bool) -> Result:
    """Compiles with the trained weights if there are any to be had, else with random ones."""
    with reporting() as reporter:
        options = read_model_options(
            None, "pretrained", "model", (), model_dir, allow_network=not offline, download=reporter.download
        )
        watch = WatchOptions(dump_ir=folder / DUMPS, on_stage=reporter.stage)
        try:
            return build(MODEL, folder / LIBRARY, options, CodeOptions(), watch)
        except ZooError as error:
            reason = error
    click.echo(f"{reason.render()}\n{_RANDOM}", err=True)
    with reporting() as reporter:
        watch = replace(watch, on_stage=reporter.stage)
        return build(MODEL, folder / LIBRARY, ModelOptions(weights="random"), CodeOptions(), watch)


def _classify(library: Path, picture: str) -> None:
    """Shows what the library says of a drawn picture, and how long it takes for it."""
    drawn = PICTURES[picture]
    with load(library) as model:
        predictions = model.classify(drawn.draw())
        is_random = model.metadata["weights"].startswith("random")
    title = f"A drawn picture, meant to be: {drawn.meant}"
    if is_random:
        title += " (random weights: the answers mean nothing)"
    show_table([">score", ">class", "label"], show_predictions(predictions), title=title)


def _last_dump(folder: Path) -> str:
    return max(path.name for path in folder.glob("*.sqz"))
