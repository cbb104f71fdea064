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

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sqzc.diagnostics import Location, ParseError, SqzcError, nearest
from sqzc.ir.constant import INLINE_ELEMENTS, Array, Constant
from sqzc.ir.graph import Graph, Value
from sqzc.ir.lexer import Token, error_at, tokens
from sqzc.ir.opdef import registry
from sqzc.ir.types import DType, Layout, TensorType
from sqzc.ir.verifier import verify

Weights = Callable[[str, str], Array | None]


class Cursor:
    """A position in a token list, with the few moves a recursive descent needs."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.tokens = list(tokens(text, file))
        self.at = 0

    @property
    def now(self) -> Token:
        """The next token, not yet taken."""
        return self.tokens[self.at]

    def take(self) -> Token:
        """Takes the next token."""
        token = self.now
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, text: str) -> bool:
        """Takes the next token if it is `text`."""
        if self.now.text == text and self.now.kind != "string":
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> Token:
        """Takes `text` or fails."""
        if not self.accept(text):
            raise self.error("unexpected text", expected=f"'{text}'", got=f"'{self.now.text}'")
        return self.tokens[self.at - 1]

    def name(self) -> str:
        """A bare or quoted name."""
        token = self.take()
        if token.kind == "string":
            return self.unquote(token)
        if token.kind != "word":
            raise self.error("a name is missing", token, expected="a name", got=f"'{token.text}'")
        return token.text

    def string(self) -> str:
        """A quoted string."""
        token = self.take()
        if token.kind != "string":
            raise self.error("a quoted string is missing", token, got=f"'{token.text}'")
        return self.unquote(token)

    def unquote(self, token: Token) -> str:
        """The text of a string token; ParseError for a bad escape."""
        try:
            return str(json.loads(token.text))
        except ValueError:
            raise self.error("a string with a bad escape", token) from None

    def integer(self) -> int:
        """A whole number."""
        token = self.take()
        try:
            return int(token.text)
        except ValueError:
            raise self.error("a whole number is missing", token, got=f"'{token.text}'") from None

    def symbol(self, prefix: str) -> str:
        """`%name` or `@name`."""
        self.expect(prefix)
        return self.name()

    def error(self, message: str, token: Token | None = None, **more: str | None) -> ParseError:
        """A ParseError at `token`, or at the next one."""
        return error_at(message, self.text, token or self.now, self.file, **more)

    def type(self) -> TensorType:
        """A tensor type."""
        start = self.now
        word = self.take().text
        try:
            dtype = DType(word)
        except ValueError:
            known = ", ".join(d.value for d in DType)
            raise self.error(f"unknown element type '{word}'", start, expected=f"one of {known}") from None
        self.expect("[")
        dims: list[int] = []
        while not self.accept("]"):
            if dims:
                self.expect(",")
            dims.append(self.integer())
        layout = Layout()
        try:
            if self.now.text == ":" and self.tokens[self.at + 1].text.startswith("nchw"):
                self.take()
                layout = Layout.parse(self.take().text)
            return TensorType(dtype, tuple(dims), layout)
        except SqzcError as error:
            raise self.error(error.message, start, expected=error.expected, got=error.got) from None

    def json(self) -> Any:
        """A JSON value that ends at the end of the line."""
        start = self.now
        lines = self.text.splitlines()
        try:
            value = json.loads(lines[start.line - 1][start.column - 1 :])
        except (ValueError, RecursionError):
            raise self.error("not a JSON value", start) from None
        while self.now.line == start.line and self.now.kind != "end":
            self.take()
        return value


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
                key = c.string()
                c.expect("=")
                self.graph.meta[key] = c.json()
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
        source = self.sources()
        self.define(name, token)
        self.values[name] = self.graph.add_input(name, type_, source or None)

    def define(self, name: str, token: Token) -> None:
        if name in self.values:
            raise self.c.error(f"%{name} is defined twice", token)

    def use(self) -> Value:
        token = self.c.now
        name = self.c.symbol("%")
        if name not in self.values:
            raise self.c.error(f"%{name} is not defined here", token, hint=nearest(name, self.values))
        return self.values[name]

    def sources(self) -> tuple[str, ...]:
        names: list[str] = []
        while self.c.accept("@"):
            names.append(self.c.string())
        return tuple(names)

    def const(self) -> None:
        c = self.c
        token = c.now
        name = c.symbol("%")
        self.define(name, token)
        c.expect("=")
        symbol = c.symbol("@") if c.now.text == "@" else name
        inline = self.numbers() if c.now.text == "[" else None
        c.expect(":")
        type_ = c.type()
        sha = ""
        if c.now.text == "sha" and c.now.kind == "word":
            c.take()
            c.expect("=")
            start = c.now
            while c.now.kind in ("word", "number") and c.now.line == start.line:
                sha += c.take().text
        data = self.inline_array(inline, type_, token) if inline is not None else self.stored(symbol, sha, type_, token)
        source = self.sources()
        constant = Constant(symbol, data)
        if sha and constant.sha != sha:
            raise c.error(f"the data of @{symbol} has another hash", token, expected=sha, got=constant.sha)
        self.values[name] = self.graph.add_constant(constant, name, source)

    def numbers(self) -> list[str]:
        self.c.expect("[")
        words: list[str] = []
        while not self.c.accept("]"):
            if words:
                self.c.expect(",")
            words.append(self.c.take().text)
            if len(words) > INLINE_ELEMENTS:
                raise self.c.error(
                    f"over {INLINE_ELEMENTS} inline elements",
                    hint="larger constants live in the weights file",
                )
        return words

    def inline_array(self, words: list[str], type_: TensorType, token: Token) -> Array:
        if len(words) != type_.elements:
            raise self.c.error(f"{len(words)} elements", token, expected=f"{type_.elements} for {type_}")
        try:
            if type_.dtype is DType.BOOL:
                flat = np.array([{"true": True, "false": False}[w] for w in words], dtype=np.bool_)
            elif type_.dtype.is_float:
                flat = np.array([float(w) for w in words], dtype=np.float64).astype(type_.dtype.numpy)
                if type_.dtype is DType.F32:
                    flat = np.array([np.float32(w) for w in words], dtype=np.float32)
            else:
                flat = np.array([int(w) for w in words], dtype=type_.dtype.numpy)
        except (ValueError, KeyError, OverflowError):
            raise self.c.error(f"an element is no {type_.dtype.value}", token) from None
        return flat.reshape(type_.shape)

    def stored(self, symbol: str, sha: str, type_: TensorType, token: Token) -> Array:
        data = self.weights(symbol, sha)
        if data is None:
            raise self.c.error(
                f"no data for @{symbol}",
                token,
                expected="the weights file beside the text",
                hint="keep the .safetensors file written with the dump in the same folder",
            )
        if tuple(data.shape) != type_.shape or DType.of(data.dtype) is not type_.dtype:
            raise self.c.error(
                f"the data of @{symbol} is of another type",
                token,
                expected=str(type_),
                got=f"{data.dtype}{list(data.shape)}",
            )
        return data

    def node(self) -> None:
        c = self.c
        start = c.now
        names = [(c.now, c.symbol("%"))]
        while c.accept(","):
            names.append((c.now, c.symbol("%")))
        c.expect("=")
        op_token = c.now
        word = c.name()
        if word not in registry:
            raise c.error(f"unknown op '{word}'", op_token, hint=nearest(word, registry))
        c.expect("(")
        inputs: list[Value] = []
        while not c.accept(")"):
            if inputs:
                c.expect(",")
            inputs.append(self.use())
        attrs = self.attributes(word) if c.accept("{") else {}
        c.expect(":")
        types, sources = [c.type()], [self.sources()]
        while c.accept(","):
            types.append(c.type())
            sources.append(self.sources())
        if len(types) != len(names):
            raise c.error(f"{len(names)} results and {len(types)} types", start)
        for token, name in names:
            self.define(name, token)
        try:
            node = self.graph.insert(
                registry[word](**attrs), inputs, names=[n for _, n in names], sources=sources, types=types
            )
        except SqzcError as error:
            raise c.error(error.message, op_token, expected=error.expected, got=error.got) from None
        for (_, name), value in zip(names, node.outputs, strict=True):
            self.values[name] = value

    def attributes(self, op_name: str) -> dict[str, object]:
        c = self.c
        declared = registry[op_name].attributes
        attrs: dict[str, object] = {}
        while not c.accept("}"):
            if attrs:
                c.expect(",")
            token = c.now
            name = c.name()
            if name not in declared:
                raise c.error(f"{op_name} has no attribute '{name}'", token, hint=nearest(name, declared))
            if name in attrs:
                raise c.error(f"attribute '{name}' stands twice", token)
            c.expect("=")
            start = c.now
            try:
                attrs[name] = declared[name].kind.read(self.attribute_text())
            except ParseError as error:
                raise c.error(error.message, start, expected=error.expected) from None
        return attrs

    def attribute_text(self) -> str:
        """The tokens of one attribute value, up to a comma or brace outside brackets."""
        c = self.c
        parts: list[str] = []
        depth = 0
        while c.now.kind != "end":
            text = c.now.text
            if depth == 0 and text in (",", "}"):
                break
            depth += (text in ("(", "[")) - (text in (")", "]"))
            parts.append(c.take().text)
        return "".join(parts)

    def outputs(self) -> None:
        c = self.c
        while c.now.text == "%":
            token = c.now
            value = self.use()
            name = c.string() if c.accept("as") else value.name
            try:
                self.graph.add_output(name, value)
            except SqzcError as error:
                raise c.error(error.message, token) from None
            if not c.accept(","):
                break


def parse_graph(text: str, weights: Mapping[str, Array] | Weights | None = None, file: str = "") -> Graph:
    """The verified graph that `text` describes; ParseError with place and caret otherwise.

    `weights` gives arrays for constants that are not inline: a mapping by `symbol#sha` or plain symbol, or a function
    of (symbol, sha).
    """
    if callable(weights):
        find: Weights = weights
    else:
        known = weights or {}

        def find(symbol: str, sha: str) -> Array | None:
            return known.get(f"{symbol}#{sha}", known.get(symbol))

    cursor = Cursor(text, file)
    graph = _Reader(cursor, find).read()
    if cursor.now.kind != "end":
        raise cursor.error("text after the end of the graph")
    try:
        verify(graph)
    except SqzcError as error:
        error.location = error.location or Location(file)
        raise
    return graph
