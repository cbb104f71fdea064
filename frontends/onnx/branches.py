"""Branches whose condition is known: their nodes in place of the If, under names of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

MAX_DEPTH = 64


def inlined_branch(branch: Any, outputs: list[str], prefix: str) -> Any:
    """A copy of a branch's graph whose outputs are called `outputs`, and all else that it makes PREFIX/name."""
    made = {tensor.name for tensor in branch.initializer}
    made |= {name for node in branch.node for name in node.output if name}
    renamed = {name: f"{prefix}/{name}" for name in made}
    copy = onnx.GraphProto()
    copy.CopyFrom(branch)
    _rename(copy, renamed, 0)
    for info, wanted in zip(copy.output, outputs, strict=True):
        if wanted:
            copy.node.append(onnx.helper.make_node("Identity", [info.name], [wanted], name=f"{prefix}/{wanted}"))
    return copy


def _rename(graph: Any, names: Mapping[str, str], depth: int) -> None:
    """Renames every use and definition in a graph and in the graphs of its nodes, but for names that they shadow."""
    if depth > MAX_DEPTH:
        raise RecursionError("branches are nested too deeply")
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for info in graph.output:
        info.name = names.get(info.name, info.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attr in node.attribute:
            for inner in (*([attr.g] if attr.HasField("g") else []), *attr.graphs):
                own = {tensor.name for tensor in inner.initializer} | {info.name for info in inner.input}
                own |= {name for item in inner.node for name in item.output}
                _rename(inner, {old: new for old, new in names.items() if old not in own}, depth + 1)
