"""Convolutions fused with the pool behind them give the bits of the two kernels one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from differential.case import Case, build, expected, feeds
from differential.cases_conv import RELU, SAME, SIGMOID, conv
from differential.checking import TARGET_NAMES, assert_close, target_or_skip
from differential.compiling import Compiled
from differential.forcing import force, without

from sqzc.backends.llvm.kernels.conv_pool import ConvGlobalAverage, ConvMaxPool
from sqzc.backends.llvm.problems import ConvProblem, conv_problem
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule, candidates, registers
from sqzc.backends.llvm.schedules.pool import PoolSchedule
from sqzc.ir.ops.activation import NONE, Activation
from sqzc.ir.ops.nn import AvgPool2d, MaxPool2d, Rounding
from sqzc.target import Target

FUSED = ConvMaxPool.name
AVERAGED = ConvGlobalAverage.name
OTHERS = (
    "conv2d.winograd",
    "conv2d.strassen",
    "conv2d.strassen+avg_pool2d",
    "conv2d.split",
    "conv2d.split+avg_pool2d",
    "conv2d.split+max_pool2d",
)
CEIL, FLOOR = Rounding.CEIL, Rounding.FLOOR
CLIP = Activation("clip", (-0.5, 0.5))

Pair = tuple[int, int]


def max_pools() -> Iterator[tuple[str, MaxPool2d, Activation, int]]:
    """Windows that overlap, touch, leave gaps and hang over each edge; three activations; how many images."""

    def pool(kernel: Pair, stride: Pair, pads: tuple[int, int, int, int], rounding: Rounding) -> MaxPool2d:
        return MaxPool2d(kernel=kernel, stride=stride, pads=pads, rounding=rounding)

    yield "overlapping", pool((3, 3), (2, 2), (0, 0, 0, 0), CEIL), RELU, 1
    yield "rows overlap twice", pool((5, 2), (1, 2), (0, 0, 0, 0), FLOOR), SIGMOID, 1
    yield "touching", pool((2, 2), (2, 2), (0, 0, 0, 0), CEIL), CLIP, 2
    yield "gaps", pool((2, 2), (3, 3), (0, 0, 0, 0), CEIL), SIGMOID, 3
    yield "pads", pool((3, 3), (2, 2), SAME, CEIL), SIGMOID, 2
    yield "pads above and left", pool((3, 4), (1, 1), (2, 3, 0, 0), FLOOR), RELU, 1
    yield "pads below and right", pool((3, 4), (2, 3), (0, 0, 2, 3), CEIL), NONE, 2
    yield "single row", pool((1, 3), (1, 1), (0, 1, 0, 1), FLOOR), SIGMOID, 1
    yield "single column", pool((4, 1), (2, 1), (1, 0, 3, 0), CEIL), RELU, 1


POOLS = {name: (pool, act, n) for name, pool, act, n in max_pools()}


def case(kernel: str, lanes: int, pool: Any, act: Activation, n: int, k: int = 3, size: Pair = (8, 11)) -> Case:
    """A convolution to `size` pixels of two blocks and one channel, then the pool."""
    x, w = (n, lanes, size[0] + k - 1, size[1] + k - 1), (2 * lanes + 1, lanes, k, k)
    return conv(kernel, x, w, layout="blocked", act=act, then=(pool,))


def run(item: Case, target: Target) -> bytes:
    """The bits of the answer, which is within its tolerance; threads must not change them."""
    compiled = Compiled(build(item, target), target)
    assert item.kernel in {step.kernel for step in compiled.program.steps}
    inputs, what = feeds(item), f"{item.name} [{target.name}]"
    results = compiled(inputs)
    for name, want in expected(item).items():
        assert_close(results[name], want, item.length, what)
    bits = results["y0"].tobytes()
    for threads in (2, 3, 7):
        assert compiled(inputs, threads=threads)["y0"].tobytes() == bits, f"{what}: {threads} threads"
    return bits


def problem(item: Case, target: Target) -> ConvProblem:
    program = Compiled(build(item, target), target).program
    (step,) = [step for step in program.steps if step.kernel == item.kernel]
    return conv_problem(program, step)


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("name", POOLS)
def test_maximum_has_the_bits_of_two_kernels(name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = target_or_skip(target)
    pool, act, n = POOLS[name]
    without(monkeypatch, *OTHERS)
    fused = run(case(FUSED, chosen.vector_lanes, pool, act, n), chosen)
    without(monkeypatch, FUSED)
    assert run(case("max_pool2d.blocked", chosen.vector_lanes, pool, act, n), chosen) == fused


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_schedules_do_not_change_the_maximum(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = target_or_skip(target)
    without(monkeypatch, *OTHERS)
    pool, act, n = POOLS["pads"]
    item = case(FUSED, chosen.vector_lanes, pool, act, n)
    rows = [s for s in candidates(problem(item, chosen), chosen, rows_apart=True) if s.rows == 1 and s.order == "oc"]
    seen = set()
    for number, schedule in enumerate(rows[:: max(1, len(rows) // 6)]):
        force(monkeypatch, schedule)
        force(monkeypatch, PoolSchedule(number % 3 + 1))
        seen.add(run(item, chosen))
    assert len(seen) == 1


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5), (4, 7), (5, 13)])
@pytest.mark.parametrize("k", [1, 3])
def test_average(k: int, size: Pair, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = target_or_skip(target)
    without(monkeypatch, *OTHERS)
    act = (SIGMOID, RELU, NONE)[sum(size) % 3]
    run(case(AVERAGED, chosen.vector_lanes, AvgPool2d(kernel=size), act, n=2, k=k, size=size), chosen)


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_tiles_of_an_average_cover_every_pixel_once(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whole numbers only, so that the order of additions is of no consequence and the answer is exact.
    chosen = target_or_skip(target)
    without(monkeypatch, *OTHERS)
    lanes, size = chosen.vector_lanes, (4, 8)
    base = case(AVERAGED, lanes, AvgPool2d(kernel=size), NONE, n=1, size=size)

    def whole(rng: np.random.Generator, type: Any) -> Any:
        return rng.integers(-8, 9, type.shape).astype(np.float32)

    for cols in (1, 3, 5, 7, 8):
        for rows, oc_vecs in ((1, 2), (3, 1), (4, 1)):
            schedule = DirectSchedule(oc_vecs, rows, cols, 0, "oc", 0)
            if registers(oc_vecs, rows * cols, chosen) > chosen.vector_registers:
                continue
            force(monkeypatch, schedule)
            item = Case(
                base.kernel, base.ops, base.types, base.layout, 0, None, dict.fromkeys(range(3), whole), note="whole"
            )
            compiled = Compiled(build(item, chosen), chosen)
            np.testing.assert_array_equal(compiled(feeds(item))["y0"], expected(item)["y0"], str(schedule))
