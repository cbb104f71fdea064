"""Sixty convolutions of other networks, each timed against onnxruntime: nothing may be tuned to one network alone.

Each shape is a graph of its own (convolution, bias, ReLU, seeded weights), compiled at O3 as any other, and exported to
ONNX for the peers. Images go in and come out as NCHW on both sides, so that the time of everybody includes bringing
them into the layout that suits it and back. Memory stays where it is from call to call.

    python benchmarks/shapes.py --peer-python peers/bin/python --json benchmarks/results/shapes.json
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import sqzc
from sqzc.backends.onnx_export import to_bytes
from sqzc.backends.reference import evaluate
from sqzc.diagnostics import InternalError, SqzcError, UsageError
from sqzc.driver.api import WatchOptions, build
from sqzc.driver.bench import Pace, Spec, find_peers, interleave, opened
from sqzc.driver.bench.agreement import Agreement, compare, difference
from sqzc.driver.bench.machine import Watch, busy_warning, machine_facts
from sqzc.driver.bench.model import FORMAT, setting
from sqzc.driver.bench.peers import Peers, isa_limit, limit_note, parse_peers
from sqzc.driver.bench.timing import runs_for
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.ir.builder import Builder
from sqzc.ir.constant import Constant
from sqzc.ir.files import write_text
from sqzc.ir.graph import Graph
from sqzc.ir.ops.elementwise import Relu
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.types import f32
from sqzc.plan.program import Program
from sqzc.profile.build import profile_model
from sqzc.profile.machine import Machine, measure
from sqzc.target import resolve

TABLE = Path(__file__).with_name("shapes.txt")
COLUMNS = ("net", "layer", "n", "ic", "h", "w", "oc", "k", "stride", "pad", "group")


@dataclass(frozen=True)
class Shape:
    """One convolution. Pairs are down, then across."""

    net: str
    layer: str
    n: int
    ic: int
    h: int
    w: int
    oc: int
    k: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    group: int

    @property
    def name(self) -> str:
        """The network and the layer."""
        return f"{self.net}/{self.layer}"

    def __str__(self) -> str:
        """Such as 64x56x56 -> 64, 3x3, or with stride 2 .../2; padding is not shown."""
        group = "" if self.group == 1 else f", group {self.group}"
        stride = "" if self.stride == (1, 1) else f" / {self.stride[0]}"
        images = "" if self.n == 1 else f"{self.n} x "
        return f"{images}{self.ic}x{self.h}x{self.w} -> {self.oc}, {self.k[0]}x{self.k[1]}{stride}{group}"


def read_shapes(path: Path = TABLE) -> list[Shape]:
    """The table: words by column, lines that start with # left out."""
    shapes = []
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        words = dict(zip(COLUMNS, line.split(), strict=True))
        pairs = {name: _pair(words.pop(name)) for name in ("k", "stride", "pad")}
        numbers = {name: int(words.pop(name)) for name in ("n", "ic", "h", "w", "oc", "group")}
        shapes.append(Shape(**words, **pairs, **numbers))  # type: ignore[arg-type]
    return shapes


def _pair(text: str) -> tuple[int, int]:
    """`3` is 3 both ways, `1x7` is 1 down and 7 across."""
    first, found, second = text.partition("x")
    return int(first), int(second if found else first)


def graph_of(shape: Shape, seed: int = 0) -> Graph:
    """Convolution, bias and ReLU from `x` to `y`, with seeded weights of a size that keeps results near 1."""
    random = np.random.default_rng(seed)
    fan_in = shape.ic // shape.group * shape.k[0] * shape.k[1]
    weights = random.standard_normal((shape.oc, shape.ic // shape.group, *shape.k)) * np.sqrt(2 / fan_in)
    graph = Graph(re.sub(r"\W", "_", shape.name))
    x = graph.add_input("x", f32(shape.n, shape.ic, shape.h, shape.w))
    w = graph.add_constant(Constant("w", weights.astype(np.float32)))
    bias = graph.add_constant(Constant("bias", (0.1 * random.standard_normal(shape.oc)).astype(np.float32)))
    op = Conv2d(stride=shape.stride, pads=(*shape.pad, *shape.pad), group=shape.group)
    build = Builder(graph)
    graph.add_output("y", build.add(Relu(), build.add(op, x, w, bias)))
    return graph


def plan_text(program: Program) -> list[str]:
    """The kernels in order, each with its schedule."""
    return [f"{s.kernel} {' '.join(f'{k}={v}' for k, v in s.schedule.items())}".strip() for s in program.steps]


@dataclass(frozen=True)
class Job:
    """What is the same for all shapes."""

    peers: Peers
    threads: int
    target: str | None
    rounds: int
    turn_seconds: float
    tolerance: float
    limits: Machine | None
    """Of the machine, when every step is to be timed too."""


def run_shape(shape: Shape, job: Job) -> dict[str, Any]:
    """The record of one shape; its `error` says what went wrong if something did."""
    record: dict[str, Any] = {"name": shape.name, "shape": asdict(shape), "error": None}
    graph = graph_of(shape)
    record["flops"] = 2 * graph.macs
    with tempfile.TemporaryDirectory(prefix="sqzc-shapes-") as name:
        folder = Path(name)
        library = folder / "shape.so"
        try:
            result = build(graph, library, ModelOptions(), CodeOptions(target=job.target, opt_level=3), WatchOptions())
        except (SqzcError, InternalError) as error:
            return {**record, "error": f"compilation: {error}"}
        assert result.code is not None
        record["compile_seconds"] = sum(result.seconds.values())
        record["plan"] = plan_text(result.code.program)
        record["step_seconds"] = step_seconds(graph, job)
        return {**record, **_time(shape, graph, library, job, result.code.settings.target.name)}


def step_seconds(graph: Graph, job: Job) -> list[float] | None:
    """What each kernel takes, by `sqzc profile`; None when that was not asked for."""
    if job.limits is None:
        return None
    code = CodeOptions(target=job.target, opt_level=3)
    profile = profile_model(graph, ModelOptions(), code, threads=job.threads, runs=60, machine=job.limits).profile
    return [row.seconds for row in profile.rows]


def _time(shape: Shape, graph: Graph, library: Path, job: Job, target: str) -> dict[str, Any]:
    image = np.random.default_rng(1).standard_normal((shape.n, shape.ic, shape.h, shape.w)).astype(np.float32)
    files = {"x": library.with_name("x.npy")}
    np.save(files["x"], image)
    onnx = library.with_suffix(".onnx")
    onnx.write_bytes(to_bytes(graph))
    specs = [Spec("sqzc", library, files, job.threads, bound=True)]
    for peer in job.peers.names:
        specs.append(Spec(peer, onnx, files, job.threads, job.peers.python, bound=True, isa=isa_limit(target)))
    try:
        with opened(specs) as contenders:
            pace = Pace(job.rounds, runs_for(contenders, job.turn_seconds), pause_seconds=0.005)
            times = interleave(contenders, pace)
            answers = {contender.name: contender.answer() for contender in contenders}
            agreements = compare(answers, 0)
            record = setting(contenders, times, agreements, shape.n, job.tolerance)
    except SqzcError as error:
        return {"error": f"run: {error}"}
    if not record["agree"]:
        exact = evaluate(graph, {"x": image}, dtype="float64")["y"]
        errors = {name: difference(arrays[0], exact) for name, arrays in answers.items()}
        words = ", ".join(f"{name} {error:.2g}" for name, error in errors.items())
        record["error"] = f"wrong answer; differences from float64: {words}"
    return {**record, "difference": _relative(agreements)}


def _relative(agreements: list[Agreement]) -> float | None:
    """The largest difference between any two, as a share of the largest value; None where there is none or no end."""
    shares = [a.largest / (a.scale or 1.0) for a in agreements]
    return max(shares) if shares and math.isfinite(max(shares)) else None


def row_text(record: dict[str, Any], shape: Shape) -> str:
    """One line of the table, as it is known."""
    if record["error"]:
        return f"{record['name']:34} {shape!s:40} FAILED: {record['error'].splitlines()[0]}"
    ours, *peers = record["contenders"]
    times = "".join(f"{1e6 * row['median']:15.1f}" for row in (ours, *peers))
    speed = record["flops"] / ours["median"] / 1e9
    ratio = f"{record['ratio']:8.3f}" if peers else ""
    steps = record["plan"]
    if record["step_seconds"]:
        steps = [f"{1e6 * us:.0f} us {step}" for step, us in zip(steps, record["step_seconds"], strict=True)]
    return f"{record['name']:34} {shape!s:40}{times}{ratio}{speed:9.1f}  {'; '.join(steps)}"


def summary_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Geometric mean of the ratios, the worst shape, and the shapes that failed."""
    timed = [row for row in rows if not row["error"] and row.get("ratio")]
    worst = max(timed, key=lambda row: row["ratio"], default=None)
    return {
        "geometric_mean": statistics.geometric_mean([row["ratio"] for row in timed]) if timed else None,
        "worst": None if worst is None else {"name": worst["name"], "ratio": worst["ratio"]},
        "failed": [row["name"] for row in rows if row["error"]],
    }


def run_all(shapes: list[Shape], job: Job) -> Iterator[dict[str, Any]]:
    """Record after record, printing each."""
    heads = "".join(f"{name + ' us':>15}" for name in ("sqzc", *job.peers.names))
    click.echo(f"{'shape':34} {'':40}{heads}{'ratio' if job.peers.names else '':>8}{'GFLOP/s':>9}  kernels")
    for shape in shapes:
        record = run_shape(shape, job)
        click.echo(row_text(record, shape))
        yield record


@click.command()
@click.option("--vs", default="onnxruntime", show_default=True, help="Peers, of onnxruntime and openvino.")
@click.option("--peer-python", type=click.Path(path_type=Path), help="The interpreter that has the peers.")
@click.option("--threads", default=1, show_default=True)
@click.option("--target", help="The CPU to compile for. Default: this one.")
@click.option("--only", default="", metavar="REGEX", help="The shapes whose net/layer has a match.")
@click.option("--rounds", default=10, show_default=True, help="How often each contender has a turn.")
@click.option("--turn-ms", default=20.0, show_default=True, help="How long the slower one's turn is, about.")
@click.option("--tolerance", default=2e-5, show_default=True, help="Of outputs, by the largest of them.")
@click.option("--steps", is_flag=True, help="Time every kernel of each shape too, as sqzc profile does.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the record there.")
def main(
    vs: str,
    peer_python: Path | None,
    threads: int,
    target: str | None,
    only: str,
    rounds: int,
    turn_ms: float,
    tolerance: float,
    steps: bool,
    output: Path | None,
) -> None:
    """Time the convolutions in shapes.txt. The exit code is 1 when one does not compile or gives wrong answers."""
    try:
        peers = find_peers(parse_peers(vs), peer_python)
        limits = measure(resolve(target or "native"), threads) if steps else None
        job = Job(peers, threads, target, rounds, turn_ms / 1e3, tolerance, limits)
        shapes = [shape for shape in read_shapes() if re.search(only, shape.name)]
        if not shapes:
            raise UsageError(f"no shape has a match for '{only}'", expected=f"a name in {TABLE.name}")
        watch = Watch()
        rows = list(run_all(shapes, job))
    except SqzcError as error:
        sys.exit(error.render())
    load = watch.facts()
    isa = isa_limit(target or "native")
    record = {
        "format": FORMAT,
        "kind": "shapes",
        "target": target or machine_facts()["target"],
        "threads": threads,
        "machine": machine_facts(),
        "load": load,
        "versions": {"sqzc": sqzc.__version__, **job.peers.versions},
        "pace": {"rounds": rounds, "turn_seconds": job.turn_seconds},
        "notes": [note for peer in job.peers.names if (note := limit_note(peer, isa))],
        "warning": busy_warning(load),
        "tolerance": tolerance,
        **summary_of(rows),
        "shapes": rows,
    }
    if output is not None:
        write_text(output, json.dumps(record, indent=1, allow_nan=False) + "\n")
    show_summary(record)
    if record["failed"]:
        sys.exit(1)


def show_summary(record: dict[str, Any]) -> None:
    """What all shapes come to."""
    if record["geometric_mean"] is not None:
        worst = record["worst"]
        click.echo(f"geometric mean {record['geometric_mean']:.3f}, worst {worst['ratio']:.3f} ({worst['name']})")
    if record["failed"]:
        click.echo(f"failed: {', '.join(record['failed'])}")
    if record["warning"]:
        click.echo(f"warning: {record['warning']}", err=True)


if __name__ == "__main__":
    main()
