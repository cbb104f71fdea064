"""The facts that kernels are made from, read from placed programs."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.problems import (
    ConvProblem,
    PoolProblem,
    conv_problem,
    conv_problem_of,
    fused_pool_problem,
    pool_problem,
)
from sqzc.backends.llvm.selecting import expected_problem
from sqzc.ir.graph import Graph
from sqzc.ir.ops.activation import NONE, Activation
from sqzc.ir.ops.nn import Conv2d, MaxPool2d
from sqzc.ir.parser import parse_graph
from sqzc.ir.types import Layout, f32
from sqzc.plan.lower import lower
from sqzc.plan.program import NO_BORDER, Geometry, Program, Step, image_geometry
from sqzc.target import TARGETS

TARGET = TARGETS["x86-64-v3"]
BLOCK = 8


def graph(text: str, **weights: tuple[int, ...]) -> Graph:
    rng = np.random.default_rng(0)
    return parse_graph(text, {name: rng.standard_normal(shape, np.float32) for name, shape in weights.items()})


def placed(text: str, **weights: tuple[int, ...]) -> Program:
    return lower(graph(text, **weights), Library(TARGET))


def step_of(program: Program, kernel: str) -> Step:
    (found,) = [step for step in program.steps if step.kernel == kernel]
    return found


RESIDUAL = """
    graph @g(%x: f32[2,11,9,7]) {
      const %w = @w : f32[20,11,3,2]
      const %b = @b : f32[20]
      const %v = @v : f32[20,11,1,1]
      %r = relayout(%x) : f32[2,11,9,7]:nchw8c
      %s = conv2d(%r, %v) {stride=2x1} : f32[2,20,5,7]:nchw8c
      %c = conv2d(%r, %w, %b, %s) {stride=2x1, pads=[1,1,1,0], act=relu} : f32[2,20,5,7]:nchw8c
      %y = relayout(%c) : f32[2,20,5,7]
      yield %y as "y"
    }"""


def test_convolution_with_a_residual() -> None:
    program = placed(RESIDUAL, w=(20, 11, 3, 2), b=(20,), v=(20, 11, 1, 1))
    # The first convolution has one read, this one two.
    (step,) = [step for step in program.steps if len(step.reads) == 2]
    p = conv_problem(program, step)
    row = (7 + 1) * BLOCK
    plane = (9 + 2) * row
    x = Geometry(row + BLOCK, 2 * plane, plane, row, BLOCK)
    gapless = Geometry(0, 3 * 35 * BLOCK, 35 * BLOCK, 7 * BLOCK, BLOCK)
    assert p == ConvProblem(
        2, 11, 20, 9, 7, 5, 7, 3, 2, 2, 1, 1, 1, (1, 1, 1, 0), 1, Activation("relu"), BLOCK, BLOCK, x, gapless, gapless
    )  # fmt: skip
    assert (p.lanes, p.ic_padded, p.oc_blocks) == (8, 16, 3)


def test_row_major_input_has_one_channel_beside_another() -> None:
    program = placed(
        """
        graph @g(%x: f32[1,3,9,9]) {
          const %w = @w : f32[9,3,3,3]
          %c = conv2d(%x, %w) {dilation=2x2} : f32[1,9,5,5]:nchw8c
          %y = relayout(%c) : f32[1,9,5,5]
          yield %y as "y"
        }""",
        w=(9, 3, 3, 3),
    )
    p = conv_problem(program, step_of(program, "conv2d.direct"))
    assert (p.x_block, p.lanes, p.ic_padded, p.oc_blocks) == (0, 1, 3, 2)
    assert p.x == Geometry(0, 243, 81, 9, 1)
    assert (p.oh, p.ow, p.dh, p.dw, p.r, p.act) == (5, 5, 2, 2, None, NONE)


def test_slices_have_the_distances_of_their_parent() -> None:
    program = placed(
        """
        graph @g(%x: f32[2,8,4,4]) {
          const %v = @v : f32[8,8,1,1]
          const %w = @w : f32[16,8,1,1]
          %r = relayout(%x) : f32[2,8,4,4]:nchw8c
          %a = conv2d(%r, %v) : f32[2,8,4,4]:nchw8c
          %b = conv2d(%r, %w) : f32[2,16,4,4]:nchw8c
          %c = concat(%a, %b) {axis=1, placed=true} : f32[2,24,4,4]:nchw8c
          %y = relayout(%c) : f32[2,24,4,4]
          yield %y as "y"
        }""",
        v=(8, 8, 1, 1),
        w=(16, 8, 1, 1),
    )
    steps = [step for step in program.steps if step.ops and isinstance(step.ops[0], Conv2d)]
    for step, channels in zip(steps, (8, 16), strict=True):
        p = conv_problem(program, step)
        assert p.oc == channels
        assert p.y == Geometry(0, 3 * 128, 128, 32, 8)


FUSED = """
    graph @g(%x: f32[2,3,19,15]) {
      const %w = @w : f32[12,3,3,3]
      %c = conv2d(%x, %w) {stride=2x2, act=relu} : f32[2,12,9,7]:nchw8c
      %p = max_pool2d(%c) {kernel=3x3, stride=2x2, pads=[1,0,0,1], rounding=ceil} : f32[2,12,5,4]:nchw8c
      %y = relayout(%p) : f32[2,12,5,4]
      yield %y as "y"
    }"""


def test_image_between_a_convolution_and_its_pool_is_a_stand_in() -> None:
    program = placed(FUSED, w=(12, 3, 3, 3))
    step = step_of(program, "conv2d.direct+max_pool2d")
    p = conv_problem(program, step)
    whole = image_geometry(f32(2, 12, 9, 7).with_layout(Layout(BLOCK)), NO_BORDER)
    assert (p.oc, p.oh, p.ow, p.y_block, p.y) == (12, 9, 7, BLOCK, whole)
    pool = fused_pool_problem(program, step, p)
    assert isinstance(pool.op, MaxPool2d)
    assert pool == PoolProblem(
        2, 12, 9, 7, 5, 4, pool.op, BLOCK, whole, image_geometry(f32(2, 12, 5, 4).with_layout(Layout(BLOCK)), NO_BORDER)
    )
    assert pool.blocks == 2


@pytest.mark.parametrize(("layout", "block", "blocks"), [(":nchw8c", 8, 2), ("", 0, 12)])
def test_pool(layout: str, block: int, blocks: int) -> None:
    program = placed(
        f"""
        graph @g(%x: f32[1,12,6,5]) {{
          %r = relayout(%x) : f32[1,12,6,5]:nchw8c
          %q = relayout(%r) : f32[1,12,6,5]{layout}
          %p = max_pool2d(%q) {{kernel=2x3, stride=2x1}} : f32[1,12,3,3]{layout}
          %s = relayout(%p) : f32[1,12,3,3]:nchw8c
          %y = relayout(%s) : f32[1,12,3,3]
          yield %y as "y"
        }}"""
    )
    (step,) = [step for step in program.steps if step.kernel.startswith("max_pool2d.")]
    p = pool_problem(program, step)
    assert (p.n, p.c, p.ih, p.iw, p.oh, p.ow) == (1, 12, 6, 5, 3, 3)
    assert (p.block, p.blocks) == (block, blocks)
    assert p.x == image_geometry(f32(1, 12, 6, 5).with_layout(Layout(block)), NO_BORDER)


def test_expected_problem_is_the_real_one_where_nothing_has_a_border() -> None:
    text = """
        graph @g(%x: f32[1,8,6,6]) {
          const %w = @w : f32[9,8,1,1]
          %r = relayout(%x) : f32[1,8,6,6]:nchw8c
          %c = conv2d(%r, %w) {act=relu} : f32[1,9,6,6]:nchw8c
          %y = relayout(%c) : f32[1,9,6,6]
          yield %y as "y"
        }"""
    source = graph(text, w=(9, 8, 1, 1))
    (node,) = [node for node in source.nodes if isinstance(node.op, Conv2d)]
    program = lower(source, Library(TARGET))
    assert expected_problem(node, TARGET) == conv_problem(program, step_of(program, "conv2d.direct"))


def test_sizes_follow_the_op() -> None:
    geometry = Geometry(0, 0, 0, 0, 0)
    op = Conv2d(stride=(2, 3), pads=(1, 2, 0, 1), dilation=(2, 1), group=2)
    p = conv_problem_of(op, f32(3, 10, 11, 13), 6, (3, 4), 0, geometry, geometry, None)
    assert (p.n, p.ic, p.ih, p.iw, p.oc, p.group) == (3, 10, 11, 13, 6, 2)
    assert (p.oh, p.ow) == ((11 + 1 - 5) // 2 + 1, (13 + 3 - 4) // 3 + 1)
    assert (p.oc_blocks, p.ic_padded) == (6, 10)
