"""Which weights keep the error budget of fast convolutions; tests/differential/test_fast_errors.py runs the code."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from sqzc.backends.llvm.error_bounds import BUDGET, ROUNDING, share, winograd_error
from sqzc.backends.llvm.strassen_error import strassen_error, strassen_mean_squares
from sqzc.backends.llvm.strassen_math import Multiply, Sum, left_operands, part_indices, recombination, right_operands

Array = npt.NDArray[np.float32]
LANES = 16


def drawn(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("ic", [16, 256, 2048])
def test_random_weights_keep_the_budget(ic: int) -> None:
    w = drawn(64, ic, 3, 3)
    assert winograd_error(w, 2) < winograd_error(w, 4) < BUDGET
    w = drawn(64, ic, 1, 1)
    assert strassen_error(w, 1, LANES) < strassen_error(w, 2, LANES) < BUDGET


@pytest.mark.parametrize("kind", ["relu", "sparse", "equal", "heavy-tailed", "dead outputs"])
def test_what_training_leaves_keeps_the_budget(kind: str) -> None:
    w = drawn(64, 64, 3, 3)
    match kind:
        case "relu":
            w = np.maximum(w, 0)
        case "sparse":
            w = np.where(np.abs(w) > 1.5, w, 0)
        case "equal":
            w = np.ones_like(w)
        case "heavy-tailed":
            w = w * np.abs(w)
        case "dead outputs":
            w[::16] = 0
            w[5] *= 1e-12
    assert winograd_error(w, 4) < BUDGET


def test_size_does_not_matter() -> None:
    w = drawn(32, 32, 3, 3)
    for factor in (2.0**-80, 2.0**80):
        assert winograd_error(w * np.float32(factor), 4) == pytest.approx(winograd_error(w, 4))
    w *= np.geomspace(1e-4, 1e4, 32, dtype=np.float32)[:, None, None, None]
    # Output channels do not touch each other in Winograd's form.
    assert winograd_error(w, 4) < BUDGET


@pytest.mark.parametrize("factor", [1e-36, 1e36, np.inf, np.nan])
def test_weights_near_the_ends_of_the_range_are_refused(factor: float) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        wide, narrow = drawn(32, 32, 3, 3) * np.float32(factor), drawn(32, 32, 1, 1) * np.float32(factor)
    assert winograd_error(wide, 2) == winograd_error(wide, 4) == strassen_error(narrow, 1, LANES) == np.inf


def test_no_weights_have_no_error() -> None:
    assert winograd_error(np.zeros((16, 16, 3, 3), np.float32), 4) == 0
    assert strassen_error(np.zeros((16, 32, 1, 1), np.float32), 1, LANES) == 0


@pytest.mark.parametrize("m", [2, 4])
def test_hard_weights_are_refused(m: int) -> None:
    scattered, smooth, flat, one = (drawn(32, 32, 3, 3) for _ in range(4))
    scattered[:, ::2] *= 1e5
    smooth -= smooth.mean((2, 3), keepdims=True)
    flat -= flat.mean((1, 2, 3), keepdims=True)
    one *= 1e-3
    one[0] = np.resize([1e5, -1e5], one[0].shape)
    for w in (scattered, smooth, flat, one):
        assert winograd_error(w, m) > BUDGET


def test_channels_that_are_small_beside_others_count() -> None:
    # As a share of the whole layer nothing is wrong: half of its channels hide what happens in the others.
    w = drawn(32, 32, 3, 3)
    w[::2, 0] *= 1e5
    w[1::2] *= 1e6
    assert winograd_error(w, 4) > BUDGET


def test_strassen_mixes_halves_of_the_output() -> None:
    w = drawn(128, 128, 1, 1)
    w[:64] *= 1e4
    for levels in (1, 2):
        assert strassen_error(w, levels, LANES) > BUDGET


def test_the_share_is_of_the_smallest_results() -> None:
    # One output of two inputs: half of the weights are the 3, and equal inputs leave 4 - 3.
    w = np.array([[-3.0, 4.0]], np.float32)
    assert share(np.array([25.0]), w) == pytest.approx(ROUNDING * 5)
    assert share(np.array([25.0]), np.abs(w)) == pytest.approx(ROUNDING * 5 / 3)


# -- Strassen's form in numpy -----------------------------------------------------------------------------------------


class Sums:
    """Arithmetic on arrays in their own type."""

    def add(self, a: Array, c: Array) -> Array:
        return a + c

    def sub(self, a: Array, c: Array) -> Array:
        return a - c


def multiply_add(start: Array, a: Array, b: Array) -> Array:
    """start + a b, one fused multiply-add after the other."""
    total = start
    for k in range(a.shape[1]):
        total = (total + a[:, k : k + 1].astype(np.float64) * b[k]).astype(np.float32)
    return total


@pytest.mark.parametrize("levels", [1, 2])
def test_the_estimate_of_strassens_error_is_what_float32_loses(levels: int) -> None:
    size, parts = 128, 2**levels
    part = size // parts
    w, x = drawn(size, size), drawn(size, size, 1)[::-1, :, 0]

    def cut(a: Array) -> list[Array]:
        return [a[i * part :][:part, j * part :][:, :part] for i, j in part_indices(levels)]

    left, right = left_operands(Sums(), cut(w)), right_operands(Sums(), cut(x))
    slots: dict[int | None, Array] = {None: np.zeros((part, part), np.float32)}
    for action in recombination(levels)[0]:
        if isinstance(action, Multiply):
            slots[action.target] = multiply_add(slots[action.source], left[action.product], right[action.product])
        elif isinstance(action, Sum):
            first, *others = action.sources
            total = slots[first]
            for other in others:
                total = total + slots[other]
            slots[action.target] = total
    exact = w.astype(np.float64) @ x
    errors = [
        slots[k] - exact[i * part :][:part, j * part :][:, :part] for k, (i, j) in enumerate(part_indices(levels))
    ]
    measured = np.sqrt(np.mean(np.square(errors)))
    expected = ROUNDING * np.sqrt(strassen_mean_squares(w.reshape(size, size, 1, 1), levels, LANES).mean())
    assert 0.7 < measured / expected < 1.4
