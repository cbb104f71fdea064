"""`sqzc classify`: what pictures show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import click

from sqzc.cli.console import PATH, Command, json_option, show_json, show_predictions, show_table
from sqzc.diagnostics import UsageError
from sqzc.runtime import load
from sqzc.runtime.labels import read_labels
from sqzc.runtime.preprocess import PRESETS

EXAMPLES = """
sqzc classify libsqz.so cat.jpg
sqzc classify libsqz.so *.jpg --top 1 --json
sqzc classify libnet.so cat.jpg --labels synset_words.txt --mean 104,117,123 --channel-order BGR
"""


@click.command(name="classify", cls=Command, examples=EXAMPLES)
@click.argument("lib", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--top", type=int, default=5, show_default=True, help="How many classes to show.")
@click.option("--labels", type=PATH, help="Names of the classes, one a line, in place of the library's own.")
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), default="pillow", show_default=True, help="How pictures are resized."
)
@click.option("--mean", metavar="B,G,R|none", help="What to subtract, for a library that does not say.")
@click.option("--channel-order", type=click.Choice(["BGR", "RGB"]), help="For a library that does not say.")
@click.option("--threads", type=int, default=1, show_default=True, help="0 means one for each core.")
@json_option
def command(
    lib: Path,
    images: Sequence[Path],
    top: int,
    labels: Path | None,
    preset: str,
    mean: str | None,
    channel_order: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Classify the pictures IMAGES with the compiled library LIB."""
    names = None if labels is None else read_labels(labels).names
    with load(lib, threads=threads) as model:
        if model.metadata["weights"].startswith("random"):
            click.echo("warning: this library has random weights; its answers mean nothing", err=True)
        found = [
            model.classify(image, top, preset=preset, labels=names, mean=_read_mean(mean), channel_order=channel_order)
            for image in images
        ]
    if as_json:
        rows = [[{"class": p.index, "score": p.score, "label": p.label} for p in predictions] for predictions in found]
        show_json([{"image": str(image), "top": row} for image, row in zip(images, rows, strict=True)])
        return
    for image, predictions in zip(images, found, strict=True):
        show_table([">score", ">class", "label"], show_predictions(predictions), title=str(image))


def _read_mean(text: str | None) -> tuple[float, ...] | None:
    """The mean to subtract here; None leaves it to the library."""
    if text is None:
        return None
    try:
        mean = tuple(float(part) for part in text.split(",")) if text != "none" else (0.0, 0.0, 0.0)
    except ValueError:
        mean = ()
    if len(mean) != 3 or not all(math.isfinite(value) for value in mean):
        raise UsageError(f"--mean {text}", expected="three numbers, one for each channel, or none")
    return mean
