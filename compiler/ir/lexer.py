"""Text IR to tokens, each with its line and column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sqzc.diagnostics import Location, ParseError

MAX_TEXT = 64 << 20

_TOKENS = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*|//[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<number>[-+]?(?:[0-9]+x[0-9x]+|(?:[0-9]+(?:\.(?!\.)[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)|[-+](?:inf|nan)\b)
      | (?P<word>[A-Za-z_][A-Za-z0-9_./-]*)
      | (?P<punct>->|\.\.|[%@(){}\[\],:=])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One word of the text; `kind` is string, number, word, punct or end. Without a sign `inf` and `nan` are words."""

    kind: str
    text: str
    line: int
    column: int


def lines_of(text: str) -> list[str]:
    """The lines as `Token.line` counts them, from 1: a newline ends a line and nothing else does."""
    return [line.rstrip("\r") for line in text.split("\n")]


def error_at(message: str, text: str, token: Token, file: str, **more: str | None) -> ParseError:
    """A ParseError that shows the line with a caret below the token."""
    shown = lines_of(text)[token.line - 1]
    # Tabs stay tabs, so that the caret stands right however wide they are shown.
    caret = "".join("\t" if c == "\t" else " " for c in shown[: token.column - 1]) + "^"
    location = Location(file, f"line {token.line}, column {token.column}\n      {shown}\n      {caret}")
    return ParseError(message, location=location, **more)


def tokens(text: str, file: str) -> Iterator[Token]:
    """The tokens of `text`, comments left out, closed by one of kind `end`."""
    if len(text) > MAX_TEXT:
        raise ParseError(f"text of {len(text)} characters", expected=f"at most {MAX_TEXT}")
    position, line, start = 0, 1, 0
    while position < len(text):
        match = _TOKENS.match(text, position)
        if match is None:
            bad = Token("punct", text[position], line, position - start + 1)
            if text[position] == '"':
                raise error_at("a string that does not end on its line", text, bad, file)
            raise error_at(f"unexpected character {text[position]!r}", text, bad, file)
        kind, piece = match.lastgroup or "", match.group()
        if kind != "space":
            yield Token(kind, piece, line, position - start + 1)
        newlines = piece.count("\n")
        if newlines:
            line += newlines
            start = position + piece.rindex("\n") + 1
        position = match.end()
    yield Token("end", "end of text", line, position - start + 1)
