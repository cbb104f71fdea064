"""`sqzc bench`: how fast a network is, beside other runtimes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sqzc.cli.console import PATH, Command, reporting, show_table, warn
from sqzc.cli.models import model_options, read_model_options, tuning_option
from sqzc.diagnostics import SqzcError
from sqzc.driver.bench import BenchOptions, Pace, bench, find_peers, prepare
from sqzc.driver.bench.agreement import Agreement
from sqzc.driver.bench.peers import parse_peers
from sqzc.driver.emit import check_output
from sqzc.driver.options import CodeOptions, parse_level
from sqzc.ir.files import write_text

EXAMPLES = """
sqzc bench squeezenet1.1 --vs onnxruntime,openvino --peer-python peers/bin/python
sqzc bench squeezenet1.1 --vs onnxruntime --threads 1,2 --batch 1,8 --json squeezenet.json
sqzc bench libsqz.so --model squeezenet1.1 --vs openvino --rounds 30
sqzc bench squeezenet1.1 --target x86-64-v3 --vs openvino
"""


def numbers_option(name: str, help: str) -> Callable[[Any], Any]:
    """An option for whole numbers separated by commas."""

    def split(ctx: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
        try:
            numbers = tuple(int(word) for word in text.split(","))
        except ValueError:
            raise click.BadParameter(f"'{text}' is not whole numbers separated by commas", ctx, parameter) from None
        if min(numbers) < 1:
            raise click.BadParameter("the numbers must be at least 1", ctx, parameter)
        return tuple(dict.fromkeys(numbers))

    return click.option(name, metavar="N,...", default="1", show_default=True, callback=split, help=help)


@click.command(name="bench", cls=Command, examples=EXAMPLES)
@click.argument("subject", metavar="LIB|MODEL")
@click.option("--vs", "peers", default="", metavar="NAMES", help="Peers, of onnxruntime and openvino. Default: none.")
@numbers_option("--threads", "Numbers of threads.")
@numbers_option("--batch", "Batches.")
@click.option("--rounds", type=int, default=15, show_default=True, help="How often each contender has a turn.")
@click.option("--runs", type=int, default=20, show_default=True, help="Timed calls in a turn.")
@click.option("--warmups", type=int, default=3, show_default=True, help="Calls before them that are not timed.")
@click.option("--peer-python", type=PATH, help="The interpreter that has the peers. Default: the one sqzc runs in.")
@click.option("--model", "of", metavar="MODEL", help="What LIB was compiled from. Default: the zoo's of its name.")
@click.option("--target", metavar="NAME", help="The CPU to compile MODEL for; peers are limited to it where they can.")
@click.option("-O", "level", metavar="LEVEL", help="Optimisation level for MODEL. Default: -O3.")
@tuning_option
@click.option("--tolerance", type=float, default=1e-3, show_default=True, help="Of outputs, by the largest of them.")
@click.option("--json", "output", type=PATH, metavar="FILE", help="Write the record there; - is standard output.")
@model_options
def command(
    subject: str,
    peers: str,
    threads: tuple[int, ...],
    batch: tuple[int, ...],
    rounds: int,
    runs: int,
    warmups: int,
    peer_python: Path | None,
    of: str | None,
    target: str | None,
    level: str | None,
    tuning: Path | None,
    tolerance: float,
    output: Path | None,
    **of_model: Any,
) -> None:
    """Time a network beside other runtimes.

    LIB is a compiled library; a MODEL is compiled for the occasion. The peers run the same network, exported to ONNX as
    it was before any pass. Every contender has a process of its own, with the same number of threads, in float32; they
    take turns, in an order that changes, on the same numbers, and their outputs are compared. The exit code is 1 when
    they do not agree.
    """
    pace = Pace(rounds=rounds, runs=runs, warmups=warmups)
    found = find_peers(parse_peers(peers), peer_python)
    to_stdout = str(output) == "-"
    if output is not None and not to_stdout:
        check_output(output)
    with reporting() as reporter:
        options = BenchOptions(found, threads, batch, pace, tolerance, tell=reporter.stage)
        model_of = read_model_options(**of_model, download=reporter.download)
        code = CodeOptions(target=target, opt_level=None if level is None else parse_level(level), tuning=tuning)
        with prepare(subject, of, model_of, code, reporter.stage) as prepared:
            record = bench(prepared, options)
    text = json.dumps(record, indent=1, allow_nan=False)
    if to_stdout:
        click.echo(text)
    else:
        show(record)
        if output is not None:
            write_text(output, text + "\n")
    warn([record["warning"]] if record["warning"] else [])
    if not all(setting["agree"] for setting in record["settings"]):
        raise DisagreementError("the contenders do not agree", expected=f"within {tolerance:g} of the largest output")


class DisagreementError(SqzcError):
    """Contenders that computed different things, so that their times say nothing."""

    code = "BN02"


def show(record: dict[str, Any]) -> None:
    """The record as tables, one for each setting."""
    for setting in record["settings"]:
        show_table(*_table(record, setting))
        for agreement in setting["agreements"]:
            click.echo(Agreement.from_data(agreement))
        click.echo()
    machine, load = record["machine"], record["load"]
    click.echo(
        f"{machine.get('cpu', machine['architecture'])}, {machine['cores']} cores, {machine['governor']} governor"
    )
    if load["load_at_start"] is not None:
        click.echo(f"load average {load['load_at_start']:.2f} at the start, {load['load_at_end']:.2f} at the end")
    click.echo(f"inputs: {record['inputs']}")
    for note in record["notes"]:
        click.echo(note)


def _table(record: dict[str, Any], setting: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows; times are of one call, in milliseconds."""
    many = setting["batch"] > 1
    threads = f"{setting['threads']} thread{'s' if setting['threads'] > 1 else ''}"
    columns = [f"{record['model']}, batch {setting['batch']}, {threads}, ms", ">median", ">min", ">quartiles"]
    columns += [">per image"] * many + [">load", ">sqzc / it", ">by round"]
    rows = []
    for row in setting["contenders"]:
        name = f"{row['name']} {row['version']}"
        if row["name"] == setting["best_peer"] and len(setting["contenders"]) > 2:
            name += " (best peer)"
        cells = [name, _ms(row["median"]), _ms(row["minimum"]), " - ".join(_ms(q) for q in row["quartiles"])]
        cells += [_ms(row["per_image"])] * many + [f"{1e3 * (row['load_seconds'] + row['first_seconds']):.0f}"]
        ratio = row.get("ratio")
        low_high = " - ".join(f"{q:.3f}" for q in ratio["quartiles"]) if ratio else ""
        rows.append([*cells, f"{ratio['of_medians']:.3f}" if ratio else "", low_high])
    return columns, rows


def _ms(seconds: float) -> str:
    """Milliseconds with four digits that mean something."""
    value = 1e3 * seconds
    return f"{value:.1f}" if value >= 100 else f"{value:.3f}"
