"""The first difference of two graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sqzc.ir import Graph
from sqzc.ir.equality import equal, first_difference
from sqzc.ir.ops.elementwise import Neg, Relu
from sqzc.ir.parser import parse_graph

BIG = np.arange(20, dtype=np.float32)
TEXT = """graph @g(%x: f32[20]) {
  meta "k" = [1]
  const %w = @w : f32[20]
  const %v = @v : f32[20]
  %a = add(%x, %w) : f32[20] @"A"
  %b = mul(%a, %v) : f32[20]
  %c = clip(%b) {lo=0.0} : f32[20]
  yield %c as "out"
}"""


def graph(text: str = TEXT, w: np.ndarray = BIG, v: np.ndarray = BIG) -> Graph:
    return parse_graph(text, {"w": w, "v": v})


def change(old: str, new: str) -> Callable[[], Graph]:
    assert TEXT.count(old) == 1
    return lambda: graph(TEXT.replace(old, new))


DIFFERENT: list[tuple[Callable[[], Graph], str]] = [
    (change("[1]", "[2]"), "meta 'k' differs: [1] and [2]"),
    (change('meta "k" = [1]', ""), "meta 'k' differs: [1] and None"),
    (change('"out"', '"put"'), "outputs differ in name"),
    (lambda: graph(TEXT.replace("%x", "%y")), "inputs differ: [%x: f32[20]] and [%y: f32[20]]"),
    (change("add(", "sub("), "%a = add{}(%x, %w) and %a = sub{}(%x, %w) are different ops"),
    (change("lo=0.0", "lo=-0.0"), "%c = clip{lo=0.0}(%b) and %c = clip{lo=-0.0}(%b) are different ops"),
    (change("(%a, %v)", "(%v, %a)"), "%b = mul{}(%a, %v) reads %a, %b = mul{}(%v, %a) reads %v"),
    (change("(%a, %v)", "(%x, %v)"), "%b = mul{}(%a, %v) reads %a, %b = mul{}(%x, %v) reads %x"),
    (lambda: graph(v=BIG + 1), "%b = mul{}(%a, %v) reads %v, %b = mul{}(%a, %v) reads %v"),
    (change('@"A"', '@"B"'), "%a comes from ('A',) and %a from ('B',)"),
    (change('@"A"', ""), "%a comes from ('A',) and %a from ()"),
    (change("yield", "%d = neg(%c) : f32[20] yield"), "3 nodes and 4; the first extra one is %d = neg{}(%c)"),
    (change('%c as "out"', '%b as "out"'), "output 'out' is %c and %b"),
]


@pytest.mark.parametrize(("other", "words"), DIFFERENT, ids=[words for _, words in DIFFERENT])
def test_each_difference_is_named(other: Callable[[], Graph], words: str) -> None:
    assert first_difference(graph(), other()) == words
    assert not equal(graph(), other())
    assert not equal(other(), graph())


def test_ssa_names_symbols_and_copies_of_data_do_not_count() -> None:
    other = parse_graph(
        TEXT.replace("%a", "%q").replace("@w", "@blob").replace("graph @g", "graph @h"),
        {"blob": BIG.copy(), "v": BIG},
    )
    assert first_difference(graph(), other) is None


def test_unread_constants_do_not_count() -> None:
    assert equal(graph(), graph(TEXT.replace("  const %w", "  const %u = [1.0] : f32[1]\n  const %w")))


def test_sources_and_meta_may_be_left_aside() -> None:
    other = change('@"A"', '@"B"')()
    other.meta = {}
    assert not equal(graph(), other)
    assert equal(graph(), other, sources=False)


def test_types_count_even_where_ops_agree() -> None:
    text = "graph @g(%x: f32[1,8,2,2]) {{ %y = relayout(%x) : f32[1,8,2,2]{} yield %y }}"
    a, b = parse_graph(text.format(":nchw8c")), parse_graph(text.format(":nchw4c"))
    assert first_difference(a, b) == "%y is f32[1,8,2,2]:nchw8c and %y is f32[1,8,2,2]:nchw4c"


def test_operand_numbers_count() -> None:
    a, b = (
        parse_graph(f"graph @g(%x: f32[1]) {{ %y = concat({xs}) {{axis=0}} : f32[{n}] yield %y }}")
        for xs, n in (("%x", 1), ("%x, %x", 2))
    )
    assert str(first_difference(a, b)).endswith("have different numbers of operands")


def test_order_of_independent_nodes_counts_by_definition() -> None:
    def made(*ops: type) -> Graph:
        g = Graph("g")
        x = g.add_input("x", graph().inputs[0].type)
        for op in ops:
            g.add_output(op.__name__, g.insert(op(), [x]).output)
        return g

    assert equal(made(Relu, Neg), made(Relu, Neg))
    assert not equal(made(Relu, Neg), made(Neg, Relu))
