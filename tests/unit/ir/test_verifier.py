"""Every rule of a graph, broken once behind the back of its functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sqzc.diagnostics import VerifyError
from sqzc.ir import Builder, Graph, Layout, Value
from sqzc.ir.constant import Constant
from sqzc.ir.graph import Node
from sqzc.ir.ops.elementwise import Add, Relu
from sqzc.ir.ops.nn import Conv2d, Softmax
from sqzc.ir.parser import parse_graph
from sqzc.ir.types import f32
from sqzc.ir.verifier import verify


def sample() -> Graph:
    g = Graph("g")
    b = Builder(g)
    x = g.add_input("x", f32(1, 8, 4, 4))
    w = b.constant("w", np.ones((8, 8, 1, 1), np.float32))
    c = b.add(Conv2d(), x, w, name="c")
    r = b.add(Relu(), c, name="r")
    g.add_output("out", r)
    return g


def two_names(g: Graph) -> None:
    g.nodes[1].output.name = "c"


def constant_type(g: Graph) -> None:
    g.constants[0].type = f32(8, 8)


def constant_lost(g: Graph) -> None:
    g.constants[0].constant = None


def order(g: Graph) -> None:
    g.nodes.reverse()


def foreign_operand(g: Graph) -> None:
    g.nodes[1].inputs[0] = Value("stranger", f32(1, 8, 4, 4))


def result_type(g: Graph) -> None:
    g.nodes[0].output.type = f32(1, 8, 4, 5)


def operand_type(g: Graph) -> None:
    g.inputs[0].type = f32(1, 7, 4, 4)


def producer(g: Graph) -> None:
    g.nodes[0].output.producer = g.nodes[1]


def users_missing(g: Graph) -> None:
    g.inputs[0].users.clear()


def users_extra(g: Graph) -> None:
    g.nodes[1].output.users.append(g.nodes[0])


def output_foreign(g: Graph) -> None:
    g.outputs.append(("more", Value("stranger", f32())))


def weight_blocked(g: Graph) -> None:
    g.constants[0].constant = Blocked("w", g.constants[0].data)
    g.constants[0].type = g.constants[0].type.with_layout(Layout(8))


class Blocked(Constant):
    """A constant that claims to be channel-blocked."""

    @property
    def type(self):  # type: ignore[no-untyped-def]
        return super().type.with_layout(Layout(8))


BROKEN: list[tuple[Callable[[Graph], None], str, str, str | None]] = [
    (two_names, "two values are called %c", "relu", None),
    (constant_type, "constant %w does not have the type of its data", "", None),
    (constant_lost, "constant %w does not have the type of its data", "", None),
    (order, "%c is used before it is defined", "%r = relu{}(%c)", None),
    (foreign_operand, "%stranger is used before it is defined", "%r = relu{}(%stranger)", None),
    (result_type, "conv2d: result type", "%c = conv2d{}(%x, %w)", "f32[1,8,4,4]"),
    (operand_type, "conv2d: channels of input and weight do not fit", "%c = conv2d", "weight [M,7,kh,kw]"),
    (producer, "%c does not know its producer", "%c = conv2d", None),
    (users_missing, "%x records 0 uses", "", "1"),
    (users_extra, "%r records 1 uses", "", "0"),
    (output_foreign, "output 'more' reads %stranger, which nothing defines", "", None),
    (weight_blocked, "conv2d takes %w row-major only, not nchw8c", "%c = conv2d", None),
]


def test_sample_is_good() -> None:
    verify(sample())


@pytest.mark.parametrize(("damage", "message", "place", "expected"), BROKEN, ids=[f[0].__name__ for f in BROKEN])
def test_broken(damage: Callable[[Graph], None], message: str, place: str, expected: str | None) -> None:
    g = sample()
    damage(g)
    with pytest.raises(VerifyError) as caught:
        verify(g)
    assert caught.value.message == message
    assert place in str(caught.value.location or "")
    if expected is not None:
        assert str(caught.value.expected).startswith(expected)


def test_rendering_says_where() -> None:
    g = sample()
    result_type(g)
    with pytest.raises(VerifyError) as caught:
        verify(g)
    assert str(caught.value) == (
        "error[VE01]: conv2d: result type\n"
        "  --> @g, %c = conv2d{}(%x, %w)\n"
        "  expected: f32[1,8,4,4]\n"
        "  got:      f32[1,8,4,5]"
    )


LAYOUTS = [
    # SAME
    ("%y = relu(%b) : f32[1,8,2,2]:nchw8c", None),
    ("%y = relu(%b) : f32[1,8,2,2]", "relu takes and gives one layout"),
    ("%y = concat(%b, %x) {axis=1} : f32[1,16,2,2]:nchw8c", "concat takes and gives one layout"),
    # PLAIN
    ("%y = softmax(%b) {axes=[1]} : f32[1,8,2,2]", "softmax takes %b row-major only, not nchw8c"),
    ("%y = softmax(%x) {axes=[1]} : f32[1,8,2,2]:nchw8c", "softmax takes %y row-major only, not nchw8c"),
    # IMAGE
    ("%y = conv2d(%b, %w) : f32[1,8,2,2]", None),
    ("%y = conv2d(%x, %w) : f32[1,8,2,2]:nchw4c", None),
    ("%y = conv2d(%x, %w, %s, %b) : f32[1,8,2,2]", None),
    ("%y = conv2d(%x, %b) : f32[1,1,1,1]", "conv2d takes %b row-major only, not nchw8c"),
    # BROADCAST
    ("%y = add(%b, %one) : f32[1,8,2,2]:nchw8c", None),
    ("%y = add(%b, %x) : f32[1,8,2,2]:nchw8c", "add takes %x as nchw8c here"),
    ("%y = add(%x, %b) : f32[1,8,2,2]", "add takes %b as row-major here"),
    ("%y = add(%b, %c) : f32[1,8,2,2]:nchw8c", "add cannot broadcast the channels of %c in nchw8c"),
    # CONVERT
    ("%y = relayout(%b) : f32[1,8,2,2]:nchw4c", None),
]


@pytest.mark.parametrize(("line", "message"), LAYOUTS, ids=[line for line, _ in LAYOUTS])
def test_layout_rules(line: str, message: str | None) -> None:
    text = f"""graph @g(%x: f32[1,8,2,2], %b: f32[1,8,2,2]:nchw8c, %c: f32[1,1,2,2]:nchw8c) {{
      const %w = @w : f32[8,8,1,1]
      const %s = [1, 2, 3, 4, 5, 6, 7, 8] : f32[8]
      const %one = [1] : f32[1]
      {line}
      yield %y
    }}"""
    weights = {"w": np.zeros((8, 8, 1, 1), np.float32)}
    if message is None:
        verify(parse_graph(text, weights))
        return
    with pytest.raises(VerifyError) as caught:
        parse_graph(text, weights)
    assert caught.value.message == message


def test_results_of_several() -> None:
    g = Graph("g")
    x = g.add_input("x", f32(2))
    node = g.insert(Add(), [x, x])
    node.outputs.append(Value("more", f32(2)))
    with pytest.raises(VerifyError, match="add: result type"):
        verify(g)


def test_a_value_defined_by_two_nodes() -> None:
    g = sample()
    twin = Node(Softmax(axes=(1,)), [g.nodes[1].output], [g.nodes[0].output])
    g.nodes.append(twin)
    g.nodes[1].output.users.append(twin)
    with pytest.raises(VerifyError, match="%c does not know its producer"):
        verify(g)
