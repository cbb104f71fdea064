"""What every frontend shares: the table of lifting functions, the error that lists all that is missing, one form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from sqzc.diagnostics import Location, UnsupportedError, nearest
from sqzc.ir.ops.nn import Rounding, window_size

F = TypeVar("F")

MAX_LISTED = 20


class LiftTable(Generic[F]):
    """Operator types of one model format, each with what lifts it."""

    def __init__(self, format_name: str) -> None:
        self.format_name = format_name
        self._entries: dict[str, F] = {}

    def add(self, type_: str, entry: F) -> None:
        """Enters an operator type, once."""
        assert type_ not in self._entries, f"{self.format_name} operator {type_} is registered twice"
        self._entries[type_] = entry

    def get(self, type_: str) -> F | None:
        """The entry of an operator type, or None."""
        return self._entries.get(type_)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)


def unsupported_error(
    format_name: str, file: str, found: Iterable[tuple[str, str]], known: Iterable[str]
) -> UnsupportedError:
    """One error for all unsupported operators; `found` lists (place, words or operator type) in net order.

    An entry whose words are a bare operator type gets the nearest known type beside it.
    """
    entries = list(found)
    names = list(known)
    lines = []
    for place, words in entries[:MAX_LISTED]:
        hint = nearest(words, names) if words.isidentifier() else None
        what = f"operator {words} is not supported" if words.isidentifier() else words
        lines.append(f"    {place}: {what}{f' ({hint})' if hint else ''}")
    if len(entries) > MAX_LISTED:
        lines.append(f"    and {len(entries) - MAX_LISTED} more")
    count = f"{len(entries)} operators" if len(entries) > 1 else "1 operator"
    return UnsupportedError(
        f"the {format_name} net uses {count} that sqzc does not support:\n" + "\n".join(lines),
        location=Location(file),
    )


def settled_rounding(
    sizes: Sequence[int], reach: Sequence[int], stride: Sequence[int], before: Sequence[int], after: Sequence[int]
) -> Rounding:
    """CEIL for a pool that is counted so, but FLOOR where that gives the same sizes, so that a net has one form."""
    for window in zip(sizes, reach, stride, before, after, strict=True):
        if window_size(*window, Rounding.CEIL, "pool") != window_size(*window, Rounding.FLOOR, "pool"):
            return Rounding.CEIL
    return Rounding.FLOOR
