"""Normalisations."""

from __future__ import annotations

import math

import numpy as np

from sqzc.frontends.onnx.ops_elementwise import cast
from sqzc.frontends.onnx.table import OpView, Results, lift
from sqzc.ir import Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops.nn import BatchNorm, InstanceNorm, Lrn
from sqzc.ir.ops.shape import ReduceMean, ReduceSum
from sqzc.ir.types import DType


def per_channel(op: OpView, vector: Value, rank: int) -> Value:
    """A vector shaped to broadcast along axis 1 of a tensor of `rank` axes."""
    return op.reshape(vector, (1, vector.type.elements, *(1,) * (rank - 2)))


def centred(op: OpView, x: Value, axes: tuple[int, ...]) -> tuple[Value, Value, Value]:
    """(mean, variance, x - mean) over `axes`, which stay as ones."""
    mean = op.add(ReduceMean(axes=axes), x)
    rest = op.add(ew.Sub(), x, mean)
    return mean, op.add(ReduceMean(axes=axes), op.add(ew.Mul(), rest, rest)), rest


def deviation(op: OpView, variance: Value, eps: float) -> Value:
    """sqrt(variance + eps)."""
    return op.add(ew.Sqrt(), op.add(ew.Add(), variance, op.number(eps, variance, "eps")))


@lift("BatchNormalization", since=7)
def lift_batch_norm(op: OpView) -> Results:
    """With stored statistics; in training mode with those of the batch, and the moved averages as further outputs."""
    x = op.input(0)
    if x.type.rank < 2:
        raise op.unsupported(f"BatchNormalization of a tensor of rank {x.type.rank}")
    eps, momentum = op.attrs.real("epsilon", 1e-5), op.attrs.real("momentum", 0.9)
    training = op.attrs.flag("training_mode", False) if op.opset >= 14 else op.wants(1)
    if op.opset < 9 and not op.attrs.flag("spatial", True):
        raise op.unsupported("BatchNormalization with a scale for every pixel")
    if op.opset < 14 and training:
        raise op.unsupported("BatchNormalization in training mode, before opset 14")
    scale, bias, mean, variance = (cast(op, op.input(index), x.type.dtype) for index in range(1, 5))
    if not training:
        return op.add(BatchNorm(eps=eps), x, scale, bias, mean, variance)
    axes = (0, *range(2, x.type.rank))
    batch_mean, batch_variance, _ = centred(op, x, axes)
    channels = (x.type.shape[1],)
    batch = [op.reshape(part, channels) for part in (batch_mean, batch_variance)]
    y = op.add(BatchNorm(eps=eps), x, scale, bias, *batch)
    return y, *(_moved(op, old, new, momentum) for old, new in zip((mean, variance), batch, strict=True))


def _moved(op: OpView, old: Value, new: Value, momentum: float) -> Value:
    kept = op.add(ew.Mul(), old, op.number(momentum, old, "momentum"))
    return op.add(ew.Add(), kept, op.add(ew.Mul(), new, op.number(1 - momentum, new, "1-momentum")))


@lift("InstanceNormalization", since=1)
def lift_instance_norm(op: OpView) -> Value:
    """Mean and variance per image and channel."""
    return op.add(InstanceNorm(eps=op.attrs.real("epsilon", 1e-5)), op.input(0), op.input(1), op.input(2))


@lift("LayerNormalization", since=17)
def lift_layer_norm(op: OpView) -> Results:
    """Over everything from `axis` on; further outputs are the mean and 1 / sqrt(variance + eps).

    Statistics are kept in `stash_type`: single precision where the tensor has less.
    """
    x = op.input(0)
    axis = op.axis(op.attrs.integer("axis", -1), x.type.rank)
    eps = op.attrs.real("epsilon", 1e-5)
    y = _wide(op, x)
    mean, variance, rest = centred(op, y, tuple(range(axis, x.type.rank)))
    inverse = op.add(ew.Reciprocal(), deviation(op, variance, eps))
    y = cast(op, op.add(ew.Mul(), rest, inverse), x.type.dtype)
    y = op.add(ew.Mul(), y, op.input(1))
    bias = op.optional(2)
    if bias is not None:
        y = op.add(ew.Add(), y, bias)
    return y, mean, inverse


def _wide(op: OpView, x: Value) -> Value:
    """x in the type of `stash_type`, unless it is wider already."""
    stash = op.attrs.integer("stash_type", 1)
    if stash not in (1, 10, 11, 16):
        raise op.error(f"stash_type {stash}", expected="a floating point type")
    return cast(op, x, DType.F32) if x.type.dtype is DType.F16 else x


@lift("RMSNormalization", since=23)
def lift_rms_norm(op: OpView) -> Value:
    """x / sqrt(mean(x^2) + eps) * scale over everything from `axis` on."""
    x = op.input(0)
    axis = op.axis(op.attrs.integer("axis", -1), x.type.rank)
    y = _wide(op, x)
    mean = op.add(ReduceMean(axes=tuple(range(axis, x.type.rank))), op.add(ew.Mul(), y, y))
    y = op.add(ew.Div(), y, deviation(op, mean, op.attrs.real("epsilon", 1e-5)))
    return op.add(ew.Mul(), cast(op, y, x.type.dtype), op.input(1))


def _grouped(op: OpView, x: Value, groups: int) -> Value:
    """x normalised over each group of channels, in its own shape."""
    op.attrs.integer("stash_type", 1)
    n, c = x.type.shape[:2]
    if groups < 1 or c % groups:
        raise op.error(f"{c} channels in {groups} groups")
    flat = op.reshape(x, (n, groups, math.prod(x.type.shape[1:]) // groups))
    dtype = x.type.dtype.numpy
    ones, zeros = op.constant(np.ones(groups, dtype), "ones"), op.constant(np.zeros(groups, dtype), "zeros")
    ir = InstanceNorm(eps=op.attrs.real("epsilon", 1e-5))
    return op.reshape(op.add(ir, flat, ones, zeros), x.type.shape)


@lift("GroupNormalization", since=18)
def lift_group_norm_by_group(op: OpView) -> Value:
    """Scale and bias have one number for each group."""
    x, groups = op.input(0), op.attrs.integer("num_groups", 0)
    y = _grouped(op, x, groups)
    wide = (*x.type.shape[:1], groups, math.prod(x.type.shape[1:]) // groups)
    y = op.reshape(y, wide)
    y = op.add(ew.Mul(), y, op.reshape(op.input(1), (1, groups, 1)))
    return op.reshape(op.add(ew.Add(), y, op.reshape(op.input(2), (1, groups, 1))), x.type.shape)


@lift("GroupNormalization", since=21)
def lift_group_norm(op: OpView) -> Value:
    """Scale and bias have one number for each channel."""
    x, groups = op.input(0), op.attrs.integer("num_groups", 0)
    y = op.add(ew.Mul(), _grouped(op, x, groups), per_channel(op, op.input(1), x.type.rank))
    return op.add(ew.Add(), y, per_channel(op, op.input(2), x.type.rank))


@lift("LRN", since=1)
def lift_lrn(op: OpView) -> Value:
    """Across channels; alpha is divided by the size."""
    x = op.input(0)
    if x.type.rank < 2:
        raise op.unsupported(f"LRN of a tensor of rank {x.type.rank}")
    ir = Lrn(
        size=op.attrs.integer("size", 0),
        alpha=op.attrs.real("alpha", 1e-4),
        beta=op.attrs.real("beta", 0.75),
        bias=op.attrs.real("bias", 1.0),
    )
    n, c, *rest = x.type.shape
    image = x if x.type.rank == 4 else op.reshape(x, (n, c, 1, math.prod(rest)))
    return op.reshape(op.add(ir, image), x.type.shape)


@lift("LpNormalization", since=1)
def lift_lp_norm(op: OpView) -> Value:
    """x over its norm along one axis: sum of magnitudes, or Euclidean. 0 where the norm is 0."""
    x, p = op.input(0), op.attrs.integer("p", 2)
    axis = op.axis(op.attrs.integer("axis", -1), x.type.rank)
    if p not in (1, 2):
        raise op.error(f"'p' is {p}", expected="1 or 2")
    powers = op.add(ew.Abs(), x) if p == 1 else op.add(ew.Mul(), x, x)
    norm = op.add(ReduceSum(axes=(axis,)), powers)
    if p == 2:
        norm = op.add(ew.Sqrt(), norm)
    zero = op.number(0, norm, "zero")
    none = op.add(ew.Equal(), norm, zero)
    safe = op.add(ew.Where(), none, op.number(1, norm, "one"), norm)
    return op.add(ew.Where(), none, zero, op.add(ew.Div(), x, safe))


@lift("MeanVarianceNormalization", since=9)
def lift_mean_variance(op: OpView) -> Value:
    """(x - mean) / (sqrt(variance) + 1e-9) over `axes`, all but the channels by default."""
    x = op.input(0)
    axes = op.axes(op.attrs.ints("axes") or (0, 2, 3), x.type.rank)
    _, variance, rest = centred(op, x, axes)
    spread = op.add(ew.Add(), op.add(ew.Sqrt(), variance), op.number(1e-9, x, "eps"))
    return op.add(ew.Div(), rest, spread)
