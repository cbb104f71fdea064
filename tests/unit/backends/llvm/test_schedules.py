"""Schedules of the fast kernels: what is offered, chosen, refused, and written into plans."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given, settings

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.kernels.conv_pool import choose_rows
from sqzc.backends.llvm.kernels.conv_strassen import pays
from sqzc.backends.llvm.problems import ConvProblem, PoolProblem, conv_problem_of
from sqzc.backends.llvm.schedules import conv_direct, conv_strassen, conv_winograd
from sqzc.backends.llvm.schedules import pool as pool_schedules
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule, registers
from sqzc.backends.llvm.schedules.conv_strassen import (
    MEMORY_PRICE,
    StrassenSchedule,
    applies,
    part_of,
    prepared_bytes,
    widths,
)
from sqzc.backends.llvm.schedules.conv_winograd import WinogradSchedule, grid, scratch_layout
from sqzc.backends.llvm.schedules.pool import PoolSchedule, inner_columns
from sqzc.diagnostics import ScheduleError
from sqzc.ir.ops.nn import Conv2d, MaxPool2d, Rounding
from sqzc.ir.types import Layout, f32
from sqzc.plan.program import NO_BORDER, Border, image_geometry
from sqzc.target import TARGETS, Target

EVERY_TARGET = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
V3, V4 = TARGETS["x86-64-v3"], TARGETS["x86-64-v4"]


def problem(
    target: Target,
    ic: int,
    size: tuple[int, int],
    oc: int,
    kernel: tuple[int, int] = (1, 1),
    *,
    n: int = 1,
    stride: tuple[int, int] = (1, 1),
    pads: Border = NO_BORDER,
    border: Border | None = None,
    row_major: bool = False,
) -> ConvProblem:
    """A convolution into channel blocks; its input has the border `border`, or the one that it needs."""
    lanes = target.vector_lanes
    x = f32(n, ic, *size).with_layout(Layout(0 if row_major else lanes))
    op = Conv2d(stride=stride, pads=pads)
    plain = f32(n, ic, *size)
    oh, ow = op.infer(plain, f32(oc, ic, *kernel)).shape[2:]
    y = image_geometry(f32(n, oc, oh, ow).with_layout(Layout(lanes)), NO_BORDER)
    return conv_problem_of(op, x, oc, kernel, lanes, image_geometry(x, pads if border is None else border), y, None)


REPRESENTATIVE: dict[str, Callable[[Target], ConvProblem]] = {
    "first": lambda t: problem(t, 3, (63, 63), 64, (3, 3), stride=(2, 2), row_major=True),
    "squeeze": lambda t: problem(t, 128, (28, 28), 32),
    "expand": lambda t: problem(t, 32, (28, 28), 128, (3, 3), pads=(1, 1, 1, 1)),
    "last": lambda t: problem(t, 512, (14, 14), 1000),
    "one pixel": lambda t: problem(t, 40, (1, 1), 17),
    "wide filter": lambda t: problem(t, 20, (9, 40), 70, (5, 7), pads=(2, 3, 2, 3), n=2),
    "bordered": lambda t: problem(t, 64, (14, 14), 256, border=(1, 1, 1, 1)),
}
EVERY_PROBLEM = pytest.mark.parametrize("name", REPRESENTATIVE)


def direct(p: ConvProblem, target: Target) -> list[DirectSchedule]:
    return list(conv_direct.candidates(p, target))


# -- what is offered and chosen ---------------------------------------------------------------------------------------


@EVERY_TARGET
@EVERY_PROBLEM
def test_candidates_pass_their_own_check_and_one_of_them_is_chosen(name: str, target: Target) -> None:
    p = REPRESENTATIVE[name](target)
    offered: list[tuple[list[Any], Any]] = [(direct(p, target), conv_direct.choose(p, target))]
    if (p.kh, p.kw) == (3, 3):
        offered.append((list(conv_winograd.candidates(p, target)), conv_winograd.choose(p, target)))
    chosen = conv_strassen.choose(p, target)
    if chosen is not None:
        offered.append((list(conv_strassen.candidates(p, target)), chosen[0]))
        assert chosen[1] == conv_strassen.cost(p, chosen[0], target)
        total = [conv_strassen.cost(p, s, target) + MEMORY_PRICE * prepared_bytes(p, s) for s in offered[-1][0]]
        assert total[offered[-1][0].index(chosen[0])] == min(total)
    for schedules, best in offered:
        assert best in schedules
        assert len(set(schedules)) == len(schedules)
        for schedule in schedules:
            schedule.check(p, target)


@EVERY_TARGET
@EVERY_PROBLEM
def test_the_cheapest_is_chosen_in_the_same_way_every_time(name: str, target: Target) -> None:
    p = REPRESENTATIVE[name](target)
    best = conv_direct.choose(p, target)
    costs = {s: conv_direct.predict(p, s, target) for s in direct(p, target)}
    assert costs[best] == min(costs.values())
    # Of equals the first one is taken, whatever was chosen before and from an equal record of other identity.
    assert best == next(s for s, cost in costs.items() if cost == costs[best])
    again = _unwrapped(conv_direct.choose)(dataclasses.replace(p), dataclasses.replace(target))
    assert again == best
    if (p.kh, p.kw) == (3, 3):
        assert _unwrapped(conv_winograd.choose)(dataclasses.replace(p), target) == conv_winograd.choose(p, target)


def _unwrapped(choose: Any) -> Any:
    """The function itself, without a memory of its answers."""
    return choose.__wrapped__ if isinstance(choose, functools._lru_cache_wrapper) else choose


def test_rows_are_joined_where_they_can_be_and_not_where_a_pool_follows() -> None:
    p = REPRESENTATIVE["squeeze"](V4)
    assert {s.flat for s in conv_direct.candidates(p, V4)} == {1}
    assert {s.flat for s in conv_direct.candidates(p, V4, rows_apart=True)} == {0}
    assert {s.flat for s in conv_direct.candidates(REPRESENTATIVE["bordered"](V4), V4)} == {0}


# -- what is refused --------------------------------------------------------------------------------------------------


def refused(schedule: Any, p: ConvProblem, target: Target, *words: str) -> None:
    """Fails unless the schedule's check refuses it with a message that has all the words."""
    with pytest.raises(ScheduleError) as error:
        schedule.check(p, target)
    message = str(error.value)
    assert all(word in message for word in words), message


@EVERY_TARGET
def test_tiles_that_would_spill_are_refused_with_the_bound(target: Target) -> None:
    most = target.vector_registers
    x, w = problem(target, 64, (64, 64), 256), problem(target, 64, (64, 64), 256, (3, 3), pads=(1, 1, 1, 1))
    for oc_vecs in (1, 2, 3, 4):
        fits = max(n for n in range(1, 40) if registers(oc_vecs, n, target) <= most)
        wanted = str(registers(oc_vecs, fits + 1, target))
        words = "spill", f"at most {most}", wanted
        DirectSchedule(oc_vecs, 1, fits, 1, "oc", 0).check(x, target)
        refused(DirectSchedule(oc_vecs, 1, fits + 1, 1, "oc", 0), x, target, *words)
        WinogradSchedule(4, oc_vecs, fits, 4, "tile", 0).check(w, target)
        refused(WinogradSchedule(4, oc_vecs, fits + 1, 4, "tile", 0), w, target, *words)
        refused(StrassenSchedule(1, oc_vecs, fits + 1), x, target, *words)


def test_registers_hold_sums_weights_and_a_pixel() -> None:
    # Instructions of AVX-512 multiply by a number in memory; others must have it in a register first.
    assert [registers(1, n, V4) for n in (1, 28, 31)] == [2, 29, 32]
    assert [registers(1, n, V3) for n in (1, 14)] == [3, 16]
    assert registers(2, 14, V4) == 28 + 2 + 1
    assert registers(3, 4, V3) == 12 + 3 + 1
    for tile in ((2, 14), (3, 9), (4, 6), (3, 7), (1, 28)):
        assert registers(*tile, V4) <= V4.vector_registers
    for tile in ((2, 15), (3, 10), (4, 7)):
        assert registers(*tile, V4) > V4.vector_registers


def test_tiles_larger_than_the_image_are_refused_with_its_size() -> None:
    p = problem(V4, 16, (5, 6), 40, (3, 3), pads=(1, 1, 1, 1))
    size = "3 x 5 x 6"
    for oc_vecs, rows, cols in ((4, 1, 1), (1, 6, 1), (1, 1, 7)):
        refused(DirectSchedule(oc_vecs, rows, cols, 0, "oc", 0), p, V4, size)
    refused(DirectSchedule(1, 1, 2, 1, "oc", 0), p, V4, "flat")
    refused(DirectSchedule(1, 1, 2, 0, "co", 0), p, V4, "'co'", "oc or px")

    assert grid(p, 4) == (2, 2)
    WinogradSchedule(4, 3, 4, 2, "position", 1).check(p, V4)
    for oc_vecs, tiles, band in ((4, 4, 2), (1, 5, 2), (1, 3, 1), (1, 2, 3)):
        refused(WinogradSchedule(4, oc_vecs, tiles, band, "tile", 0), p, V4, "3 blocks", "2 rows")
    refused(WinogradSchedule(4, 1, 2, 1, "tiles", 0), p, V4, "'tiles'", "tile or position")
    for m in (3, 6, 0):
        refused(WinogradSchedule(m, 1, 2, 1, "tile", 0), p, V4, f"F({m},3)")
    refused(WinogradSchedule(4, 1, 1, 1, "tile", 0), problem(V4, 16, (3, 9), 16, (3, 3), pads=(1,) * 4), V4, "3 x 9")

    x = problem(V4, 32, (4, 6), 80)
    StrassenSchedule(1, 3, 6).check(x, V4)
    StrassenSchedule(1, 1, 5).check(x, V4)
    refused(StrassenSchedule(1, 4, 6), x, V4, "3 x 12")
    refused(StrassenSchedule(1, 1, 13), x, V4, "3 x 12")
    refused(StrassenSchedule(2, 1, 4), x, V4, "2 levels", "4 x 6")
    refused(StrassenSchedule(0, 1, 4), x, V4, "0 levels", "1 to 2")
    refused(StrassenSchedule(3, 1, 1), problem(V4, 128, (8, 8), 80), V4, "3 levels", "1 to 2")
    refused(StrassenSchedule(1, 1, 4), problem(V4, 32, (5, 5), 80), V4, "5 x 5")


def test_joined_rows_must_follow_each_other() -> None:
    flat = DirectSchedule(1, 1, 14, 1, "oc", 0)
    flat.check(problem(V4, 32, (7, 7), 32), V4)
    refused(flat, problem(V4, 32, (7, 7), 32, border=(0, 1, 0, 0)), V4, "gap")


# -- plans ------------------------------------------------------------------------------------------------------------

RECORDS = [
    DirectSchedule(2, 1, 14, 1, "oc", 1),
    WinogradSchedule(4, 2, 7, 1, "tile", 1),
    StrassenSchedule(2, 3, 7),
    PoolSchedule(3),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_fields_come_back(record: Schedule) -> None:
    given_fields = record.to_fields()
    assert type(record).from_fields(given_fields) == record
    # The order of the fields in a file is of no consequence; the printed order is that of the declaration.
    assert type(record).from_fields(dict(reversed(given_fields.items()))) == record
    assert list(given_fields) == [f.name for f in dataclasses.fields(record)]
    assert all(isinstance(value, int | str) for value in given_fields.values())


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_missing_and_unknown_fields_are_named(record: Schedule) -> None:
    fields = record.to_fields()
    missing = next(iter(fields))
    for wrong in ({k: v for k, v in fields.items() if k != missing}, {**fields, "turbo": 1}, {}):
        with pytest.raises(ScheduleError) as error:
            type(record).from_fields(wrong)
        assert missing in str(error.value)
        assert type(record).__name__ in str(error.value)


# -- properties of random problems ------------------------------------------------------------------------------------


@st.composite
def problems(
    draw: st.DrawFn, kernels: Iterable[tuple[int, int]] = ((1, 1), (3, 3), (2, 5))
) -> tuple[ConvProblem, Target]:
    target = draw(st.sampled_from(list(TARGETS.values())))
    kernel = draw(st.sampled_from(list(kernels)))
    size = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
    assume(size[0] + pads[0] + pads[2] >= kernel[0] and size[1] + pads[1] + pads[3] >= kernel[1])
    wider = draw(st.tuples(*[st.integers(0, 1)] * 4))
    border = tuple(a + b for a, b in zip(pads, wider, strict=True))
    found = problem(
        target, draw(st.integers(1, 600)), size, draw(st.integers(1, 1100)), kernel, n=draw(st.integers(1, 3)),
        stride=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), pads=pads, border=border,  # type: ignore[arg-type]
        row_major=draw(st.booleans()),
    )  # fmt: skip
    return found, target


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_direct_convolution_has_a_schedule(drawn: tuple[ConvProblem, Target]) -> None:
    p, target = drawn
    conv_direct.choose(p, target).check(p, target)
    apart = choose_rows(p, pool_over(p), target)
    assert (apart.rows, apart.flat, apart.order) == (1, 0, "oc")
    apart.check(p, target)


def pool_over(p: ConvProblem) -> PoolProblem:
    """A pool of the largest window that is fused, over the image of a convolution."""
    op = MaxPool2d(kernel=(5, 5), pads=(2, 2, 2, 2))
    return PoolProblem(p.n, p.oc, p.oh, p.ow, p.oh, p.ow, op, p.y_block, p.y, p.y)


@settings(max_examples=40, deadline=None)
@given(problems(kernels=((3, 3),)))
def test_every_image_of_four_by_four_has_a_winograd_schedule(drawn: tuple[ConvProblem, Target]) -> None:
    p, target = drawn
    assume(min(p.oh, p.ow) >= 4 and p.x_block)
    for forms in ((4, 2), (2,), (4,)):
        schedule = conv_winograd.choose(p, target, forms)
        schedule.check(p, target)
        assert schedule.m in forms
        layout = scratch_layout(p, schedule, p.lanes)
        # Regions follow each other, and vectors in them are aligned.
        assert 0 < layout.u_start < layout.m_start < layout.total
        assert not any(part % (4 * p.lanes) for part in (layout.u_start, layout.m_start, layout.u_step, layout.m_step))


@settings(max_examples=80, deadline=None)
@given(problems(kernels=((1, 1),)))
def test_strassen_is_for_halves(drawn: tuple[ConvProblem, Target]) -> None:
    p, _target = drawn
    plain = (p.sh, p.sw) == (1, 1) and p.pads == NO_BORDER and p.x_block > 0
    for levels in (1, 2):
        parts = 2**levels
        divides = -(-p.ic // p.lanes) % parts == 0 and p.oh * p.ow % parts == 0
        assert applies(p, levels) == (plain and divides)
        if not applies(p, levels):
            continue
        part = part_of(p, levels)
        assert (part.ic * parts, part.ow * parts) == (p.ic_padded, p.oh * p.ow)
        assert 0 <= parts * part.oc_blocks - p.oc_blocks < parts
        for cols in range(1, part.ow + 1):
            tiles = widths(p, StrassenSchedule(levels, 1, cols))
            assert sum(width * count for width, count in tiles) == part.ow
            assert tiles[0][0] == cols


def test_strassen_pays_for_many_channels_only() -> None:
    assert pays(problem(V4, 512, (14, 14), 1000), V4)
    assert pays(problem(V4, 512, (14, 14), 1000, border=(1, 1, 1, 1)), V4)
    assert not pays(problem(V4, 32, (14, 14), 64), V4)
    assert not pays(problem(V4, 512, (13, 13), 1000), V4)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_pool_schedule_covers_the_inside_of_a_row(data: st.DataObject) -> None:
    kernel, stride, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 40))
    pads = data.draw(st.tuples(st.integers(0, kernel - 1), st.integers(0, kernel - 1)))
    assume(width + sum(pads) >= kernel)
    rounding = data.draw(st.sampled_from(list(Rounding)))
    op = MaxPool2d(kernel=(1, kernel), stride=(1, stride), pads=(0, pads[0], 0, pads[1]), rounding=rounding)
    ow = op.infer(f32(1, 1, 1, width)).shape[3]
    anywhere = image_geometry(f32(1, 1, 1, 1), NO_BORDER)
    p = PoolProblem(1, 1, 1, width, 1, ow, op, 16, anywhere, anywhere)
    first, last = inner_columns(p)
    inside = [j for j in range(ow) if j * stride - pads[0] >= 0 and j * stride - pads[0] + kernel <= width]
    assert list(range(first, last)) == inside
    for target in TARGETS.values():
        cols = pool_schedules.choose(p, target).cols
        assert 1 <= cols <= max(len(inside), 1)
        assert (cols - 1) * stride + kernel + cols <= target.vector_registers - 4 or cols == 1
