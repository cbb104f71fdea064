"""The one-dimensional transforms of F(m, 3) against matrices made here from their points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sqzc.backends.llvm.winograd_math import FORMS, Form, Transform, two_dimensional

POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 1.0, -1.0, 2.0, -2.0)}
"""The finite points of each form; infinity is the last one."""

Matrix = npt.NDArray[np.float64]
EVERY = pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: f"F({form.m},3)")


@dataclass
class Numbers:
    """Arithmetic on numpy arrays that counts its steps."""

    steps: Counter[str] = field(default_factory=Counter)

    def add(self, a: Any, c: Any) -> Any:
        self.steps["add"] += 1
        return a + c

    def sub(self, a: Any, c: Any) -> Any:
        self.steps["sub"] += 1
        return a - c

    def scale(self, a: Any, factor: float) -> Any:
        self.steps["scale"] += 1
        return a * factor

    def muladd(self, a: Any, factor: float, c: Any) -> Any:
        self.steps["muladd"] += 1
        return a * factor + c


def matrix(transform: Transform, size: int) -> Matrix:
    """The matrix of a transform, column by column from the unit vectors."""
    units = np.eye(size)
    return np.array(transform(Numbers(), list(units)))


def cook_toom(m: int) -> tuple[Matrix, Matrix, Matrix]:
    """(B^T, G, A^T) of F(m, 3) with each polynomial's leading coefficient 1.

    A product of polynomials is found from its values at the points, by Lagrange's interpolation; filtering is the
    transposed problem.
    """
    points = np.array(POINTS[m])
    size = m + 2
    data, filters, output = np.zeros((size, size)), np.zeros((size, 3)), np.zeros((m, size))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        coefficients = np.poly(others)[::-1]
        data[i, : len(coefficients)] = coefficients
        filters[i] = point ** np.arange(3) / np.prod(point - others)
        output[:, i] = point ** np.arange(m)
    data[-1] = np.poly(points)[::-1]
    filters[-1, 2] = output[-1, -1] = 1.0
    return data, filters, output


def factor(got: Matrix, want: Matrix) -> float:
    """How many times `want` the vector `got` is; fails where it is no multiple."""
    (at, *_) = np.flatnonzero(want)
    times = float(got[at] / want[at])
    np.testing.assert_allclose(got, times * want, rtol=0, atol=1e-14)
    return times


def test_derived_matrices_filter() -> None:
    # The reference of this file is checked first.
    rng = np.random.default_rng(0)
    for m in POINTS:
        data, filters, output = cook_toom(m)
        d, g = rng.standard_normal(m + 2), rng.standard_normal(3)
        np.testing.assert_allclose(output @ ((filters @ g) * (data @ d)), np.correlate(d, g), rtol=0, atol=1e-12)


@EVERY
def test_transforms_are_those_of_the_points(form: Form) -> None:
    data, filters, output = cook_toom(form.m)
    own = matrix(form.data, form.size), matrix(form.filter, 3), matrix(form.output, form.size)
    assert [a.shape for a in own] == [data.shape, filters.shape, output.shape]
    # The three of one point may be scaled, together by one. Only signs are, so that no rounding is added.
    for i in range(form.size):
        factors = factor(own[0][i], data[i]), factor(own[1][i], filters[i]), factor(own[2][:, i], output[:, i])
        assert {abs(f) for f in factors} == {1.0}
        assert np.prod(factors) == 1.0


@EVERY
def test_filter_of_random_data(form: Form) -> None:
    rng = np.random.default_rng(1)
    d, g = rng.standard_normal((form.size, 50)), rng.standard_normal((3, 50))
    f = Numbers()
    products = [a * c for a, c in zip(form.data(f, list(d)), form.filter(f, list(g)), strict=True)]
    want = [sum(d[i + u] * g[u] for u in range(3)) for i in range(form.m)]
    np.testing.assert_allclose(form.output(f, products), want, rtol=0, atol=1e-12)


@EVERY
def test_two_dimensions_of_random_data(form: Form) -> None:
    rng = np.random.default_rng(2)
    d, g = rng.standard_normal((form.size, form.size, 20)), rng.standard_normal((3, 3, 20))
    f = Numbers()
    u, v = np.array(list(two_dimensional(f, form.filter, g))), np.array(list(two_dimensional(f, form.data, d)))
    assert u.shape == v.shape == (form.size, form.size, 20)
    want = [
        [sum(d[i + k, j + n] * g[k, n] for k in range(3) for n in range(3)) for j in range(form.m)]
        for i in range(form.m)
    ]
    np.testing.assert_allclose(list(two_dimensional(f, form.output, list(u * v))), want, rtol=0, atol=1e-12)


@EVERY
def test_two_dimensions_are_the_matrix_on_either_side(form: Form) -> None:
    rng = np.random.default_rng(3)
    for transform, size in ((form.data, form.size), (form.filter, 3), (form.output, form.size)):
        grid, left = rng.standard_normal((size, size)), matrix(transform, size)
        got = np.array(list(two_dimensional(Numbers(), transform, grid.tolist())))
        np.testing.assert_allclose(got, left @ grid @ left.T, rtol=0, atol=1e-12)


@EVERY
def test_declared_lengths_are_those_of_the_sequences(form: Form) -> None:
    for transform, size, declared in (
        (form.data, form.size, form.data_ops),
        (form.filter, 3, form.filter_ops),
        (form.output, form.size, form.output_ops),
    ):
        f = Numbers()
        transform(f, list(np.eye(size)))
        assert f.steps.total() == declared


@EVERY
def test_a_constant_at_the_unit_position_is_added_to_every_output(form: Form) -> None:
    np.testing.assert_array_equal(matrix(form.output, form.size)[:, form.unit], np.ones(form.m))
    grid = np.zeros((form.size, form.size))
    grid[form.unit, form.unit] = 2.5
    np.testing.assert_array_equal(list(two_dimensional(Numbers(), form.output, grid)), np.full((form.m, form.m), 2.5))


@EVERY
def test_rows_are_made_one_at_a_time(form: Form) -> None:
    # The emitter stores a row before the next is computed, so that a whole grid need not be in registers.
    f = Numbers()
    rows: Iterator[list[Any]] = two_dimensional(f, form.data, np.ones((form.size, form.size)))
    next(rows)
    assert f.steps.total() == (form.size + 1) * form.data_ops
    next(rows)
    assert f.steps.total() == (form.size + 2) * form.data_ops


def test_every_form_is_listed_under_its_size() -> None:
    assert set(FORMS) == set(POINTS)
    assert all(m == form.m and form.size == m + 2 for m, form in FORMS.items())
