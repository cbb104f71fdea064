"""`sqzc zoo`: the models that sqzc knows by name, and their files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from sqzc.cli.console import PATH, Command, json_option, reporting, show_json, show_table, size_text, warn
from sqzc.diagnostics import ZooError
from sqzc.driver.options import zoo_path
from sqzc.zoo import ModelEntry, ZooModel, find, published
from sqzc.zoo.manifest import look_up


@click.group(name="zoo")
def command() -> None:
    """List, fetch and verify the models that sqzc knows by name.

    \b
    Models are looked for in --model-dir, in $SQZC_MODEL_PATH, in the folders of model-path under [tool.sqzc] in the
    nearest pyproject.toml, in the user's cache, and at last at their published addresses.
    """


LIST_EXAMPLES = """
sqzc zoo list
sqzc zoo list --json
"""


@command.command(name="list", cls=Command, examples=LIST_EXAMPLES)
@click.option("--model-dir", type=PATH, help="Where to look first.")
@json_option
def list_models(model_dir: Path | None, as_json: bool) -> None:
    """List the models with their licences, and where their files are on this machine."""
    rows = [_describe(entry, _find_local(entry.name, model_dir)) for entry in published().values()]
    if as_json:
        show_json(rows)
        return
    show_table(
        ["name", "licence", ">size", "found in", "what it is"],
        [
            (
                row["name"],
                row["licence"],
                size_text(row["bytes"]),
                row["folder"] or "(not here yet)",
                row["description"],
            )
            for row in rows
        ],
    )


def _describe(entry: ModelEntry, found: ZooModel | None) -> dict[str, Any]:
    return {
        "name": entry.name,
        "description": entry.description,
        "licence": entry.licence,
        "licence_url": entry.licence_url,
        "bytes": sum(file.bytes for file in entry.files),
        "input": {"name": entry.input.name, "shape": list(entry.input.shape), "mean": list(entry.input.mean)},
        "output": entry.output,
        "folder": None if found is None else str(found.folder),
        "verified": None if found is None else found.verified,
    }


def _find_local(name: str, model_dir: Path | None) -> ZooModel | None:
    """The model's files if they are on this machine."""
    try:
        return find(name, model_dir=model_dir, search_path=zoo_path(os.environ), allow_network=False)
    except ZooError:
        return None


FETCH_EXAMPLES = """
sqzc zoo fetch squeezenet1.1
"""


@command.command(name="fetch", cls=Command, examples=FETCH_EXAMPLES)
@click.argument("names", nargs=-1, required=True)
def fetch_models(names: tuple[str, ...]) -> None:
    """Download the published files of the models NAMES into the user's cache, unless they are there already."""
    for name in names:
        look_up(name, published())
    for name in names:
        with reporting() as reporter:
            reporter.stage(name)
            found = find(name, progress=reporter.download)
        words = "downloaded" if found.where == "network" else "was there already"
        click.echo(f"{name}: {words}, in {found.folder}")


VERIFY_EXAMPLES = """
sqzc zoo verify
sqzc zoo verify squeezenet1.1 --model-dir ./models
"""


@command.command(name="verify", cls=Command, examples=VERIFY_EXAMPLES)
@click.argument("names", nargs=-1)
@click.option("--model-dir", type=PATH, help="Where to look first.")
@json_option
def verify_models(names: tuple[str, ...], model_dir: Path | None, as_json: bool) -> None:
    """Compare the files of models on this machine with the published ones.

    NAMES default to every model that is found. The exit code is 1 when a file is not the published one, or a model
    that was named is not found.
    """
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    for name in names or published():
        look_up(name, published())
        found = _find_local(name, model_dir)
        if found is None:
            if names:
                warnings.append(f"{name}: not on this machine")
            continue
        warnings += found.warnings
        rows += [
            {"model": name, "file": str(file.path), "sha256": file.sha256, "verified": file.verified}
            for file in found.files.values()
        ]
    if as_json:
        show_json(rows)
    elif rows:
        show_table(
            ["model", "state", "sha256", "file"],
            [
                (row["model"], "published" if row["verified"] else "UNVERIFIED", row["sha256"][:16], row["file"])
                for row in rows
            ],
        )
    else:
        click.echo("no model of the zoo is on this machine")
    warn(warnings)
    if warnings:
        raise click.exceptions.Exit(1)
