"""A position in text IR with the few moves that a recursive descent needs; graphs and plans share it."""

from __future__ import annotations

import json
from typing import Any

from sqzc.diagnostics import ParseError, SqzcError
from sqzc.ir.lexer import Token, error_at, lines_of, tokens
from sqzc.ir.types import DType, Layout, TensorType


class Cursor:
    """Reads tokens one ahead, so that memory grows with what is understood and not with what is given."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self._tokens = tokens(text, file)
        self._ahead: Token | None = None
        self._lines: list[str] = []
        self.now = next(self._tokens)
        """The next token, not yet taken."""

    @property
    def ahead(self) -> Token:
        """The token after `now`; `now` itself at the end."""
        if self.now.kind == "end":
            return self.now
        if self._ahead is None:
            self._ahead = next(self._tokens)
        return self._ahead

    def take(self) -> Token:
        """Takes the next token; the end can be taken any number of times."""
        token, self.now, self._ahead = self.now, self.ahead, None
        return token

    def at(self, text: str) -> bool:
        """Whether the next token is `text`, not quoted."""
        return self.now.text == text and self.now.kind not in ("string", "end")

    def accept(self, text: str) -> bool:
        """Takes the next token if it is `text`."""
        found = self.at(text)
        if found:
            self.take()
        return found

    def expect(self, text: str) -> Token:
        """Takes `text` or fails."""
        token = self.now
        if not self.accept(text):
            raise self.error("unexpected text", expected=f"'{text}'", got=shown(token))
        return token

    def name(self) -> str:
        """A bare or quoted name."""
        token = self.take()
        if token.kind == "string":
            return self.unquote(token)
        if token.kind != "word":
            raise self.error("a name is missing", token, expected="a name", got=shown(token))
        return token.text

    def string(self) -> str:
        """A quoted string."""
        token = self.take()
        if token.kind != "string":
            raise self.error("a quoted string is missing", token, got=shown(token))
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
            if token.kind != "number":
                raise ValueError
            return int(token.text)
        except ValueError:
            raise self.error("a whole number is missing", token, got=shown(token)) from None

    def integers(self, count: int) -> tuple[int, ...]:
        """`count` whole numbers in brackets."""
        start = self.expect("[")
        found: list[int] = []
        while not self.accept("]"):
            if found:
                self.expect(",")
            if len(found) == count:
                raise self.error("too many numbers", expected=f"{count}")
            found.append(self.integer())
        if len(found) != count:
            raise self.error(f"{len(found)} numbers", start, expected=f"{count}")
        return tuple(found)

    def symbol(self, prefix: str) -> str:
        """`%name` or `@name`."""
        self.expect(prefix)
        return self.name()

    def sources(self) -> tuple[str, ...]:
        """Any number of `@"source name"`."""
        names: list[str] = []
        while self.accept("@"):
            names.append(self.string())
        return tuple(names)

    def error(self, message: str, token: Token | None = None, **more: str | None) -> ParseError:
        """A ParseError at `token`, or at the next one."""
        return error_at(message, self.text, token or self.now, self.file, **more)

    def moved(self, error: SqzcError, token: Token) -> ParseError:
        """The error as one of the text at `token`."""
        return self.error(error.message, token, expected=error.expected, got=error.got, hint=error.hint)

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
        try:
            layout = Layout()
            if self.at(":") and self.ahead.text.startswith("nchw"):
                self.take()
                layout = Layout.parse(self.take().text)
            return TensorType(dtype, tuple(dims), layout)
        except SqzcError as error:
            raise self.moved(error, start) from None

    def json(self) -> Any:
        """A JSON value that ends at the end of the line."""
        start = self.now
        if not self._lines:
            self._lines = lines_of(self.text)
        try:
            value = json.loads(self._lines[start.line - 1][start.column - 1 :])
        except (ValueError, RecursionError):
            raise self.error("not a JSON value", start) from None
        while self.now.line == start.line and self.now.kind != "end":
            self.take()
        return value


def shown(token: Token) -> str:
    """What a message calls a token that it did not expect."""
    return "end of text" if token.kind == "end" else f"'{token.text}'"
