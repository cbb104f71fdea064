"""Graphs to text: one form, which reads back to an equal graph."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sqzc.ir import Builder, DType, Graph, Layout, TensorType
from sqzc.ir.constant import INLINE_ELEMENTS, Constant
from sqzc.ir.equality import first_difference
from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.elementwise import Add, Clip, Relu
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.ops.shape import Relayout, TopK
from sqzc.ir.parser import parse_graph
from sqzc.ir.printer import print_constant, print_graph, print_node, show_op, show_values, symbol
from sqzc.ir.types import f32


def sample() -> Graph:
    g = Graph("net.1")
    b = Builder(g)
    g.meta = {"mean": [1.5, 2], "text": 'a "b" ü', "nothing": None}
    x = g.add_input("x", f32(1, 3, 9, 9))
    z = g.add_input("z 2", f32(4), ("old", "z 2"))
    w = g.add_constant(Constant("blob w", np.ones((4, 3, 3, 3), np.float32)), "w", ("conv/w",))
    k = b.constant("k", np.array([0.1, 1e-30, -np.inf, 3], np.float32))
    g.add_constant(Constant("other", np.array([True, False])), "flags")
    c = b.add(Conv2d(stride=(2, 1), act=Activation("clip", (0.0, 6.0))), x, w, k, source=("conv1", 'say "relu"'))
    blocked = g.insert(Relayout(), [c], types=[c.type.with_layout(Layout(8))], names=["r"]).output
    top, _ = b.add_multi(TopK(k=2), b.add(Add(), z, k, name="sum"), sources=(("top",), ()))
    g.add_output("image", blocked)
    g.add_output("top 2", top)
    return g


TEXT = r"""graph @net.1(%x: f32[1,3,9,9], %"z 2": f32[4] @"old" @"z 2") {
  meta "mean" = [1.5, 2]
  meta "text" = "a \"b\" \u00fc"
  meta "nothing" = null
  const %w = @"blob w" : f32[4,3,3,3] sha=SHA @"conv/w"
  const %k = [0.1, 0.000000000000000000000000000001, -inf, 3.0] : f32[4]
  const %flags = @other [true, false] : bool[2]
  %"say \"relu\"" = conv2d(%x, %w, %k) {stride=2x1, act=clip(0.0,6.0)} : f32[1,4,4,7] @"conv1" @"say \"relu\""
  %r = relayout(%"say \"relu\"") : f32[1,4,4,7]:nchw8c
  %sum = add(%"z 2", %k) : f32[4]
  %top, %topk = topk(%sum) {k=2} : f32[2] @"top", i64[2]
  yield %r as "image", %top as "top 2"
}
"""


def test_sample_prints_as_documented() -> None:
    g = sample()
    assert g.constants[0].constant is not None
    text = TEXT.replace("SHA", g.constants[0].constant.sha).replace("0.000000000000000000000000000001", "1.0e-30")
    assert print_graph(g) == text
    again = parse_graph(text, {"blob w": g.constants[0].data})
    assert first_difference(g, again) is None
    assert print_graph(again) == text


def test_graph_of_nothing() -> None:
    assert print_graph(Graph("")) == 'graph @""() {\n  yield\n}\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a", "%a"),
        ("conv1/relu.1-x", "%conv1/relu.1-x"),
        ("nan", "%nan"),
        ("1a", '%"1a"'),
        ("", '%""'),
        ("a b", '%"a b"'),
        ('"\\', r'%"\"\\"'),
        ("ü\n", r'%"\u00fc\n"'),
        ("a\n", r'%"a\n"'),
    ],
)
def test_symbol_is_quoted_when_it_must_be(name: str, text: str) -> None:
    assert symbol("%", name) == text


def test_default_attributes_are_left_out() -> None:
    assert show_op(Conv2d()) == "conv2d"
    assert show_op(Conv2d(pads=(0, 0, 0, 0), dilation=(2, 2))) == "conv2d {dilation=2x2}"
    assert show_op(Relu(), operands="(%x)") == "relu(%x)"
    assert show_op(Clip(hi=float("nan"))) == "clip {hi=nan}"


def test_constants_inline_up_to_a_size() -> None:
    few, many = np.zeros(INLINE_ELEMENTS, np.int8), np.zeros(INLINE_ELEMENTS + 1, np.int8)
    assert print_constant("c", Constant("c", few)) == f"const %c = [{', '.join('0' * 16)}] : i8[16]"
    big = Constant("c", many)
    assert print_constant("c", big) == f"const %c = @c : i8[17] sha={big.sha}"
    assert print_constant("c", Constant("d", np.float32(1))) == "const %c = @d [1.0] : f32[]"
    assert print_constant("c", Constant("c", np.zeros((0, 3), np.float32))) == "const %c = [] : f32[0,3]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(0.1), "[0.1]"),
        (np.float16(0.1), "[0.1]"),
        (np.float64(0.1), "[0.1]"),
        (np.float64(np.float32(0.1)), "[0.10000000149011612]"),
        (np.float32(16777216), "[16777216.0]"),
        (np.float32(3e38), "[3.0e+38]"),
        (np.float64(5e-324), "[5.0e-324]"),
        (np.float32(-0.0), "[-0.0]"),
        (np.float32("nan"), "[nan]"),
        (np.int64(-(2**63)), "[-9223372036854775808]"),
        (np.bool_(True), "[true]"),
    ],
    ids=lambda x: repr(x),
)
def test_shortest_digits_of_the_own_precision(value: np.generic, text: str) -> None:
    assert show_values(np.array(value)) == text


DTYPES = st.sampled_from([d.numpy for d in DType])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4).filter(lambda s: np.prod(s) <= 16)


@settings(deadline=None)
@given(hnp.arrays(DTYPES, SHAPES))
def test_inline_data_reads_back_to_the_same_bits(array: np.ndarray) -> None:
    g = Graph("g")
    g.add_constant(Constant("c", array))
    again = parse_graph(print_graph(g)).constants[0].data
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    # All NaNs are written alike.
    plain = np.nan_to_num(array, nan=1.25, posinf=np.inf, neginf=-np.inf) if array.dtype.kind == "f" else array
    other = np.nan_to_num(again, nan=1.25, posinf=np.inf, neginf=-np.inf) if array.dtype.kind == "f" else again
    assert other.tobytes() == plain.tobytes()


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=5), st.text(max_size=5), st.data())
def test_any_names_read_back(names: list[str], graph_name: str, data: st.DataObject) -> None:
    g = Graph(graph_name)
    b = Builder(g)
    x = g.add_input("x", f32(2), data.draw(st.lists(st.text(max_size=5), min_size=1, max_size=3).map(tuple)))
    g.meta[graph_name] = {name: [name, None, 1.5] for name in names}
    for name in names:
        sources = tuple(data.draw(st.lists(st.text(max_size=5), max_size=2)))
        x = b.add(Add(), x, b.constant(name, np.ones(2, np.float32), sources), source=sources, name=name)
        g.rename(x, name)
    g.add_output(graph_name, x)
    text = print_graph(g)
    again = parse_graph(text)
    assert first_difference(g, again) is None
    assert print_graph(again) == text


def test_node_with_layout_and_sources() -> None:
    g = sample()
    assert print_node(g.nodes[1]) == r'%r = relayout(%"say \"relu\"") : f32[1,4,4,7]:nchw8c'
    assert str(TensorType(DType.F16, (1, 2, 3, 4), Layout(16))) == "f16[1,2,3,4]:nchw16c"
