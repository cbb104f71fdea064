"""Strassen's form wherever it can run: odd numbers of channel blocks, several images, borders, averages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from differential.case import Case, build, expected, feeds
from differential.cases_conv import RELU, SIGMOID, conv
from differential.checking import GROWTH, TARGET_NAMES, assert_close, target_or_skip
from differential.compiling import Compiled
from differential.forcing import always_strassen, force, prefer

from sqzc.backends.llvm.kernels.conv_strassen import ConvStrassen, ConvStrassenAverage
from sqzc.backends.llvm.problems import conv_problem
from sqzc.backends.llvm.schedules.conv_strassen import StrassenSchedule, candidates
from sqzc.backends.reference import evaluate
from sqzc.ir import Graph
from sqzc.ir.constant import Constant
from sqzc.ir.ops.activation import NONE, Activation
from sqzc.ir.ops.nn import AvgPool2d, Conv2d
from sqzc.ir.ops.shape import Relayout
from sqzc.ir.types import PLAIN, Layout, f32
from sqzc.target import Target


def case(
    lanes: int, ic: int, oc: tuple[int, int], height: int, width: int, n: int, act: Activation, average: bool
) -> Case:
    """`ic` in blocks, `oc` in (blocks, further channels)."""
    channels, results = ic * lanes, oc[0] * lanes + oc[1]
    then = (AvgPool2d(kernel=(height, width)),) if average else ()
    kernel = "conv2d.strassen+avg_pool2d" if average else "conv2d.strassen"
    x, w = (n, channels, height, width), (results, channels, 1, 1)
    return conv(kernel, x, w, layout="blocked", act=act, then=then)


SHAPES: dict[str, tuple[int, tuple[int, int], int, int, int, Activation]] = {
    # input blocks, output (blocks, rest), height, width, images, activation
    "one block in one half": (2, (1, 0), 2, 4, 1, NONE),
    "a single channel": (2, (0, 1), 2, 5, 1, SIGMOID),
    "three blocks, halves of two": (2, (3, 0), 4, 6, 2, SIGMOID),
    "five blocks less a lane": (4, (5, -1), 6, 4, 1, RELU),
    "seven blocks and a lane": (2, (7, 1), 2, 12, 3, SIGMOID),
    "six blocks": (6, (6, 0), 8, 6, 2, NONE),
    "odd height": (2, (3, 0), 3, 6, 2, RELU),
    "twice, odd rows": (4, (4, 1), 6, 6, 2, SIGMOID),
    "twice, and half a block": (8, (2, 1), 4, 5, 3, RELU),
}


def check(item: Case, target: Target) -> bytes:
    """The bits of the answer, which is within its tolerance; threads and prepared memory must not change them."""
    compiled = Compiled(build(item, target), target)
    assert item.kernel in {step.kernel for step in compiled.program.steps}
    inputs, what = feeds(item), f"{item.name} [{target.name}]"
    results = compiled(inputs)
    for name, want in expected(item).items():
        assert_close(results[name], want, item.length, what, GROWTH["strassen"])
    bits = results["y0"].tobytes()
    assert compiled(inputs, threads=3)["y0"].tobytes() == bits, f"{what}: three threads"
    ready = compiled.prepared()
    assert ready.size > 0
    assert compiled(inputs, prepared=ready)["y0"].tobytes() == bits, f"{what}: prepared memory"
    assert compiled(inputs, threads=2, prepared=ready)["y0"].tobytes() == bits, f"{what}: prepared, two threads"
    return bits


def insist(patch: pytest.MonkeyPatch, schedule: StrassenSchedule | None = None) -> None:
    """Strassen's form goes before all others."""
    prefer(patch, ConvStrassenAverage(), ConvStrassen())
    always_strassen(patch)
    if schedule is not None:
        force(patch, schedule)


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("average", [False, True], ids=["stored", "averaged"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape(name: str, average: bool, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = target_or_skip(target)
    blocks, rest = SHAPES[name][1]
    levels = 2 if name.startswith("twice") else 1
    # A part of one block, which is never chosen, has a tile of its own; widths that leave a rest have two.
    small = -(-(blocks + (rest > 0)) // 2**levels) <= 1
    insist(monkeypatch, StrassenSchedule(levels, 1 if small else 2, 4) if small or levels > 1 else None)
    check(case(chosen.vector_lanes, *SHAPES[name], average), chosen)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("target", TARGET_NAMES)
def test_schedules_do_not_change_the_answer(target: str, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = target_or_skip(target)
    insist(monkeypatch)
    item = case(chosen.vector_lanes, 4, (9, 1), 4, 12, 2, SIGMOID, average=False)
    program = Compiled(build(item, chosen), chosen).program
    (step,) = [step for step in program.steps if step.kernel == "conv2d.strassen"]
    p = conv_problem(program, step)
    seen = set()
    every = [StrassenSchedule(levels, 1, 4), StrassenSchedule(levels, 1, 5)]
    every += [s for s in candidates(p, chosen) if s.levels == levels]
    assert {s.oc_vecs for s in every} >= {1, 2, 3}
    for oc_vecs in sorted({s.oc_vecs for s in every}):
        same = [s for s in every if s.oc_vecs == oc_vecs]
        for schedule in {same[0], same[-1]}:
            force(monkeypatch, schedule)
            seen.add(check(item, chosen))
    assert len(seen) == 1


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_rows_apart(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A 3 x 3 convolution gives the image that both read a border; the second result is a slice between other channels.
    chosen = target_or_skip(target)
    insist(monkeypatch)
    lanes, rng = chosen.vector_lanes, np.random.default_rng(0)
    graph, blocks = Graph("apart"), Layout(lanes)
    shape = (2, 2 * lanes, 6, 10)
    x = graph.add_input("x", f32(*shape))
    image: Any = graph.insert(Relayout(), [x], types=[x.type.with_layout(blocks)]).output
    for k in (3, 1):
        w = graph.add_constant(Constant(f"w{k}", rng.standard_normal((3 * lanes, shape[1], k, k), np.float32)))
        op = Conv2d(pads=(k // 2,) * 4, act=RELU)
        (type_,) = op.result_types([image.type, w.type])
        y = graph.insert(op, [image, w], types=[type_.with_layout(blocks)]).output
        graph.add_output(f"y{k}", graph.insert(Relayout(), [y], types=[type_.with_layout(PLAIN)]).output)
    compiled = Compiled(graph, chosen)
    (step,) = [step for step in compiled.program.steps if step.kernel == "conv2d.strassen"]
    assert conv_problem(compiled.program, step).x.row == (10 + 2) * lanes
    data = {"x": rng.standard_normal(shape, np.float32)}
    want = evaluate(graph, data, dtype="float64")
    for prepared in (None, compiled.prepared()):
        results = compiled(data, prepared=prepared, threads=2)
        for name, length in (("y1", 2 * lanes), ("y3", 18 * lanes)):
            assert_close(results[name], want[name], length, f"{name} on {target}", GROWTH["winograd"])


@pytest.mark.parametrize("average", [False, True], ids=["stored", "averaged"])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("target", TARGET_NAMES)
def test_channel_tiles_that_share_blocks(
    target: str, levels: int, average: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Parts of three blocks in tiles of two: both tiles have the middle one.
    chosen = target_or_skip(target)
    insist(monkeypatch, StrassenSchedule(levels, 2, 4))
    check(case(chosen.vector_lanes, 4, (3 * 2**levels, 0), 4, 6, 2, SIGMOID, average), chosen)
