"""Typed access to a node's attributes that remembers which were looked at.

After a node is lifted every attribute must have been read: one that was not is an error, never ignored, because a
misread attribute gives silently wrong answers.
"""

from __future__ import annotations

from typing import Any

from onnx import AttributeProto

from sqzc.diagnostics import FrontendError, Location
from sqzc.frontends.onnx.tensors import Array, to_array

MAX_NUMBERS = 1 << 20


class AttrReader:
    """The attributes of one node. Every getter marks what it is asked for as read, set or not."""

    def __init__(self, node: Any, where: Location) -> None:
        self._where = where
        self._read: set[str] = set()
        self._attrs: dict[str, Any] = {}
        for attr in node.attribute:
            if attr.name in self._attrs:
                raise FrontendError(f"attribute '{attr.name}' is given twice", location=where)
            if attr.ref_attr_name:
                raise FrontendError(
                    f"attribute '{attr.name}' refers to '{attr.ref_attr_name}' of a function", location=where
                )
            self._attrs[attr.name] = attr

    def location(self, name: str) -> Location:
        """Where an attribute is, for messages."""
        return Location(self._where.file, f"{self._where.place}, attribute '{name}'")

    def has(self, name: str) -> bool:
        """Whether the file sets the attribute; marks it as read."""
        self._read.add(name)
        return name in self._attrs

    def _get(self, name: str, kind: int, words: str) -> Any:
        """The attribute, or None where it is absent; FrontendError for one of another kind."""
        self._read.add(name)
        attr = self._attrs.get(name)
        if attr is not None and attr.type != kind:
            got = AttributeProto.AttributeType.Name(attr.type)
            raise FrontendError(f"attribute '{name}'", location=self.location(name), expected=words, got=got)
        return attr

    def integer(self, name: str, default: int) -> int:
        """A whole number."""
        attr = self._get(name, AttributeProto.INT, "a whole number")
        return default if attr is None else int(attr.i)

    def flag(self, name: str, default: bool) -> bool:
        """A truth value, stored as 0 or 1."""
        value = self.integer(name, int(default))
        if value not in (0, 1):
            raise FrontendError(f"attribute '{name}' is {value}", location=self.location(name), expected="0 or 1")
        return value == 1

    def real(self, name: str, default: float) -> float:
        """A number, single precision in the file."""
        attr = self._get(name, AttributeProto.FLOAT, "a number")
        return default if attr is None else float(attr.f)

    def text(self, name: str, default: str, allowed: tuple[str, ...] = ()) -> str:
        """A string, one of `allowed` if any are given."""
        attr = self._get(name, AttributeProto.STRING, "a string")
        if attr is None:
            return default
        try:
            value = bytes(attr.s).decode("utf-8")
        except UnicodeDecodeError:
            raise FrontendError(f"attribute '{name}' is no UTF-8 text", location=self.location(name)) from None
        if allowed and value not in allowed:
            raise FrontendError(
                f"attribute '{name}' is '{value[:40]}'", location=self.location(name), expected=", ".join(allowed)
            )
        return value

    def ints(self, name: str) -> tuple[int, ...] | None:
        """A list of whole numbers, or None where the attribute is absent."""
        attr = self._get(name, AttributeProto.INTS, "a list of whole numbers")
        return None if attr is None else tuple(int(value) for value in self._bounded(name, attr.ints))

    def reals(self, name: str) -> tuple[float, ...] | None:
        """A list of numbers, or None."""
        attr = self._get(name, AttributeProto.FLOATS, "a list of numbers")
        return None if attr is None else tuple(float(value) for value in self._bounded(name, attr.floats))

    def tensor(self, name: str) -> Array | None:
        """A tensor, or None."""
        attr = self._get(name, AttributeProto.TENSOR, "a tensor")
        return None if attr is None else to_array(attr.t, f"attribute '{name}'")

    def graph(self, name: str) -> Any:
        """A GraphProto, or None."""
        attr = self._get(name, AttributeProto.GRAPH, "a graph")
        return None if attr is None else attr.g

    def _bounded(self, name: str, values: Any) -> Any:
        if len(values) > MAX_NUMBERS:
            raise FrontendError(
                f"attribute '{name}' has {len(values)} numbers",
                location=self.location(name),
                expected=f"at most {MAX_NUMBERS}",
            )
        return values

    def finish(self) -> None:
        """FrontendError unless every attribute of the file has been read."""
        for name in self._attrs:
            if name not in self._read:
                raise FrontendError(
                    f"attribute '{name}' means nothing to sqzc here",
                    location=self.location(name),
                    hint="an attribute is never ignored, as it may change the result",
                )
