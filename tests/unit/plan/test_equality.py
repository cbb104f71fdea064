"""The first difference of two programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sqzc.ir.constant import Constant
from sqzc.ir.ops.elementwise import Sigmoid
from sqzc.plan import Program
from sqzc.plan.equality import equal, first_difference

GRAPH = """graph @g(%x: f32[1,4,5,5]) {
  const %w = @w : f32[4,4,3,3]
  const %b = [1.0, 2.0, 3.0, 4.0] : f32[4]
  %a = relu(%x) : f32[1,4,5,5] @"a"
  %y = conv2d(%a, %w, %b) {pads=[1,1,1,1]} : f32[1,4,5,5]
  yield %y as "y"
}"""


@pytest.fixture
def pair(lowered: Callable[..., Program]) -> tuple[Program, Program]:
    """The same program made twice."""
    weights = {"w": np.ones((4, 4, 3, 3), np.float32)}
    return lowered(GRAPH, weights), lowered(GRAPH, {"w": weights["w"].copy()})


def test_made_twice_is_equal(pair: tuple[Program, Program]) -> None:
    assert equal(*pair)
    assert first_difference(*pair) is None


def change_buffer(p: Program) -> None:
    p.buffers["a"] = replace(p.buffers["a"], offset=64)


def reorder_buffers(p: Program) -> None:
    p.buffers = dict(reversed(p.buffers.items()))


def change_data(p: Program) -> None:
    p.constants["y.c1"] = Constant("y.c1", np.zeros((4, 4, 3, 3), np.float32))


def change_schedule(p: Program) -> None:
    p.steps[2] = replace(p.steps[2], schedule={"tile": 5, "order": "oc"})


def reorder_schedule(p: Program) -> None:
    p.steps[2] = replace(p.steps[2], schedule={"order": "oc", "tile": 4})


def change_op(p: Program) -> None:
    p.steps[1] = replace(p.steps[1], ops=(Sigmoid(),))


def change_kernel(p: Program) -> None:
    p.steps[1] = replace(p.steps[1], kernel="other")


CHANGES: list[tuple[Callable[[Program], object], str]] = [
    (lambda p: setattr(p, "name", "h"), "name is 'g' and 'h'"),
    (lambda p: setattr(p, "bound_bytes", 1), "bound_bytes is 832 and 1"),
    (lambda p: p.meta.update(k=1), "meta is {} and {'k': 1}"),
    (lambda p: p.outputs.append(("z", "y")), "outputs is [('y', 'y')] and [('y', 'y'), ('z', 'y')]"),
    (lambda p: p.constants.pop("y.c2"), "2 constants and 1; the first extra one is y.c2"),
    (reorder_buffers, "buffers differ at 0: a and y"),
    (change_buffer, "%a: offset is 0 and 64"),
    (change_data, "the constant %y.c1 is @y.c1 : f32[4,4,3,3] sha="),
    (change_schedule, "step 2: schedule is [('tile', 4), ('order', 'oc')] and [('tile', 5), ('order', 'oc')]"),
    (reorder_schedule, "step 2: schedule is [('tile', 4), ('order', 'oc')] and [('order', 'oc'), ('tile', 4)]"),
    (change_op, "step 1: ops is (relu{},) and (sigmoid{},)"),
    (change_kernel, "kernels differ at 1: relu and other"),
    (lambda p: p.steps.pop(), "3 kernels and 2; the first extra one is conv2d"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[words for _, words in CHANGES])
def test_each_difference_is_named(
    pair: tuple[Program, Program], change: Callable[[Program], object], words: str
) -> None:
    change(pair[1])
    assert not equal(*pair)
    assert str(first_difference(*pair)).startswith(words)
