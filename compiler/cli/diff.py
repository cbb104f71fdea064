"""`sqzc diff`: how two IR files differ."""

from __future__ import annotations

from pathlib import Path

import click

from sqzc.cli.console import PATH, Command, json_option, show_json
from sqzc.driver.debug.diff import differences
from sqzc.ir.files import load_graph

EXAMPLES = """
sqzc diff dumps/00-input.sqz dumps/13-fuse-conv-relu.sqz
sqzc diff --meta old.sqz new.sqz
"""

DIFFERENT = 3
"""Neither a mistake of the user's nor a bug."""


@click.command(name="diff", cls=Command, examples=EXAMPLES)
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--meta", is_flag=True, help="Compare the meta data too, such as how far a compilation has come.")
@click.option("--no-sources", is_flag=True, help="Let source names differ.")
@json_option
def command(a: Path, b: Path, meta: bool, no_sources: bool, as_json: bool) -> None:
    """Show how the graphs in the .sqz files A and B differ: ops, attributes, operands, constants, types, names.

    SSA names and where weights are stored do not count. Exit code 0: no difference. 3: some.
    """
    changes = differences(load_graph(a), load_graph(b), meta=meta, sources=not no_sources)
    if as_json:
        show_json([vars(change) for change in changes])
    else:
        for change in changes:
            click.echo(str(change))
    if changes:
        raise click.exceptions.Exit(DIFFERENT)
