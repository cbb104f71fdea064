"""Convolutions in parts of bfloat16: random windows, images, pools, schedules and numbers of threads."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from differential.case import Case, build, expected, feeds
from differential.cases_conv import RELU, SIGMOID, conv
from differential.checking import assert_close, target_or_skip
from differential.compiling import Compiled
from differential.forcing import prefer

from sqzc.backends.llvm.kernels import conv_split
from sqzc.backends.llvm.kernels.conv_split import ConvSplit, ConvSplitAverage, ConvSplitMaxPool
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_split import Candidates, SplitSchedule, blocks_of, candidates
from sqzc.ir.ops.activation import NONE
from sqzc.ir.ops.nn import AvgPool2d, MaxPool2d
from sqzc.target import Target

SEEDS, EACH = 8, 8


def random_case(random: Random) -> Case:
    """A convolution that may be stored, added to a residual, averaged or pooled."""
    few = random.random() < 0.25
    ic = random.choice([1, 2, 3, 4] if few else [16, 17, 32, 48, 80, 96, 130])
    oc = random.choice([16, 20, 32, 50, 64, 80, 100, 144])
    window = random.choice([1, 1, 2, 3, 5]), random.choice([1, 1, 2, 3, 5])
    stride, dilation = (random.randint(1, 3), random.randint(1, 3)), (random.randint(1, 2), 1)
    size = tuple(random.randint(5 + 3 * s + 2 * k, 40) for s, k in zip(stride, window, strict=True))
    pads = tuple(random.randint(0, min(window[axis % 2] - 1, 3)) for axis in range(4))
    more: dict[str, Any] = {"stride": stride, "dilation": dilation, "pads": pads, "layout": "out" if few else "blocked"}
    more["act"] = random.choice([RELU, NONE, SIGMOID])
    oh, ow = ((size[i] + pads[i] + pads[i + 2] - dilation[i] * (window[i] - 1) - 1) // stride[i] + 1 for i in range(2))
    kind = random.choice(["stored", "stored", "residual", "averaged", "pooled"])
    kernel = "conv2d.split"
    if kind == "residual":
        more |= {"residual": True, "constant": frozenset({1, 2})}
    elif kind == "averaged":
        kernel, more["then"] = "conv2d.split+avg_pool2d", (AvgPool2d(kernel=(oh, ow)),)
    elif kind == "pooled" and ow >= 16:
        kernel = "conv2d.split+max_pool2d"
        pool = min(random.randint(1, 4), oh), random.randint(2, 4)
        edges = tuple(random.randint(0, min(pool[axis % 2] - 1, 2)) for axis in range(4))
        more["then"] = (MaxPool2d(kernel=pool, stride=(random.randint(1, 3), random.randint(1, 3)), pads=edges),)
    return conv(kernel, (random.randint(1, 2), ic, *size), (oc, ic, *window), **more)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_schedule_of_any_convolution(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    target, random = target_or_skip("x86-64-v4-amx"), Random(seed)
    prefer(monkeypatch, ConvSplitMaxPool(), ConvSplitAverage(), ConvSplit())
    monkeypatch.setattr(conv_split, "pays", lambda p, target, among: True)

    def choose(p: ConvProblem, target: Target, among: Candidates) -> SplitSchedule:
        s = random.choice(list(among(p, target)))
        # Averages and pools have no choice of segments.
        return replace(s, span=random.randint(1, blocks_of(p, s))) if among is candidates else s

    monkeypatch.setattr(conv_split, "choose", choose)
    for _ in range(EACH):
        item = random_case(random)
        compiled = Compiled(build(item, target), target)
        assert item.kernel in {step.kernel for step in compiled.program.steps}, item.name
        inputs, ready = feeds(item), compiled.prepared()
        threads = random.sample([1, 2, 3, 5], 2)
        results = compiled(inputs, threads=threads[0])["y0"], compiled(inputs, threads=threads[1], prepared=ready)["y0"]
        assert_close(results[0], expected(item)["y0"], item.length, item.name)
        np.testing.assert_array_equal(*results, f"{item.name}: {threads} threads")
