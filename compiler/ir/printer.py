"""Graph to text. The grammar is in parser.py; every print parses back to an equal graph.

Order is that of the graph, attributes are in declaration order and left out when default, so equal graphs print equal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sqzc.ir.constant import Array, Constant
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.opdef import OpDef, show_float

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


def symbol(prefix: str, name: str) -> str:
    """`%name`, with the name quoted when it holds anything unusual."""
    return prefix + (name if _BARE.fullmatch(name) else json.dumps(name))


def show_values(array: Array) -> str:
    """The elements of a small array in row-major order; reads back to the same bits (NaN payloads aside)."""
    flat = np.asarray(array).ravel()
    if flat.dtype == np.bool_:
        return "[" + ", ".join("true" if x else "false" for x in flat) + "]"
    if flat.dtype.kind in "iu":
        return "[" + ", ".join(str(int(x)) for x in flat) + "]"
    return "[" + ", ".join(_show_number(x) for x in flat) + "]"


def _show_number(x: np.floating) -> str:
    value = float(x)
    if not np.isfinite(value):
        return show_float(value)
    # The shortest digits that are unique in the array's own precision.
    text = np.format_float_positional(x, unique=True, trim="0")
    return text if len(text) <= 24 else np.format_float_scientific(x, unique=True, trim="0")


def print_constant(name: str, constant: Constant) -> str:
    """One `const` line without source names."""
    head = f"const {symbol('%', name)} = "
    if not constant.is_inline:
        return f"{head}{symbol('@', constant.symbol)} : {constant.type} sha={constant.sha}"
    body = show_values(constant.data)
    if constant.symbol != name:
        body = f"{symbol('@', constant.symbol)} {body}"
    return f"{head}{body} : {constant.type}"


def show_sources(names: Iterable[str]) -> str:
    """` @"name"` for each of the names."""
    return "".join(f" @{json.dumps(name)}" for name in names)


def show_op(op: OpDef, *, operands: str = "") -> str:
    """The op's name, the text of its operands if any, and its attributes unless all are default."""
    attrs = ", ".join(f"{name}={text}" for name, text in op.shown_attrs())
    return f"{op.name}{operands}{' {' + attrs + '}' if attrs else ''}"


def print_meta(meta: Mapping[str, Any]) -> list[str]:
    """One `meta` line for each key."""
    return [f"meta {json.dumps(key)} = {json.dumps(value)}" for key, value in meta.items()]


def print_node(node: Node) -> str:
    """One op line."""
    outs = ", ".join(symbol("%", v.name) for v in node.outputs)
    ins = ", ".join(symbol("%", v.name) for v in node.inputs)
    types = ", ".join(f"{v.type}{show_sources(v.source)}" for v in node.outputs)
    return f"{outs} = {show_op(node.op, operands=f'({ins})')} : {types}"


def print_graph(graph: Graph) -> str:
    """The whole graph; ends with a newline."""
    params = ", ".join(f"{symbol('%', v.name)}: {v.type}{_show_input_source(v)}" for v in graph.inputs)
    lines = [f"graph {symbol('@', graph.name)}({params}) {{"]
    lines.extend("  " + line for line in print_meta(graph.meta))
    for value in graph.constants:
        assert value.constant is not None
        lines.append("  " + print_constant(value.name, value.constant) + show_sources(value.source))
    lines.extend("  " + print_node(node) for node in graph.nodes)
    outs = ", ".join(f"{symbol('%', value.name)} as {json.dumps(name)}" for name, value in graph.outputs)
    lines.append(f"  yield {outs}" if outs else "  yield")
    lines.append("}")
    return "\n".join(lines) + "\n"


def _show_input_source(value: Value) -> str:
    # An input's source is its own name unless a pass says otherwise.
    return "" if value.source == (value.name,) else show_sources(value.source)
