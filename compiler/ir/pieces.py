"""Parts of the text form that graphs and plans share: metadata, ops with their attributes, and constants.

    meta  := string '=' json
    op    := name ['{' attr {',' attr} '}']
    const := ('@'name | ['@'name] '[' numbers ']') ':' type ['sha=' hex]

Arrays that are not inline are looked up by symbol and hash, never by a path in the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sqzc.diagnostics import ParseError, nearest
from sqzc.ir.constant import INLINE_ELEMENTS, Array, Constant
from sqzc.ir.cursor import Cursor, shown
from sqzc.ir.lexer import Token
from sqzc.ir.opdef import OpDef, registry
from sqzc.ir.types import DType, TensorType

Weights = Callable[[str, str], Array | None]


def weights_lookup(weights: Mapping[str, Array] | Weights | None) -> Weights:
    """A function of (symbol, sha) from one, or from a mapping by `symbol#sha` or plain symbol."""
    if callable(weights):
        return weights
    known = weights or {}
    return lambda symbol, sha: known.get(f"{symbol}#{sha}", known.get(symbol))


def read_meta(c: Cursor, meta: dict[str, Any]) -> None:
    """What stands after `meta`: one key and its JSON value, up to the end of the line."""
    token = c.now
    key = c.string()
    if key in meta:
        raise c.error(f"meta '{key}' stands twice", token)
    c.expect("=")
    meta[key] = c.json()


def read_op_name(c: Cursor) -> str:
    """The name of a registered op."""
    token = c.now
    word = c.name()
    if word not in registry:
        raise c.error(f"unknown op '{word}'", token, hint=nearest(word, registry))
    return word


def read_attributes(c: Cursor, op_name: str) -> dict[str, object]:
    """Attribute values in braces; none where there is no brace."""
    declared = registry[op_name].attributes
    attrs: dict[str, object] = {}
    if not c.accept("{"):
        return attrs
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
            attrs[name] = declared[name].kind.read(_attribute_text(c))
        except ParseError as error:
            raise c.moved(error, start) from None
    return attrs


def make_op(op_name: str, attrs: dict[str, object]) -> OpDef:
    """An op of that name; VerifyError when the attributes do not fit."""
    return registry[op_name](**attrs)


_AFTER_VALUE = frozenset("{}%@:=")


def _attribute_text(c: Cursor) -> str:
    """The tokens of one attribute value, up to a comma outside brackets or to what no value holds."""
    parts: list[str] = []
    depth = 0
    while c.now.kind != "end":
        text = c.now.text
        if text in _AFTER_VALUE or (text == "," and depth == 0):
            break
        depth += (text in ("(", "[")) - (text in (")", "]"))
        parts.append(c.take().text)
    return "".join(parts)


def read_constant(c: Cursor, name: str, weights: Weights) -> Constant:
    """What stands after `const %name =`; the symbol is `name` unless the text says otherwise."""
    token = c.now
    symbol = c.symbol("@") if c.at("@") else name
    inline = _numbers(c) if c.at("[") else None
    c.expect(":")
    type_ = c.type()
    sha = _sha(c)
    data = _inline(c, inline, type_, token) if inline is not None else _stored(c, weights, symbol, sha, type_, token)
    constant = Constant(symbol, data)
    if sha and constant.sha != sha:
        raise c.error(f"the data of @{symbol} has another hash", token, expected=sha, got=constant.sha)
    return constant


def _sha(c: Cursor) -> str:
    sha = ""
    if c.now.kind == "word" and c.accept("sha"):
        c.expect("=")
        line, column = c.now.line, c.now.column
        # Digits and letters in turn are several tokens without space between them.
        while c.now.kind in ("word", "number") and (c.now.line, c.now.column) == (line, column + len(sha)):
            sha += c.take().text
        if not sha:
            raise c.error("a hash is missing", got=shown(c.now))
    return sha


def _numbers(c: Cursor) -> list[str]:
    c.expect("[")
    words: list[str] = []
    while not c.accept("]"):
        if words:
            c.expect(",")
        words.append(c.take().text)
        if len(words) > INLINE_ELEMENTS:
            raise c.error(f"over {INLINE_ELEMENTS} inline elements", hint="larger constants live in the weights file")
    return words


def _inline(c: Cursor, words: list[str], type_: TensorType, token: Token) -> Array:
    if len(words) != type_.elements:
        raise c.error(f"{len(words)} elements", token, expected=f"{type_.elements} for {type_}")
    try:
        return _array(words, type_.dtype).reshape(type_.shape)
    except (ValueError, KeyError, OverflowError):
        raise c.error(f"an element is no {type_.dtype.value}", token) from None


def _array(words: list[str], dtype: DType) -> Array:
    if dtype is DType.BOOL:
        return np.array([{"true": True, "false": False}[w] for w in words], dtype=np.bool_)
    if not dtype.is_float:
        return np.array([int(w) for w in words], dtype=dtype.numpy)
    with np.errstate(over="ignore"):
        array = np.array([float(w) for w in words], dtype=np.float64).astype(dtype.numpy)
    for word, value in zip(words, array, strict=True):
        if np.isinf(value) and word.lstrip("+-") != "inf":
            raise OverflowError(word)
    return array


def _stored(c: Cursor, weights: Weights, symbol: str, sha: str, type_: TensorType, token: Token) -> Array:
    data = weights(symbol, sha)
    if data is None:
        raise c.error(
            f"no data for @{symbol}",
            token,
            expected="the weights file beside the text",
            hint="keep the .safetensors file written with the dump in the same folder",
        )
    if tuple(data.shape) != type_.shape or data.dtype != type_.dtype.numpy:
        raise c.error(
            f"the data of @{symbol} is of another type",
            token,
            expected=str(type_),
            got=f"{data.dtype}{list(data.shape)}",
        )
    return data
