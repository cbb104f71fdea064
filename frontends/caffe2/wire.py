"""A look at protobuf framing before the real parser allocates anything.

A few bytes of a hostile file can ask for millions of message objects. Counting operators and arguments first needs no
memory and bounds what the parser will make of the file.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqzc.diagnostics import FrontendError

NET_OP = 2
OPERATOR_ARG = 5

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise FrontendError("the file ends, or breaks, inside a number")


def submessages(data: memoryview, start: int, end: int, number: int) -> Iterator[tuple[int, int]]:
    """Extents of the submessages in field `number` of the message at start..end; FrontendError when it is broken."""
    at = start
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        elif kind == _BYTES:
            size, at = _varint(data, at, end)
            if at + size > end:
                raise FrontendError(f"a field says that it has {size} bytes, {end - at} are left")
            if key >> 3 == number:
                yield at, at + size
            at += size
        else:
            raise FrontendError(f"byte {at} starts a field of a kind that no net has")
    if at > end:
        raise FrontendError("the file ends inside a field")


def check_counts(data: memoryview, max_ops: int, max_args: int) -> None:
    """FrontendError when the net in `data` has too many operators, or too many arguments over all of them."""
    ops = args = 0
    for start, end in submessages(data, 0, len(data), NET_OP):
        ops += 1
        if ops > max_ops:
            raise FrontendError(f"the net has more than {max_ops} operators")
        # Repeated long argument values are scalar fields of the argument, so this walk touches few bytes.
        for _ in submessages(data, start, end, OPERATOR_ARG):
            args += 1
            if args > max_args:
                raise FrontendError(f"the net has more than {max_args} arguments")
