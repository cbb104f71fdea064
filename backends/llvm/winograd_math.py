"""The one-dimensional transforms of Winograd's minimal filtering F(m, 3).

Y = A^T [(G g) * (B^T d)] for an input of m + 2 samples, a filter of 3 and m outputs; two-dimensional forms apply them
to columns and then rows. F(2,3) uses the points 0, 1, -1 and infinity, F(4,3) also 2 and -2 (S. Winograd, Arithmetic
Complexity of Computations, 1980; A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2016).

Each transform is a short sequence over an `Algebra`, so that the same text is emitted as vector code and evaluated in
numpy by tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Term = Any


class Algebra(Protocol):
    """What the transforms need of a number system."""

    def add(self, a: Term, c: Term) -> Term:
        """a + c."""
        ...

    def sub(self, a: Term, c: Term) -> Term:
        """a - c."""
        ...

    def scale(self, a: Term, factor: float) -> Term:
        """a * factor."""
        ...

    def muladd(self, a: Term, factor: float, c: Term) -> Term:
        """a * factor + c."""
        ...


Transform = Callable[[Algebra, Sequence[Term]], list[Term]]


@dataclass(frozen=True)
class Form:
    """F(m, 3): `data`, `filter` and `output` are B^T, G and A^T. `ops` are their lengths in instructions.

    `unit` is the position whose column of A^T is all ones: a constant put there in both dimensions adds itself to
    every output.
    """

    m: int
    data: Transform
    filter: Transform
    output: Transform
    data_ops: int
    filter_ops: int
    output_ops: int
    unit: int

    @property
    def size(self) -> int:
        """Input samples, and products, along one dimension."""
        return self.m + 2


def _data4(f: Algebra, d: Sequence[Term]) -> list[Term]:
    even, odd = f.muladd(d[2], -4.0, d[4]), f.muladd(d[1], -4.0, d[3])
    near, far = f.sub(d[4], d[2]), f.sub(d[3], d[1])
    return [
        f.muladd(d[0], 4.0, f.muladd(d[2], -5.0, d[4])),
        f.add(even, odd),
        f.sub(even, odd),
        f.muladd(far, 2.0, near),
        f.muladd(far, -2.0, near),
        f.muladd(d[1], 4.0, f.muladd(d[3], -5.0, d[5])),
    ]


def _filter4(f: Algebra, g: Sequence[Term]) -> list[Term]:
    ends = f.scale(f.add(g[0], g[2]), -1.0 / 6)
    wide = f.muladd(g[0], 1.0 / 24, f.scale(g[2], 1.0 / 6))
    return [
        f.scale(g[0], 0.25),
        f.muladd(g[1], -1.0 / 6, ends),
        f.muladd(g[1], 1.0 / 6, ends),
        f.muladd(g[1], 1.0 / 12, wide),
        f.muladd(g[1], -1.0 / 12, wide),
        g[2],
    ]


def _output4(f: Algebra, m: Sequence[Term]) -> list[Term]:
    s, d = f.add(m[1], m[2]), f.sub(m[1], m[2])
    p, q = f.add(m[3], m[4]), f.sub(m[3], m[4])
    return [
        f.add(f.add(m[0], s), p),
        f.muladd(q, 2.0, d),
        f.muladd(p, 4.0, s),
        f.add(f.muladd(q, 8.0, d), m[5]),
    ]


def _data2(f: Algebra, d: Sequence[Term]) -> list[Term]:
    return [f.sub(d[0], d[2]), f.add(d[1], d[2]), f.sub(d[2], d[1]), f.sub(d[1], d[3])]


def _filter2(f: Algebra, g: Sequence[Term]) -> list[Term]:
    half = f.scale(f.add(g[0], g[2]), 0.5)
    return [g[0], f.muladd(g[1], 0.5, half), f.muladd(g[1], -0.5, half), g[2]]


def _output2(f: Algebra, m: Sequence[Term]) -> list[Term]:
    return [f.add(f.add(m[0], m[1]), m[2]), f.sub(f.sub(m[1], m[2]), m[3])]


FORMS = {
    4: Form(4, _data4, _filter4, _output4, 12, 9, 10, 1),
    2: Form(2, _data2, _filter2, _output2, 4, 4, 4, 1),
}


def two_dimensional(f: Algebra, transform: Transform, grid: Sequence[Sequence[Term]]) -> Iterator[list[Term]]:
    """The transform applied to every column of `grid` and then to every row of the result, one row at a time."""
    columns = [transform(f, [row[j] for row in grid]) for j in range(len(grid[0]))]
    for i in range(len(columns[0])):
        yield transform(f, [column[i] for column in columns])
