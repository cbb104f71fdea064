"""What subcommands show: help with examples, tables, JSON, progress, warnings. Nothing of the compiler is loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class Command(click.Command):
    """A command whose help ends with examples, set as `examples` lines."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        lines = "\n".join(f"  {line}" if line else "" for line in examples.strip().splitlines())
        if examples:
            kwargs["epilog"] = f"\b\nExamples:\n{lines}"
        super().__init__(*args, **kwargs)


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to standard output.")


def stdout() -> Console:
    """Where results go: as wide as the terminal, and without folding where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=240, no_color=True)


def show_json(data: Any) -> None:
    """Data as JSON on standard output."""
    click.echo(json.dumps(data, indent=1))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
    """A table on standard output; columns whose name begins with '>' are aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = stdout()
    with console.capture() as capture:
        console.print(table, markup=False, highlight=False)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    click.echo("\n".join([title, *lines] if title else lines))


def warn(messages: Sequence[str]) -> None:
    """Warnings on standard error, one line each."""
    for message in messages:
        click.echo(f"warning: {message}", err=True)


def names_option(name: str, help: str) -> Callable[[F], F]:
    """An option for names separated by commas, which the command gets as a tuple."""

    def split(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
        return tuple(word for word in text.split(",") if word)

    return click.option(name, metavar="NAMES", default="", callback=split, help=help)


class Reporter:
    """Shows on a terminal what is being done; silent elsewhere."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._stage = None if progress is None else progress.add_task("", total=None)
        self._download: Any = None

    def stage(self, name: str) -> None:
        """A stage begins."""
        if self._progress is not None:
            assert self._stage is not None
            self._progress.update(self._stage, description=name)

    def part(self, name: str, share: float) -> None:
        """A stage of which this share is done, from 0 to 1."""
        if self._progress is not None:
            assert self._stage is not None
            self._progress.update(self._stage, description=name, completed=share, total=1.0)

    def download(self, done: int, total: int) -> None:
        """So many bytes have come."""
        if self._progress is None or total == 0:
            return
        if self._download is None:
            self._download = self._progress.add_task("downloading", total=total)
        self._progress.update(self._download, completed=done, total=total)


@contextmanager
def reporting() -> Iterator[Reporter]:
    """A Reporter for the length of a block."""
    if not sys.stderr.isatty():
        yield Reporter(None)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Reporter(progress)


def show_predictions(predictions: Sequence[Any]) -> list[tuple[str, str, str]]:
    """Rows of score, class and label."""
    return [(f"{p.score:.4f}", str(p.index), p.label or "") for p in predictions]


def size_text(count: float) -> str:
    """Bytes in words, such as 5.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def plain_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without the long list of labels, of which the number is kept."""
    short = dict(metadata)
    labels = short.pop("labels", None)
    short["labels"] = None if labels is None else len(labels)
    return short
