"""The graph: names, users and order stay right under every mutation."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sqzc.diagnostics import VerifyError
from sqzc.ir import Builder, Graph, Layout, Value
from sqzc.ir.constant import Constant
from sqzc.ir.equality import equal
from sqzc.ir.graph import merged_sources
from sqzc.ir.ops.elementwise import Add, Neg, Relu
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.types import f32
from sqzc.ir.verifier import verify


class Diamond:
    """x -> a -> (b, c) -> d, with d the output."""

    def __init__(self) -> None:
        self.g = g = Graph("diamond")
        b = Builder(g)
        self.x = g.add_input("x", f32(2))
        self.k = b.constant("k", np.array([1, 2], np.float32))
        self.a = b.add(Relu(), self.x, name="a", source=("A",))
        self.b = b.add(Neg(), self.a, name="b")
        self.c = b.add(Add(), self.a, self.k, name="c", source=("C",))
        self.d = b.add(Add(), self.b, self.c, name="d")
        g.add_output("out", self.d)
        verify(g)


@pytest.fixture
def d() -> Diamond:
    return Diamond()


# -- names ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["a", "a.1", "a.2", "a.7", "b", ""]), max_size=20))
def test_names_are_unique_and_depend_on_those_taken_alone(wanted: list[str]) -> None:
    first, second = Graph(), Graph()
    taken = [first.unique_name(name) for name in wanted]
    assert len(set(taken)) == len(taken)
    for name in taken:
        assert second.unique_name(name) == name
    assert first.unique_name("a") == second.unique_name("a")


def test_names_count_up_from_the_wanted_one() -> None:
    graph = Graph()
    assert [graph.unique_name(name) for name in ("v", "v", "v", "", "v.1")] == ["v", "v.1", "v.2", "v.3", "v.1.1"]


def test_names_of_the_erased_are_free_again(d: Diamond) -> None:
    d.g.replace_uses(d.d, d.b)
    d.g.erase(d.g.nodes[-1])
    assert d.g.unique_name("d") == "d"


def test_inputs_keep_their_names(d: Diamond) -> None:
    with pytest.raises(VerifyError, match="two values are called %a"):
        d.g.add_input("a", f32(1))
    with pytest.raises(VerifyError, match="the input %x cannot be renamed"):
        d.g.rename(d.x, "y")
    assert d.x.source == ("x",)
    assert d.g.add_input("z", f32(1), ()).source == ()


def test_rename(d: Diamond) -> None:
    d.g.rename(d.b, "c")
    assert d.b.name == "c.1"
    d.g.rename(d.b, "c.1")
    assert d.b.name == "c.1"
    assert d.g.unique_name("b") == "b"
    verify(d.g)


def test_outputs_have_names_of_their_own(d: Diamond) -> None:
    d.g.add_output("a", d.x)
    with pytest.raises(VerifyError, match="two outputs are called 'out'"):
        d.g.add_output("out", d.a)


# -- insertion and erasure --------------------------------------------------------------------------------------------


def test_insert_takes_layouts_and_nothing_else_from_types() -> None:
    g = Graph()
    x = g.add_input("x", f32(1, 8, 4, 4))
    w = g.add_constant(Constant("w", np.zeros((8, 8, 1, 1), np.float32)))
    blocked = f32(1, 8, 4, 4).with_layout(Layout(8))
    node = g.insert(Conv2d(), [x, w], types=[blocked])
    assert node.output.type == blocked
    with pytest.raises(VerifyError, match="conv2d: result type") as caught:
        g.insert(Conv2d(), [x, w], types=[f32(1, 8, 4, 5)])
    assert (caught.value.expected, caught.value.got) == ("f32[1,8,4,4]", "f32[1,8,4,5]")
    g.set_layout(node.output, Layout())
    assert node.output.type == f32(1, 8, 4, 4)


def test_operand_by_name() -> None:
    g = Graph()
    x = g.add_input("x", f32(1, 8, 4, 4))
    w = g.add_constant(Constant("w", np.zeros((8, 8, 1, 1), np.float32)))
    node = g.insert(Conv2d(), [x, w])
    assert node.operand("w") is w
    assert node.operand("bias") is None
    with pytest.raises(KeyError, match="conv2d declares no operand 'b'"):
        node.operand("b")


def test_insert_before(d: Diamond) -> None:
    node = d.g.insert(Relu(), [d.a], before=d.c.producer)
    assert [n.output.name for n in d.g.nodes] == ["a", "b", "relu", "c", "d"]
    assert d.g.index(node) == 2
    other = Diamond()
    with pytest.raises(ValueError, match="is not in graph @diamond"):
        d.g.index(other.g.nodes[0])


def test_erase_refuses_the_used(d: Diamond) -> None:
    for value in (d.a, d.d):
        assert value.producer is not None
        with pytest.raises(VerifyError, match=f"%{value.name} is still used"):
            d.g.erase(value.producer)
    with pytest.raises(VerifyError, match="%k is still used"):
        d.g.erase_constant(d.k)
    verify(d.g)


def test_erase_from_the_end(d: Diamond) -> None:
    d.g.outputs.clear()
    for node in reversed(list(d.g.nodes)):
        d.g.erase(node)
        verify(d.g)
    d.g.erase_constant(d.k)
    assert list(d.g.values()) == [d.x]
    assert d.x.users == []


# -- uses -------------------------------------------------------------------------------------------------------------


def test_users_count_every_read() -> None:
    g = Graph()
    x = g.add_input("x", f32(1))
    node = g.insert(Add(), [x, x])
    assert x.users == [node, node]
    assert g.sole_user(x) is None
    y = g.add_input("y", f32(1))
    g.set_input(node, 1, y)
    assert (x.users, y.users) == ([node], [node])
    assert g.sole_user(x) is node
    g.add_output("x", x)
    assert g.sole_user(x) is None
    g.replace_uses(x, y)
    assert (x.users, y.users, g.outputs) == ([], [node, node], [("x", y)])
    verify(g)


def test_replace_uses_spares_those_kept(d: Diamond) -> None:
    assert d.b.producer is not None
    d.g.replace_uses(d.a, d.x, keep=[d.b.producer])
    assert d.b.producer.inputs == [d.a]
    assert d.c.producer is not None
    assert d.c.producer.inputs == [d.x, d.k]
    verify(d.g)


def test_is_used(d: Diamond) -> None:
    assert d.g.is_used(d.d)
    assert d.g.is_output(d.d)
    assert not d.g.is_output(d.a)
    d.g.outputs.clear()
    assert not d.g.is_used(d.d)


# -- order ------------------------------------------------------------------------------------------------------------


def test_sort_moves_only_what_must_move(d: Diamond) -> None:
    a, b, c, last = d.g.nodes
    d.g.nodes = [last, c, a, b]
    d.g.sort()
    assert d.g.nodes == [a, c, b, last]
    d.g.sort()
    assert d.g.nodes == [a, c, b, last]
    verify(d.g)


def test_sort_finds_cycles(d: Diamond) -> None:
    before = list(d.g.nodes)
    d.g.set_input(before[0], 0, d.d)
    with pytest.raises(VerifyError, match="graph @diamond has a cycle"):
        d.g.sort()
    assert d.g.nodes == before


def test_networkx_has_an_edge_per_dependence(d: Diamond) -> None:
    net = d.g.to_networkx()
    names = {key: data["node"].output.name for key, data in net.nodes(data=True)}
    assert {(names[p], names[q]) for p, q in net.edges} == {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}


# -- whole graphs -----------------------------------------------------------------------------------------------------


def test_values_in_order_and_by_name(d: Diamond) -> None:
    assert [v.name for v in d.g.values()] == ["x", "k", "a", "b", "c", "d"]
    assert d.g.value("c") is d.c
    with pytest.raises(KeyError, match="zz"):
        d.g.value("zz")


def test_costs_add_up() -> None:
    g = Graph()
    x = g.add_input("x", f32(1, 3, 8, 8))
    w = g.add_constant(Constant("w", np.zeros((4, 3, 3, 3), np.float32)))
    b = g.add_constant(Constant("b", np.zeros(4, np.float32)))
    conv = g.insert(Conv2d(), [x, w, b])
    relu = g.insert(Relu(), [conv.output])
    out = 4 * 6 * 6
    assert (conv.macs, conv.flops, relu.flops) == (out * 27, out * (2 * 27 + 1), out)
    assert (g.macs, g.flops, g.parameters) == (out * 27, out * (2 * 27 + 2), 4 * 27 + 4)


def test_clone_shares_data_and_nothing_else(d: Diamond) -> None:
    d.g.meta["mean"] = [1, 2]
    other = d.g.clone()
    assert equal(d.g, other)
    verify(other)
    assert other.constants[0].constant is d.k.constant
    assert not {id(v) for v in d.g.values()} & {id(v) for v in other.values()}
    other.meta["mean"].append(3)
    other.replace_uses(other.value("d"), other.value("b"))
    other.erase(other.nodes[-1])
    assert d.g.meta == {"mean": [1, 2]}
    assert len(d.g.nodes) == 4
    verify(d.g)
    # Names that are taken stay taken.
    assert other.unique_name("a") == "a.1"


def test_copy_from_keeps_the_callers_reference(d: Diamond) -> None:
    target = Graph("other")
    target.copy_from(d.g)
    assert target.name == "diamond"
    assert equal(target, d.g)
    assert target.nodes[0] is not d.g.nodes[0]


def test_merged_sources_each_once_in_order() -> None:
    values = [Value("v", f32(), source) for source in (("a", "b"), (), ("b", "c"))]
    assert merged_sources(*values, extra={"a": None, "z": None}) == ("a", "b", "c", "z")


def test_str_is_the_text_form(d: Diamond) -> None:
    assert str(d.g).startswith("graph @diamond(%x: f32[2]) {\n")
    assert repr(d.g.nodes[2]) == "%c = add{}(%a, %k)"
    assert repr(d.a) == "%a: f32[2]"
