"""Convolutions in parts of bfloat16: every shape of sums, odd numbers of blocks, borders, residuals, averages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from differential.case import Case, build, expected, feeds, operands
from differential.cases_conv import RELU, SIGMOID, conv
from differential.checking import GROWTH, assert_close, target_or_skip
from differential.compiling import Compiled
from differential.forcing import prefer

from sqzc.backends.llvm.kernels import conv_split, conv_winograd_split
from sqzc.backends.llvm.kernels.conv_split import ConvSplit, ConvSplitAverage, ConvSplitMaxPool
from sqzc.backends.llvm.kernels.conv_winograd_split import ConvWinogradSplit
from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.problems import ConvProblem, conv_problem
from sqzc.backends.llvm.schedules.conv_split import SHORT_BLOCKS, SplitSchedule, applies, blocks_of, candidates, choose
from sqzc.backends.llvm.schedules.conv_winograd_split import candidates as winograd_candidates
from sqzc.backends.reference import evaluate
from sqzc.ir import Graph
from sqzc.ir.constant import Constant
from sqzc.ir.ops.activation import NONE, Activation
from sqzc.ir.ops.nn import AvgPool2d, Conv2d, MaxPool2d
from sqzc.ir.ops.shape import Relayout
from sqzc.ir.types import PLAIN, Layout, f32
from sqzc.plan.lower import lower
from sqzc.target import TARGETS, Target

LANES = 16


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    """The target with tile products, on which they run wherever they can."""
    found = target_or_skip("x86-64-v4-amx")
    prefer(monkeypatch, ConvSplitAverage(), ConvSplit())
    monkeypatch.setattr(conv_split, "pays", lambda p, target, among: True)
    return found


def case(
    ic: int, oc: int, size: tuple[int, int], n: int, act: Activation, *, average: bool = False, **more: Any
) -> Case:
    """A 1 x 1 convolution of channel-blocked images."""
    then = (AvgPool2d(kernel=size),) if average else ()
    kernel = "conv2d.split+avg_pool2d" if average else "conv2d.split"
    return conv(kernel, (n, ic, *size), (oc, ic, 1, 1), layout="blocked", act=act, then=then, **more)


SHAPES: dict[str, tuple[int, int, tuple[int, int], int, Activation]] = {
    # input channels, output channels, size, images, activation
    "one of everything": (1, 1, (1, 1), 1, NONE),
    "a pixel": (40, 70, (1, 1), 2, RELU),
    "one block": (16, 16, (4, 4), 1, NONE),
    "an odd block": (48, 33, (3, 5), 2, SIGMOID),
    "many tiles and a pixel": (48, 32, (17, 32), 1, RELU),
    "one pixel more than a tile": (32, 40, (1, 17), 1, RELU),
    "three tiles": (64, 48, (6, 8), 1, NONE),
    "five tiles and a rest": (80, 100, (9, 9), 3, SIGMOID),
    "many channels": (520, 64, (7, 7), 1, RELU),
}


def check(item: Case, target: Target) -> bytes:
    """The bits of the answer, within the tolerance of plain sums; threads and prepared memory must not change them."""
    compiled = Compiled(build(item, target), target)
    assert item.kernel in {step.kernel for step in compiled.program.steps}
    inputs, what = feeds(item), f"{item.name} [{target.name}]"
    results = compiled(inputs)
    for name, want in expected(item).items():
        assert_close(results[name], want, item.length, what)
    bits = results["y0"].tobytes()
    assert compiled(inputs, threads=3)["y0"].tobytes() == bits, f"{what}: three threads"
    ready = compiled.prepared()
    assert ready.size > 0
    assert compiled(inputs, prepared=ready)["y0"].tobytes() == bits, f"{what}: prepared memory"
    assert compiled(inputs, threads=2, prepared=ready)["y0"].tobytes() == bits, f"{what}: prepared, two threads"
    return bits


@pytest.mark.parametrize("average", [False, True], ids=["stored", "averaged"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape(name: str, average: bool, target: Target) -> None:
    check(case(*SHAPES[name], average=average), target)


WINDOWS: dict[str, tuple[int, int, tuple[int, int], tuple[int, int], dict[str, Any]]] = {
    # input channels, output channels, size, window, attributes
    "three rows, three columns": (32, 40, (7, 9), (3, 3), {"pads": (1, 1, 1, 1)}),
    "a tall window": (48, 64, (12, 8), (7, 1), {"pads": (3, 0, 3, 0)}),
    "a wide window": (16, 16, (8, 12), (1, 7), {"pads": (0, 3, 0, 3)}),
    "every second pixel": (80, 33, (15, 13), (3, 3), {"stride": (2, 2), "pads": (1, 1, 0, 0)}),
    "a strided point": (64, 48, (9, 10), (1, 1), {"stride": (2, 3)}),
    "holes": (17, 32, (12, 14), (3, 2), {"dilation": (2, 3)}),
    "few pixels": (32, 64, (5, 5), (5, 5), {}),
    "row-major": (3, 40, (17, 19), (3, 3), {"layout": "out", "stride": (2, 2)}),
    "row-major and padded": (2, 16, (11, 23), (5, 4), {"layout": "out", "pads": (2, 1, 2, 2)}),
    "row-major, large": (3, 64, (24, 22), (7, 7), {"layout": "out", "stride": (2, 2), "pads": (3, 3, 3, 3)}),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_every_window(name: str, target: Target) -> None:
    ic, oc, size, window, more = WINDOWS[name]
    more = {"layout": "blocked", **more}
    check(conv("conv2d.split", (2, ic, *size), (oc, ic, *window), act=RELU, **more), target)


def test_the_average_of_a_window(target: Target) -> None:
    then = (AvgPool2d(kernel=(9, 7)),)
    item = conv(
        "conv2d.split+avg_pool2d", (2, 48, 9, 7), (40, 48, 3, 3), layout="blocked", pads=(1, 1, 1, 1), then=then
    )
    check(item, target)


POOLS: dict[str, tuple[int, int, tuple[int, int], tuple[int, int], dict[str, Any], dict[str, Any]]] = {
    # input channels, output channels, size, window, attributes, those of the pool
    "row-major": (3, 40, (35, 37), (3, 3), {"layout": "out", "stride": (2, 2)}, {"kernel": (3, 3), "stride": (2, 2)}),
    "borders": (32, 80, (9, 21), (3, 3), {"pads": (1, 1, 1, 1)}, {"kernel": (3, 3), "pads": (1, 1, 1, 1)}),
    "strips": (16, 70, (8, 61), (1, 1), {}, {"kernel": (2, 3), "stride": (1, 2)}),
    "apart": (16, 16, (8, 40), (1, 1), {}, {"kernel": (2, 2), "stride": (2, 2)}),
    "one strip": (32, 33, (20, 16), (1, 1), {}, {"kernel": (3, 2), "stride": (1, 1)}),
    "past the end": (32, 48, (19, 19), (1, 1), {}, {"kernel": (3, 3), "stride": (2, 2), "pads": (0, 0, 1, 1)}),
    "a row at a time": (32, 48, (12, 20), (3, 3), {}, {"kernel": (1, 4), "stride": (3, 4)}),
}


@pytest.mark.parametrize("act", [RELU, SIGMOID, NONE], ids=lambda act: str(act.fn))
@pytest.mark.parametrize("name", POOLS)
def test_a_pool_behind(name: str, act: Activation, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch, ConvSplitMaxPool())
    ic, oc, size, window, more, pool = POOLS[name]
    more = {"layout": "blocked", **more, "then": (MaxPool2d(**pool),)}
    check(conv("conv2d.split+max_pool2d", (2, ic, *size), (oc, ic, *window), act=act, **more), target)


def test_a_residual(target: Target) -> None:
    check(case(48, 40, (5, 7), 2, RELU, residual=True, constant=frozenset({1, 2})), target)


@pytest.mark.parametrize("average", [False, True], ids=["stored", "averaged"])
def test_every_schedule(target: Target, average: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    item = case(136, 104, (7, 11), 2, SIGMOID, average=average)
    program = Compiled(build(item, target), target).program
    (step,) = [step for step in program.steps if step.kernel == item.kernel]
    p = conv_problem(program, step)
    every = sorted(set(candidates(p, target)), key=str)
    assert {(s.px_tiles, s.oc_tiles) for s in every} == {(2, 2), (1, 4), (1, 3), (2, 1), (1, 2), (1, 1)}
    other = SplitSchedule(2, 2, 13, 3)
    spans = (blocks_of(p, other),) if average else (1, 2, blocks_of(p, other))
    assert blocks_of(p, other) < SHORT_BLOCKS
    chosen = [*every, *(replace(other, span=span) for span in spans)]
    # Sums are added to in the same order, whichever pixels and channels are taken together.
    seen = set()
    for s in chosen:
        s.check(p, target)
        monkeypatch.setattr(conv_split, "choose", lambda p, target, among, s=s: s)
        seen.add(check(item, target))
    assert len(seen) == 1


@pytest.mark.parametrize("size", [(8, 12), (9, 11)])
@pytest.mark.parametrize("stride", [1, 2])
def test_segments_of_any_length(size: tuple[int, int], stride: int, target: Target, monkeypatch: Any) -> None:
    # Whether or not blocks fill the image, and segments the blocks.
    item = conv("conv2d.split", (2, 48, *size), (100, 48, 1, 1), layout="blocked", act=RELU, stride=(stride, stride))
    program = Compiled(build(item, target), target).program
    (p,) = [conv_problem(program, step) for step in program.steps if step.kernel == item.kernel]
    seen = set()
    for s in sorted(set(candidates(p, target)), key=str):
        for span in range(1, blocks_of(p, s) + 1):
            chosen = replace(s, span=span)
            chosen.check(p, target)
            monkeypatch.setattr(conv_split, "choose", lambda p, target, among, s=chosen: s)
            seen.add(check(item, target))
    assert len(seen) == 1


def test_rows_apart(target: Target) -> None:
    # A 3 x 3 convolution gives the image that both read a border; the second result is a slice between other channels.
    rng = np.random.default_rng(0)
    graph, blocks = Graph("apart"), Layout(LANES)
    shape = (2, 2 * LANES, 6, 10)
    x = graph.add_input("x", f32(*shape))
    image: Any = graph.insert(Relayout(), [x], types=[x.type.with_layout(blocks)]).output
    for k in (3, 1):
        w = graph.add_constant(Constant(f"w{k}", rng.standard_normal((3 * LANES, shape[1], k, k), np.float32)))
        op = Conv2d(pads=(k // 2,) * 4, act=RELU)
        (type_,) = op.result_types([image.type, w.type])
        y = graph.insert(op, [image, w], types=[type_.with_layout(blocks)]).output
        graph.add_output(f"y{k}", graph.insert(Relayout(), [y], types=[type_.with_layout(PLAIN)]).output)
    compiled = Compiled(graph, target)
    found = [conv_problem(compiled.program, step) for step in compiled.program.steps if step.kernel == "conv2d.split"]
    assert {p.kh: p.x.row for p in found} == {1: (10 + 2) * LANES, 3: (10 + 2) * LANES}
    data = {"x": rng.standard_normal(shape, np.float32)}
    want = evaluate(graph, data, dtype="float64")
    results = compiled(data, prepared=compiled.prepared(), threads=2)
    for k in (1, 3):
        assert_close(results[f"y{k}"], want[f"y{k}"], 2 * LANES * k * k, f"y{k}")


def test_numbers_of_all_sizes(target: Target) -> None:
    # Products of parts span far more than eight bits; what matters of them must all be there.
    rng = np.random.default_rng(1)
    item = case(64, 32, (4, 8), 1, NONE, bias=False)
    _, w = operands(item)
    (name,) = inputs = feeds(item)
    x = (inputs[name] * 2.0 ** rng.integers(-12, 12, inputs[name].shape)).astype(np.float32)
    got = Compiled(build(item, target), target)({name: x})["y0"]
    both = [(x.astype(np.float64), w.astype(np.float64)), (np.abs(x, dtype=np.float64), np.abs(w, dtype=np.float64))]
    want, size = (np.einsum("nihw,oi->nohw", image, filters[:, :, 0, 0]) for image, filters in both)
    error = np.abs(got - want) / size
    # As much as a sum of 64 float32 products may lose; one bfloat16 product alone loses 2^-9, two parts 2^-17.
    assert 0 < error.max() < 2.0**-20
    assert float(np.sqrt(np.mean(error**2))) < 2.0**-24


def test_not_a_number_and_zeros(target: Target) -> None:
    item = case(32, 16, (2, 8), 1, NONE)
    compiled, inputs = Compiled(build(item, target), target), feeds(item)
    (name,) = inputs
    inputs[name] = np.zeros_like(inputs[name])
    bias = compiled(inputs)["y0"]
    inputs[name][0, 3, 1, 2] = np.nan
    results = compiled(inputs)["y0"]
    assert np.isnan(results[0, :, 1, 2]).all()
    results[0, :, 1, 2] = bias[0, :, 1, 2]
    np.testing.assert_array_equal(results, bias)


def test_no_other_target_has_it() -> None:
    p = conv_problem_for(TARGETS["x86-64-v4-amx"])
    assert [target.name for target in TARGETS.values() if applies(p, target)] == ["x86-64-v4-amx"]


def conv_problem_for(target: Target) -> ConvProblem:
    """A problem that tiles can compute."""
    program = lower(build(case(32, 32, (4, 4), 1, NONE), target), Library(target))
    return next(conv_problem(program, step) for step in program.steps if step.kernel.startswith("conv2d"))


def test_it_pays_for_many_channels_and_pixels_only(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    program = Compiled(build(case(512, 512, (14, 14), 1, NONE), target), target).program
    assert "conv2d.split" in {step.kernel for step in program.steps}
    program = Compiled(build(case(8, 8, (2, 2), 1, NONE), target), target).program
    (step,) = [step for step in program.steps if step.kernel.startswith("conv2d")]
    p = conv_problem(program, step)
    assert applies(p, target)
    assert choose(p, target) is not None


# -- Winograd's products ----------------------------------------------------------------------------------------------

WINOGRAD_SHAPES: dict[str, tuple[int, int, tuple[int, int], int, Activation]] = {
    # input channels, output channels, size, images, activation
    "one image tile": (16, 16, (4, 4), 1, NONE),
    "odd blocks": (48, 33, (9, 7), 2, SIGMOID),
    "a channel too many": (33, 40, (8, 12), 1, RELU),
    "tiles and a rest": (32, 64, (13, 30), 2, RELU),
    "many tiles": (64, 32, (40, 44), 1, NONE),
}


@pytest.fixture
def winograd_target(monkeypatch: pytest.MonkeyPatch) -> Target:
    """The target with tile products, on which Winograd's are made by them."""
    found = target_or_skip("x86-64-v4-amx")
    prefer(monkeypatch, ConvWinogradSplit(wherever=True))
    return found


def check_winograd(item: Case, target: Target) -> None:
    """Within the tolerance of Winograd's form, with any number of threads, prepared or not."""
    compiled = Compiled(build(item, target), target)
    assert "conv2d.winograd_split" in {step.kernel for step in compiled.program.steps}
    inputs, what = feeds(item), f"{item.name} [{target.name}]"
    (want,) = expected(item).values()
    ready = compiled.prepared()
    for options in ({}, {"threads": 3}, {"prepared": ready}, {"prepared": ready, "threads": 2}):
        assert_close(
            compiled(inputs, **options)["y0"], want, item.length, f"{what} {sorted(options)}", GROWTH["winograd"]
        )


def winograd_case(name: str, **more: Any) -> Case:
    """A 3 x 3 convolution of channel-blocked images."""
    ic, oc, size, n, act = WINOGRAD_SHAPES[name]
    return conv(
        "conv2d.winograd_split", (n, ic, *size), (oc, ic, 3, 3), layout="blocked", act=act, pads=(1, 1, 1, 1), **more
    )


@pytest.mark.parametrize("name", WINOGRAD_SHAPES)
def test_winograd_in_parts(name: str, winograd_target: Target) -> None:
    check_winograd(winograd_case(name), winograd_target)


def test_winograd_in_parts_and_a_residual(winograd_target: Target) -> None:
    check_winograd(winograd_case("odd blocks", residual=True, constant=frozenset({1, 2})), winograd_target)


@pytest.mark.parametrize("name", ["odd blocks", "tiles and a rest"])
def test_every_schedule_of_winograd_in_parts(
    name: str, winograd_target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = winograd_case(name)
    program = Compiled(build(item, winograd_target), winograd_target).program
    (step,) = [step for step in program.steps if step.kernel == item.kernel]
    p = conv_problem(program, step)
    every = list(winograd_candidates(p, winograd_target))
    assert {s.m for s in every} == {2, 4}
    shapes = {(s.m, s.px_tiles, s.oc_tiles) for s in every}
    for shape in sorted(shapes):
        schedule = next(s for s in every if (s.m, s.px_tiles, s.oc_tiles) == shape)
        schedule.check(p, winograd_target)
        monkeypatch.setattr(conv_winograd_split, "choose", lambda p, target, forms, s=schedule: s)
        check_winograd(item, winograd_target)


def test_winograd_in_parts_obeys_the_choice_of_forms(winograd_target: Target) -> None:
    for choice, forms in (("f2", {2}), ("f4", {4}), ("off", set())):
        program = lower(build(winograd_case("many tiles"), winograd_target), Library(winograd_target, choice))
        steps = [step for step in program.steps if "winograd" in step.kernel]
        assert {step.schedule["m"] for step in steps} == forms
