"""Lowering: views, slices, borders and outputs, each checked by running the program in numpy memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sqzc.ir import Builder, Graph, Layout, Value
from sqzc.ir.ops.elementwise import Add, Identity, Relu
from sqzc.ir.ops.nn import Conv2d, MaxPool2d, Softmax
from sqzc.ir.ops.shape import Concat, Relayout, Reshape
from sqzc.ir.parser import parse_graph
from sqzc.ir.types import f32
from sqzc.plan import Program, Role
from sqzc.plan.equality import first_difference
from sqzc.plan.text import parse_program, print_program

Lowered = Callable[..., Program]
Differences = Callable[..., dict[str, Any]]


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


W3 = weights(w=(4, 4, 3, 3))

CASES = {
    "a reshape beside a convolution that wants a border": """
        graph @g(%x: f32[1,4,4,4]) {
          const %w = @w : f32[4,4,3,3]
          %r = relu(%x) : f32[1,4,4,4]
          %v = reshape(%r) {shape=[1,4,16,1]} : f32[1,4,16,1]
          %c = conv2d(%r, %w) {pads=[1,1,1,1]} : f32[1,4,4,4]
          %p = max_pool2d(%v) {kernel=2x1, stride=2x1} : f32[1,4,8,1]
          yield %c as "c", %p as "p"
        }""",
    "borders of two sizes": """
        graph @g(%x: f32[2,4,5,6]) {
          const %w = @w : f32[4,4,3,3]
          %r = relu(%x) : f32[2,4,5,6]
          %a = conv2d(%r, %w) {pads=[1,2,0,1]} : f32[2,4,4,7]
          %b = conv2d(%r, %w) {pads=[0,1,2,1]} : f32[2,4,5,6]
          %s = relu(%r) : f32[2,4,5,6]
          yield %a as "a", %b as "b", %s as "s"
        }""",
    "a border around an input and around a reshape": """
        graph @g(%x: f32[1,4,16,1]) {
          const %w = @w : f32[4,4,3,3]
          %a = conv2d(%x, %w) {pads=[1,1,1,1]} : f32[1,4,16,1]
          %v = reshape(%a) {shape=[1,4,4,4]} : f32[1,4,4,4]
          %b = conv2d(%v, %w) {pads=[1,1,1,1]} : f32[1,4,4,4]
          yield %b as "b"
        }""",
    "a placed concat of several images": """
        graph @g(%x: f32[3,4,5,5]) {
          const %w = @w : f32[4,4,3,3]
          %a = relu(%x) : f32[3,4,5,5]
          %b = conv2d(%x, %w) {pads=[1,1,1,1]} : f32[3,4,5,5]
          %c = concat(%a, %b) {axis=1, placed=true} : f32[3,8,5,5]
          yield %c as "c"
        }""",
    "an operand of a placed concat is read elsewhere too, whole": """
        graph @g(%x: f32[3,4,5,5]) {
          %a = relu(%x) : f32[3,4,5,5]
          %b = relu(%a) : f32[3,4,5,5]
          %c = concat(%a, %b) {axis=1, placed=true} : f32[3,8,5,5]
          %s = softmax(%b) {axes=[1]} : f32[3,4,5,5]
          %v = reshape(%a) {shape=[3,100]} : f32[3,100]
          %t = softmax(%v) {axes=[1]} : f32[3,100]
          yield %c as "c", %s as "s", %t as "t"
        }""",
    "an operand of a placed concat comes from a kernel that writes whole tensors": """
        graph @g(%x: f32[2,4,5,5]) {
          %a = softmax(%x) {axes=[1]} : f32[2,4,5,5]
          %b = relu(%x) : f32[2,4,5,5]
          %c = concat(%b, %a) {axis=1, placed=true} : f32[2,8,5,5]
          yield %c as "c"
        }""",
    "the same, one image, and an input, twice the same value, and an output as operands": """
        graph @g(%x: f32[1,4,5,5]) {
          %a = softmax(%x) {axes=[1]} : f32[1,4,5,5]
          %b = relu(%x) : f32[1,4,5,5]
          %c = concat(%b, %a, %b, %x) {axis=1, placed=true} : f32[1,16,5,5]
          yield %c as "c", %a as "a", %b as "b"
        }""",
    "a placed concat of another axis": """
        graph @g(%x: f32[1,4,5,5]) {
          %a = relu(%x) : f32[1,4,5,5]
          %b = relu(%a) : f32[1,4,5,5]
          %c = concat(%a, %b) {axis=2, placed=true} : f32[1,4,10,5]
          yield %c as "c"
        }""",
    "a placed concat within blocks": """
        graph @g(%x: f32[1,4,5,5]) {
          %p = relayout(%x) : f32[1,4,5,5]:nchw8c
          %a = relu(%p) : f32[1,4,5,5]:nchw8c
          %b = relu(%a) : f32[1,4,5,5]:nchw8c
          %c = concat(%a, %b) {axis=1, placed=true} : f32[1,8,5,5]:nchw8c
          %q = relayout(%c) : f32[1,8,5,5]
          yield %q as "q"
        }""",
    "a concat in a concat, with a border and a part block at the end": """
        graph @g(%x: f32[2,4,5,5]) {
          const %w = @w8 : f32[8,4,3,3]
          const %u = @u : f32[4,24,3,3]
          %p = relayout(%x) : f32[2,4,5,5]:nchw8c
          %a = conv2d(%p, %w) {pads=[1,1,1,1]} : f32[2,8,5,5]:nchw8c
          %b = conv2d(%p, %w) {pads=[1,1,1,1], act=relu} : f32[2,8,5,5]:nchw8c
          %c = concat(%a, %b) {axis=1, placed=true} : f32[2,16,5,5]:nchw8c
          %d = relu(%x) : f32[2,4,5,5]
          %e = relayout(%d) : f32[2,4,5,5]:nchw8c
          %f = relayout(%d) : f32[2,4,5,5]:nchw8c
          %g = concat(%c, %b, %e) {axis=1, placed=true} : f32[2,28,5,5]:nchw8c
          %h = concat(%a, %c) {axis=1, placed=true} : f32[2,24,5,5]:nchw8c
          %k = conv2d(%h, %u) {pads=[1,1,1,1]} : f32[2,4,5,5]:nchw8c
          %m = add(%k, %f) : f32[2,4,5,5]:nchw8c
          %y = relayout(%g) : f32[2,28,5,5]
          %z = relayout(%m) : f32[2,4,5,5]
          yield %y as "y", %z as "z"
        }""",
    "blocked outputs": """
        graph @g(%x: f32[1,8,5,5]) {
          %p = relayout(%x) : f32[1,8,5,5]:nchw8c
          %m = max_pool2d(%p) {kernel=5x5} : f32[1,8,1,1]:nchw8c
          yield %p as "p", %m as "m"
        }""",
    "single pixels are the same in both layouts": """
        graph @g(%x: f32[2,16,5,5]) {
          %p = relayout(%x) : f32[2,16,5,5]:nchw8c
          %m = max_pool2d(%p) {kernel=5x5} : f32[2,16,1,1]:nchw8c
          %q = relayout(%m) : f32[2,16,1,1]
          %r = relu(%q) : f32[2,16,1,1]
          %v = reshape(%r) {shape=[1,32,1,1]} : f32[1,32,1,1]
          %u = relu(%v) : f32[1,32,1,1]
          yield %q as "q", %u as "u"
        }""",
    "outputs that are inputs, constants, views, and twice the same": """
        graph @g(%x: f32[2,3], %y: f32[4]) {
          const %k = [1.0, 2.0] : f32[2]
          %v = reshape(%x) {shape=[6]} : f32[6]
          %s = softmax(%x) {axes=[1]} : f32[2,3]
          %w = reshape(%s) {shape=[3,2]} : f32[3,2]
          %i = identity(%s) : f32[2,3]
          yield %x as "x", %k as "k", %v as "v", %w as "w", %s as "s", %i as "i"
        }""",
    "nothing to do": 'graph @g(%x: f32[2]) { yield %x as "y" }',
    "an output that is another shape of a slice, beside a border": """
        graph @g(%x: f32[1,4,4,4]) {
          const %w = @w : f32[4,4,3,3]
          const %u = @u8 : f32[4,8,3,3]
          %a = relu(%x) : f32[1,4,4,4]
          %b = conv2d(%a, %w) {pads=[1,1,1,1]} : f32[1,4,4,4]
          %c = concat(%a, %b) {axis=1, placed=true} : f32[1,8,4,4]
          %v = reshape(%b) {shape=[1,2,8,4]} : f32[1,2,8,4]
          %d = conv2d(%c, %u) {pads=[1,1,1,1]} : f32[1,4,4,4]
          yield %v as "v", %d as "d"
        }""",
}  # fmt: skip
WEIGHTS = weights(w=(4, 4, 3, 3), w8=(8, 4, 3, 3), u=(4, 24, 3, 3), u8=(4, 8, 3, 3))


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_program_computes_what_the_graph_does(text: str, lowered: Lowered, differences: Differences) -> None:
    graph = parse_graph(text, WEIGHTS)
    program = lowered(graph)
    assert not differences(graph, program)


def kernels(program: Program) -> list[str]:
    return [step.kernel for step in program.steps]


def test_operands_of_a_placed_concat_are_slices_of_its_result(lowered: Lowered) -> None:
    program = lowered(CASES["a placed concat of several images"], WEIGHTS)
    a, b, c = (program.buffers[name] for name in "abc")
    assert (a.parent, a.channel, a.offset) == ("c", 0, 0)
    assert (b.parent, b.channel, b.offset) == ("c", 4, 4 * 4 * 25)
    assert c.role is Role.OUTPUT
    assert program.geometry("b") == program.geometry("c")
    # Neither a concat nor a copy but the one that gives the input its border.
    assert kernels(program) == ["relu", "border.clear", "copy.image", "conv2d"]


def test_a_value_with_another_whole_reader_is_copied_into_its_slice(lowered: Lowered) -> None:
    program = lowered(CASES["an operand of a placed concat is read elsewhere too, whole"], WEIGHTS)
    assert kernels(program).count("copy.image") == 2
    assert program.buffers["a"].role is program.buffers["b"].role is Role.ARENA


@pytest.mark.parametrize("name", ["a placed concat of another axis", "a placed concat within blocks"])
def test_concat_that_cannot_be_placed_is_an_ordinary_one(name: str, lowered: Lowered) -> None:
    assert "concat" in kernels(lowered(CASES[name]))


def test_border_is_the_widest_wanted_and_cleared_once(lowered: Lowered) -> None:
    program = lowered(CASES["borders of two sizes"], WEIGHTS)
    assert program.buffers["r"].border == (1, 2, 2, 1)
    assert kernels(program)[:2] == ["border.clear", "relu"]
    assert kernels(program).count("border.clear") == 1


def test_memory_that_cannot_have_a_border_is_copied(lowered: Lowered) -> None:
    program = lowered(CASES["a border around an input and around a reshape"], WEIGHTS)
    assert program.buffers["x"].border == program.buffers["a"].border == (0, 0, 0, 0)
    assert program.buffers["v"].parent == "a"
    assert program.buffers["v.bordered"].border == (1, 1, 1, 1)
    assert kernels(program).count("copy.image") == 2


def test_views_cost_nothing(lowered: Lowered) -> None:
    program = lowered(CASES["outputs that are inputs, constants, views, and twice the same"])
    # softmax itself, and a copy for each output whose memory is not its own.
    assert kernels(program) == ["softmax", *["copy.flat"] * 5]
    # The first output of several that share memory gets it.
    assert dict(program.outputs)["w"] == "w"
    assert program.root("w")[0].role is Role.OUTPUT


def test_blocked_outputs_are_converted(lowered: Lowered) -> None:
    program = lowered(CASES["blocked outputs"])
    assert [program.buffers[name].type.layout for _, name in program.outputs] == [Layout(), Layout()]


def test_step_carries_ops_facts_schedule_and_cost(lowered: Lowered) -> None:
    graph = parse_graph(
        """graph @net(%x: f32[1,4,5,5]) {
          meta "mean" = [1.5]
          const %w = @w : f32[4,4,3,3]
          %y = conv2d(%x, %w) {stride=2x2, act=relu} : f32[1,4,2,2] @"conv1" @"relu1"
          yield %y as "out"
        }""",
        WEIGHTS,
    )
    program = lowered(graph)
    (step,) = program.steps
    assert (program.name, program.target, program.meta) == ("net", "x86-64-v3", {"mean": [1.5]})
    assert (program.inputs, program.outputs) == (["x"], [("out", "y")])
    assert step.ops == (Conv2d(stride=(2, 2), act=graph.nodes[0].op.attrs["act"]),)
    assert (step.facts, step.schedule) == ({"operands": 1}, {"tile": 4, "order": "oc"})
    assert (step.scratch, step.flops, step.sources) == (100, graph.flops, ("conv1", "relu1"))
    assert program.scratch_bytes == 100
    assert step.constants == ("y.c1",)
    assert program.constants["y.c1"].data is not None
    np.testing.assert_array_equal(program.constants["y.c1"].data, WEIGHTS["w"])


def test_names_of_the_graph_are_never_taken_twice(lowered: Lowered, differences: Differences) -> None:
    graph = parse_graph(
        """graph @g(%x: f32[1,4,5,5], %x.bordered: f32[1,4,5,5]) {
          const %w = @w : f32[4,4,3,3]
          %y.c1 = relu(%x.bordered) : f32[1,4,5,5]
          %y = conv2d(%x, %w) {pads=[1,1,1,1]} : f32[1,4,5,5]
          yield %y as "y", %y.c1 as "z"
        }""",
        WEIGHTS,
    )
    assert not differences(graph, lowered(graph))


# -- any graph --------------------------------------------------------------------------------------------------------


class Growth:
    """Adds ops to a graph as the drawn numbers say; what would not fit is left out."""

    def __init__(self, batch: int) -> None:
        self.graph = Graph("random")
        self.b = Builder(self.graph)
        self.rng = np.random.default_rng(batch)
        self.values = [self.graph.add_input("x", f32(batch, 8, 4, 4)), self.graph.add_input("y", f32(batch, 3, 4, 4))]

    def any(self, number: int) -> Value:
        return self.values[-1 - number % len(self.values)]

    def image(self, number: int) -> Value:
        images = [v for v in self.values if v.type.rank == 4]
        return images[-1 - number % len(images)]

    def keep(self, op: Any, *inputs: Value, layout: Layout | None = None) -> None:
        types = op.result_types([v.type for v in inputs])
        types = tuple(t.with_layout(layout or Layout()) for t in types)
        self.values.append(self.graph.insert(op, inputs, types=types).output)

    def conv(self, a: int, b: int) -> None:
        x, pad = self.image(a), b % 3
        if min(x.type.shape[2:]) + 2 * pad < 3:
            return
        shape = (8, x.type.shape[1], 3, 3)
        w = self.b.constant("w", (self.rng.uniform(-1, 1, shape) / (9 * shape[1])).astype(np.float32))
        pads = (pad, b % 2, pad, pad)
        if x.type.shape[3] + pads[1] + pads[3] >= 3:
            self.keep(Conv2d(pads=pads), x, w, layout=x.type.layout)

    def pool(self, a: int, b: int) -> None:
        x = self.image(a)
        kernel = x.type.shape[2:] if b % 2 else (1, min(2, x.type.shape[3]))
        self.keep(MaxPool2d(kernel=kernel), x, layout=x.type.layout)

    def relu(self, a: int, b: int) -> None:
        x = self.any(a)
        self.keep(Identity() if b % 4 == 0 else Relu(), x, layout=x.type.layout)

    def add(self, a: int, b: int) -> None:
        x = self.any(a)
        alike = [v for v in self.values if v.type == x.type]
        self.keep(Add(), x, alike[b % len(alike)], layout=x.type.layout)

    def concat(self, a: int, b: int) -> None:
        x = self.image(a)
        n, _, h, w = x.type.shape
        alike = [
            v
            for v in self.values
            if v.type.rank == 4 and v.type.layout == x.type.layout and (v.type.shape[0], *v.type.shape[2:]) == (n, h, w)
        ]
        parts = [x, *(alike[(b + i) % len(alike)] for i in range(1 + b % 2))]
        if sum(v.type.shape[1] for v in parts) <= 64:
            self.keep(Concat(axis=1, placed=b % 4 > 0), *parts, layout=x.type.layout)

    def relayout(self, a: int, b: int) -> None:
        self.keep(Relayout(), self.image(a), layout=Layout(b % 3 * 4))

    def reshape(self, a: int, b: int) -> None:
        x = self.any(a)
        if x.type.layout.is_plain:
            n, rest = x.type.shape[0], x.type.elements // x.type.shape[0]
            self.keep(Reshape(shape=[(n, rest), (n, rest, 1, 1), (1, n * rest, 1, 1), (n, 1, rest, 1)][b % 4]), x)

    def softmax(self, a: int, b: int) -> None:
        x = self.any(a)
        if x.type.layout.is_plain:
            self.keep(Softmax(axes=(1,)), x)


KINDS = ("conv", "pool", "relu", "add", "concat", "relayout", "reshape", "softmax")
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 5), st.integers(0, 11)), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 2), STEPS, st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
def test_programs_of_random_graphs(
    lowered: Lowered, differences: Differences, batch: int, steps: list[tuple[str, int, int]], outputs: list[int]
) -> None:
    growth = Growth(batch)
    for kind, a, b in steps:
        getattr(growth, kind)(a, b)
    for number, choice in enumerate(outputs):
        growth.graph.add_output(f"out{number}", growth.any(choice))
    program = lowered(growth.graph)
    assert not differences(growth.graph, program)
    text = print_program(program)
    again = parse_program(text, {constant.key: constant.data for constant in program.constants.values()})
    assert first_difference(program, again) is None
    assert print_program(again) == text
