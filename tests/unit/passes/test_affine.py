"""Per-channel affine maps: recognised, composed, and folded exactly."""

from __future__ import annotations

import numpy as np
import pytest
from golden.runner import manager, parse

from sqzc.backends.reference import evaluate
from sqzc.ir import Builder, Graph
from sqzc.ir.ops import elementwise, nn
from sqzc.ir.types import f32
from sqzc.passes.affine import affine_of, compose


def node_of(line: str, constants: str, shape: str = "1,2,3,3"):  # type: ignore[no-untyped-def]
    graph = parse(f"graph @g(%x: f32[{shape}]) {{\n{constants}\n{line}\nyield %y }}")
    return graph.nodes[-1]


@pytest.mark.parametrize(
    ("line", "constant", "scale", "shift"),
    [
        ("add(%x, %c)", "[1.0, 2.0] : f32[2,1,1]", [1, 1], [1, 2]),
        ("add(%c, %x)", "[1.0, 2.0] : f32[1,2,1,1]", [1, 1], [1, 2]),
        ("sub(%x, %c)", "[1.0, 2.0] : f32[2,1,1]", [1, 1], [-1, -2]),
        ("sub(%c, %x)", "[1.0, 2.0] : f32[2,1,1]", [-1, -1], [1, 2]),
        ("mul(%x, %c)", "[3.0] : f32[1]", [3, 3], [0, 0]),
        ("mul(%c, %x)", "[3.0] : f32[]", [3, 3], [0, 0]),
        ("div(%x, %c)", "[2.0, 4.0] : f32[2,1,1]", [0.5, 0.25], [0, 0]),
    ],
)
def test_recognises(line: str, constant: str, scale: list[float], shift: list[float]) -> None:
    found = affine_of(node_of(f"%y = {line} : f32[1,2,3,3]", f"const %c = {constant}"))
    assert found is not None
    np.testing.assert_array_equal(found.scale, scale)
    np.testing.assert_array_equal(found.shift, shift)


@pytest.mark.parametrize(
    ("line", "constant", "type"),
    [
        ("div(%c, %x)", "[2.0] : f32[1]", "f32[1,2,3,3]"),
        ("div(%x, %c)", "[2.0, 0.0] : f32[2,1,1]", "f32[1,2,3,3]"),
        ("add(%x, %c)", "[1.0, 2.0, 3.0] : f32[3]", "f32[1,2,3,3]"),
        ("add(%x, %c)", "[1.0, 2.0] : f32[2,1,1,1]", "f32[2,2,3,3]"),
        ("mul(%x, %c)", "[inf] : f32[1]", "f32[1,2,3,3]"),
        ("maximum(%x, %c)", "[1.0] : f32[1]", "f32[1,2,3,3]"),
        ("add(%x, %x)", "[1.0] : f32[1]", "f32[1,2,3,3]"),
        ("add(%c, %c)", "[1.0] : f32[1]", "f32[1]"),
    ],
)
def test_leaves_alone(line: str, constant: str, type: str) -> None:
    assert affine_of(node_of(f"%y = {line} : {type}", f"const %c = {constant}")) is None


def test_rank_two_has_channels_last() -> None:
    found = affine_of(node_of("%y = add(%x, %c) : f32[3,2]", "const %c = [1.0, 2.0] : f32[2]", "3,2"))
    assert found is not None
    np.testing.assert_array_equal(found.shift, [1, 2])


def test_batch_norm_and_composition() -> None:
    constants = "\n".join(f"const %{n} = [{v}] : f32[1]" for n, v in dict(g="2.0", b="1.0", m="3.0", v="15.0").items())
    norm = affine_of(node_of("%y = batch_norm(%x, %g, %b, %m, %v) {eps=1.0} : f32[1,1,2,2]", constants, "1,1,2,2"))
    assert norm is not None
    assert (norm.scale[0], norm.shift[0]) == (0.5, -0.5)
    twice = compose(norm, norm)
    assert (twice.scale[0], twice.shift[0]) == (0.25, -0.75)


def test_negative_variance_is_no_map() -> None:
    constants = "\n".join(f"const %{n} = [{v}] : f32[1]" for n, v in dict(g="2.0", b="1.0", m="3.0", v="-1.0").items())
    assert affine_of(node_of("%y = batch_norm(%x, %g, %b, %m, %v) : f32[1,1,2,2]", constants, "1,1,2,2")) is None


def conv_graph(pads: tuple[int, int, int, int], means: list[float], group: int = 1) -> Graph:
    """x - means, then a convolution of random weights without a bias."""
    rng = np.random.default_rng(7)
    graph = Graph("g")
    b = Builder(graph)
    x = graph.add_input("x", f32(2, len(means), 7, 6))
    c = b.constant("mean", np.array(means, np.float32).reshape(-1, 1, 1))
    w = b.constant("w", rng.normal(size=(6, len(means) // group, 3, 2)).astype(np.float32))
    y = b.add(nn.Conv2d(pads=pads, group=group, stride=(2, 1)), b.add(elementwise.Sub(), x, c), w)
    graph.add_output("y", y)
    return graph


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize(("pads", "means", "folds"), [
    ((0, 0, 0, 0), [104.0, 117.0, 124.0, 99.0], True),
    ((1, 0, 2, 1), [104.0, 104.0, 104.0, 104.0], True),
    ((1, 0, 2, 1), [104.0, 117.0, 124.0, 99.0], False),
])  # fmt: skip
def test_mean_is_exact_with_and_without_padding(
    pads: tuple[int, int, int, int], means: list[float], folds: bool, group: int
) -> None:
    graph = conv_graph(pads, means, group)
    x = np.random.default_rng(0).uniform(0, 255, graph.inputs[0].type.shape).astype(np.float32)
    before = evaluate(graph, {"x": x}, dtype="float64")["y"]
    (record,) = manager("fold-mean").run(graph)
    assert record.changed is folds
    assert ("sub" in [node.op.name for node in graph.nodes]) is not folds
    after = evaluate(graph, {"x": x}, dtype="float64")["y"]
    # The new bias of some thousands is rounded to float32 once.
    np.testing.assert_allclose(after, before, rtol=0, atol=5e-4)


def test_folding_rounds_once() -> None:
    """Weights come out as float64 arithmetic rounded at the end, not as a chain of float32 operations."""
    rng = np.random.default_rng(3)
    graph = Graph("g")
    b = Builder(graph)
    x = graph.add_input("x", f32(1, 3, 5, 5))
    w, *vectors = (rng.uniform(0.1, 3, s).astype(np.float32) for s in ((64, 3, 3, 3), 64, 64, 64, 64, 64))
    conv = b.add(nn.Conv2d(), x, b.constant("w", w), b.constant("b", vectors[0]))
    names = ("gain", "offset", "mean", "var")
    norm = b.add(nn.BatchNorm(), conv, *(b.constant(n, v) for n, v in zip(names, vectors[1:], strict=True)))
    graph.add_output("y", norm)
    manager("fold-batch-norm").run(graph)
    bias, gain, offset, mean, var = (v.astype(np.float64) for v in vectors)
    factor = gain / np.sqrt(var + 1e-5)
    (node,) = graph.nodes
    np.testing.assert_array_equal(node.inputs[1].data, (w * factor[:, None, None, None]).astype(np.float32))
    wanted = (bias * factor + (offset - factor * mean)).astype(np.float32)
    np.testing.assert_array_equal(node.inputs[2].data, wanted)
