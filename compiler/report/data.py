"""Everything that the page shows, as one JSON-able record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqzc
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.printer import print_node
from sqzc.report.dumps import Dumps, PassEntry
from sqzc.report.graphdiff import NodeState, compare, key
from sqzc.report.planview import plan_view
from sqzc.report.textdiff import count_changes, diff_lines


def report_data(dumps: Dumps) -> dict[str, Any]:
    """The record for one folder."""
    graph = dumps.last_graph
    return {
        "sqzc": sqzc.__version__,
        "model": graph.name,
        "meta": _meta(graph),
        "pipeline": pipeline_rows(dumps),
        "stages": _stages(dumps),
        "plan": None if dumps.plan is None else plan_view(dumps.plan),
        "files": list(dumps.files),
    }


def _meta(graph: Graph) -> dict[str, str]:
    """What the heading says of the model. The meta of a `.sqz` file is anything at all, so only texts are taken."""
    build = graph.meta.get("build")
    found = dict(build) if isinstance(build, dict) else {}
    wanted = {
        "format": graph.meta.get("format"),
        "weights": graph.meta.get("weights"),
        "target": found.get("target"),
        "level": found.get("opt_level"),
    }
    return {name: str(value) for name, value in wanted.items() if isinstance(value, str | int)}


# -- pipeline -----------------------------------------------------------------------------------------------------


def pipeline_rows(dumps: Dumps) -> list[dict[str, Any]]:
    """One row for the graph as it came and one for every pass, with the measures of the graph after it."""
    measured = measures(dumps.graphs[dumps.first])
    rows = [_row(0, "input", dumps.first, None, measured)]
    for entry in dumps.passes:
        if entry.file is not None:
            measured = measures(dumps.graphs[entry.file])
        rows.append(
            {
                **_row(entry.index, entry.spec, entry.file, entry.seconds, measured),
                "rewrites": len(entry.rewrites),
                "notes": list(entry.notes),
                "check": dict(entry.check),
            }
        )
    return rows


def _row(index: int, spec: str, file: str | None, seconds: float | None, measured: Mapping[str, int]) -> dict[str, Any]:
    return {
        "index": index,
        "pass": spec,
        "file": file,
        "changed": file is not None,
        "seconds": seconds,
        **measured,
        "rewrites": 0,
        "notes": [],
        "check": {},
    }


def measures(graph: Graph) -> dict[str, int]:
    """What a graph costs: ops, their FLOPs, the bytes they move, constants and their bytes."""
    return {
        "ops": len(graph.nodes),
        "flops": graph.flops,
        "bytes": sum(node_bytes(node) for node in graph.nodes),
        "constants": len(graph.constants),
        "constant_bytes": sum(value.type.physical_bytes for value in graph.constants),
    }


def node_bytes(node: Node) -> int:
    """Bytes of all operands and results, each once: what the op moves when nothing is kept in registers or caches."""
    values = {id(value): value for value in (*node.inputs, *node.outputs)}
    return sum(value.type.physical_bytes for value in values.values())


# -- stages -------------------------------------------------------------------------------------------------------


def _stages(dumps: Dumps) -> list[dict[str, Any]]:
    """The graphs that can be opened: the input and what each pass made that changed something."""
    stages: list[dict[str, Any]] = [
        {"index": 0, "text": _lines(dumps.texts[dumps.first]), "graph": _graph(dumps.graphs[dumps.first])}
    ]
    previous = dumps.first
    for entry in dumps.passes:
        if entry.file is None:
            continue
        stages.append(_stage(dumps, entry, previous, stages[-1]["text"]))
        previous = entry.file
    return stages


def _stage(dumps: Dumps, entry: PassEntry, previous: str, text_before: Sequence[str]) -> dict[str, Any]:
    assert entry.file is not None
    text = _lines(dumps.texts[entry.file])
    rows = diff_lines(text_before, text)
    left, right = compare(dumps.graphs[previous], dumps.graphs[entry.file])
    return {
        "index": entry.index,
        "text": text,
        "diff": rows,
        "counts": count_changes(rows),
        "graph": _graph(dumps.graphs[entry.file]),
        "before": _interesting(left),
        "after": _interesting(right),
        "rewrites": list(entry.rewrites),
    }


def _lines(text: str) -> list[str]:
    """The lines of a dump, without the one where it keeps its place in the pipeline: that differs in every dump."""
    return [line for line in text.splitlines() if not line.startswith('  meta "build" = ')]


def _interesting(states: Mapping[str, NodeState]) -> dict[str, Any]:
    """The states of nodes that did not stay the same."""
    return {name: state.to_json() for name, state in states.items() if state.state != "same" or state.related}


def _graph(graph: Graph) -> dict[str, Any]:
    """Nodes and edges. A node's operands are names of results, of inputs, or of constants, which are not drawn."""
    return {
        "inputs": [[value.name, str(value.type)] for value in graph.inputs],
        "outputs": [[name, value.name] for name, value in graph.outputs],
        "nodes": [_node(node) for node in graph.nodes],
        "constants": {value.name: _constant(value) for value in graph.constants},
    }


def _node(node: Node) -> dict[str, Any]:
    return {
        "key": key(node),
        "op": node.op.name,
        "attrs": node.op.shown_attrs(),
        "inputs": [value.name for value in node.inputs],
        "outputs": [[value.name, str(value.type)] for value in node.outputs],
        "sources": list(dict.fromkeys(name for value in node.outputs for name in value.source)),
        "flops": node.flops,
        "bytes": node_bytes(node),
        "text": print_node(node),
    }


def _constant(value: Value) -> str:
    assert value.constant is not None
    return f"{value.type}, {value.type.physical_bytes} bytes, sha {value.constant.sha}"
