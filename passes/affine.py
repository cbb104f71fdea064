"""Per-channel affine maps, and folding them into the weights before or after them.

Everything is computed in float64 and rounded once to the weights' own type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sqzc.ir.constant import Array
from sqzc.ir.graph import Node, Value
from sqzc.ir.ops import elementwise, nn
from sqzc.passes.rewriting import constant_operand, rounded


@dataclass(frozen=True)
class Affine:
    """y[n, c, ...] = scale[c] * x[n, c, ...] + shift[c]; float64 vectors with one number per channel (axis 1)."""

    x: Value
    scale: Array
    shift: Array


def affine_of(node: Node) -> Affine | None:
    """The affine map that `node` computes, or None when it is no such map with finite constants."""
    found = _batch_norm(node) if isinstance(node.op, nn.BatchNorm) else _arithmetic(node)
    if found is None or not (np.isfinite(found.scale).all() and np.isfinite(found.shift).all()):
        return None
    return found


def compose(outer: Affine, inner: Affine) -> Affine:
    """outer(inner(x))."""
    return Affine(inner.x, outer.scale * inner.scale, outer.scale * inner.shift + outer.shift)


def _batch_norm(node: Node) -> Affine | None:
    assert isinstance(node.op, nn.BatchNorm)
    x, *vectors = node.inputs
    if x.is_constant or not x.type.dtype.is_float or not all(v.is_constant for v in vectors):
        return None
    scale, bias, mean, var = (np.asarray(v.data, dtype=np.float64) for v in vectors)
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(var + node.op.eps)
        return Affine(x, factor, bias - factor * mean)


def _arithmetic(node: Node) -> Affine | None:
    pair = constant_operand(node)
    if pair is None:
        return None
    x, constant = pair
    vector = channel_vector(x, constant)
    if vector is None or node.output.type.shape != x.type.shape:
        return None
    ones, zeros = np.ones_like(vector), np.zeros_like(vector)
    left = node.inputs[0] is constant
    op = node.op
    if isinstance(op, elementwise.Add):
        return Affine(x, ones, vector)
    if isinstance(op, elementwise.Sub):
        return Affine(x, -ones, vector) if left else Affine(x, ones, -vector)
    if isinstance(op, elementwise.Mul):
        return Affine(x, vector, zeros)
    if isinstance(op, elementwise.Div) and not left and bool(np.all(vector != 0)):
        return Affine(x, 1.0 / vector, zeros)
    return None


def channel_vector(x: Value, constant: Value) -> Array | None:
    """A constant that numpy's broadcasting spreads along channels (axis 1) of `x` only, as float64 [C]; else None."""
    if not x.type.dtype.is_float or x.type.rank < 2 or constant.type.rank > x.type.rank:
        return None
    shape = (1,) * (x.type.rank - constant.type.rank) + constant.type.shape
    if any(dim != 1 for axis, dim in enumerate(shape) if axis != 1) or shape[1] not in (1, x.type.shape[1]):
        return None
    flat = np.asarray(constant.data, dtype=np.float64).ravel()
    return np.array(np.broadcast_to(flat, (x.type.shape[1],)))


def weights_of(node: Node) -> tuple[Array, Array] | None:
    """(weight, bias) of a conv2d, conv_transpose2d or linear in float64, zeros for no bias; None unless constant."""
    weight, bias = node.operand("w"), node.operand("bias")
    assert weight is not None
    if not weight.is_constant or not weight.type.dtype.is_float or (bias is not None and not bias.is_constant):
        return None
    w = np.asarray(weight.data, dtype=np.float64)
    if bias is not None:
        return w, np.asarray(bias.data, dtype=np.float64)
    return w, np.zeros(node.output.type.shape[1])


def fold_after(node: Node, scale: Array, shift: Array) -> tuple[Array, Array] | None:
    """Weight and bias that make `node` compute scale * y + shift; None when they would leave the weights' range."""
    pair = weights_of(node)
    if pair is None:
        return None
    w, b = pair
    if isinstance(node.op, nn.ConvTranspose2d):
        group = node.op.group
        grouped = w.reshape(group, w.shape[0] // group, *w.shape[1:])
        w = (grouped * scale.reshape(group, 1, -1, 1, 1)).reshape(w.shape)
    else:
        w = w * scale.reshape(-1, *(1,) * (w.ndim - 1))
    return _rounded_pair(node, w, b * scale + shift)


def fold_before(node: Node, scale: Array, shift: Array) -> tuple[Array, Array] | None:
    """Weight and bias that make a conv2d or linear read x where it read scale * x + shift, padding aside."""
    pair = weights_of(node)
    if pair is None:
        return None
    w, b = pair
    group = node.op.group if isinstance(node.op, nn.Conv2d) else 1
    grouped = w.reshape(group, w.shape[0] // group, *w.shape[1:])
    tail = (1,) * (w.ndim - 2)
    scaled = (grouped * scale.reshape(group, 1, -1, *tail)).reshape(w.shape)
    added = (grouped * shift.reshape(group, 1, -1, *tail)).reshape(w.shape[0], -1).sum(axis=1)
    return _rounded_pair(node, scaled, b + added)


def _rounded_pair(node: Node, w: Array, b: Array) -> tuple[Array, Array] | None:
    dtype = node.inputs[1].type.dtype.numpy
    weight, bias = rounded(w, dtype), rounded(b, dtype)
    return None if weight is None or bias is None else (weight, bias)
