"""Text to graph.

    graph  := 'graph' '@'name '(' [input {',' input}] ')' '{' {meta | const | node} 'yield' [out {',' out}] '}'
    input  := '%'name ':' type {source}
    meta   := 'meta' string '=' json
    const  := 'const' '%'name '=' ('@'name | ['@'name] '[' numbers ']') ':' type ['sha=' hex] {source}
    node   := '%'name {',' '%'name} '=' op '(' ['%'name {',' '%'name}] ')' ['{' attr {',' attr} '}'] ':' type {source}
              {',' type {source}}
    out    := '%'name ['as' string]
    type   := dtype '[' [int {',' int}] ']' [':' layout]
    source := '@' string
    name   := bare word or string; comments run from '#' or '//' to the end of the line

Weights that are not inline are looked up by name and hash in `weights`, never by a path in the text.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqzc.diagnostics import Location, SqzcError, nearest
from sqzc.ir.constant import Array
from sqzc.ir.cursor import Cursor
from sqzc.ir.graph import Graph, Value
from sqzc.ir.lexer import Token
from sqzc.ir.pieces import (
    Weights,
    make_op,
    read_attributes,
    read_constant,
    read_meta,
    read_op_name,
    weights_lookup,
)
from sqzc.ir.verifier import verify


class _Reader:
    def __init__(self, cursor: Cursor, weights: Weights) -> None:
        self.c = cursor
        self.weights = weights
        self.graph = Graph()
        self.values: dict[str, Value] = {}

    def read(self) -> Graph:
        c = self.c
        c.expect("graph")
        self.graph.name = c.symbol("@")
        c.expect("(")
        while not c.accept(")"):
            if self.graph.inputs:
                c.expect(",")
            self.input()
        c.expect("{")
        while not c.accept("yield"):
            if c.accept("meta"):
                read_meta(c, self.graph.meta)
            elif c.accept("const"):
                self.const()
            else:
                self.node()
        self.outputs()
        c.expect("}")
        return self.graph

    def input(self) -> None:
        token = self.c.now
        name = self.c.symbol("%")
        self.c.expect(":")
        type_ = self.c.type()
        source = self.c.sources()
        self.define(name, token)
        self.values[name] = self.graph.add_input(name, type_, source or None)

    def define(self, name: str, token: Token) -> None:
        if name in self.values:
            raise self.c.error(f"%{name} is defined twice", token)
        if not name:
            raise self.c.error("an empty name", token)

    def use(self) -> Value:
        token = self.c.now
        name = self.c.symbol("%")
        if name not in self.values:
            raise self.c.error(f"%{name} is not defined here", token, hint=nearest(name, self.values))
        return self.values[name]

    def const(self) -> None:
        c = self.c
        token = c.now
        name = c.symbol("%")
        self.define(name, token)
        c.expect("=")
        constant = read_constant(c, name, self.weights)
        self.values[name] = self.graph.add_constant(constant, name, c.sources())

    def node(self) -> None:
        c = self.c
        start = c.now
        names = [self.result([])]
        while c.accept(","):
            names.append(self.result(names))
        c.expect("=")
        op_token = c.now
        word = read_op_name(c)
        c.expect("(")
        inputs: list[Value] = []
        while not c.accept(")"):
            if inputs:
                c.expect(",")
            inputs.append(self.use())
        attrs = read_attributes(c, word)
        c.expect(":")
        types, sources = [c.type()], [c.sources()]
        while c.accept(","):
            types.append(c.type())
            sources.append(c.sources())
        if len(types) != len(names):
            raise c.error(f"{len(names)} results and {len(types)} types", start)
        try:
            node = self.graph.insert(make_op(word, attrs), inputs, names=names, sources=sources, types=types)
        except SqzcError as error:
            raise c.moved(error, op_token) from None
        for name, value in zip(names, node.outputs, strict=True):
            self.values[name] = value

    def result(self, before: list[str]) -> str:
        """The name of a result, given those before it on the line."""
        token = self.c.now
        name = self.c.symbol("%")
        self.define(name, token)
        if name in before:
            raise self.c.error(f"%{name} is defined twice", token)
        return name

    def outputs(self) -> None:
        c = self.c
        while c.at("%"):
            token = c.now
            value = self.use()
            name = c.string() if c.accept("as") else value.name
            try:
                self.graph.add_output(name, value)
            except SqzcError as error:
                raise c.moved(error, token) from None
            if not c.accept(","):
                break


def parse_graph(text: str, weights: Mapping[str, Array] | Weights | None = None, file: str = "") -> Graph:
    """The verified graph that `text` describes; ParseError with place and caret otherwise.

    `weights` gives arrays for constants that are not inline: a mapping by `symbol#sha` or plain symbol, or a function
    of (symbol, sha).
    """
    cursor = Cursor(text, file)
    graph = _Reader(cursor, weights_lookup(weights)).read()
    if cursor.now.kind != "end":
        raise cursor.error("text after the end of the graph")
    try:
        verify(graph)
    except SqzcError as error:
        error.location = error.location or Location(file)
        raise
    return graph
