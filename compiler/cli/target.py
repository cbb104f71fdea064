"""`sqzc target`: what code for this machine may assume, and what the machine can do."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from sqzc.cli.console import Command, json_option, reporting, show_json, size_text
from sqzc.diagnostics import UsageError
from sqzc.profile.machine import Machine, measure
from sqzc.target import TARGETS, Target, native, resolve, runs_here

EXAMPLES = """
sqzc target
sqzc target --threads 2 --json
sqzc target x86-64-v3
sqzc target --list
"""


@click.command(name="target", cls=Command, examples=EXAMPLES)
@click.argument("name", default="native")
@click.option("--threads", type=int, default=1, show_default=True, metavar="N", help="Threads to measure with.")
@click.option("--list", "list_all", is_flag=True, help="The names of all targets, and whether they run here.")
@json_option
def command(name: str, threads: int, list_all: bool, as_json: bool) -> None:
    """Show the target NAME: its instruction set, vectors, registers and caches.

    Where it runs on this machine, its peak of multiply-adds and the bandwidths of caches and memory are measured with
    generated code, which takes a second.
    """
    if list_all:
        show_all(as_json)
        return
    if not 1 <= threads <= 1024:
        raise UsageError(f"{threads} threads", expected="1 to 1024")
    target = resolve(name)
    machine = None
    if runs_here(target):
        with reporting() as reporter:
            reporter.stage("measuring the machine")
            machine = measure(target, threads)
    if as_json:
        show_json({**target_json(target), "measured": None if machine is None else machine.to_json()})
        return
    for key, value in target_json(target).items():
        click.echo(f"{key.replace('_', ' '):20} {_words(key, value)}")
    click.echo("\n".join(measured_lines(machine)))


def show_all(as_json: bool) -> None:
    """Every target."""
    best = native().name if any(map(runs_here, TARGETS.values())) else None
    rows = [
        {"name": target.name, "runs_here": runs_here(target), "native": target.name == best}
        for target in TARGETS.values()
    ]
    if as_json:
        show_json(rows)
        return
    for row in rows:
        words = "runs here" if row["runs_here"] else "does not run here"
        click.echo(f"{row['name']:14} {words}{', native' if row['native'] else ''}")


def target_json(target: Target) -> dict[str, Any]:
    """The target's record."""
    return {**asdict(target), "features": list(target.features), "runs_here": runs_here(target)}


def _words(key: str, value: Any) -> str:
    if key.endswith("_bytes"):
        return size_text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(value) if isinstance(value, list) else str(value)


def measured_lines(machine: Machine | None) -> list[str]:
    """What was measured, for people."""
    if machine is None:
        return ["it does not run here, so nothing was measured"]
    threads = f"{machine.threads} thread{'s' if machine.threads > 1 else ''}"
    lines = [f"{'peak':20} {machine.peak_flops / 1e9:.1f} GFLOP/s, {threads}"]
    if machine.fed_flops is not None:
        lines.append(f"{'fed from L1':20} {machine.fed_flops / 1e9:.1f} GFLOP/s, over milliseconds")
    if machine.tile_flops is not None:
        lines.append(f"{'products of tiles':20} {machine.tile_flops / 1e9:.1f} GFLOP/s in bfloat16")
    for entry in machine.bandwidths:
        lines.append(
            f"{'read from ' + entry.level:20} {entry.bytes_per_second / 1e9:.1f} GB/s, {size_text(entry.bytes)}"
        )
    if machine.memory_in_cache:
        cache = size_text(machine.last_cache_bytes or 0)
        lines.append(f"the last cache has {cache}, so what was read from memory may in part have come from it")
    return lines
