"""`sqzc info`: what a model or a library is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from sqzc.cli.console import Command, json_option, plain_metadata, reporting, show_json, show_table, size_text, warn
from sqzc.cli.models import model_options, read_model_options
from sqzc.diagnostics import ZooError
from sqzc.driver.facts import LibraryFacts
from sqzc.driver.options import ModelOptions
from sqzc.driver.sources import Source, read_model
from sqzc.ir.graph import Graph
from sqzc.runtime.library import open_library
from sqzc.zoo import find, published

EXAMPLES = """
sqzc info squeezenet1.1
sqzc info ./my_net --input-shape data:1,3,224,224 --layers
sqzc info libsqz.so --json
"""


@click.command(name="info", cls=Command, examples=EXAMPLES)
@click.argument("model")
@click.option("--layers", is_flag=True, help="One row for each operator of a model, or each kernel of a library.")
@model_options
@json_option
def command(model: str, layers: bool, as_json: bool, **of_model: Any) -> None:
    """Say what MODEL is: a model as for `sqzc compile`, or a compiled library.

    FLOPs count two for a multiply-accumulate, one for a bias or a ReLU, and nine comparisons for each result of a 3x3
    max-pool; the figure beside it counts multiply-accumulates alone.
    """
    if is_library(Path(model)):
        facts = cast(LibraryFacts, open_library(model).read_metadata())
        data, rows = library_info(model, facts), list(facts.get("layers", []))
    else:
        source = _read(model, read_model_options(**of_model))
        warn(source.warnings)
        data, rows = model_info(source), graph_layers(source.graph)
    if as_json:
        show_json({**data, "layers": rows} if layers else data)
        return
    for key, value in data.items():
        click.echo(f"{key.replace('_', ' '):14} {_words(key, value)}")
    if layers:
        click.echo()
        show_layers(rows)


def is_library(path: Path) -> bool:
    """Whether the file starts like a shared library."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def _read(model: str, options: ModelOptions) -> Source:
    """The model; one of the zoo without its weights where they are not on this machine."""
    if model in published() and options.weights == "pretrained":
        try:
            find(model, model_dir=options.model_dir, search_path=options.search_path, allow_network=False)
        except ZooError:
            source = read_model(model, ModelOptions(options.init_net, options.inputs, options.mean, "random"))
            words = f"the weights of {model} are not on this machine: sqzc zoo fetch {model}"
            return Source(source.graph, source.facts, None, (words,))
    with reporting() as reporter:
        reporter.stage("reading the model")
        return read_model(model, options)


def model_info(source: Source) -> dict[str, Any]:
    """Facts about a model."""
    graph, facts = source.graph, source.facts
    kinds = Counter(node.op.name for node in graph.nodes)
    return {
        "name": graph.name,
        "format": facts.format,
        "inputs": [
            {"name": v.name, "type": str(v.type), "layout": facts.layouts.get(v.name, "")} for v in graph.inputs
        ],
        "outputs": [{"name": name, "type": str(v.type), "layout": ""} for name, v in graph.outputs],
        "mean": None if facts.mean is None else list(facts.mean),
        "channel_order": facts.channel_order,
        "gflops": (facts.flops or 0) / 1e9,
        "gflops_mac": 2 * (facts.macs or 0) / 1e9,
        "mparams": (facts.params or 0) / 1e6,
        "licence": facts.licence,
        "weights": facts.weights,
        "sources": [dict(entry) for entry in facts.sources],
        "labels": None if source.labels is None else len(source.labels.names),
        "ops": dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0]))),
    }


def library_info(path: str, facts: LibraryFacts) -> dict[str, Any]:
    """Facts about a library, from its own metadata."""
    short = plain_metadata(facts)
    tensors = {
        kind: [
            {"name": t["name"], "type": f"{t['dtype']}[{','.join(map(str, t['shape']))}]", "layout": t["layout"]}
            for t in short[kind]
        ]
        for kind in ("inputs", "outputs")
    }
    return {
        "name": short["name"],
        "format": "library",
        "bytes": Path(path).stat().st_size,
        "prefix": short["prefix"],
        **tensors,
        "mean": short["mean"],
        "channel_order": short["channel_order"],
        "gflops": short["flops"] / 1e9,
        "gflops_mac": 2 * short.get("macs", 0) / 1e9,
        "mparams": short["params"] / 1e6,
        "licence": short["licence"],
        "weights": short["weights"],
        "sources": short["sources"],
        "labels": short["labels"],
        "opt_level": short["opt_level"],
        "passes": short["passes"],
        "target": short["target"],
        "workspace_bytes": short["workspace_bytes"],
        "tolerance": short["tolerance"],
        "versions": short["versions"],
    }


def _words(key: str, value: Any) -> str:
    """A fact for people."""
    if value is None:
        return "none" if key == "mean" else "not known"
    if key in ("gflops", "gflops_mac"):
        return f"{value:.4f}" + ("  (2 for each multiply-accumulate, nothing else)" if key == "gflops_mac" else "")
    if key == "mparams":
        return f"{value:.3f}"
    if key.endswith("bytes"):
        return size_text(value)
    if key in ("inputs", "outputs"):
        return "; ".join(f"{t['name']}: {t['type']} {t['layout'].upper()}".rstrip() for t in value)
    if key == "sources":
        return "; ".join(f"{s['name']} ({'published' if s['verified'] else 'unverified'})" for s in value) or "none"
    if key == "ops":
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if key == "target":
        return f"{value['name']} ({' '.join(value['features'])})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {text}" for name, text in value.items())
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def graph_layers(graph: Graph) -> list[dict[str, Any]]:
    """One row for each op that computes something."""
    return [
        {
            "kernel": node.op.name,
            "sources": list(dict.fromkeys(name for value in node.outputs for name in value.source)),
            "result": str(node.outputs[0].type),
            "flops": node.flops,
            "params": int(np.sum([v.type.elements for v in node.inputs if v.is_constant], dtype=np.int64)),
        }
        for node in graph.nodes
    ]


def show_layers(rows: list[dict[str, Any]]) -> None:
    """The table of layers of a model or library, with their share of the work."""
    total = sum(row["flops"] for row in rows) or 1
    show_table(
        ["layer", "op or kernel", "result", ">MFLOPs", ">share", "schedule" if "schedule" in rows[0] else ">params"],
        [
            (
                ", ".join(row["sources"][-2:]),
                row["kernel"],
                row["result"],
                f"{row['flops'] / 1e6:.2f}",
                f"{100 * row['flops'] / total:.1f} %",
                row.get("schedule", row.get("params", "")),
            )
            for row in rows
        ],
    )
