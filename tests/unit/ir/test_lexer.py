"""Tokens, their places, and errors that point at them."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sqzc.diagnostics import ParseError
from sqzc.ir import lexer
from sqzc.ir.lexer import Token, error_at, lines_of, tokens


def kinds(text: str) -> list[tuple[str, str]]:
    return [(token.kind, token.text) for token in tokens(text, "")][:-1]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *[(number, "number") for number in ("0", "12", "-3", "+3", "1.5", "1.", ".5", "-1e-5", "1.5E+300", "3x3")],
        *[(number, "number") for number in ("1x2x3", "-inf", "+inf", "-nan")],
        *[(word, "word") for word in ("a", "_a1", "conv1/relu.1", "a-b", "inf", "nan", "inf.1", "nan-x", "infinite")],
        *[(string, "string") for string in ('""', '"a b"', r'"a \"b\" \\"', '"# no comment // either"', '"%é\u2028"')],
        *[(punct, "punct") for punct in ("%", "@", "(", ")", "{", "}", "[", "]", ",", ":", "=", "->", "..")],
    ],
)
def test_one_token(text: str, kind: str) -> None:
    assert kinds(text) == [(kind, text)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("0..12", ["0", "..", "12"]),
        ("-1..3", ["-1", "..", "3"]),
        ("1.5..2", ["1.5", "..", "2"]),
        ("f32[1,2]:nchw8c", ["f32", "[", "1", ",", "2", "]", ":", "nchw8c"]),
        ("9f3c01aa", ["9", "f3c01aa"]),
        ("1e5f", ["1e5", "f"]),
        ("(%a)->%b", ["(", "%", "a", ")", "->", "%", "b"]),
        ('@"x"@"y"', ["@", '"x"', "@", '"y"']),
        ("a # rest\n b // rest\r\n\tc", ["a", "b", "c"]),
        ("#", []),
        ("", []),
    ],
)
def test_several_tokens(text: str, pieces: list[str]) -> None:
    assert [piece for _, piece in kinds(text)] == pieces


def test_lines_and_columns_count_from_one() -> None:
    found = list(tokens('ab cd\n  "x\u2028y" # \u2028 \x0c\n\r\n\te', ""))
    assert [(t.text, t.line, t.column) for t in found] == [
        ("ab", 1, 1),
        ("cd", 1, 4),
        ('"x\u2028y"', 2, 3),
        ("e", 4, 2),
        ("end of text", 4, 3),
    ]
    assert found[-1].kind == "end"


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("a\n  b ; c", "unexpected character ';'", "line 2, column 5\n        b ; c\n          ^"),
        ('a "b', "a string that does not end on its line", 'line 1, column 3\n      a "b\n        ^'),
        ('"a\nb"', "a string that does not end on its line", 'line 1, column 1\n      "a\n      ^'),
        ("\t\t!", "unexpected character '!'", "line 1, column 3\n      \t\t!\n      \t\t^"),
        ("é", "unexpected character 'é'", "line 1, column 1\n      é\n      ^"),
    ],
)
def test_what_is_no_token(text: str, message: str, place: str) -> None:
    with pytest.raises(ParseError) as caught:
        list(tokens(text, "f.sqz"))
    assert caught.value.message == message
    assert str(caught.value.location) == f"f.sqz, {place}"


def test_error_after_the_last_line() -> None:
    (end,) = tokens("\n", "")
    assert str(error_at("m", "\n", end, "").location) == "line 2, column 1\n      \n      ^"


def test_only_newlines_end_lines() -> None:
    assert lines_of("a\u2028b\x0cc\r\nd\n") == ["a\u2028b\x0cc", "d", ""]


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexer, "MAX_TEXT", 10)
    assert len(list(tokens("a " * 5, ""))) == 6
    with pytest.raises(ParseError, match="text of 11 characters"):
        next(tokens("a" * 11, ""))


def test_text_is_read_on_demand() -> None:
    found = tokens("a b !", "")
    assert next(found) == Token("word", "a", 1, 1)
    assert next(found) == Token("word", "b", 1, 3)
    with pytest.raises(ParseError):
        next(found)


@given(st.text(alphabet=st.sampled_from('ab1.x-+" \n#/@%\\=,[]{}().>'), max_size=40))
def test_tokens_cover_the_text_in_order(text: str) -> None:
    try:
        found = list(tokens(text, ""))
    except ParseError:
        return
    lines = lines_of(text)
    for token in found[:-1]:
        assert lines[token.line - 1][token.column - 1 :].startswith(token.text)
    places = [(t.line, t.column) for t in found]
    assert places == sorted(set(places))
