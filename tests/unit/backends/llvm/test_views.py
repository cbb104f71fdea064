"""Strided views and the loops that walk them; no code is generated here."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from sqzc.backends.llvm.views import GRAIN, Nest, View, Walk, contiguous
from sqzc.ir.types import DType

F32 = DType.F32


def elements(view: View) -> np.ndarray:
    """Where every element of the view lies, by its definition."""
    index = np.indices(view.shape).reshape(len(view.shape), -1)
    places = view.offset + sum(i * stride for i, stride in zip(index, view.strides, strict=True))
    return np.broadcast_to(places, (math.prod(view.shape),)).reshape(view.shape)


def visited(nest: Nest, number: int) -> list[int]:
    """The elements of view `number` in the order in which the nest comes to them."""
    index = np.indices(nest.sizes).reshape(len(nest.sizes), -1)
    strides = np.array(nest.strides[number])[:, None]
    return (nest.views[number].offset + (index * strides).sum(axis=0)).tolist()


def test_a_contiguous_view_counts_up() -> None:
    assert elements(contiguous(F32, (2, 3, 4))).reshape(-1).tolist() == list(range(24))


def test_views_follow_numpy() -> None:
    x = np.arange(60).reshape(3, 4, 5)
    view = contiguous(F32, x.shape)
    np.testing.assert_array_equal(elements(view.permuted((2, 0, 1))), x.transpose(2, 0, 1))
    np.testing.assert_array_equal(elements(view.window((2, 1, 0), (2, 2, 3), (-2, 1, 2))), x[::-2, 1:3, ::2])
    row = contiguous(F32, (4, 1))
    np.testing.assert_array_equal(elements(row.broadcast((3, 4, 5))), np.broadcast_to(np.arange(4)[:, None], (3, 4, 5)))


def test_a_vector_along_an_axis_may_be_cut_into_blocks() -> None:
    vector = contiguous(F32, (8,))
    assert vector.lanes(1, 4).shape == (1, 8, 1, 1)
    blocked = vector.lanes(1, 5, 4)
    assert blocked.shape == (1, 2, 1, 1, 4)
    assert elements(blocked).reshape(-1).tolist() == list(range(8))


def test_axes_in_line_are_merged() -> None:
    whole = contiguous(F32, (2, 3, 1, 4))
    assert Nest.over([whole, whole]).sizes == (24,)
    per_channel = contiguous(F32, (3, 1, 1)).broadcast((2, 3, 1, 4))
    assert Nest.over([whole, per_channel]).sizes == (2, 3, 4)
    assert Nest.over([contiguous(F32, ())]).sizes == (1,)


@pytest.mark.parametrize("seed", range(20))
def test_a_nest_visits_the_elements_of_every_view_in_step(seed: int) -> None:
    draw = random.Random(seed)
    shape = tuple(draw.choice((1, 2, 3, 4)) for _ in range(draw.randint(1, 4)))
    perm = draw.sample(range(len(shape)), len(shape))
    source = contiguous(F32, tuple(shape[perm.index(i)] for i in range(len(shape)))).permuted(perm)
    assert source.shape == shape
    partial = contiguous(F32, tuple(draw.choice((1, size)) for size in shape)).broadcast(shape)
    nest = Nest.over([contiguous(F32, shape), source, partial])
    assert visited(nest, 0) == list(range(math.prod(shape)))
    assert visited(nest, 1) == elements(source).reshape(-1).tolist()
    assert visited(nest, 2) == elements(partial).reshape(-1).tolist()


def walk(*shape: int, lanes: int = 16) -> Walk:
    view = contiguous(F32, shape)
    return Walk(Nest.over([view, view]), lanes)


@pytest.mark.parametrize(("size", "width"), [(1, 1), (3, 1), (4, 4), (7, 4), (8, 8), (15, 8), (16, 16), (1000, 16)])
def test_vectors_are_as_wide_as_elements_fill(size: int, width: int) -> None:
    assert walk(size).width == width


def test_strided_operands_are_taken_one_by_one() -> None:
    target = contiguous(F32, (40, 33))
    assert Walk(Nest.over([target, contiguous(F32, (33, 40)).permuted((1, 0))]), 16).width == 1


def test_long_loops_are_cut_into_work_items_and_short_ones_are_joined() -> None:
    assert walk(64 * GRAIN).items == 64
    assert walk(7).items == 1
    target = contiguous(F32, (64, 16, 8))
    spread = contiguous(F32, (64, 1, 8)).broadcast((64, 16, 8))
    assert Walk(Nest.over([target, spread]), 16).items < 64


def test_nothing_to_visit_is_no_work() -> None:
    assert walk(3, 0, 5).items == 0
