"""Equality of buffer programs, field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqzc.ir.constant import Constant
from sqzc.plan.program import Buffer, Program, Step

Record = Buffer | Step


def first_difference(a: Program, b: Program) -> str | None:
    """None when the programs are equal, else one sentence naming the first difference.

    Everything counts, the order of buffers and constants too, as the layout of the library follows it. Constants count
    by symbol and data.
    """
    for name in ("name", "target", "arena_bytes", "bound_bytes", "meta", "inputs", "outputs"):
        left, right = getattr(a, name), getattr(b, name)
        if left != right:
            return f"{name} is {left!r} and {right!r}"
    return (
        _names_difference("constants", list(a.constants), list(b.constants))
        or _constants_difference(a, b)
        or _names_difference("buffers", list(a.buffers), list(b.buffers))
        or _records_difference([f"%{n}" for n in a.buffers], list(a.buffers.values()), list(b.buffers.values()))
        or _names_difference("kernels", [s.kernel for s in a.steps], [s.kernel for s in b.steps])
        or _records_difference([f"step {i}" for i in range(len(a.steps))], a.steps, b.steps)
    )


def equal(a: Program, b: Program) -> bool:
    """Whether the programs are equal."""
    return first_difference(a, b) is None


def _names_difference(what: str, left: list[str], right: list[str]) -> str | None:
    for index, (x, y) in enumerate(zip(left, right, strict=False)):
        if x != y:
            return f"{what} differ at {index}: {x} and {y}"
    if len(left) != len(right):
        longer = max(left, right, key=len)
        return f"{len(left)} {what} and {len(right)}; the first extra one is {longer[min(len(left), len(right))]}"
    return None


def _constants_difference(a: Program, b: Program) -> str | None:
    for name, left in a.constants.items():
        if _identity(left) != _identity(b.constants[name]):
            return f"the constant %{name} is {_identity(left)} and {_identity(b.constants[name])}"
    return None


def _identity(constant: Constant) -> str:
    return f"@{constant.symbol} : {constant.type} sha={constant.sha}"


def _records_difference(names: Sequence[str], left: Sequence[Record], right: Sequence[Record]) -> str | None:
    for name, x, y in zip(names, left, right, strict=True):
        for field in fields(x):
            p, q = _plain(getattr(x, field.name)), _plain(getattr(y, field.name))
            if p != q:
                return f"{name}: {field.name} is {p!r} and {q!r}"
    return None


def _plain(value: Any) -> Any:
    """Mappings as their entries in order: they are printed so."""
    return list(value.items()) if isinstance(value, Mapping) else value
