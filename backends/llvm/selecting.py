"""Helpers shared by the families that run convolutions."""

from __future__ import annotations

from sqzc.ir.constant import Array
from sqzc.ir.graph import Node


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
