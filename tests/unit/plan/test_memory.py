"""Placement in the arena: never two at once in one place, never under the bound, and the bound is right."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sqzc.plan.memory import Interval, align, lower_bound, place
from sqzc.plan.program import ALIGN


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    first, length = draw(st.integers(0, 12)), draw(st.integers(0, 6))
    return Interval(draw(st.integers(0, 700)), first, first + length)


SETS = st.lists(intervals(), max_size=14)


@given(SETS)
def test_intervals_that_live_together_share_no_byte(given_set: list[Interval]) -> None:
    offsets, total = place(given_set)
    assert len(offsets) == len(given_set)
    owner: dict[tuple[int, int], int] = {}
    for number, (offset, interval) in enumerate(zip(offsets, given_set, strict=True)):
        assert offset >= 0
        assert offset % ALIGN == 0
        assert offset + interval.bytes <= total
        # Byte by byte and step by step, in lines of the alignment.
        for step in range(interval.first, interval.last + 1):
            for line in range(offset // ALIGN, -(-(offset + interval.bytes) // ALIGN)):
                assert owner.setdefault((step, line), number) == number


@given(SETS)
def test_lower_bound_is_the_largest_live_set(given_set: list[Interval]) -> None:
    def live(step: int) -> int:
        return sum(align(i.bytes) for i in given_set if i.first <= step <= i.last)

    bound = lower_bound(given_set)
    assert bound == max(map(live, range(20)))
    assert place(given_set)[1] >= bound


@given(SETS)
def test_placement_depends_on_nothing_else(given_set: list[Interval]) -> None:
    assert place(given_set) == place(list(given_set))


@given(intervals(), intervals())
def test_overlaps_is_a_common_step(a: Interval, b: Interval) -> None:
    steps = set(range(a.first, a.last + 1)) & set(range(b.first, b.last + 1))
    assert a.overlaps(b) == b.overlaps(a) == bool(steps)


@pytest.mark.parametrize(("size", "rounded"), [(0, 0), (1, 64), (64, 64), (65, 128)])
def test_align(size: int, rounded: int) -> None:
    assert align(size) == rounded


def test_a_chain_needs_two_buffers() -> None:
    # Each is read by the step that writes the next one.
    chain = [Interval(100, step, step + 1) for step in range(10)]
    offsets, total = place(chain)
    assert total == lower_bound(chain) == 256
    assert offsets == [0, 128] * 5


def test_nothing_needs_nothing() -> None:
    assert place([]) == ([], 0)
    assert lower_bound([]) == 0


def test_a_small_long_lived_buffer_does_not_split_the_arena() -> None:
    # Placed in order of birth, the small one would lie between the two halves that the last one needs in one piece.
    given_set = [Interval(640, 0, 1), Interval(64, 1, 3), Interval(640, 2, 2), Interval(1280, 3, 3)]
    _, total = place(given_set)
    assert total == lower_bound(given_set) == 1344
