"""Normalisations and per-channel operators."""

from __future__ import annotations

import math

import numpy as np

from sqzc.frontends.caffe2.env import NameEnv
from sqzc.frontends.caffe2.ops_elementwise import canonical_axis
from sqzc.frontends.caffe2.table import OpView, lift
from sqzc.ir import Builder, Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops.nn import BatchNorm, InstanceNorm, Lrn
from sqzc.ir.ops.shape import ReduceMean, ReduceSum


def _channel_image(op: OpView, env: NameEnv) -> tuple[Value, str]:
    """The first input with channels on axis 1, and the order to bind the result in."""
    order = op.order()
    rank = len(env.shape(op.inputs[0]))
    if rank < 2:
        raise op.error(f"{op.type} of a blob of rank {rank}", expected="rank at least 2")
    return (env.use(op.inputs[0]), "NCHW") if rank == 2 else (env.image(op.inputs[0], order), order)


def _per_channel(op: OpView, env: NameEnv, name: str, image: Value) -> Value:
    """A vector of one number per channel, shaped to broadcast over the image."""
    shape = env.shape(name)
    channels = image.type.shape[1]
    if math.prod(shape) != channels:
        raise op.error(f"blob '{name}' is not one number per channel", expected=f"[{channels}]", got=str(list(shape)))
    return env.aligned(name, (1, channels, *(1,) * (image.type.rank - 2)), tuple(range(image.type.rank)))


@lift("SpatialBN", inputs=5, outputs=(1, 5))
def lift_spatial_bn(op: OpView, env: NameEnv, b: Builder) -> None:
    """Batch normalisation with stored statistics: scale, bias, mean, variance."""
    if not op.args.flag("is_test", False):
        raise op.error(
            "the net is in its training form: SpatialBN without is_test",
            argument="is_test",
            expected="is_test: 1",
            hint="export the net for inference",
        )
    op.args.real("momentum", 0.9)
    op.args.integer("num_batches", 1)
    x, order = _channel_image(op, env)
    vectors = [env.use(name) for name in op.inputs[1:]]
    y = b.add(BatchNorm(eps=op.args.real("epsilon", 1e-5)), x, *vectors, source=op.source)
    env.bind_image(op.out, y, order)
    for name in op.outputs[1:]:
        # Exporters name the running statistics as outputs too: in test form those keep what they are.
        if name not in op.inputs:
            env.poison(name, "SpatialBN writes no statistics when is_test is 1")


@lift("InstanceNorm", inputs=3, outputs=(1, 3))
def lift_instance_norm(op: OpView, env: NameEnv, b: Builder) -> None:
    """Mean and variance per image and channel; side outputs are the mean and 1 / sqrt(variance + eps)."""
    x, order = _channel_image(op, env)
    eps = op.args.real("epsilon", 1e-5)
    y = b.add(InstanceNorm(eps=eps), x, env.use(op.inputs[1]), env.use(op.inputs[2]), source=op.source)
    env.bind_image(op.out, y, order)
    axes = tuple(range(2, x.type.rank))
    _bind_moments(op, env, b, x, axes, eps)


def _bind_moments(op: OpView, env: NameEnv, b: Builder, x: Value, axes: tuple[int, ...], eps: float) -> None:
    def mean() -> Value:
        return b.add(ReduceMean(axes=axes, keepdims=False), x, source=(op.outputs[1],))

    def inverse_deviation() -> Value:
        _, deviation, _ = moments(env, b, x, axes, eps, (op.outputs[2],))
        flat = tuple(dim for axis, dim in enumerate(x.type.shape) if axis not in axes)
        return b.add(ew.Reciprocal(), env.reshape(deviation, flat), source=(op.outputs[2],))

    if len(op.outputs) > 1:
        env.bind_lazy(op.outputs[1], mean)
    if len(op.outputs) > 2:
        env.bind_lazy(op.outputs[2], inverse_deviation)


def moments(
    env: NameEnv, b: Builder, x: Value, axes: tuple[int, ...], eps: float, source: tuple[str, ...]
) -> tuple[Value, Value, Value]:
    """(mean, sqrt(variance + eps), x - mean) over `axes`, which stay as ones."""
    mean = b.add(ReduceMean(axes=axes), x, source=source)
    centred = b.add(ew.Sub(), x, mean, source=source)
    squares = b.add(ew.Mul(), centred, centred, source=source)
    variance = b.add(ReduceMean(axes=axes), squares, source=source)
    shifted = b.add(ew.Add(), variance, env.number("eps", eps, x.type), source=source)
    return mean, b.add(ew.Sqrt(), shifted, source=source), centred


@lift("LayerNorm", inputs=(1, 3), outputs=(1, 3))
def lift_layer_norm(op: OpView, env: NameEnv, b: Builder) -> None:
    """Normalises over everything from `axis` on; further outputs are the mean and sqrt(variance + eps)."""
    x = env.use(op.inputs[0])
    axis = canonical_axis(op, op.args.integer("axis", 1), x.type.rank)
    axes = tuple(range(axis, x.type.rank))
    mean, deviation, centred = moments(env, b, x, axes, op.args.real("epsilon", 1e-5), op.source)
    y = b.add(ew.Div(), centred, deviation, source=op.source)
    if op.args.flag("elementwise_affine", False):
        if len(op.inputs) != 3:
            raise op.error("LayerNorm with elementwise_affine", expected="a scale and a bias as inputs")
        for name, ir in ((op.inputs[1], ew.Mul()), (op.inputs[2], ew.Add())):
            shape = (*(1,) * axis, *x.type.shape[axis:])
            y = b.add(ir, y, env.aligned(name, shape, tuple(range(x.type.rank))), source=op.source)
    env.bind(op.out, y)
    side_shape = (*x.type.shape[:axis], 1)
    for name, value in zip(op.outputs[1:], (mean, deviation), strict=False):
        env.bind_lazy(name, lambda value=value, name=name: env.reshape(value, side_shape, (name,)))  # type: ignore[misc]


@lift("GroupNorm", inputs=3, outputs=(1, 3))
def lift_group_norm(op: OpView, env: NameEnv, b: Builder) -> None:
    """Mean and variance per image and group of channels, then a scale and a bias per channel."""
    x, order = _channel_image(op, env)
    group = op.args.positive("group", 32)
    n, c = x.type.shape[:2]
    if c % group:
        raise op.error(f"{c} channels in {group} groups", argument="group")
    eps = op.args.real("epsilon", 1e-5)
    grouped = env.reshape(x, (n, group, x.type.elements // (n * group)), op.source)
    ones = b.constant("ones", np.ones(group, x.type.dtype.numpy))
    zeros = b.constant("zeros", np.zeros(group, x.type.dtype.numpy))
    normal = env.reshape(b.add(InstanceNorm(eps=eps), grouped, ones, zeros, source=op.source), x.type.shape, op.source)
    scaled = b.add(ew.Mul(), normal, _per_channel(op, env, op.inputs[1], x), source=op.source)
    y = b.add(ew.Add(), scaled, _per_channel(op, env, op.inputs[2], x), source=op.source)
    env.bind_image(op.out, y, order)
    _bind_moments(op, env, b, grouped, (2,), eps)


@lift("LRN", outputs=(1, 2))
def lift_lrn(op: OpView, env: NameEnv, b: Builder) -> None:
    """Across channels; alpha is divided by the window's size. The scale output is bias + alpha / size * sum."""
    order = op.order()
    args = op.args
    ir = Lrn(
        size=args.integer("size", 0),
        alpha=args.real("alpha", 0.0),
        beta=args.real("beta", 0.0),
        bias=args.real("bias", 1.0),
    )
    if ir.size % 2 == 0:
        raise op.unsupported(f"LRN over an even number of channels, {ir.size}")
    x = env.image(op.inputs[0], order)
    env.bind_image(op.out, b.add(ir, x, source=op.source), order)
    if len(op.outputs) > 1:
        env.poison(op.outputs[1], "the scale that LRN keeps for its gradient is not made for inference")


@lift("PRelu", inputs=2)
def lift_prelu(op: OpView, env: NameEnv, b: Builder) -> None:
    """The slope is one number, or one per channel."""
    slope = env.reshape(env.use(op.inputs[1]), (math.prod(env.shape(op.inputs[1])),))
    if slope.type.elements == 1:
        x = env.raw(op.inputs[0])
        env.bind(op.out, b.add(ew.Prelu(), x.value, slope, source=op.source), x.perm)
        return
    image, order = _channel_image(op, env)
    env.bind_image(op.out, b.add(ew.Prelu(), image, slope, source=op.source), order)


@lift("AffineChannel", inputs=3)
def lift_affine_channel(op: OpView, env: NameEnv, b: Builder) -> None:
    """x * scale + bias per channel."""
    op.args.flag("is_learnable", False)
    x, order = _channel_image(op, env)
    scaled = b.add(ew.Mul(), x, _per_channel(op, env, op.inputs[1], x), source=op.source)
    y = b.add(ew.Add(), scaled, _per_channel(op, env, op.inputs[2], x), source=op.source)
    env.bind_image(op.out, y, order)


@lift("Normalize", "NormalizeL1", outputs=(1, 2))
def lift_normalize(op: OpView, env: NameEnv, b: Builder) -> None:
    """x over its norm along an axis: Euclidean (kept above 1e-12), or the sum of magnitudes."""
    bound = env.raw(op.inputs[0])
    axis = bound.perm[canonical_axis(op, op.args.integer("axis", -1), len(bound.perm))]
    x = bound.value
    if op.type == "Normalize":
        squares = b.add(ew.Mul(), x, x, source=op.source)
        norm = b.add(ew.Sqrt(), b.add(ReduceSum(axes=(axis,)), squares, source=op.source), source=op.source)
        norm = b.add(ew.Clip(lo=1e-12), norm, source=op.source)
    else:
        norm = b.add(ReduceSum(axes=(axis,)), b.add(ew.Abs(), x, source=op.source), source=op.source)
    env.bind(op.out, b.add(ew.Div(), x, norm, source=op.source), bound.perm)
    if len(op.outputs) > 1:
        env.bind(op.outputs[1], norm, bound.perm)
