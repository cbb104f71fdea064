"""`sqzc compile`: a model to a library, or to another form."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from sqzc.cli.checks import (
    CheckingCommand,
    checks_data,
    kernels_text,
    passes_text,
    verify_kernels_option,
    verify_passes_option,
)
from sqzc.cli.console import PATH, json_option, names_option, reporting, show_json, size_text, warn
from sqzc.cli.models import model_options, read_model_options, tuning_option
from sqzc.diagnostics import UsageError
from sqzc.driver.api import Result, WatchOptions, build
from sqzc.driver.emit import SUFFIXES, TEXT_KINDS, code_text, graph_text, kind_for
from sqzc.driver.options import CodeOptions, parse_level
from sqzc.driver.watch import timing_rows, timing_text

EXAMPLES = """
sqzc compile squeezenet1.1 -o libsqz.so
sqzc compile squeezenet1.1 -o libsqz.so --target x86-64-v3 --dump-ir dumps/
sqzc compile ./my_net -o libnet.so --input-shape data:1,3,224,224 --mean 104,117,123
sqzc compile predict_net.pb --init-net init_net.pb -o net.a --prefix net
sqzc compile squeezenet1.1 --weights random:7 --emit asm -o - | less
sqzc compile dumps/13-fuse-conv-relu.sqz -o libsqz.so
"""


@click.command(name="compile", cls=CheckingCommand, examples=EXAMPLES)
@click.argument("model")
@click.option("-o", "--output", type=PATH, required=True, help="The file to write; - is standard output, for text.")
@click.option(
    "--emit",
    "kind",
    type=click.Choice(list(SUFFIXES)),
    help="What to write. Default: what the output's suffix says, else a shared library.",
)
@click.option("--target", metavar="NAME", help="The CPU to compile for, such as x86-64-v3. Default: native.")
@model_options
@click.option("--labels", type=PATH, help="A file with the names of the classes, one a line.")
@click.option("--prefix", help="What the library's functions are called by. Default: the model's name.")
@click.option("-O", "level", type=str, metavar="LEVEL", help="Optimisation level, -O0 to -O3. Default: -O3.")
@click.option("--passes", metavar="SPEC", help="A pipeline in place of the level's: fold-mean,fuse-conv-relu{limit=3}")
@click.option(
    "--dump-ir",
    type=PATH,
    metavar="DIR",
    help="Write the IR after every pass that changed it, the code, and a page that shows it all: DIR/index.html.",
)
@names_option("--print-before", "Show the IR before these passes, or all.")
@names_option("--print-after", "Show the IR after these passes, or all.")
@click.option("--stop-after", metavar="PASS|N", help="End the pipeline after this pass, or after N passes.")
@verify_passes_option
@verify_kernels_option
@click.option("--time-passes", is_flag=True, help="Show how long every pass took.")
@click.option("--threads-max", type=int, metavar="N", help="The most threads that the library accepts.")
@click.option(
    "--winograd",
    type=click.Choice(["auto", "off", "f2", "f4"]),
    help="3x3 convolutions with fewer multiplications: where it pays, never, F(2,3) or F(4,3). Default: auto.",
)
@tuning_option
@click.option("--linker", metavar="NAME", help="ld, ld.lld, cc or ziglang. Default: the first that is found.")
@json_option
def command(
    model: str,
    output: Path,
    kind: str | None,
    target: str | None,
    labels: Path | None,
    prefix: str | None,
    level: str | None,
    passes: str | None,
    dump_ir: Path | None,
    print_before: tuple[str, ...],
    print_after: tuple[str, ...],
    stop_after: str | None,
    verify_passes: int,
    verify_kernels: int,
    time_passes: bool,
    threads_max: int | None,
    winograd: str | None,
    tuning: Path | None,
    linker: str | None,
    as_json: bool,
    **of_model: Any,
) -> None:
    """Compile MODEL to native code.

    MODEL is the name of a zoo model (see `sqzc zoo list`), a folder with predict_net.pb and init_net.pb, the path of a
    predict net, an .onnx file, or a .sqz file. A .sqz file that --dump-ir wrote goes on from where it was dumped.
    """
    to_stdout = str(output) == "-"
    kind = kind_for(output, kind)
    if to_stdout and kind not in TEXT_KINDS:
        raise UsageError(f"'{kind}' is not text", expected=f"--emit {', '.join(TEXT_KINDS)} for standard output")
    if to_stdout and as_json:
        raise UsageError("--json and -o - both want standard output")
    start = time.perf_counter()
    with reporting() as reporter:
        result = build(
            model,
            None if to_stdout else output,
            read_model_options(**of_model, labels=labels, download=reporter.download),
            CodeOptions(
                target=target,
                opt_level=None if level is None else parse_level(level),
                passes=passes,
                prefix=prefix,
                threads_max=threads_max,
                stop_after=stop_after,
                winograd=winograd,
                tuning=tuning,
            ),
            WatchOptions(
                dump_ir=dump_ir,
                print_before=print_before,
                print_after=print_after,
                show=lambda text: click.echo(text, err=True),
                verify_passes=verify_passes,
                verify_kernels=verify_kernels,
                on_stage=reporter.stage,
            ),
            emit_kind=kind,
            linker=linker,
        )
    seconds = time.perf_counter() - start
    warn(result.warnings)
    if to_stdout:
        assert kind == "ir" or result.code is not None
        text = graph_text(result.optimised) if result.code is None else code_text(result.code, kind)
        click.echo(text, nl=False)
    summary = summarise(result, kind, None if to_stdout else output, seconds)
    if time_passes:
        summary["passes"] = timing_rows(result.optimised.records)
    if verify_passes or verify_kernels:
        summary["verified"] = checks_data(result.verified, result.kernels)
    if as_json:
        show_json(summary)
        return
    if time_passes:
        click.echo(timing_text(summary["passes"]), err=True)
    if result.verified is not None:
        click.echo(passes_text(result.verified), err=True)
    if result.kernels:
        click.echo(kernels_text(result.kernels), err=True)
    if not to_stdout:
        click.echo(summary_text(summary))


def summarise(result: Result, kind: str, output: Path | None, seconds: float) -> dict[str, Any]:
    """What came out, as data."""
    summary: dict[str, Any] = {
        "kind": kind,
        "file": None if output is None else str(output),
        "bytes": None if output is None else output.stat().st_size,
        "seconds": seconds,
        "stages": dict(result.seconds),
        "model": result.optimised.graph.name,
        "target": result.optimised.settings.target.name,
        "opt_level": result.optimised.settings.opt_level,
        "weights": result.source.facts.weights,
        "ops": len(result.optimised.graph.nodes),
        "warnings": list(result.warnings),
    }
    if result.code is not None:
        program = result.code.program
        summary.update(
            kernels=len(program.steps),
            arena_bytes=program.arena_bytes,
            arena_bound_bytes=program.bound_bytes,
            scratch_bytes=program.scratch_bytes,
            constant_bytes=len(result.code.constants),
            tuning=program.meta.get("tuning"),
        )
    return summary


def summary_text(summary: dict[str, Any]) -> str:
    """What came out, in two or three lines."""
    lines = [f"{summary['file']}: {size_text(summary['bytes'])} in {summary['seconds']:.1f} s"]
    facts = f"{summary['model']} for {summary['target']} at O{summary['opt_level']}, weights {summary['weights']}"
    lines.append(f"  {facts}")
    if "kernels" in summary:
        arena, bound = summary["arena_bytes"], summary["arena_bound_bytes"]
        share = f", {arena / bound:.2f} of it" if bound else ""
        lines.append(
            f"  {summary['kernels']} kernels; arena {size_text(arena)} (lower bound {size_text(bound)}{share}), "
            f"scratch {size_text(summary['scratch_bytes'])} a thread"
        )
    if summary.get("tuning"):
        lines.append(f"  {len(summary['tuning']['steps'])} kernels tuned on {summary['tuning']['cpu']}")
    if summary["weights"].startswith("random"):
        lines.append("  RANDOM WEIGHTS: the answers of this library mean nothing")
    return "\n".join(lines)
