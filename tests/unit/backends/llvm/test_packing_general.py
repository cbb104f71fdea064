"""Tables and packed weights that the general kernels make at compile time."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.backends.llvm.kernels.depthwise import pack_depthwise
from sqzc.backends.llvm.kernels.linear import pack_linear, panel_starts
from sqzc.backends.llvm.kernels.plain_pool import tap_counts
from sqzc.backends.llvm.problems import ConvProblem, conv_problem_of
from sqzc.backends.llvm.sampling import sample_positions
from sqzc.backends.llvm.schedules import conv_rows, depthwise, matrix
from sqzc.backends.llvm.schedules.conv_rows import RowsProblem
from sqzc.diagnostics import ScheduleError
from sqzc.ir.ops.nn import AvgPool2d, Conv2d, Rounding
from sqzc.ir.ops.shape import Coordinates
from sqzc.ir.types import Layout, f32
from sqzc.plan.program import NO_BORDER, image_geometry
from sqzc.target import TARGETS, Target


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 3), (1, 17), (1, 1000), (5, 64), (7, 100), (64, 1000)])
def test_matrix_tiles_fit_and_panels_cover_all_columns(m: int, n: int, target: Target) -> None:
    s = matrix.choose(m, n, target)
    s.check(target)
    assert s.rows <= m
    starts = panel_starts(n, s)
    assert len(starts) == s.panels(n)
    covered = {column for start in starts for column in range(start, min(start + s.panel, n))}
    assert covered == set(range(n))
    assert all(start + s.panel <= n for start in starts) or len(starts) == 1


def test_a_tile_that_would_spill_is_refused() -> None:
    with pytest.raises(ScheduleError, match="would spill"):
        matrix.MatrixSchedule(6, 4, 8, 1).check(TARGETS["x86-64-v3"])


def test_packed_linear_weights_are_panels_of_rows_of_k() -> None:
    target = TARGETS["x86-64-v3"]
    w = np.random.default_rng(0).standard_normal((37, 5)).astype(np.float32)
    s = matrix.choose(1, 37, target)
    packed = pack_linear(w, s)
    for panel, start in enumerate(panel_starts(37, s)):
        np.testing.assert_array_equal(packed[panel], w[start : start + s.panel].T)


def test_packed_depthwise_weights_have_channels_in_lanes() -> None:
    w = np.arange(5 * 6, dtype=np.float32).reshape(5, 1, 2, 3)
    packed = pack_depthwise(w, 4)
    assert packed.shape == (2, 2, 3, 4)
    assert packed[1, 1, 2, 0] == w[4, 0, 1, 2]
    assert not packed[1, :, :, 1:].any()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("size", [1, 3, 7, 13, 16, 56, 113])
def test_tiles_of_rows_lie_within_the_image(size: int, target: Target) -> None:
    p = RowsProblem(3, 7, size, size, 3, 3, 1, 1, 1, 1, 4, direct=False, flat=False)
    s = conv_rows.choose(p, target)
    assert s.rows <= s.band <= size
    assert s.ocs <= 7
    assert s.copied
    assert s.phase(p) >= size + 2
    assert s.buffer_elements(p) * 4 <= target.l2_bytes


def depthwise_problem(size: int, k: int, stride: int) -> ConvProblem:
    """32 channels in blocks of 16, not padded."""
    op = Conv2d(stride=(stride, stride), group=32)
    x = f32(1, 32, size, size).with_layout(Layout(16))
    output = (size - k) // stride + 1
    y = f32(1, 32, output, output).with_layout(Layout(16))
    return conv_problem_of(op, x, 32, (k, k), 16, image_geometry(x, NO_BORDER), image_geometry(y, NO_BORDER), None)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_large_depthwise_tile_is_refused(kept: int) -> None:
    with pytest.raises(ScheduleError, match="would spill"):
        depthwise.DepthwiseSchedule(4, 4, kept).check(depthwise_problem(9, 3, 1), TARGETS["x86-64-v3"])


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("size", [5, 9, 30])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_depthwise_tiles_fit_and_the_fastest_is_chosen(size: int, k: int, stride: int, target: Target) -> None:
    p = depthwise_problem(size, k, stride)
    found = list(depthwise.candidates(p, target))
    for s in found:
        s.check(p, target)
    best = depthwise.choose(p, target)
    assert depthwise.predict(p, best, target) == min(depthwise.predict(p, s, target) for s in found)


def test_pixels_are_read_once_for_all_their_windows() -> None:
    assert depthwise.pixels_of_row(depthwise_problem(9, 3, 2), 2) == {
        0: [(0, 0)], 1: [(0, 1)], 2: [(0, 2), (1, 0)], 3: [(1, 1)], 4: [(1, 2)]
    }  # fmt: skip


def test_tap_counts_follow_the_rule_for_padding_and_overhang() -> None:
    options = {"kernel": (3, 3), "stride": (2, 2), "pads": (1, 1, 1, 1), "rounding": Rounding.CEIL}
    inside = AvgPool2d(**options)
    assert tap_counts(inside, 6, 4, 0).tolist() == [2, 3, 3, 1]
    padded = AvgPool2d(count_include_pad=True, **options)
    assert tap_counts(padded, 6, 4, 0).tolist() == [3, 3, 3, 2]
    overhanging = AvgPool2d(count_include_pad=True, count_overhang=True, **options)
    assert tap_counts(overhanging, 6, 4, 0).tolist() == [3, 3, 3, 3]


def test_sample_positions_stay_inside_and_weigh_the_upper_neighbour() -> None:
    half = sample_positions(4, 8, 0.0, Coordinates.HALF_PIXEL)
    assert half.lower.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert half.upper.tolist() == [0, 1, 1, 2, 2, 3, 3, 3]
    np.testing.assert_allclose(half.weight, [0.75, 0.25, 0.75, 0.25, 0.75, 0.25, 0.75, 0.25])
    corners = sample_positions(3, 5, 0.0, Coordinates.ALIGN_CORNERS)
    np.testing.assert_allclose(corners.lower + corners.weight, [0, 0.5, 1, 1.5, 2])
    # Positions are float32 numbers: which side of a whole number they fall on decides what nearest-neighbour reads.
    scaled = sample_positions(20, 34, 1.7, Coordinates.ASYMMETRIC)
    assert scaled.lower[17] == int(np.float32(17) / np.float32(1.7))
