"""`sqzc profile`: where the time of a model goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sqzc.cli.console import PATH, Command, json_option, reporting, show_json, show_table, size_text, warn
from sqzc.cli.info import is_library
from sqzc.cli.models import model_options, read_model_options, tuning_option
from sqzc.diagnostics import UsageError
from sqzc.driver.emit import check_output
from sqzc.driver.options import CodeOptions, parse_level
from sqzc.ir.files import write_text
from sqzc.profile.build import profile_model
from sqzc.profile.machine import Machine
from sqzc.profile.picture import check_picture, draw_roofline
from sqzc.profile.rows import FEWER_NOTE, GAP_BAR, PROBE_BAR, Profile, Row
from sqzc.profile.trace import chrome_trace

EXAMPLES = """
sqzc profile squeezenet1.1
sqzc profile squeezenet1.1 --threads 2 --runs 200
sqzc profile ./my_net -O1 --json > profile.json
sqzc profile squeezenet1.1 --trace trace.json --plot roofline.png
"""


@click.command(name="profile", cls=Command, examples=EXAMPLES)
@click.argument("model")
@click.option("--threads", type=int, default=1, show_default=True, metavar="N", help="Threads that work on an image.")
@click.option("--runs", type=int, metavar="N", help="Runs to measure. Default: as many as fit in a second.")
@click.option("--target", metavar="NAME", help="The CPU to compile for; this machine must have it. Default: native.")
@model_options
@click.option("-O", "level", type=str, metavar="LEVEL", help="Optimisation level, -O0 to -O3. Default: -O3.")
@click.option("--passes", metavar="SPEC", help="A pipeline in place of the level's.")
@tuning_option
@click.option("--trace", type=PATH, metavar="FILE", help="Write one run as a trace for chrome://tracing or Perfetto.")
@click.option("--plot", type=PATH, metavar="FILE", help="Draw a roofline (.png, .svg, .pdf); needs the extra `plot`.")
@json_option
def command(
    model: str,
    threads: int,
    runs: int | None,
    target: str | None,
    level: str | None,
    passes: str | None,
    tuning: Path | None,
    trace: Path | None,
    plot: Path | None,
    as_json: bool,
    **of_model: Any,
) -> None:
    """Show how long every layer of MODEL takes, against what this machine can do.

    MODEL is as for `sqzc compile`. It is compiled in process, with counters between its kernels and once more without,
    which tells what the counters cost; a library that was compiled before has none and cannot be profiled. The
    machine's peak of multiply-adds and its bandwidths are measured with generated code for the same target.
    """
    if is_library(Path(model)):
        raise UsageError(
            f"{model} is a compiled library: it has no counters, and its plan is not in it",
            expected="the model that it was made from",
            hint="sqzc profile MODEL, with the options that the library was compiled with",
        )
    for path in (trace, plot):
        if path is not None:
            check_output(path)
    if plot is not None:
        check_picture(plot)
    with reporting() as reporter:
        result = profile_model(
            model,
            read_model_options(**of_model, download=reporter.download),
            CodeOptions(
                target=target, opt_level=None if level is None else parse_level(level), passes=passes, tuning=tuning
            ),
            threads=threads,
            runs=runs,
            on_stage=reporter.stage,
        )
    warn(result.warnings)
    profile = result.profile
    if trace is not None:
        write_text(trace, json.dumps(chrome_trace(profile)) + "\n")
    if plot is not None:
        draw_roofline(profile, plot)
    if as_json:
        show_json(profile.to_json())
        return
    show_rows(profile)
    click.echo("\n".join(summary_lines(profile)))


COLUMNS = (
    ">",
    "layer",
    "kernel",
    ">us",
    ">predicted",
    ">% time",
    ">MFLOP",
    ">GFLOP/s",
    ">% peak",
    ">kB",
    ">GB/s",
    ">% memory",
    "bound by",
    ">% of it",
    "schedule",
)


def show_rows(profile: Profile) -> None:
    """The table."""
    show_table(COLUMNS, [_cells(row) for row in profile.rows])


def _cells(row: Row) -> list[str]:
    return [
        str(row.index),
        row.layer,
        row.kernel,
        f"{1e6 * row.seconds:.1f}",
        "" if row.predicted_seconds is None else f"{1e6 * row.predicted_seconds:.1f}",
        hundredths(row.share),
        f"{row.flops / 1e6:.2f}{'*' if row.fewer_operations else ''}" if row.flops else "",
        f"{row.flops_per_second / 1e9:.1f}" if row.flops else "",
        hundredths(row.peak_share) if row.flops else "",
        f"{row.bytes / 1e3:.0f}",
        f"{row.bytes_per_second / 1e9:.1f}",
        hundredths(row.bandwidth_share),
        row.bound,
        hundredths(row.roof_share),
        row.schedule,
    ]


def hundredths(share: float) -> str:
    """A share in hundredths, to three digits."""
    return f"{100 * share:.1f}" if abs(share) < 1 else f"{100 * share:.0f}"


def percent(share: float) -> str:
    """A share in words."""
    return f"{hundredths(share)} %"


def summary_lines(profile: Profile) -> list[str]:
    """What stands below the table."""
    rate = profile.flops / profile.total
    waking = ", waking and awaiting threads" if profile.threads > 1 else ""
    lines = [
        "",
        f"sum of rows    {1e3 * profile.sum:9.4f} ms",
        f"gap            {1e3 * profile.gap:9.4f} ms   {percent(profile.gap_share)} of the total: entering and leaving "
        f"the library{waking}",
        f"total          {1e3 * profile.total:9.4f} ms   {profile.flops / 1e9:.4f} GFLOP, {rate / 1e9:.1f} GFLOP/s, "
        f"{percent(rate / profile.machine.peak_flops)} of the peak",
        f"without probes {1e3 * profile.plain_total:9.4f} ms   the probes cost {percent(profile.probe_cost)}",
        "",
        f"{profile.model}, {profile.threads} thread{'s' if profile.threads > 1 else ''}; "
        f"means over the fastest tenth of {profile.runs} runs",
        *machine_lines(profile.machine),
        f"predicted: us by the cost model that chose the schedule, at {profile.machine.clock / 1e9:.2f} GHz, the clock "
        f"that the peak amounts to with {profile.machine.target.fma_ports} multiply-adds a cycle",
        "% memory: of the bandwidth of memory, over 100 where caches hold the operands",
        "bound by: what limits a kernel of these FLOPs and bytes, and how much of that limit it reaches",
    ]
    if any(row.fewer_operations for row in profile.rows):
        lines.append(FEWER_NOTE)
    if abs(profile.gap_share) > GAP_BAR:
        lines.append(f"warning: the rows leave over {percent(GAP_BAR)} unexplained: other processes are at work")
    if profile.probe_cost > PROBE_BAR:
        lines.append(f"warning: the probes cost over {percent(PROBE_BAR)}, or other processes are at work")
    return lines


def machine_lines(machine: Machine) -> list[str]:
    """The machine's limits in one line, and what to keep in mind of them."""
    speeds = ", ".join(f"{entry.level} {entry.bytes_per_second / 1e9:.0f} GB/s" for entry in machine.bandwidths)
    lines = [f"{machine.target.name}: peak {machine.peak_flops / 1e9:.1f} GFLOP/s; read from {speeds}"]
    if machine.memory_in_cache:
        read = size_text(machine.bandwidths[-1].bytes)
        cache = size_text(machine.last_cache_bytes or 0)
        lines.append(f"memory was measured by reading {read}, which a cache of {cache} may hold in part")
    return lines
