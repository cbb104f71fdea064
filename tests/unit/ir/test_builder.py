"""Typed construction."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.diagnostics import VerifyError
from sqzc.ir import Builder, Graph
from sqzc.ir.ops.elementwise import Add, Neg, Relu
from sqzc.ir.ops.shape import TopK
from sqzc.ir.types import f32
from sqzc.ir.verifier import verify


def test_add_infers_and_names() -> None:
    graph = Graph("g")
    b = Builder(graph)
    x = graph.add_input("x", f32(2, 3))
    y = b.add(Relu(), x, source=("old", "conv1"))
    z = b.add(Relu(), y)
    w = b.add(Relu(), z, name="w", source=("s",))
    assert [v.name for v in (y, z, w)] == ["conv1", "relu", "w"]
    assert y.type == f32(2, 3)
    assert y.source == ("old", "conv1")
    assert y.producer is graph.nodes[0]
    assert x.users == [graph.nodes[0]]
    verify(graph)


def test_add_refuses_what_does_not_fit() -> None:
    graph = Graph("g")
    x, y = graph.add_input("x", f32(2)), graph.add_input("y", f32(3))
    with pytest.raises(VerifyError, match="do not broadcast"):
        Builder(graph).add(Add(), x, y)
    assert graph.nodes == []
    assert x.users == []


def test_before_inserts_in_order() -> None:
    graph = Graph("g")
    x = graph.add_input("x", f32(2))
    last = Builder(graph).add(Relu(), x)
    b = Builder(graph, before=last.producer)
    b.add(Neg(), b.add(Neg(), x, name="first"), name="second")
    assert [node.output.name for node in graph.nodes] == ["first", "second", "relu"]


def test_constants_are_shared() -> None:
    graph = Graph("g")
    data = np.ones(3, np.float32)
    b = Builder(graph)
    value = b.constant("w", data, source=("blob",))
    assert np.shares_memory(value.data, data)
    assert (value.name, value.type, value.source) == ("w", f32(3), ("blob",))
    assert value.is_constant
    assert b.constant("w", data).name == "w.1"


def test_add_multi_gives_every_result() -> None:
    graph = Graph("g")
    x = graph.add_input("x", f32(4))
    values, places = Builder(graph).add_multi(TopK(k=2), x, sources=(("top",), ()))
    assert (values.name, places.name) == ("top", "topk")
    assert values.producer is places.producer
    with pytest.raises(AssertionError, match="topk has 2 results"):
        _ = graph.nodes[0].output
