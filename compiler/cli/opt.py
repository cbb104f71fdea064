"""`sqzc opt`: passes over a graph in text form, as a filter."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from sqzc.backends.reference import evaluate_node
from sqzc.cli.checks import CheckingCommand, passes_text, verify_passes_option
from sqzc.cli.console import PATH, names_option
from sqzc.diagnostics import FileError
from sqzc.driver.debug.verify import VerifyPasses
from sqzc.driver.emit import check_output
from sqzc.driver.facts import ModelFacts
from sqzc.driver.labels import labels_array, stored_labels
from sqzc.driver.watch import PrintIr, timing_rows, timing_text
from sqzc.ir.constant import Array
from sqzc.ir.files import SHARED_WEIGHTS, WeightStore, read_text, save_weights, weights_of, write_text
from sqzc.ir.graph import Graph
from sqzc.ir.parser import parse_graph
from sqzc.ir.printer import print_graph
from sqzc.passes.manager import Instrument, PassManager
from sqzc.target import resolve

EXAMPLES = """
sqzc opt net.sqz --passes O2 -o net-O2.sqz
sqzc opt dumps/00-input.sqz --passes fold-mean,fuse-conv-relu{limit=3} -o -
cat small.sqz | sqzc opt - --passes dead-code -o -
"""


@click.command(name="opt", cls=CheckingCommand, examples=EXAMPLES)
@click.argument("file", type=PATH)
@click.option(
    "--passes", metavar="SPEC", default="", help="Passes with options, or a level: fold-mean,dead-code or O2."
)
@click.option(
    "-o", "--output", type=PATH, default="-", show_default=True, help="- is standard output, without weights."
)
@click.option("--weights", type=PATH, metavar="FILE", help="The weights, when they are not beside FILE.")
@click.option("--target", metavar="NAME", default="native", show_default=True, help="For passes that depend on it.")
@click.option("--stop-after", metavar="PASS|N", help="End the pipeline after this pass, or after N passes.")
@names_option("--print-before", "Show the IR before these passes, or all.")
@names_option("--print-after", "Show the IR after these passes, or all.")
@verify_passes_option
@click.option("--time-passes", is_flag=True, help="Show how long every pass took.")
def command(
    file: Path,
    passes: str,
    output: Path,
    weights: Path | None,
    target: str,
    stop_after: str | None,
    print_before: tuple[str, ...],
    print_after: tuple[str, ...],
    verify_passes: int,
    time_passes: bool,
) -> None:
    """Run passes on the graph in the .sqz file FILE (- is standard input)."""
    to_stdout = str(output) == "-"
    if not to_stdout:
        check_output(output)
    verifier = VerifyPasses(seeds=verify_passes, target=resolve(target).name)
    instruments: list[Instrument] = [PrintIr(print_before, print_after, lambda text: click.echo(text, err=True))]
    if verify_passes:
        instruments.append(verifier)
    manager = PassManager(passes, instruments, target=resolve(target), evaluate=evaluate_node, stop_after=stop_after)
    graph = _read(file, weights)
    records = manager.run(graph)
    facts = ModelFacts.of(graph, str(file))
    if facts.build is not None:
        done = [*facts.build.done, *(record.spec for record in records)]
        graph.meta["build"] = {**asdict(facts.build), "done": done}
    if time_passes:
        click.echo(timing_text(timing_rows(records)), err=True)
    if verify_passes:
        click.echo(passes_text(verifier), err=True)
    if to_stdout:
        click.echo(print_graph(graph), nl=False)
    else:
        save_weights(output.with_suffix(".safetensors"), {**weights_of(graph), **_labels(facts, file)})
        write_text(output, print_graph(graph))


def _read(file: Path, weights: Path | None) -> Graph:
    """The graph, with weights from the file given, else from those beside it."""
    if weights is not None and not weights.is_file():
        raise FileError(f"there is no weights file {weights}")
    if str(file) == "-":
        try:
            text = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError:
            raise FileError("standard input is not text IR", expected="UTF-8 text") from None
        return parse_graph(text, WeightStore([weights] if weights else []), "<stdin>")
    beside = [file.with_suffix(".safetensors"), file.parent / SHARED_WEIGHTS]
    return parse_graph(read_text(file), WeightStore([weights] if weights else beside), str(file))


def _labels(facts: ModelFacts, file: Path) -> Mapping[str, Array]:
    """The labels that travel with the graph, for the weights file of the result."""
    if facts.labels_sha256 is None or str(file) == "-":
        return {}
    return labels_array(stored_labels(file, facts.labels_sha256))
