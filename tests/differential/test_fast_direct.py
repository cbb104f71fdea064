"""The direct convolution under every kind of schedule, at sizes around its tiles and channel blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from differential.case import Case, build, expected, feeds
from differential.cases_conv import RELU, SAME, SIGMOID, conv
from differential.checking import TARGET_NAMES, assert_close, target_or_skip
from differential.compiling import Compiled
from differential.forcing import force, prefer

from sqzc.backends.llvm.kernels.conv_direct import ConvDirect
from sqzc.backends.llvm.problems import ConvProblem, conv_problem
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule, candidates
from sqzc.target import Target


def problem(item: Case, target: Target) -> ConvProblem:
    """The problem of the only convolution of a case, with the borders that it really gets."""
    program = Compiled(build(item, target), target).program
    (step,) = [step for step in program.steps if step.kernel.startswith("conv2d.")]
    return conv_problem(program, step)


def check(item: Case, target: Target, patch: pytest.MonkeyPatch, schedule: DirectSchedule) -> bytes:
    """The bits of the answer, which is within its tolerance; threads must not change them."""
    force(patch, schedule)
    compiled = Compiled(build(item, target), target)
    assert "conv2d.direct" in {step.kernel for step in compiled.program.steps}
    inputs, what = feeds(item), f"{item.name} [{target.name}] {schedule}"
    results = compiled(inputs)
    for name, want in expected(item).items():
        assert_close(results[name], want, item.length, what)
    bits = results["y0"].tobytes()
    assert compiled(inputs, threads=3)["y0"].tobytes() == bits, f"{what}: three threads"
    return bits


def spread(p: ConvProblem, target: Target, count: int) -> list[DirectSchedule]:
    """Some of the candidates, the first and the last among them."""
    every = list(candidates(p, target))
    step = max(1, (len(every) - 1) // (count - 1))
    return [*every[:-1:step], every[-1]]


def named(lanes: int) -> dict[str, Case]:
    """One case for each way through the kernel; channels are one more or one less than whole blocks."""
    residual: dict[str, Any] = {"residual": True, "constant": frozenset({1, 2})}
    one, two = lanes + 1, 2 * lanes - 1
    return {
        "flat": conv("conv2d.direct", (2, one, 3, 5), (two, one, 1, 1), layout="blocked", act=SIGMOID),
        "rows": conv("conv2d.direct", (2, one, 5, 7), (two, one, 3, 3), layout="blocked", pads=SAME, act=SIGMOID),
        "residual": conv("conv2d.direct", (1, one, 4, 6), (one, one, 3, 3), layout="blocked", pads=SAME, **residual),
        "flat residual": conv(
            "conv2d.direct", (2, one, 3, 3), (one, one, 1, 1), layout="blocked", act=SIGMOID, **residual
        ),
        "row-major": conv("conv2d.direct", (2, 3, 9, 11), (two, 3, 3, 3), layout="out", stride=(2, 2), act=RELU),
        "many taps": conv("conv2d.direct", (1, 2, 11, 12), (one, 2, 5, 7), layout="out", pads=(2, 3, 2, 3)),
        "dilated": conv(
            "conv2d.direct", (1, one, 9, 8), (4, one, 2, 3), layout="blocked", dilation=(3, 2), stride=(1, 2)
        ),
        "single pixel": conv("conv2d.direct", (3, one, 3, 2), (two, one, 3, 2), layout="blocked", act=SIGMOID),
        "no bias": conv("conv2d.direct", (1, 1, 2, 9), (1, 1, 1, 1), layout="blocked", bias=False, act=SIGMOID),
        "one-sided pads": conv("conv2d.direct", (2, one, 5, 4), (one, one, 3, 2), layout="blocked", pads=(0, 1, 2, 0)),
    }


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("name", named(4))
def test_schedules_do_not_change_the_answer(name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every result is summed over channels and taps in the same order, whatever the tile.
    chosen = target_or_skip(target)
    item = named(chosen.vector_lanes)[name]
    prefer(monkeypatch, ConvDirect())
    p = problem(item, chosen)
    tried = spread(p, chosen, 6)
    assert len({check(item, chosen, monkeypatch, schedule) for schedule in tried}) == 1


def widths(lanes: int) -> Iterator[tuple[int, int]]:
    """Widths one short of, equal to and one past a tile of four columns, and narrower than any."""
    for width in (1, 2, 3, 4, 5, 7, 8, 9):
        yield width, 4


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("k", [1, 3])
def test_tile_of_four_columns_at_every_width(k: int, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = target_or_skip(target)
    prefer(monkeypatch, ConvDirect())
    lanes = chosen.vector_lanes
    for width, cols in widths(lanes):
        for order in ("oc", "px"):
            x, w = (1, lanes, 3, width + k - 1), (lanes + 2, lanes, k, k)
            item = conv("conv2d.direct", x, w, layout="blocked", act=SIGMOID)
            schedule = DirectSchedule(2, 1, min(cols, width), 0, order, 0)
            check(item, chosen, monkeypatch, schedule)
