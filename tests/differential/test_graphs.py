"""Kernels together: what lowering makes of several ops (borders, slices, shared memory) must not change a number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from differential.checking import TARGET_NAMES, assert_close, growth, target_or_skip
from differential.compiling import Compiled

from sqzc.backends.reference import evaluate
from sqzc.ir import DType, Graph
from sqzc.ir.parser import parse_graph
from sqzc.ir.verifier import verify

# In the texts, B is the target's block. Graphs are named for what is special about them.
TEXTS = {
    "conv after conv, both bordered": """graph @g(%x: f32[2,16,9,9]) {
      const %w1 = @w1 : f32[16,16,3,3]
      const %w2 = @w2 : f32[20,16,3,3]
      %b = relayout(%x) : f32[2,16,9,9]:nchwBc
      %c = conv2d(%b, %w1) {pads=[1,1,1,1], act=relu} : f32[2,16,9,9]:nchwBc
      %d = conv2d(%c, %w2) {pads=[1,1,1,1]} : f32[2,20,9,9]:nchwBc
      %y = relayout(%d) : f32[2,20,9,9]
      yield %y as "y"
    }""",
    "elementwise ops write into borders": """graph @g(%x: f32[1,20,7,7]) {
      const %w = @w : f32[16,20,3,3]
      const %s = @s : f32[20]
      %b = relayout(%x) : f32[1,20,7,7]:nchwBc
      %c = sigmoid(%b) : f32[1,20,7,7]:nchwBc
      %d = prelu(%c, %s) : f32[1,20,7,7]:nchwBc
      %e = add(%c, %d) : f32[1,20,7,7]:nchwBc
      %f = conv2d(%e, %w) {pads=[1,2,3,0], stride=2x2} : f32[16,16,1,1]:nchwBc
      %y = relayout(%f) : f32[1,16,5,4]
      yield %y as "y"
    }""".replace("f32[16,16,1,1]", "f32[1,16,5,4]"),
    "a row-major image with a border": """graph @g(%x: f32[1,3,11,11]) {
      const %w = @w : f32[16,3,3,3]
      %r = relu(%x) : f32[1,3,11,11]
      %c = conv2d(%r, %w) {pads=[1,1,1,1], stride=2x2} : f32[1,16,6,6]:nchwBc
      %y = relayout(%c) : f32[1,16,6,6]
      yield %y as "y"
    }""",
    "one image bordered and reshaped": """graph @g(%x: f32[1,3,11,11]) {
      const %w = @w : f32[16,3,3,3]
      %r = relu(%x) : f32[1,3,11,11]
      %c = conv2d(%r, %w) {pads=[1,1,1,1]} : f32[1,16,11,11]:nchwBc
      %y = relayout(%c) : f32[1,16,11,11]
      %s = reshape(%r) {shape=[33,11]} : f32[33,11]
      %z = exp(%s) : f32[33,11]
      yield %y as "y", %z as "z"
    }""",
    "all kinds of ops write into a placed concat": """graph @g(%x: f32[2,16,8,8]) {
      const %w = @w : f32[16,16,3,3]
      const %v = @v : f32[16,16,1,1]
      const %s = @s : f32[16]
      const %p = @p : f32[16]
      %b = relayout(%x) : f32[2,16,8,8]:nchwBc
      %c = conv2d(%b, %v) {act=relu} : f32[2,16,8,8]:nchwBc
      %d = conv2d(%b, %w) {pads=[1,1,1,1]} : f32[2,16,8,8]:nchwBc
      %e = max_pool2d(%b) {kernel=3x3, pads=[1,1,1,1]} : f32[2,16,8,8]:nchwBc
      %f = batch_norm(%b, %s, %s, %s, %p) : f32[2,16,8,8]:nchwBc
      %g = mul(%b, %b) : f32[2,16,8,8]:nchwBc
      %h = elu(%b) : f32[2,16,8,8]:nchwBc
      %i = concat(%c, %d, %e, %f, %g, %h) {axis=1, placed=true} : f32[2,96,8,8]:nchwBc
      %k = avg_pool2d(%i) {kernel=2x2, stride=2x2} : f32[2,96,4,4]:nchwBc
      %y = relayout(%k) : f32[2,96,4,4]
      yield %y as "y"
    }""",
    "a row-major placed concat, read by everybody": """graph @g(%x: f32[2,5,6,6]) {
      const %w = @w : f32[3,5,3,3]
      const %v = @v : f32[5,4,2,2]
      %c = conv2d(%x, %w) {pads=[1,1,1,1]} : f32[2,3,6,6]
      %d = max_pool2d(%x) {kernel=3x3, pads=[1,1,1,1]} : f32[2,5,6,6]
      %e = conv_transpose2d(%x, %v) {pads=[0,0,1,1]} : f32[2,4,6,6]
      %f = concat(%c, %d, %e) {axis=1, placed=true} : f32[2,12,6,6]
      %h = reduce_sum(%f) {axes=[1]} : f32[2,1,6,6]
      %k = transpose(%f) {perm=[0,2,3,1]} : f32[2,6,6,12]
      %m = slice(%f) {starts=[0,2,1,1], sizes=[2,9,4,4]} : f32[2,9,4,4]
      yield %h as "h", %k as "k", %m as "m"
    }""",
    "a chain that ends in classes": """graph @g(%x: f32[2,3,12,12]) {
      const %w = @w : f32[18,3,3,3]
      const %v = @v : f32[10,18]
      const %b = @b : f32[10]
      %c = conv2d(%x, %w) {stride=2x2, act=relu} : f32[2,18,5,5]
      %d = avg_pool2d(%c) {kernel=5x5} : f32[2,18,1,1]
      %e = reshape(%d) {shape=[2,18]} : f32[2,18]
      %f = linear(%e, %v, %b) : f32[2,10]
      %g = softmax(%f) {axes=[1]} : f32[2,10]
      %h, %i = topk(%g) {k=3} : f32[2,3], i64[2,3]
      yield %g as "p", %h as "top", %i as "places"
    }""",
    "channel shuffle": """graph @g(%x: f32[1,6,4,4]) {
      const %w = @w : f32[6,1,3,3]
      %a = conv2d(%x, %w) {pads=[1,1,1,1], group=6} : f32[1,6,4,4]
      %b = reshape(%a) {shape=[1,2,3,4,4]} : f32[1,2,3,4,4]
      %c = transpose(%b) {perm=[0,2,1,3,4]} : f32[1,3,2,4,4]
      %d = reshape(%c) {shape=[1,6,4,4]} : f32[1,6,4,4]
      %y = conv2d(%d, %w) {pads=[1,1,1,1], group=6} : f32[1,6,4,4]
      yield %y as "y"
    }""",
}


def graph_of(text: str, lanes: int) -> Graph:
    """The graph of a text, with constants drawn for its names (variances are positive)."""
    rng = np.random.default_rng(9)
    weights = {}
    for line in text.splitlines():
        if line.strip().startswith("const"):
            symbol, shape = line.split("@")[1].split(" : f32")
            drawn = rng.standard_normal([int(d) for d in shape.strip("[] \n").split(",")])
            weights[symbol.strip()] = (np.abs(drawn) + 0.1 if symbol.strip() == "p" else drawn).astype(np.float32)
    graph = parse_graph(text.replace("nchwBc", f"nchw{lanes}c"), weights)
    verify(graph)
    return graph


def check_graph(graph: Graph, target_name: str, inputs: Mapping[str, np.ndarray]) -> None:
    compiled = Compiled(graph, target_or_skip(target_name))
    kernels = [step.kernel for step in compiled.program.steps]
    want = evaluate(graph, inputs, dtype="float64")
    for threads in (1, 2):
        got = compiled(inputs, threads)
        assert set(got) == set(want)
        for name, array in want.items():
            assert_close(got[name], array, 200, f"{name}, {threads} threads", growth(kernels))


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_graph(text: str, target: str) -> None:
    graph = graph_of(text, target_or_skip(target).vector_lanes)
    rng = np.random.default_rng(4)
    inputs = {value.name: rng.standard_normal(value.type.shape).astype(np.float32) for value in graph.inputs}
    check_graph(graph, target, inputs)


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("dtype", list(DType), ids=lambda dtype: dtype.value)
def test_inputs_and_constants_as_outputs_are_copied(dtype: DType, target: str) -> None:
    word = dtype.value
    graph = parse_graph(
        f"""graph @g(%x: {word}[3,37], %i: {word}[1,2,3,5]) {{
          const %c = @c : {word}[70]
          %v = reshape(%x) {{shape=[111]}} : {word}[111]
          %d = identity(%i) : {word}[1,2,3,5]
          yield %x as "x1", %x as "x2", %v as "v", %d as "d", %c as "c"
        }}""",
        {"c": np.arange(70).astype(dtype.numpy)},
    )
    rng = np.random.default_rng(4)
    compiled = Compiled(graph, target_or_skip(target))
    assert "copy.flat" in {step.kernel for step in compiled.program.steps}
    inputs = {value.name: rng.integers(0, 100, value.type.shape).astype(dtype.numpy) for value in graph.inputs}
    got = compiled(inputs, threads=2)
    for name, want in evaluate(graph, inputs).items():
        np.testing.assert_array_equal(got[name], want)


def test_borders_are_cleared_once_and_before_use() -> None:
    text = TEXTS["conv after conv, both bordered"]
    target = target_or_skip("x86-64-v2")
    kernels = [step.kernel for step in Compiled(graph_of(text, target.vector_lanes), target).program.steps]
    assert kernels.count("border.clear") == 2
    assert kernels[0] == "border.clear"
