"""Copies of image rows with zeros around them and their columns sorted by a stride, in whole vectors.

Column q of phase f of a copy is column q * stride + f of the padded row, so every stride-th column of the image lies
beside the next one. Vectors read from the image are sorted in registers; those that hang over its edge are read with a
mask, which brings the zeros along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llvmlite import ir

from sqzc.backends.llvm.emit import I1, Emitter, Val
from sqzc.backends.llvm.numbers import Numbers

# Strides beyond keep too many vectors in registers.
LARGEST_STRIDE = 16


@dataclass(frozen=True)
class Phases:
    """A row of `size` columns as a copy of `columns` columns of every `gap`-th phase of `stride`, `left` zeros first.

    `width` is the vector's length; it is at most `columns`. Copied phases follow each other without a gap.
    """

    size: int
    left: int
    stride: int
    gap: int
    columns: int
    width: int

    @property
    def count(self) -> int:
        """Copied phases."""
        return self.stride // self.gap

    @property
    def elements(self) -> int:
        """Elements of a copied row."""
        return self.count * self.columns

    def chunks(self) -> list[int]:
        """First columns of the vectors that cover a phase; the last may overlap the one before."""
        return [min(q, self.columns - self.width) for q in range(0, self.columns, self.width)]

    def first(self, chunk: int) -> int:
        """The image's column that lane 0 of phase 0 is read from; before and after the image are zeros."""
        return chunk * self.stride - self.left

    def inside(self, chunk: int) -> bool:
        """Whether all columns of all phases of a chunk are in the image."""
        return self.first(chunk) >= 0 and self.first(chunk) + self.stride * self.width <= self.size


def copy_phases(e: Emitter, numbers: Numbers, plan: Phases, source: Val, target: Val) -> None:
    """The row at `source`, whose columns follow each other, to `target`, all of which is written."""
    assert plan.stride <= LARGEST_STRIDE, plan
    assert plan.width <= plan.columns, plan
    for start, stop in _runs(plan):
        _copy_run(e, numbers, plan, start, stop, source, target)


def _copy_run(e: Emitter, numbers: Numbers, plan: Phases, start: int, stop: int, source: Val, target: Val) -> None:
    def chunk(q: Val, _: list[Val]) -> list[Val]:
        _move(e, numbers, plan, start, e.b.sub(q, e.i64(start)), source, target)
        return []

    e.loop(start, stop, plan.width, chunk)


def _runs(plan: Phases) -> Iterator[tuple[int, int]]:
    """(start, stop) of chunks that are moved by the same code: neighbours inside the image, others each alone."""
    chunks = plan.chunks()
    index = 0
    while index < len(chunks):
        start = chunks[index]
        stop = start + plan.width
        index += 1
        while plan.inside(start) and index < len(chunks) and chunks[index] == stop and plan.inside(stop):
            stop += plan.width
            index += 1
        yield start, stop


def _move(e: Emitter, numbers: Numbers, plan: Phases, chunk: int, later: Val, source: Val, target: Val) -> None:
    """The vectors of all phases of the chunk `later` columns after `chunk`."""
    row = e.at(source, e.mul_add(later, plan.stride * numbers.bytes))
    out = e.at(target, e.mul_add(later, numbers.bytes))
    vectors = [
        _load(e, numbers, row, plan.first(chunk) + k * plan.width, plan.width, plan.size) for k in range(plan.stride)
    ]
    # Columns of which none is in the image take no instruction: their constants fold.
    for f, value in enumerate(sort_phases(e, vectors)[:: plan.gap]):
        numbers.store(value, e.at(out, (f * plan.columns + chunk) * numbers.bytes))


def _load(e: Emitter, numbers: Numbers, row: Val, first: int, width: int, size: int) -> Val:
    """Columns `first` and following of a row of `size` columns; zeros beside it."""
    valid = [0 <= first + lane < size for lane in range(width)]
    if not any(valid):
        return numbers.splat(0, width)
    at = e.at(row, first * numbers.bytes)
    if all(valid):
        return numbers.load(at, width)
    mask = ir.Constant(ir.VectorType(I1, width), [ir.Constant(I1, lane) for lane in valid])
    return e.load_masked(at, mask, numbers.splat(0, width), numbers.bytes)


def sort_phases(e: Emitter, vectors: Sequence[Val]) -> list[Val]:
    """Lane i of vector f is element i * n + f of the n vectors put one after the other."""
    count = len(vectors)
    if count == 1 or not isinstance(vectors[0].type, ir.VectorType):
        return list(vectors)
    factor = next(d for d in range(2, count + 1) if count % d == 0)
    # Every `factor` neighbours sorted by `factor`; each phase of that is then sorted by the rest of the stride.
    groups = [_split(e, vectors[k : k + factor]) for k in range(0, count, factor)]
    parts = [sort_phases(e, [group[f] for group in groups]) for f in range(factor)]
    return [parts[f % factor][f // factor] for f in range(count)]


def _split(e: Emitter, vectors: Sequence[Val]) -> list[Val]:
    """The same for a prime number of vectors: each vector adds its lanes to what the ones before have given."""
    count, width = len(vectors), vectors[0].type.count
    results = []
    for f in range(count):
        wanted = [i * count + f for i in range(width)]
        total = vectors[0]
        for k in range(1, count):
            picks = []
            for lane, at in enumerate(wanted):
                new = at - (k - 1) * width
                # What earlier shuffles have put in place stays; the first one takes lanes from where they were read.
                picks.append(new if new >= width or k == 1 else lane)
            total = e.shuffle(total, vectors[k], [pick % (2 * width) for pick in picks])
        results.append(total)
    return results
