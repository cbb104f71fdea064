"""Fills the tables of docs/performance.md from the records in benchmarks/results.

A table stands between `<!-- results: NAME -->` and `<!-- end -->`; NAME is that of a record, results/NAME.json. What is
in between is replaced. With --check nothing is written, and the exit code is 1 when a table differs from its record.

    python benchmarks/tables.py
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from sqzc.driver.bench.machine import busy_warning

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"

Record = dict[str, Any]

_TABLE = re.compile(r"(<!-- results: (?P<name>[\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, results: Path) -> str:
    """The page with every table made anew; one without a record says so."""
    return _TABLE.sub(lambda match: f"{match[1]}{table_of(results / (match['name'] + '.json'))}\n{match[3]}", page)


def table_of(path: Path) -> str:
    """A record as Markdown."""
    if not path.is_file():
        return "Not measured yet."
    record: Record = json.loads(path.read_text())
    return "\n\n".join([KINDS[record["kind"]](record), where(record)])


def where(record: Record) -> str:
    """On which machine, with which versions, and what was odd about it."""
    machine = record["machine"]
    numbers = [f"{name} {machine[name]}" for name in ("family", "model", "stepping") if name in machine]
    cpu = machine.get("cpu", machine["architecture"]) + (f" ({', '.join(numbers)})" if numbers else "")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    words = f"{cpu}, {machine['cores']} cores; target {record.get('target', machine['target'])}; {versions}."
    notes = [f"{note}." for note in record.get("notes", [])]
    warning = record["warning"] or busy_warning(record["load"])
    if warning:
        notes.append(f"**Warning:** {warning}.")
    return " ".join([words, *notes])


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns whose name begins with `>` are aligned to the right."""
    lines = [" | ".join(name.removeprefix(">") for name in columns)]
    lines.append(" | ".join("---:" if name.startswith(">") else "---" for name in columns))
    lines += [" | ".join(row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def model_table(record: Record) -> str:
    """`sqzc bench`: one row for each number of threads and batch."""
    names = [row["name"] for row in record["settings"][0]["contenders"]]
    columns = [">threads", ">batch", *(f">{name}, ms" for name in names), *(f">sqzc / {name}" for name in names[1:])]
    rows = []
    for setting in sorted(record["settings"], key=lambda s: (s["batch"], s["threads"])):
        row = [str(setting["threads"]), str(setting["batch"])]
        row += [f"{1e3 * contender['per_image']:.3f}" for contender in setting["contenders"]]
        for contender in setting["contenders"][1:]:
            ratio = f"{contender['ratio']['of_medians']:.3f}"
            row.append(f"**{ratio}**" if contender["name"] == setting["best_peer"] else ratio)
        rows.append(row)
    return f"{markdown(columns, rows)}\n\nMedian time of one image; the ratio to the best peer is set in bold."


def shapes_table(record: Record) -> str:
    """`benchmarks/shapes.py`: one row for each shape, after the mean and the worst."""
    peers = list(record["versions"])[1:]
    columns = ["network/layer", "convolution", ">sqzc, µs", *(f">{peer}, µs" for peer in peers), ">ratio", "kernel"]
    rows = []
    for row in record["shapes"]:
        start = [row["name"], shape_text(row["shape"])]
        if row["error"]:
            rows.append([*start, *[""] * (len(peers) + 2), "failed"])
            continue
        times = [f"{1e6 * contender['median']:.1f}" for contender in row["contenders"]]
        kernels = [step.split(" ")[0] for step in row["plan"] if step.startswith("conv2d")]
        rows.append([*start, *times, f"{row['ratio']:.3f}", ", ".join(kernels)])
    head = ""
    if record["geometric_mean"] is not None:
        worst = record["worst"]
        head = f"Geometric mean of the ratios **{record['geometric_mean']:.3f}**, worst {worst['ratio']:.3f} "
        head += f"({worst['name']}), {len(rows)} shapes, {record['threads']} thread.\n\n"
    return head + markdown(columns, rows)


def shape_text(shape: Record) -> str:
    """Such as `64x56x56 to 128, 3x3, stride 2`."""
    stride = "" if shape["stride"] == [1, 1] else f", stride {shape['stride'][0]}"
    group = "" if shape["group"] == 1 else f", group {shape['group']}"
    size = f"{shape['ic']}x{shape['h']}x{shape['w']}"
    return f"{size} to {shape['oc']}, {shape['k'][0]}x{shape['k'][1]}{stride}{group}"


def kernels_table(record: Record) -> str:
    """`benchmarks/kernels.py`: one row for each kernel that takes long enough to be judged."""
    columns = ["layer", "kernel", "schedule", ">µs", ">GFLOP/s", "bound", ">of the roofline"]
    rows = []
    for kernel in record["kernels"]:
        if kernel["judged"]:
            speed, share = kernel["done"] / kernel["seconds"] / 1e9, f"{kernel['share']:.0%}"
            mark = share if kernel["share"] >= record["bar"] else f"**{share}**"
            start = [kernel["layer"], kernel["kernel"], kernel["schedule"], f"{1e6 * kernel['seconds']:.1f}"]
            rows.append([*start, f"{speed:.1f}", kernel["bound"], mark])
    limits = record["machine"]["limits"]
    peak = f"Peak {limits['peak_flops'] / 1e9:.1f} GFLOP/s between registers"
    if limits.get("fed_flops"):
        peak += f", {limits['fed_flops'] / 1e9:.1f} from the first-level cache, which is the limit here"
    if limits.get("tile_flops"):
        peak += f", {limits['tile_flops'] / 1e9:.1f} of bfloat16 tiles"
    levels = ", ".join(f"{b['level']} {b['bytes_per_second'] / 1e9:.0f} GB/s" for b in limits["bandwidths"])
    head = f"{peak}; reading from {levels}. All kernels {1e3 * record['kernel_seconds']:.3f} ms, at their limits "
    head += f"{1e3 * record['least_seconds']:.3f} ms. In bold: below {record['bar']:.0%}.\n\n"
    return head + markdown(columns, rows)


KINDS: dict[str, Callable[[Record], str]] = {
    "model": model_table,
    "shapes": shapes_table,
    "kernels": kernels_table,
}


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; the exit code is 1 when the page is not up to date.")
def main(check: bool) -> None:
    """Fill the tables of docs/performance.md."""
    page = PAGE.read_text()
    filled = fill(page, RESULTS)
    if check and filled != page:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not what the records say: python benchmarks/tables.py")
    if not check:
        PAGE.write_text(filled)


if __name__ == "__main__":
    main()
