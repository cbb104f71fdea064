"""`sqzc report`: the page about a compilation, from what --dump-ir wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sqzc.cli.console import PATH, Command, json_option, show_json, size_text
from sqzc.driver.emit import check_output
from sqzc.report import PAGE, read_dumps, report_data, write_report

EXAMPLES = """
sqzc compile squeezenet1.1 -o libsqz.so --dump-ir dumps/ --verify-passes
sqzc report dumps/
sqzc report dumps/ -o squeezenet.html
sqzc report dumps/ --json | jq '.passes[] | select(.changed) | .pass'
"""


@click.command(name="report", cls=Command, examples=EXAMPLES)
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("-o", "--output", type=PATH, help="The page to write. Default: DIR/index.html.")
@json_option
def command(folder: Path, output: Path | None, as_json: bool) -> None:
    """Make a page about a compilation from the dumps in DIR, which `sqzc compile --dump-ir DIR` wrote.

    --dump-ir writes the page too; this makes it anew, for dumps of an older version or after --verify-passes. The page
    is one file that needs no network. With --json nothing is written: the table of passes and the sizes of the plan go
    to standard output.
    """
    if as_json:
        show_json(summarise(report_data(read_dumps(folder))))
        return
    check_output(output or folder / PAGE)
    path = write_report(folder, output)
    click.echo(f"{path}: {size_text(path.stat().st_size)}")


def summarise(data: dict[str, Any]) -> dict[str, Any]:
    """The record of a page without texts and graphs."""
    plan = data["plan"]
    return {
        "model": data["model"],
        **data["meta"],
        "passes": data["pipeline"],
        "plan": None
        if plan is None
        else {
            **{key: plan[key] for key in plan if key.endswith("_bytes") and key != "live_bytes"},
            "kernels": len(plan["steps"]),
            "buffers": len(plan["buffers"]),
        },
        "files": data["files"],
    }
