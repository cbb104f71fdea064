"""Rows sorted by stride: where each column goes, and how many vectors that takes."""

from __future__ import annotations

import pytest

from sqzc.backends.llvm.phases import Phases


@pytest.mark.parametrize("size", [1, 7, 32, 113])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("left", [0, 1, 5, 70])
@pytest.mark.parametrize("columns", [8, 9, 16, 61])
def test_chunks_cover_every_column_and_know_their_place(size: int, stride: int, left: int, columns: int) -> None:
    plan = Phases(size, left, stride, 1, columns, 8)
    chunks = plan.chunks()
    assert sorted({q + lane for q in chunks for lane in range(8)}) == list(range(columns))
    for chunk in chunks:
        image = [plan.first(chunk) + at for at in range(stride * 8)]
        assert plan.inside(chunk) == all(0 <= column < size for column in image)
        assert image[0] + left == chunk * stride


def test_phases_that_no_tap_reads_have_no_room() -> None:
    assert Phases(30, 0, 4, 1, 10, 8).elements == 40
    assert Phases(30, 0, 4, 2, 10, 8).elements == 20
    assert Phases(30, 0, 4, 4, 10, 8).elements == 10
