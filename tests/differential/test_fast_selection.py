"""Shapes and types that used to reach a fast kernel which could not run them."""

from __future__ import annotations

import numpy as np
import pytest
from differential.case import Case, build
from differential.cases_conv import SAME, conv
from differential.checking import TARGET_NAMES, assert_close, check, target_or_skip
from differential.compiling import Compiled

from sqzc.backends.llvm.library import WINOGRAD, Library
from sqzc.backends.reference import evaluate
from sqzc.ir import DType, Graph
from sqzc.ir.constant import Constant
from sqzc.ir.ops.elementwise import Relu
from sqzc.ir.ops.nn import Conv2d, MaxPool2d, Softmax
from sqzc.ir.ops.shape import Relayout
from sqzc.ir.types import PLAIN, Layout, f32
from sqzc.plan.lower import lower
from sqzc.target import Target

POOL = MaxPool2d(kernel=(3, 3), stride=(2, 2))


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 0, 0, 1)])
def test_pool_behind_a_convolution_of_single_pixels(pads: tuple[int, int, int, int], target: str) -> None:
    # The rows of such a convolution could be joined to one, but a pool wants them one by one.
    x, w = (2, 16, 9, 10), (20, 16, 1, 1)
    check(conv("conv2d.direct+max_pool2d", x, w, layout="blocked", pads=pads, then=(POOL,)), target)


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("then", [(), (POOL,)], ids=["alone", "pool"])
def test_blocks_of_integers_are_left_to_general_kernels(then: tuple[MaxPool2d, ...], k: int, target: str) -> None:
    x, w = (1, 16, 9, 9), (16, 16, k, k)
    item = conv("conv2d.rows", x, w, layout="blocked", dtype=DType.I32, pads=(k // 2,) * 4, then=then)
    assert isinstance(item, Case)
    check(item, target)


def fire(target: Target, shape: tuple[int, int, int, int], oc: int) -> Graph:
    """An image read by a 1 x 1 convolution, which alone needs no border, and by a 3 x 3 convolution with padding."""
    rng = np.random.default_rng(0)
    graph, blocks = Graph("fire"), Layout(target.vector_lanes)
    x = graph.add_input("x", f32(*shape))
    image = graph.insert(Relayout(), [x], types=[x.type.with_layout(blocks)]).output
    for k, channels in ((1, oc), (3, 4)):
        w = rng.standard_normal((channels, shape[1], k, k), np.float32)
        weights = graph.add_constant(Constant(f"w{k}", w))
        op = Conv2d(pads=SAME) if k == 3 else Conv2d()
        (type_,) = op.result_types([image.type, weights.type])
        y = graph.insert(op, [image, weights], types=[type_.with_layout(blocks)]).output
        graph.add_output(f"y{k}", graph.insert(Relayout(), [y], types=[type_.with_layout(PLAIN)]).output)
    return graph


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("winograd", WINOGRAD)
@pytest.mark.parametrize("size", [(3, 3), (3, 9), (4, 4), (4, 5), (5, 4)])
def test_every_choice_of_winograd_runs_the_smallest_images(size: tuple[int, int], winograd: str, target: str) -> None:
    # An image of 4 x 4 is a single tile of F(4,3).
    chosen = target_or_skip(target)
    item = conv("conv2d.*", (1, 16, *size), (20, 16, 3, 3), layout="blocked", pads=SAME)
    program = lower(build(item, chosen), Library(chosen, winograd))
    (kernel,) = [step.kernel for step in program.steps if step.kernel.startswith("conv2d.")]
    if winograd in ("f2", "f4"):
        assert (kernel == "conv2d.winograd") == (min(size) >= 4)


SIZES = [(512, 32, 31, 512), (256, 16, 29, 512), (1024, 4, 34, 1024), (512, 12, 62, 512), (512, 14, 14, 512)]


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize(("ic", "height", "width", "oc"), SIZES)
def test_border_of_a_neighbour_leaves_every_kernel_a_schedule(
    ic: int, height: int, width: int, oc: int, target: str
) -> None:
    # Without the border, tiles of Strassen's form may run over the ends of rows; with it they must divide a row.
    chosen = target_or_skip(target)
    lower(fire(chosen, (1, ic, height, width), oc), Library(chosen))


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_image_with_the_border_of_a_neighbour(target: str) -> None:
    chosen = target_or_skip(target)
    graph = fire(chosen, (1, 256, 8, 14), 256)
    x = np.random.default_rng(1).standard_normal((1, 256, 8, 14), np.float32)
    compiled = Compiled(graph, chosen)
    results, want = compiled({"x": x}), evaluate(graph, {"x": x}, dtype="float64")
    for name, length in (("y1", 256), ("y3", 256 * 9)):
        assert_close(results[name], want[name], length, f"{name} on {target}", 6.0)


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("axes", [(1,), (2,), (3,), (1, 2, 3)])
def test_softmax_of_an_image_that_a_convolution_pads(axes: tuple[int, ...], target: str) -> None:
    # The border that the convolution asks for lies between the channels of what softmax reads.
    chosen = target_or_skip(target)
    graph, rng = Graph("shared"), np.random.default_rng(0)
    x = graph.add_input("x", f32(2, 3, 9, 7))
    image = graph.insert(Relu(), [x]).output
    w = graph.add_constant(Constant("w", rng.standard_normal((16, 3, 3, 3), np.float32)))
    op = Conv2d(pads=SAME)
    (type_,) = op.result_types([image.type, w.type])
    y = graph.insert(op, [image, w], types=[type_.with_layout(Layout(chosen.vector_lanes))]).output
    graph.add_output("s", graph.insert(Softmax(axes=axes), [image]).output)
    graph.add_output("y", graph.insert(Relayout(), [y], types=[type_.with_layout(PLAIN)]).output)
    compiled = Compiled(graph, chosen)
    assert any(buffer.border == SAME for buffer in compiled.program.buffers.values())
    data = {"x": rng.standard_normal((2, 3, 9, 7), np.float32)}
    want, got = evaluate(graph, data, dtype="float64"), compiled(data)
    for name in ("s", "y"):
        assert_close(got[name], want[name], 27, f"{name} on {target}")
