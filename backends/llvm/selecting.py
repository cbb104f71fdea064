"""Helpers shared by the families that run convolutions."""

from __future__ import annotations

from sqzc.backends.llvm.problems import ConvProblem, conv_problem_of
from sqzc.ir.constant import Array
from sqzc.ir.graph import Node
from sqzc.ir.ops.nn import Conv2d
from sqzc.plan.program import NO_BORDER, image_geometry
from sqzc.target import Target


def conv_arrays(node: Node) -> dict[str, Array]:
    """The raw weight `w` and bias `b` (where there is one) of a convolution with constant weights."""
    arrays = {"w": node.inputs[1].data}
    bias = node.operand("bias")
    if bias is not None:
        arrays["b"] = bias.data
    return arrays


def conv_facts(node: Node) -> dict[str, int | str]:
    """Filter size: it is in the packed weights, but not to be read from them."""
    _, _, kh, kw = node.inputs[1].type.shape
    return {"kh": kh, "kw": kw}


def expected_problem(node: Node, target: Target) -> ConvProblem:
    """The convolution of a node as it will be if neither image gets a border or becomes a slice."""
    assert isinstance(node.op, Conv2d)
    x, y = node.inputs[0].type, node.output.type
    kh, kw = node.inputs[1].type.shape[2:]
    geometry = image_geometry(x, NO_BORDER), image_geometry(y, NO_BORDER)
    return conv_problem_of(node.op, x, y.shape[1], (kh, kw), target.vector_lanes, *geometry, None)
