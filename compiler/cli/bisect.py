"""`sqzc bisect`: from wrong outputs to the pass, rewrite and op, or to the kernel, that makes them wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from sqzc.cli.console import PATH, Command, json_option, reporting, show_json, warn
from sqzc.cli.models import model_options, read_model_options
from sqzc.diagnostics import UsageError
from sqzc.driver.build import generate, load_code, make_plan, run_passes, settle
from sqzc.driver.debug.bisect import EXPECTATION, RIGHT, TOLERANCE, Question, Verdict, bisect, replay
from sqzc.driver.debug.cases import Arrays, kernel_cases
from sqzc.driver.debug.reproducer import load_arrays
from sqzc.driver.options import CodeOptions, parse_level
from sqzc.driver.sources import Source, read_model
from sqzc.ir.graph import Value
from sqzc.runtime import load

EXAMPLES = """
sqzc bisect squeezenet1.1
sqzc bisect squeezenet1.1 --input image.npy --expect scores.npy
sqzc bisect ./my_net --input data=x.npy --against O0 --passes O2
sqzc bisect model.onnx --against libold.so -o repro
sqzc bisect repro/repro.sqz --passes fold-mean --input repro/inputs.npz --expect repro/expected.npz --replay
"""

FOUND, NOT_OURS = 70, 1
DEFAULT_FOLDER = "sqzc-repro"


@click.command(name="bisect", cls=Command, examples=EXAMPLES)
@click.argument("model")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]FILE",
    help="An input as .npy, or all by name as .npz. Default: several seeded and awkward ones.",
)
@click.option("--expect", multiple=True, metavar="[NAME=]FILE", help="The right outputs for these inputs, likewise.")
@click.option(
    "--against",
    metavar="reference|O0|LIB",
    default="reference",
    show_default=True,
    help="Whose outputs are right where --expect does not say: the reference's, those of code at another level, or "
    "those of a compiled library.",
)
@click.option("--target", metavar="NAME", help="The CPU to compile for. Default: native.")
@click.option("-O", "level", type=str, metavar="LEVEL", help="Optimisation level, -O0 to -O3. Default: -O3.")
@click.option("--passes", metavar="SPEC", help="A pipeline in place of the level's.")
@click.option("--winograd", type=click.Choice(["auto", "off", "f2", "f4"]), help="As for sqzc compile.")
@click.option("--threads", type=click.IntRange(0), default=1, show_default=True, help="Threads to run the code on.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=TOLERANCE,
    show_default=True,
    help="How far the expected outputs may be from the reference's, relative to their largest magnitude.",
)
@click.option(
    "-o", "--output", type=PATH, metavar="DIR", help=f"Where to write the reproducer. Default: a new {DEFAULT_FOLDER}."
)
@click.option("--replay", "is_replay", is_flag=True, help="Only compare the outputs; search and write nothing.")
@model_options
@json_option
def command(
    model: str,
    inputs: Sequence[str],
    expect: Sequence[str],
    against: str,
    target: str | None,
    level: str | None,
    passes: str | None,
    winograd: str | None,
    threads: int,
    tolerance: float,
    output: Path | None,
    is_replay: bool,
    as_json: bool,
    **of_model: Any,
) -> None:
    """Find what makes the outputs of MODEL's code wrong.

    Looks for the first pass after which the outputs are wrong, the fewest of its rewrites that do it, and the op; when
    all passes are right, for the first kernel. Saves a few ops that show it, with inputs and right outputs, and prints
    the command that shows the failure on them.

    Exit code 0: everything is right. 70: a pass or kernel is wrong, which is a bug in sqzc. 1: the expected outputs are
    not those of the model even before any pass.
    """
    _check_usage(inputs, expect, against, is_replay)
    with reporting() as reporter:
        options = read_model_options(**of_model, download=reporter.download)
        source = read_model(model, options)
        opt_level = None if level is None else parse_level(level)
        code_options = CodeOptions(target=target, opt_level=opt_level, passes=passes, winograd=winograd)
        settings = settle(source, code_options)
        reporter.stage("reading arrays")
        values = {value.name: value for value in source.graph.inputs}
        results = dict(source.graph.outputs)
        given: Arrays | None = _read(inputs, values, "input") if inputs else None
        expected: Arrays | None = _read(expect, results, "output") if expect else None
        whose = "--expect"
        if expected is None and against != "reference":
            # Small ones, which saturate nothing: then every mistake shows in the outputs.
            given = kernel_cases(source.graph, 1)[1].inputs if given is None else given
            reporter.stage(f"running {against}")
            expected, whose = _outputs_of(against, source, given, target), against
        question = Question(source, settings, given, expected, whose, tolerance, threads, reporter.stage)
        verdict = replay(question) if is_replay else bisect(question)
        folder, shown = _save(verdict, output)
    warn(source.warnings)
    _show(verdict, folder, shown, as_json)
    if verdict.kind != RIGHT:
        raise click.exceptions.Exit(NOT_OURS if verdict.kind == EXPECTATION else FOUND)


def _check_usage(inputs: Sequence[str], expect: Sequence[str], against: str, is_replay: bool) -> None:
    if expect and not inputs:
        raise UsageError("--expect needs --input", hint="outputs are right for certain inputs only")
    if expect and against != "reference":
        raise UsageError("--expect and --against both say what is right")
    if is_replay and not expect:
        raise UsageError("--replay needs --input and --expect")


def _read(words: Sequence[str], wanted: Mapping[str, Value], kind: str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays by name, of the types that the graph has; UsageError for names and arrays that do not fit."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for word in words:
        name, equals, file = word.rpartition("=")
        if equals and name not in wanted and Path(word).exists():
            name, file = "", word
        arrays = load_arrays(Path(file))
        if set(arrays) == {""}:
            if not name and len(wanted) == 1:
                (name,) = wanted
            arrays = {name: arrays[""]}
        found.update(arrays)
    for name, array in found.items():
        if name not in wanted:
            raise UsageError(f"the model has no {kind} '{name}'", expected=", ".join(wanted))
        type_ = wanted[name].type
        if array.shape != type_.shape or array.dtype != type_.dtype.numpy:
            got = f"{array.dtype.name}{list(array.shape)}"
            raise UsageError(f"the array for {kind} '{name}' does not fit", expected=str(type_), got=got)
    missing = [name for name in wanted if name not in found] if kind == "input" else []
    if missing:
        raise UsageError(f"{kind} '{missing[0]}' is missing", expected=", ".join(wanted))
    return found


def _outputs_of(against: str, source: Source, inputs: Arrays, target: str | None) -> Arrays:
    """The outputs of other code: that of another level, or a library."""
    arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    if against.upper() in ("O0", "O1", "O2", "O3"):
        level = parse_level(against.upper())
        optimised = run_passes(source, settle(source, CodeOptions(target=target, opt_level=level)))
        with load_code(generate(optimised, make_plan(optimised))) as model:
            return model.run(arrays)
    if not Path(against).exists():
        raise UsageError(f"--against {against}", expected="reference, O0 to O3, or the path of a compiled library")
    with load(against) as model:
        outputs = model.run(arrays)
    names = {name for name, _ in source.graph.outputs}
    if not names & set(outputs):
        raise UsageError(f"{against} has none of the model's outputs", expected=", ".join(sorted(names)))
    return {name: array for name, array in outputs.items() if name in names}


def _save(verdict: Verdict, output: Path | None) -> tuple[Path | None, str]:
    """Saves the reproducer, if there is one; where it is, and the command that shows the failure."""
    if verdict.reproducer is None:
        return None, ""
    folder, number = output or Path(DEFAULT_FOLDER), 1
    while output is None and folder.exists():
        number += 1
        folder = Path(f"{DEFAULT_FOLDER}-{number}")
    return folder, verdict.reproducer.save(folder, verdict.text)


def _show(verdict: Verdict, folder: Path | None, shown: str, as_json: bool) -> None:
    ops = verdict.reproducer.ops if verdict.reproducer else None
    if as_json:
        where = None if folder is None else str(folder)
        data = {"verdict": verdict.kind, "text": verdict.text, **verdict.data}
        show_json({**data, "reproducer": where, "reproducer_ops": ops, "command": shown or None})
        return
    click.echo(verdict.text)
    if folder is not None:
        click.echo(f"\n{folder}/ shows it with {ops} op{'s' if ops != 1 else ''}:\n  {shown}")
