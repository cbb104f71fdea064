"""The options that let sqzc check itself, and what is shown of the checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from sqzc.cli.console import Command

if TYPE_CHECKING:
    from sqzc.driver.debug.kernels import StepCheck
    from sqzc.driver.debug.verify import VerifyPasses

_COUNTED = ("--verify-passes", "--verify-kernels")


class CheckingCommand(Command):
    """A command with options like `--verify-passes[=N]`, whose number must follow an equals sign."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Lets a bare option mean 1, where click would take the next word for its number."""
        end = args.index("--") if "--" in args else len(args)
        counted = [f"{word}=1" if word in _COUNTED else word for word in args[:end]]
        return super().parse_args(ctx, [*counted, *args[end:]])


verify_passes_option = click.option(
    "--verify-passes",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="[=N]",
    help="Check with N seeded inputs of each size (default 1) and awkward ones that no pass changes the numbers.",
)

verify_kernels_option = click.option(
    "--verify-kernels",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="[=N]",
    help="Check the output of every generated kernel with N seeded inputs of each size (default 1).",
)


def checks_data(passes: VerifyPasses | None, kernels: Sequence[StepCheck]) -> Mapping[str, Any]:
    """What was measured, as data."""
    return {
        "budget": None if passes is None else passes.budget,
        "passes": None if passes is None else [check.to_json() for check in passes.checks],
        "kernels": [check.to_json() for check in kernels] or None,
    }


def passes_text(passes: VerifyPasses) -> str:
    """The table of `--verify-passes`."""
    cases = ", ".join(case.name for case in passes.cases)
    lines = [
        f"every pass keeps the numbers of {cases} within {passes.budget:.0e} of each value's magnitude",
        f"{'exact':>8}  {'relative':>8}  {'absolute':>8}  {'ULP':>6}  {'values':>6}  {'pass':24} worst",
    ]
    for check in passes.checks:
        if check.changed:
            numbers = (
                f"{check.exact:8.1e}  {check.relative:8.1e}  {check.max_abs:8.1e}  {check.ulps:6}  {check.compared:6}"
            )
            lines.append(f"{numbers}  {check.spec:24} {check.worst}")
        else:
            lines.append(f"{'':42}  {check.spec:24} (changed nothing)")
    return "\n".join(lines)


def kernels_text(kernels: Sequence[StepCheck]) -> str:
    """The table of `--verify-kernels`."""
    lines = [
        "every kernel computes what its ops do; own: on what it read, in all: from the inputs on",
        f"{'own':>8}  {'in all':>8}  {'absolute':>8}  {'ULP':>6}  {'step':>4}  {'kernel':28} value",
    ]
    for check in kernels:
        numbers = f"{check.own:8.1e}  {check.total:8.1e}  {check.max_abs:8.1e}  {check.ulps:6}"
        lines.append(f"{numbers}  {check.index:4}  {check.kernel:28} {check.value}")
    return "\n".join(lines)
