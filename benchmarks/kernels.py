"""Every kernel of a network against the roofline: how near it is to what the machine allows it.

Time and limits are those of `sqzc profile`. What is added here is the arithmetic that a kernel really does: Winograd's
and Strassen's forms are counted in their own multiply-adds and sums, each sum as one instruction of the same ports, so
that they cannot look better than the machine by doing less than the operator asks for. Convolutions in parts of
bfloat16 are counted in products of tiles, against the peak of those.

The limit of multiply-adds is that of code which takes its operands from the first-level cache, as kernels must, for
longer than a clock that was raised for a moment lasts; the higher peak between registers is printed beside it.

    python benchmarks/kernels.py squeezenet1.1 --json benchmarks/results/kernels.json
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

import sqzc
from sqzc.backends.llvm.kernels.split_pool import strips_of
from sqzc.backends.llvm.problems import ConvProblem, conv_problem, fused_pool_problem
from sqzc.backends.llvm.schedules import conv_split, conv_strassen, conv_winograd, conv_winograd_split
from sqzc.backends.llvm.schedules.tile_unit import UNIT
from sqzc.backends.llvm.strassen_math import PRODUCTS, Sum, recombination
from sqzc.backends.llvm.winograd_math import FORMS
from sqzc.cli.console import show_table
from sqzc.diagnostics import SqzcError
from sqzc.driver.bench.machine import Watch, busy_warning, machine_facts
from sqzc.driver.bench.model import FORMAT
from sqzc.driver.options import CodeOptions, ModelOptions, zoo_path
from sqzc.ir.files import write_text
from sqzc.ir.ops.nn import Conv2d
from sqzc.plan.program import Program, Step
from sqzc.plan.traffic import step_traffic
from sqzc.profile.build import profile_model
from sqzc.profile.machine import Machine, measure
from sqzc.profile.rows import Profile

BAR = 0.85
"""The share of its roofline that every kernel is to reach."""

LEAST_PART = 0.002
"""Kernels with less of the time than this are not judged: entering them takes longer than what they do."""

STEADY = 0.05
"""By how much the peak may differ before and after, or the clock has changed and the shares mean little."""


@dataclass(frozen=True)
class Kernel:
    """One kernel. `flops` are the operator's, `done` what the kernel really does, in the same unit; `least` the seconds
    that the machine needs for that or for the bytes, whichever is more, and `bound` which it was.
    """

    layer: str
    kernel: str
    schedule: str
    seconds: float
    flops: int
    done: int
    bytes: int
    least: float
    bound: str

    @property
    def share(self) -> float:
        """The part of the roofline that it reaches; 1 for what takes no time."""
        return self.least / self.seconds if self.seconds > 0 else 1.0

    def to_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "share": self.share}


def conv_flops(p: ConvProblem) -> int:
    """Of a convolution by its definition, without bias and activation, two for a multiply-add."""
    return 2 * p.n * p.oc * p.oh * p.ow * (p.ic // p.group) * p.kh * p.kw


def winograd_flops(p: ConvProblem, s: conv_winograd.WinogradSchedule) -> int:
    """Of all image tiles, those included that hang over the edge: products, data and output transforms."""
    form = FORMS[s.m]
    rows, columns = conv_winograd.grid(p, s.m)
    channels = p.oc_blocks * (p.y_block or 1)
    products = form.size**2 * p.ic_padded * channels
    data = 2 * form.size * form.data_ops * p.ic_padded
    output = (form.size + form.m) * form.output_ops * channels
    return 2 * p.n * rows * columns * (products + data + output)


def strassen_flops(p: ConvProblem, s: conv_strassen.StrassenSchedule) -> int:
    """Of the products of parts, the sums of data, and the sums of products that no product begins with."""
    part, inner = conv_strassen.part_of(p, s.levels), 0
    for level in range(1, s.levels + 1):
        quarter = conv_strassen.part_of(p, level)
        inner += PRODUCTS ** (level - 1) * 4 * quarter.ic * quarter.ow
    made = sum(len(action.sources) - 1 for action in recombination(s.levels)[0] if isinstance(action, Sum))
    products = PRODUCTS**s.levels * part.oc * part.ic * part.ow
    return 2 * p.n * (products + inner + made * part.oc * part.ow)


def split_flops(program: Program, step: Step) -> int:
    """Of all products of tiles, those included that hang over an edge or that two strips have."""
    p, s = conv_problem(program, step), conv_split.SplitSchedule.from_fields(step.schedule)
    pixels = conv_split.tiles_of(p, s) * s.rows
    if "max_pool2d" in step.kernel:
        pixels = strips_of(fused_pool_problem(program, step, p), s) * p.oh * s.px_tiles * s.rows
    channels = conv_split.groups_of(p, s) * s.oc_tiles * p.y_block
    products = sum(len(conv_split.terms_of(p, chunk)) for chunk in range(conv_split.chunks_of(p)))
    return 2 * p.n * pixels * channels * products * 2 * UNIT


def winograd_split_flops(p: ConvProblem, s: conv_winograd_split.WinogradSplitSchedule) -> int:
    """Of all products of tiles at every position; not of the transforms, which other units make."""
    rows, columns = conv_winograd.grid(p, s.m)
    image_tiles = -(-rows // s.band) * -(-s.band * columns // s.rows) * s.rows
    channels = conv_winograd_split.groups_of(p, s) * s.oc_tiles * p.y_block
    products = FORMS[s.m].size ** 2 * conv_winograd_split.depth_of(p).products
    return 2 * p.n * products * image_tiles * channels * 2 * p.lanes


def done_flops(program: Program, step: Step) -> int:
    """The arithmetic of a step in multiply-adds of two FLOPs; any other vector instruction counts as one of them.

    A convolution's bias and ReLU are not counted: the sum starts at the bias, and the ReLU goes with the store.
    """
    if not step.ops or not isinstance(step.ops[0], Conv2d) or "kh" not in step.facts:
        return 2 * step.flops
    p = conv_problem(program, step)
    if "winograd_split" in step.kernel:
        return winograd_split_flops(p, conv_winograd_split.WinogradSplitSchedule.from_fields(step.schedule))
    if "winograd" in step.kernel:
        return winograd_flops(p, conv_winograd.WinogradSchedule.from_fields(step.schedule))
    if in_parts(step):
        return split_flops(program, step)
    if "strassen" in step.kernel:
        return strassen_flops(p, conv_strassen.StrassenSchedule.from_fields(step.schedule))
    return conv_flops(p)


def in_parts(step: Step) -> bool:
    """Whether tile units do a step's arithmetic."""
    return "split" in step.kernel


def moved_bytes(program: Program, step: Step) -> int:
    """What is read and written at least, once each. Of filters the form that is read: what a handle has prepared."""
    traffic = step_traffic(program, step)
    return traffic.read + traffic.written + max(traffic.constants, step.prepared)


def judge(program: Program, profile: Profile) -> list[Kernel]:
    """All kernels in order."""
    kernels = []
    for row, step in zip(profile.rows, program.steps, strict=True):
        done, size = done_flops(program, step), moved_bytes(program, step)
        least, bound = least_seconds(done, size, profile.machine, in_parts(step))
        kernels.append(Kernel(row.layer, row.kernel, row.schedule, row.seconds, row.flops, done, size, least, bound))
    return kernels


def least_seconds(done: int, size: int, machine: Machine, tiles: bool = False) -> tuple[float, str]:
    """The roofline: the time for the arithmetic at the peak, or for the bytes from the nearest level with room."""
    level = machine.level_for(size)
    peak, unit = (machine.tile_flops, "tiles") if tiles else (machine.fed_flops, "FMA")
    arithmetic, moving = done / (peak or machine.peak_flops), size / level.bytes_per_second
    return (arithmetic, unit) if arithmetic >= moving else (moving, level.level)


def record_of(profile: Profile, kernels: list[Kernel], load: dict[str, Any], peak_after: float) -> dict[str, Any]:
    """Ready for JSON. `peak_after` is the peak measured again when all was done."""
    spent = sum(k.seconds for k in kernels)
    judged = [k.seconds >= LEAST_PART * spent for k in kernels]
    peak = profile.machine.peak_flops
    warnings = [busy_warning(load)]
    if abs(peak_after / peak - 1) > STEADY:
        warnings.append(f"the peak was {peak / 1e9:.0f} GFLOP/s before and {peak_after / 1e9:.0f} after")
    return {
        "format": FORMAT,
        "kind": "kernels",
        "model": profile.model,
        "threads": profile.threads,
        "machine": {**machine_facts(), "limits": profile.machine.to_json(), "peak_after": peak_after},
        "load": load,
        "warning": "; ".join(words for words in warnings if words) or None,
        "versions": {"sqzc": sqzc.__version__},
        "runs": profile.runs,
        "total_seconds": profile.total,
        "plain_seconds": profile.plain_total,
        "kernel_seconds": spent,
        "least_seconds": sum(k.least for k in kernels),
        "bar": BAR,
        "below": sum(yes and k.share < BAR for k, yes in zip(kernels, judged, strict=True)),
        "kernels": [{**k.to_data(), "judged": yes} for k, yes in zip(kernels, judged, strict=True)],
    }


def show(record: dict[str, Any]) -> None:
    """The table."""
    rows = [
        [
            k["layer"],
            k["kernel"],
            f"{1e6 * k['seconds']:.1f}",
            f"{k['done'] / max(k['seconds'], 1e-12) / 1e9:.1f}",
            k["bound"],
            mark(k),
        ]
        for k in record["kernels"]
    ]
    title = f"{record['model']}, {record['threads']} thread(s): {1e3 * record['total_seconds']:.3f} ms with probes"
    show_table(["layer", "kernel", ">us", ">GFLOP/s done", "bound", ">of the roofline"], rows, title=title)
    click.echo(
        f"{peaks(record['machine']['limits'])}; all kernels at their limits: {1e3 * record['least_seconds']:.3f} ms"
    )
    judged = sum(k["judged"] for k in record["kernels"])
    click.echo(f"{record['below']} of {judged} kernels below {BAR:.0%}; in brackets: too short to be judged")


def peaks(limits: dict[str, Any]) -> str:
    """The limits of arithmetic in words."""
    words = [f"peak {limits['peak_flops'] / 1e9:.1f} GFLOP/s between registers"]
    if limits.get("fed_flops"):
        words.append(f"{limits['fed_flops'] / 1e9:.1f} from the first-level cache")
    if limits.get("tile_flops"):
        words.append(f"{limits['tile_flops'] / 1e9:.1f} of bfloat16 tiles")
    return ", ".join(words)


def mark(kernel: dict[str, Any]) -> str:
    """The share of the roofline, with a sign where it is below the bar."""
    share = f"{kernel['share']:.0%}"
    return f"({share})" if not kernel["judged"] else share if kernel["share"] >= BAR else f"< {share}"


@click.command()
@click.argument("model", default="squeezenet1.1")
@click.option("--threads", default=1, show_default=True)
@click.option("--target", help="The CPU to compile for. Default: this one.")
@click.option("--runs", type=int, help="How often the network runs. Default: about a second.")
@click.option("--weights", default="pretrained", show_default=True, help="pretrained, or random[:SEED].")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the record there.")
def main(model: str, threads: int, target: str | None, runs: int | None, weights: str, output: Path | None) -> None:
    """Time every kernel of MODEL and say how near to the roofline it is."""
    watch = Watch()
    try:
        options = ModelOptions(weights=weights, search_path=zoo_path(os.environ))
        result = profile_model(model, options, CodeOptions(target=target, opt_level=3), threads=threads, runs=runs)
        again = measure(result.profile.machine.target, threads).peak_flops
        record = record_of(result.profile, judge(result.program, result.profile), watch.facts(), again)
        if output is not None:
            write_text(output, json.dumps(record, indent=1, allow_nan=False) + "\n")
    except SqzcError as error:
        sys.exit(error.render())
    show(record)
    if record["warning"]:
        click.echo(f"warning: {record['warning']}", err=True)


if __name__ == "__main__":
    main()
