"""The entry point `sqzc`: finds the subcommand, and turns what escapes from it into a message and an exit code.

0: done. 1: a mistake of the user's, with a message. 2: wrong usage of the command line. 3: differences (`sqzc diff`).
70: a bug in sqzc, with a traceback and a folder that reproduces it, or as `sqzc bisect` found it. 130: interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

import sqzc
from sqzc.cli.crash import save_reproducer
from sqzc.diagnostics import SqzcError, nearest

SUBCOMMANDS = (
    "compile",
    "run",
    "classify",
    "info",
    "opt",
    "diff",
    "bisect",
    "bench",
    "profile",
    "tune",
    "report",
    "target",
    "zoo",
    "demo",
)
"""In the order in which `sqzc --help` lists them; each lives in `sqzc.cli.<name>`, as a command called `command`."""

OK, USER_ERROR, USAGE, BUG, INTERRUPTED = 0, 1, 2, 70, 130


class Subcommands(click.Group):
    """Imports a subcommand when it is asked for, so that `sqzc classify` loads no compiler."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All subcommands."""
        return list(SUBCOMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest name for an unknown one."""
        if args and not args[0].startswith("-") and args[0] not in SUBCOMMANDS:
            hint = nearest(args[0], SUBCOMMANDS)
            ctx.fail(f"there is no subcommand '{args[0]}'{f'; {hint}' if hint else ''}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand called `cmd_name`, or None."""
        if cmd_name not in SUBCOMMANDS:
            return None
        command: click.Command = importlib.import_module(f"sqzc.cli.{cmd_name}").command
        return command


@click.group(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sqzc.__version__, prog_name="sqzc")
def cli() -> None:
    """Compile convolutional networks to native libraries.

    \b
    sqzc demo                                     the whole tour, in the current folder
    sqzc compile squeezenet1.1 -o libsqz.so       a library from a network
    sqzc classify libsqz.so cat.jpg               what a picture shows
    sqzc SUBCOMMAND --help                        options and more examples
    """


def entry(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and gives its exit code."""
    try:
        code = cli.main(args=list(arguments), prog_name="sqzc", standalone_mode=False)
        sys.stdout.flush()
    except SqzcError as error:
        click.echo(error.render(), err=True)
        return USER_ERROR
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USAGE
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough. Nothing more may be written, not even by the interpreter's exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return USER_ERROR
    except Exception as error:
        click.echo(save_reproducer(error, arguments), err=True)
        return BUG
    # A command that ends by `Exit` has its code given back here; all others give nothing.
    return code if isinstance(code, int) else OK


if __name__ == "__main__":
    entry()
