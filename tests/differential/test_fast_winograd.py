"""Winograd's form under every kind of schedule, at sizes around its tiles and channel blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from differential.case import Case, build, expected, feeds
from differential.cases_conv import RELU, SAME, SIGMOID, conv
from differential.checking import TARGET_NAMES, assert_close, target_or_skip
from differential.compiling import Compiled
from differential.forcing import force, prefer

from sqzc.backends.llvm.kernels.conv_winograd import ConvWinograd
from sqzc.backends.llvm.schedules.conv_direct import registers
from sqzc.backends.llvm.schedules.conv_winograd import WinogradSchedule
from sqzc.ir import TensorType
from sqzc.ir.ops.activation import NONE, Activation
from sqzc.target import Target

GROWTH = 6.0
"""How much larger than a plain sum's the errors of F(4,3) may be; those of F(2,3) are like a plain sum's."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a case in terms of the vector length L: `ic` and `oc` are (blocks, further channels)."""

    ic: tuple[int, int]
    oc: tuple[int, int]
    height: int
    width: int
    pads: tuple[int, int, int, int] = SAME
    act: Activation = NONE
    n: int = 1
    residual: bool = False

    def case(self, lanes: int) -> Case:
        ic, oc = (blocks * lanes + rest for blocks, rest in (self.ic, self.oc))
        x, w = (self.n, ic, self.height, self.width), (oc, ic, 3, 3)
        residual: dict[str, Any] = {}
        if self.residual:
            residual = {"residual": True, "constant": frozenset({1, 2})}
        return conv("conv2d.winograd", x, w, layout="blocked", pads=self.pads, act=self.act, **residual)


def shapes() -> Iterator[Shape]:
    for size in range(4, 10):
        # One channel more than a block, so that all but one lane of the last vector must stay zero.
        yield Shape((1, 1), (1, 1), size, 13 - size, act=SIGMOID)
    yield Shape((1, 0), (1, 0), 4, 4)
    yield Shape((2, -1), (3, -1), 9, 6, act=RELU)
    yield Shape((2, 0), (0, 1), 7, 5, pads=(0, 1, 2, 0), act=SIGMOID)
    yield Shape((1, 2), (2, 3), 6, 15, pads=(2, 2, 2, 2), n=3)
    yield Shape((1, 0), (2, 1), 10, 11, pads=(0, 0, 0, 0), act=SIGMOID, n=2, residual=True)
    yield Shape((3, 0), (4, 2), 5, 8, residual=True, act=RELU)


def schedules(item: Case, target: Target, m: int) -> Iterator[WinogradSchedule]:
    """Small and large register tiles, one band and several, both orders, prepared or not."""
    (y,) = item.ops[0].result_types([TensorType(t.dtype, t.shape) for t in item.types])
    _, oc, oh, ow = y.shape
    blocks, rows, columns = -(-oc // target.vector_lanes), -(-oh // m), -(-ow // m)
    for oc_vecs in {1, min(2, blocks), min(4, blocks)}:
        for band in {1, rows, -(-rows // 2)}:
            room = max(n for n in range(1, 32) if registers(oc_vecs, n, target) <= target.vector_registers)
            for tiles in {1, min(3, band * columns, room), min(band * columns, room)}:
                for order in ("tile", "position"):
                    yield WinogradSchedule(m, oc_vecs, tiles, band, order, 0)


def check(item: Case, m: int, target_name: str, patch: pytest.MonkeyPatch, schedule: WinogradSchedule) -> bytes:
    """The bits of the answer, which is within its tolerance; threads and prepared memory must not change them."""
    target = target_or_skip(target_name)
    force(patch, schedule)
    compiled = Compiled(build(item, target), target)
    assert "conv2d.winograd" in {step.kernel for step in compiled.program.steps}
    assert (compiled.program.prepared_bytes > 0) == bool(schedule.prepared)
    inputs = feeds(item)
    what = f"{item.name} [{target_name}] {schedule}"
    results = compiled(inputs)
    for name, want in expected(item).items():
        assert_close(results[name], want, item.length, what, GROWTH if m == 4 else 1.0)
    bits = results["y0"].tobytes()
    assert compiled(inputs, threads=3)["y0"].tobytes() == bits, f"{what}: three threads"
    if schedule.prepared:
        ready = compiled.prepared()
        assert compiled(inputs, prepared=ready)["y0"].tobytes() == bits, f"{what}: prepared memory"
        assert compiled(inputs, threads=2, prepared=ready)["y0"].tobytes() == bits, f"{what}: prepared, two threads"
    return bits


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("shape", list(shapes()), ids=str)
def test_every_size(shape: Shape, m: int, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = target_or_skip(target)
    item = shape.case(chosen.vector_lanes)
    prefer(monkeypatch, ConvWinograd(always=True))
    every = sorted(schedules(item, chosen, m), key=str)
    # A different schedule for each shape; the next test holds the shape and goes through the schedules.
    pick = every[hash_of(shape, m) % len(every)]
    check(item, m, target, monkeypatch, WinogradSchedule(**{**pick.to_fields(), "prepared": hash_of(shape, m) % 2}))


def hash_of(shape: Shape, m: int) -> int:
    """A number that spreads the schedules over the shapes and is the same in every run."""
    return shape.height * 7 + shape.width * 3 + shape.oc[0] * 5 + m + shape.n


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("m", [2, 4])
def test_schedules_do_not_change_the_answer(m: int, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every product is summed over the channels in the same order, whatever the tile.
    chosen = target_or_skip(target)
    item = Shape((1, 0), (2, 1), 9, 6, act=SIGMOID).case(chosen.vector_lanes)
    prefer(monkeypatch, ConvWinograd(always=True))
    every = sorted(schedules(item, chosen, m), key=str)
    tried = every[:: max(1, len(every) // 9)]
    seen = {}
    for number, schedule in enumerate(tried):
        forced = WinogradSchedule(**{**schedule.to_fields(), "prepared": number % 2})
        seen[forced] = check(item, m, target, monkeypatch, forced)
    assert len(set(seen.values())) == 1
    assert len({s.order for s in seen}) == 2
