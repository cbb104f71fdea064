"""Operators that join, cut and rearrange blobs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sqzc.frontends.caffe2.env import NameEnv, Perm
from sqzc.frontends.caffe2.ops_elementwise import canonical_axis
from sqzc.frontends.caffe2.table import ANY, OpView, lift
from sqzc.ir import Builder, Value
from sqzc.ir.ops.elementwise import Cast
from sqzc.ir.ops.shape import Concat, Expand, Gather, Slice, Transpose
from sqzc.ir.types import DType


def _channel_axis(op: OpView, rank: int) -> int:
    """The axis that Concat and Split take by default."""
    return 1 if op.order() == "NCHW" else rank - 1


@lift("Concat", "DepthConcat", inputs=(1, ANY), outputs=(1, 2))
def lift_concat(op: OpView, env: NameEnv, b: Builder) -> None:
    """Along the channel axis by default; `add_axis` joins along a new axis. The second output is the sizes."""
    rank = len(env.shape(op.inputs[0]))
    add_axis = op.args.flag("add_axis", False)
    default = _channel_axis(op, rank)
    axis = canonical_axis(op, op.args.integer("axis", default), rank + add_axis)
    perm: Perm
    if add_axis:
        perm, values, sizes = tuple(range(rank + 1)), [], [1] * len(op.inputs)
        for name in op.inputs:
            shape = env.shape(name)
            values.append(env.aligned(name, (*shape[:axis], 1, *shape[axis:]), tuple(range(len(shape) + 1))))
    else:
        perm = next((env.raw(n).perm for n in op.inputs if not env.is_known(n)), tuple(range(rank)))
        sizes = []
        for name in op.inputs:
            shape = env.shape(name)
            if len(shape) != rank:
                raise op.error("Concat of blobs of different ranks", got=f"{rank} and {len(shape)}")
            sizes.append(shape[axis])
        values = [env.aligned(name, env.shape(name), perm) for name in op.inputs]
    env.bind(op.out, b.add(Concat(axis=perm[axis]), *values, source=op.source), perm)
    if len(op.outputs) > 1:
        env.bind_array(op.outputs[1], np.asarray(sizes, np.int32))


@lift("Split", "DepthSplit", inputs=(1, 2), outputs=(1, ANY))
def lift_split(op: OpView, env: NameEnv, b: Builder) -> None:
    """Into parts of the sizes given by `split` or a second blob, else into equal parts.

    `add_axis`, which only counts beside `axis`, undoes that of Concat: parts of one element lose the axis.
    """
    shape = env.shape(op.inputs[0])
    drop_axis = op.args.flag("add_axis", False) and op.args.has("axis")
    default = _channel_axis(op, len(shape))
    axis = canonical_axis(op, op.args.integer("axis", default), len(shape))
    sizes: Sequence[int] | None = op.args.ints("split")
    if len(op.inputs) == 2:
        sizes = env.known_ints(op.inputs[1], "the sizes of Split's parts")
    count = len(op.outputs)
    if not sizes:
        if shape[axis] % count:
            raise op.error(f"{shape[axis]} elements along axis {axis} do not split into {count} equal parts")
        sizes = [shape[axis] // count] * count
    if len(sizes) != count or sum(sizes) != shape[axis] or min(sizes) < 1:
        raise op.error(
            f"parts of sizes {list(sizes)}", expected=f"{count} positive numbers with a sum of {shape[axis]}"
        )
    if drop_axis and set(sizes) != {1}:
        raise op.error(f"add_axis with parts of sizes {list(sizes)}", argument="add_axis", expected="one element each")
    bound = env.raw(op.inputs[0])
    start = 0
    for name, size in zip(op.outputs, sizes, strict=True):
        if drop_axis:
            part = _cut(b, env.use(op.inputs[0]), axis, start, size, (name,))
            env.bind(name, env.reshape(part, (*shape[:axis], *shape[axis + 1 :]), (name,)))
            start += size
            continue
        env.bind(name, _cut(b, bound.value, bound.perm[axis], start, size, (name,)), bound.perm)
        start += size


def _cut(b: Builder, value: Value, axis: int, start: int, size: int, source: tuple[str, ...]) -> Value:
    starts = [0] * value.type.rank
    sizes = list(value.type.shape)
    starts[axis], sizes[axis] = start, size
    return b.add(Slice(starts=tuple(starts), sizes=tuple(sizes)), value, source=source)


@lift("Slice", inputs=(1, 3))
def lift_slice(op: OpView, env: NameEnv, b: Builder) -> None:
    """Cuts along one axis. An end of -1 is the very end, -2 leaves the last element out."""
    shape = env.shape(op.inputs[0])
    if len(op.inputs) == 2:
        raise op.error("Slice with 2 inputs", expected="1, or 3 with starts and ends")
    if len(op.inputs) == 3:
        starts = env.known_ints(op.inputs[1], "where Slice starts")
        ends = env.known_ints(op.inputs[2], "where Slice ends")
    else:
        op.args.require("starts")
        op.args.require("ends")
        starts, ends = list(op.args.ints("starts") or ()), list(op.args.ints("ends") or ())
    if len(starts) != len(ends) or len(starts) > len(shape) or not shape:
        raise op.error(f"Slice with {len(starts)} starts and {len(ends)} ends of a blob of rank {len(shape)}")
    cuts = []
    for axis, (start, end) in enumerate(zip(starts, ends, strict=True)):
        dim = shape[axis]
        first, last = (min(dim, value if value >= 0 else dim + 1 + value) for value in (start, end))
        if first < 0 or last <= first:
            raise op.error(f"Slice from {start} to {end} along axis {axis}", got=f"shape {list(shape)}")
        if (first, last) != (0, dim):
            cuts.append((axis, first, last - first))
    if len(cuts) > 1:
        raise op.error("Slice cuts along one axis only", got=f"axes {[axis for axis, _, _ in cuts]}")
    bound = env.raw(op.inputs[0])
    axis, first, size = cuts[0] if cuts else (0, 0, shape[0])
    env.bind(op.out, _cut(b, bound.value, bound.perm[axis], first, size, op.source), bound.perm)


@lift("Reshape", inputs=(1, 2), outputs=(1, 2))
def lift_reshape(op: OpView, env: NameEnv, b: Builder) -> None:
    """To a shape with at most one -1 (the rest) and zeros (as before). The second output is the old shape."""
    old = env.shape(op.inputs[0])
    shape: list[int] | None = None if not op.args.has("shape") else list(op.args.ints("shape") or ())
    old_dtype: np.dtype[np.generic] = np.dtype(np.int64)
    if len(op.inputs) == 2:
        shape = env.known_ints(op.inputs[1], "the shape for Reshape")
        old_dtype = env.type(op.inputs[1]).dtype.numpy
    if shape is None:
        raise op.error("argument 'shape' is missing")
    env.bind(op.out, env.reshape(env.use(op.inputs[0]), _resolved(op, old, shape), op.source))
    if len(op.outputs) > 1:
        env.bind_array(op.outputs[1], np.asarray(old, old_dtype))


def _resolved(op: OpView, old: tuple[int, ...], wanted: list[int]) -> tuple[int, ...]:
    shape = list(wanted)
    good = len(shape) <= 8 and shape.count(-1) <= 1 and all(dim >= -1 for dim in shape)
    for axis, dim in enumerate(shape):
        if dim == 0:
            good = good and axis < len(old)
            shape[axis] = old[axis] if axis < len(old) else 0
    rest = math.prod(dim for dim in shape if dim != -1)
    if -1 in shape:
        good = good and rest > 0 and math.prod(old) % rest == 0
        shape[shape.index(-1)] = math.prod(old) // rest if rest > 0 else 0
    if not good or math.prod(shape) != math.prod(old):
        raise op.error(f"a blob of shape {list(old)} cannot take the shape {wanted}", argument="shape")
    return tuple(shape)


@lift("ResizeLike", inputs=2)
def lift_resize_like(op: OpView, env: NameEnv, b: Builder) -> None:
    """The elements of the first blob under the shape of the second, whose contents are not read."""
    old, new = env.shape(op.inputs[0]), env.shape(op.inputs[1])
    if math.prod(old) != math.prod(new):
        raise op.error(f"a blob of shape {list(old)} cannot take the shape {list(new)}")
    env.bind(op.out, env.reshape(env.use(op.inputs[0]), new, op.source))


@lift("Flatten", "FlattenToVec")
def lift_flatten(op: OpView, env: NameEnv, b: Builder) -> None:
    """To a matrix cut at `axis`, or to a vector."""
    shape = env.shape(op.inputs[0])
    new: tuple[int, ...] = (math.prod(shape),)
    if op.type == "Flatten":
        axis = op.args.integer("axis", 1)
        if not 0 <= axis <= len(shape):
            raise op.error(
                f"axis {axis} of a blob of rank {len(shape)}", argument="axis", expected=f"0 to {len(shape)}"
            )
        new = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    env.bind(op.out, env.reshape(env.use(op.inputs[0]), new, op.source))


@lift("Squeeze", "ExpandDims")
def lift_unit_axes(op: OpView, env: NameEnv, b: Builder) -> None:
    """Takes unit axes away, or puts them where they are in the result."""
    old = list(env.shape(op.inputs[0]))
    dims = sorted(set(op.args.ints("dims") or ()))
    if not dims:
        raise op.error("argument 'dims' is missing")
    rank = len(old) if op.type == "Squeeze" else len(old) + len(dims)
    if dims[0] < 0 or dims[-1] >= rank:
        raise op.error(f"dims {list(dims)}", argument="dims", expected=f"axes from 0 to {rank - 1}")
    if op.type == "Squeeze":
        wide = [dim for dim in dims if old[dim] != 1]
        if wide:
            raise op.error(f"axis {wide[0]} has {old[wide[0]]} elements", argument="dims", expected="an axis of one")
        new = [dim for axis, dim in enumerate(old) if axis not in dims]
    else:
        rest = iter(old)
        new = [1 if axis in dims else next(rest) for axis in range(rank)]
    env.bind(op.out, env.reshape(env.use(op.inputs[0]), new, op.source))


@lift("Transpose", "NCHW2NHWC", "NHWC2NCHW")
def lift_transpose(op: OpView, env: NameEnv, b: Builder) -> None:
    """Only renames the axes: the elements move when somebody needs them in that order."""
    bound = env.raw(op.inputs[0])
    rank = len(bound.perm)
    axes: tuple[int, ...]
    if op.type == "Transpose":
        axes = op.args.ints("axes") or tuple(reversed(range(rank)))
        if sorted(axes) != list(range(rank)):
            raise op.error(f"axes {list(axes)}", argument="axes", expected=f"a permutation of {rank} axes")
    elif rank < 3:
        raise op.error(f"{op.type} of a blob of rank {rank}", expected="rank at least 3")
    else:
        axes = (0, *range(2, rank), 1) if op.type == "NCHW2NHWC" else (0, rank - 1, *range(1, rank - 1))
    env.bind(op.out, bound.value, tuple(bound.perm[axis] for axis in axes))


@lift("ChannelShuffle")
def lift_channel_shuffle(op: OpView, env: NameEnv, b: Builder) -> None:
    """Channels dealt out from `group` piles in turn: channel g * C / group + k becomes k * group + g."""
    group, order = op.args.positive("group", 1), op.order()
    op.args.integer("kernel", 0)
    x = env.image(op.inputs[0], order)
    if x.type.rank < 3:
        raise op.error("ChannelShuffle of a blob that is no image", expected="rank at least 3", got=str(x.type))
    n, c = x.type.shape[:2]
    rest = x.type.elements // (n * c)
    if c % group:
        raise op.error(f"{c} channels in {group} groups", argument="group")
    piles = env.reshape(x, (n, group, c // group, rest), op.source)
    dealt = b.add(Transpose(perm=(0, 2, 1, 3)), piles, source=op.source)
    env.bind_image(op.out, env.reshape(dealt, x.type.shape, op.source), order)


@lift("Shape", "Size")
def lift_shape(op: OpView, env: NameEnv, b: Builder) -> None:
    """The shape (or those of `axes`), or the number of elements, known here and now."""
    shape = env.shape(op.inputs[0])
    if op.type == "Size":
        env.bind_array(op.out, np.asarray(math.prod(shape), np.int64))
        return
    axes = op.args.ints("axes")
    chosen = range(len(shape)) if axes is None else [canonical_axis(op, axis, len(shape), "axes") for axis in axes]
    env.bind_array(op.out, np.asarray([shape[axis] for axis in chosen], np.int64))


@lift("Tile", inputs=(1, 3))
def lift_tile(op: OpView, env: NameEnv, b: Builder) -> None:
    """`tiles` copies along `axis`; further inputs override the arguments."""
    tiles, axis = op.args.integer("tiles", 1), op.args.integer("axis", 0)
    if len(op.inputs) > 1:
        tiles = _one_int(op, env, op.inputs[1], "Tile's number of copies")
    if len(op.inputs) > 2:
        axis = _one_int(op, env, op.inputs[2], "Tile's axis")
    x = env.use(op.inputs[0])
    axis = canonical_axis(op, axis, x.type.rank)
    if tiles < 1:
        raise op.error(f"'tiles' must be at least 1, got {tiles}", argument="tiles")
    shape = x.type.shape
    before, after = shape[:axis], shape[axis:]
    apart = env.reshape(x, (math.prod(before), 1, math.prod(after)), op.source)
    copied = b.add(Expand(shape=(math.prod(before), tiles, math.prod(after))), apart, source=op.source)
    env.bind(op.out, env.reshape(copied, (*before, tiles * shape[axis], *after[1:]), op.source))


def _one_int(op: OpView, env: NameEnv, name: str, what: str) -> int:
    values = env.known_ints(name, what)
    if len(values) != 1:
        raise op.error(f"blob '{name}' is not one whole number", got=f"{len(values)} numbers")
    return values[0]


@lift("Expand", inputs=(1, 2))
def lift_expand(op: OpView, env: NameEnv, b: Builder) -> None:
    """Broadcasts to a shape, both ways as numpy does."""
    wanted: Sequence[int] | None = op.args.ints("shape")
    if len(op.inputs) == 2:
        wanted = env.known_ints(op.inputs[1], "the shape for Expand")
    if not wanted:
        raise op.error("argument 'shape' is missing")
    x = env.use(op.inputs[0])
    try:
        shape = np.broadcast_shapes(x.type.shape, tuple(wanted))
    except ValueError:
        raise op.error(f"a blob of shape {list(x.type.shape)} does not broadcast to {list(wanted)}") from None
    env.bind(op.out, b.add(Expand(shape=shape), x, source=op.source))


@lift("Gather", inputs=2)
def lift_gather(op: OpView, env: NameEnv, b: Builder) -> None:
    """Slices along `axis`, chosen by whole numbers."""
    op.args.flag("match_outer", False)
    x, indices = env.use(op.inputs[0]), env.use(op.inputs[1])
    axis = canonical_axis(op, op.args.integer("axis", 0), x.type.rank)
    if indices.type.dtype is DType.I32:
        indices = b.add(Cast(to=DType.I64), indices, source=op.source)
    env.bind(op.out, b.add(Gather(axis=axis), x, indices, source=op.source))
