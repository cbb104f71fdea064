"""Strassen's matrix product in Winograd's form, one level or several inside each other.

C = A B in halves of the rows of A, of the inner dimension and of the columns of B, with seven products instead of eight
(V. Strassen, Gaussian Elimination is not Optimal, 1969; the form with 15 sums is S. Winograd's):

    S1 = A21 + A22   S2 = S1 - A11    S3 = A11 - A21   S4 = A12 - S2
    T1 = B12 - B11   T2 = B22 - T1    T3 = B22 - B12   T4 = B21 - T2
    C11 = A11 B11 + A12 B21           U2 = A11 B11 + S2 T2       U3 = U2 + S3 T3
    C21 = U3 + A22 T4                 C22 = U3 + S1 T1           C12 = U2 + S1 T1 + S4 B22

A block of several levels is a list of its parts: those of its quarters 11, 12, 21 and 22 one after the other. Sums are
written over an `Algebra`, so that the same text is emitted as vector code and evaluated in numpy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Term = Any
Block = list[Term]

PRODUCTS = 7


def products_of(levels: int) -> int:
    """How many products `levels` of halves make."""
    count: int = PRODUCTS**levels
    return count


class Algebra(Protocol):
    """What the sums need of a number system."""

    def add(self, a: Term, c: Term) -> Term:
        """a + c."""
        ...

    def sub(self, a: Term, c: Term) -> Term:
        """a - c."""
        ...


def left_operands(f: Algebra, block: Sequence[Term]) -> list[Term]:
    """The left operands of all products, from the parts of A."""

    def seven(a11: Block, a12: Block, a21: Block, a22: Block) -> list[Block]:
        s1 = _each(f.add, a21, a22)
        s2 = _each(f.sub, s1, a11)
        return [a11, a12, s2, _each(f.sub, a11, a21), s1, _each(f.sub, a12, s2), a22]

    return _operands(seven, list(block))


def right_operands(f: Algebra, block: Sequence[Term]) -> list[Term]:
    """The right operands of all products, from the parts of B."""

    def seven(b11: Block, b12: Block, b21: Block, b22: Block) -> list[Block]:
        t1 = _each(f.sub, b12, b11)
        t2 = _each(f.sub, b22, t1)
        return [b11, b21, t2, _each(f.sub, b22, b12), t1, b22, _each(f.sub, b21, t2)]

    return _operands(seven, list(block))


def _each(combine: Callable[[Term, Term], Term], a: Block, c: Block) -> Block:
    return [combine(*pair) for pair in zip(a, c, strict=True)]


def _operands(seven: Callable[[Block, Block, Block, Block], list[Block]], block: Block) -> list[Term]:
    if len(block) == 1:
        return block
    return [operand for part in seven(*quarters(block)) for operand in _operands(seven, part)]


def quarters(block: Sequence[Term]) -> tuple[Block, Block, Block, Block]:
    """The four quarters of a block."""
    size = len(block) // 4
    first, second, third, fourth = (list(block[k * size : (k + 1) * size]) for k in range(4))
    return first, second, third, fourth


def part_indices(levels: int) -> Iterator[tuple[int, int]]:
    """(row, column) of each part of a block, in the order of its list."""
    for path in itertools.product(range(4), repeat=levels):
        row = column = 0
        for quarter in path:
            row, column = 2 * row + quarter // 2, 2 * column + quarter % 2
        yield row, column


@dataclass(frozen=True)
class Multiply:
    """slots[target] = slots[source] + the product of operands number `product`; `source` None is zero."""

    product: int
    source: int | None
    target: int


@dataclass(frozen=True)
class Sum:
    """slots[target] = the sum of two or three slots."""

    sources: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class Ready:
    """Part number `part` of C is in slot `part` and will not change."""

    part: int


Action = Multiply | Sum | Ready


def recombination(levels: int) -> tuple[list[Action], int]:
    """What makes the parts of C, with the products in order, and how many slots it takes.

    Slots below 4 ** levels are the parts of C; a first level needs no others, because its sums grow where C will be.
    """
    parts = list(range(4**levels))
    actions, slots = _level(levels, 0, None, parts, len(parts))
    last = {action.target: k for k, action in enumerate(actions) if not isinstance(action, Ready)}
    done: list[Action] = []
    for k, action in enumerate(actions):
        done.append(action)
        if not isinstance(action, Ready) and action.target < len(parts) and last[action.target] == k:
            done.append(Ready(action.target))
    return done, slots


def _level(levels: int, first: int, before: Block | None, after: Block, free: int) -> tuple[list[Action], int]:
    """`after` = `before` + the products numbered from `first`; slots from `free` on may be used in between."""
    if levels == 0:
        return [Multiply(first, None if before is None else before[0], after[0])], free
    size = len(after) // 4
    c11, c12, c21, c22 = quarters(after)
    if before is None:
        old: tuple[list[Block], ...] = ([], [], [], [])
        u, v, w = c12, c21, c22
    else:
        old = tuple([quarter] for quarter in quarters(before))
        u, v, w = (list(range(free + k * size, free + (k + 1) * size)) for k in range(3))
        free += 3 * size
    top = free
    actions: list[Action] = []

    def multiply(number: int, source: Block | None, target: Block) -> None:
        nonlocal top
        inner, used = _level(levels - 1, first + number * PRODUCTS ** (levels - 1), source, target, free)
        actions.extend(inner)
        top = max(top, used)

    def add(target: Block, *sources: Block) -> Block:
        if len(sources) == 1:
            return sources[0]
        actions.extend(Sum(tuple(group[:-1]), group[-1]) for group in zip(*sources, target, strict=True))
        return target

    multiply(0, None, u)
    multiply(1, add(c11, *old[0], u), c11)
    multiply(2, u, u)
    multiply(3, u, v)
    multiply(4, None, w)
    multiply(5, add(c12, *old[1], u, w), c12)
    add(c22, *old[3], v, w)
    multiply(6, add(c21, *old[2], v), c21)
    return actions, top


def phases(levels: int) -> list[tuple[int, list[Action]]]:
    """`recombination` cut where the product of the outermost level changes: its number, and what is done for it."""
    inner = PRODUCTS ** (levels - 1)
    found: list[tuple[int, list[Action]]] = []
    for action in recombination(levels)[0]:
        if isinstance(action, Multiply) and (not found or found[-1][0] != action.product // inner):
            found.append((action.product // inner, []))
        found[-1][1].append(action)
    return found
