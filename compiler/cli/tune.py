"""`sqzc tune`: measures what the cost model predicts, and writes down what is better on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from sqzc.backends.llvm.tuning import save_tuning
from sqzc.cli.console import PATH, Command, json_option, reporting, show_json, show_table, warn
from sqzc.cli.models import model_options, read_model_options
from sqzc.driver.emit import check_output
from sqzc.driver.options import CodeOptions, parse_level
from sqzc.tune.outcome import Comparison
from sqzc.tune.search import Result, tune_model

EXAMPLES = """
sqzc tune squeezenet1.1 -o squeezenet.tuning
sqzc tune squeezenet1.1 -o squeezenet.tuning --threads 2 --budget 300
sqzc compile squeezenet1.1 -o libsqz.so --tuning squeezenet.tuning
"""


@click.command(name="tune", cls=Command, examples=EXAMPLES)
@click.argument("model")
@click.option("-o", "--output", type=PATH, required=True, help="The file to write.")
@click.option("--budget", type=float, default=60.0, show_default=True, metavar="SECONDS", help="How long to search.")
@click.option("--threads", type=int, default=1, show_default=True, metavar="N", help="Threads that work on an image.")
@click.option("--target", metavar="NAME", help="The CPU to compile for; this machine must have it. Default: native.")
@model_options
@click.option("-O", "level", type=str, metavar="LEVEL", help="Optimisation level, -O0 to -O3. Default: -O3.")
@click.option("--passes", metavar="SPEC", help="A pipeline in place of the level's.")
@click.option("--winograd", type=click.Choice(["auto", "off", "f2", "f4"]), help="As for sqzc compile.")
@json_option
def command(
    model: str,
    output: Path,
    budget: float,
    threads: int,
    target: str | None,
    level: str | None,
    passes: str | None,
    winograd: str | None,
    as_json: bool,
    **of_model: Any,
) -> None:
    """Search for better kernels and schedules for MODEL than the cost model's, on this machine.

    MODEL and options are as for `sqzc compile`. Every round compiles the whole model with other choices and runs it in
    turns with the one that there was, so that each kernel is timed in its place. Only what is faster beyond the noise
    is kept. The file is for the options --tuning of compile, bench and profile, with the same options besides, and for
    this version of sqzc. Nothing else should run meanwhile.
    """
    check_output(output)
    with reporting() as reporter:
        result = tune_model(
            model,
            read_model_options(**of_model, download=reporter.download),
            CodeOptions(
                target=target, opt_level=None if level is None else parse_level(level), passes=passes, winograd=winograd
            ),
            threads=threads,
            budget=budget,
            tell=reporter.part,
        )
    save_tuning(result.tuning, output)
    warn(result.warnings)
    if as_json:
        show_json(summary(result, output))
        return
    show_table(COLUMNS, [_cells(row) for row in result.rows])
    click.echo("\n".join(["", *summary_lines(result, output)]))


COLUMNS = ("layers", "kernel", ">us", ">predicted", ">tuned us", ">predicted", "change", "schedule")


def _cells(row: Comparison) -> list[str]:
    layers = ", ".join(row.layers[:2]) + (f" and {len(row.layers) - 2} more" if len(row.layers) > 2 else "")
    kernel = row.kernel if row.kernel == row.kernel_before else f"{row.kernel_before} -> {row.kernel}"
    change = f"{100 * (row.measured / row.measured_before - 1):+.1f} %" if row.changed and row.measured_before else ""
    schedule = row.schedule if row.schedule == row.schedule_before else f"{row.schedule_before} -> {row.schedule}"
    return [layers, kernel, _us(row.measured_before), _us(row.predicted_before), *_after(row), change, schedule]


def _after(row: Comparison) -> tuple[str, str]:
    return (_us(row.measured), _us(row.predicted)) if row.changed else ("", "")


def _us(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:.1f}"


def summary(result: Result, output: Path) -> dict[str, Any]:
    """What came of the search, as data."""
    return {
        "file": str(output),
        "cpu": result.tuning.cpu,
        "threads": result.tuning.threads,
        "rounds": result.rounds,
        "tried": result.tried,
        "seconds": result.seconds,
        "complete": result.complete,
        "before_seconds": result.before,
        "after_seconds": result.after,
        "rows": [{**asdict(row), "changed": row.changed} for row in result.rows],
        "warnings": list(result.warnings),
    }


def summary_lines(result: Result, output: Path) -> list[str]:
    """What stands below the table."""
    changed = sum(row.changed for row in result.rows)
    end = "every option had its turn" if result.complete else "the budget ended the search: a larger one tries more"
    entries = len(result.tuning.kernels) + len(result.tuning.schedules)
    return [
        f"{1e3 * result.before:.4f} ms before, {1e3 * result.after:.4f} ms after, the sum of all kernels; "
        f"{changed} of {len(result.rows)} problems changed",
        f"{result.rounds} rounds, {result.tried} options, {result.seconds:.0f} s; {end}",
        f"{output}: {entries} entries, measured on {result.tuning.cpu}, threads: {result.tuning.threads}",
    ]
