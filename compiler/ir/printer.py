"""Graph to text. The grammar is in parser.py; every print parses back to an equal graph.

Order is that of the graph, attributes are in declaration order and left out when default, so equal graphs print equal.
"""

from __future__ import annotations

import json
import re

import numpy as np

from sqzc.ir.constant import Array, Constant
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.opdef import show_float

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


def print_constant(value: Value, constant: Constant) -> str:
    """One `const` line."""
    head = f"const {symbol('%', value.name)} = "
    if constant.is_inline:
        body = show_values(constant.data)
        if constant.symbol != value.name:
            body = f"{symbol('@', constant.symbol)} {body}"
        text = f"{head}{body} : {value.type}"
    else:
        text = f"{head}{symbol('@', constant.symbol)} : {value.type} sha={constant.sha}"
    return text + _show_source(value)


def _show_source(value: Value) -> str:
    return "".join(f" @{json.dumps(name)}" for name in value.source)


def print_node(node: Node) -> str:
    """One op line."""
    outs = ", ".join(symbol("%", v.name) for v in node.outputs)
    ins = ", ".join(symbol("%", v.name) for v in node.inputs)
    attrs = ", ".join(f"{name}={text}" for name, text in node.op.shown_attrs())
    types = ", ".join(f"{v.type}{_show_source(v)}" for v in node.outputs)
    return f"{outs} = {node.op.name}({ins}){' {' + attrs + '}' if attrs else ''} : {types}"


def print_graph(graph: Graph) -> str:
    """The whole graph; ends with a newline."""
    params = ", ".join(f"{symbol('%', v.name)}: {v.type}{_show_input_source(v)}" for v in graph.inputs)
    lines = [f"graph {symbol('@', graph.name)}({params}) {{"]
    for key in graph.meta:
        lines.append(f"  meta {json.dumps(key)} = {json.dumps(graph.meta[key])}")
    for value in graph.constants:
        assert value.constant is not None
        lines.append("  " + print_constant(value, value.constant))
    lines.extend("  " + print_node(node) for node in graph.nodes)
    outs = ", ".join(f"{symbol('%', value.name)} as {json.dumps(name)}" for name, value in graph.outputs)
    lines.append(f"  yield {outs}" if outs else "  yield")
    lines.append("}")
    return "\n".join(lines) + "\n"


def _show_input_source(value: Value) -> str:
    # An input's source is its own name unless a pass says otherwise.
    return "" if value.source == (value.name,) else _show_source(value)
