"""Operators that give elements another shape or order, join and cut tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sqzc.frontends.onnx.ops_elementwise import cast
from sqzc.frontends.onnx.table import OpView, Results, lift
from sqzc.ir import Value
from sqzc.ir.ops import shape as sh
from sqzc.ir.ops.elementwise import broadcast_shapes
from sqzc.ir.types import MAX_RANK, DType


@lift("Reshape", since=5)
def lift_reshape(op: OpView) -> Value:
    """-1 is what is left over, 0 copies a dimension unless `allowzero`."""
    x, wanted = op.input(0), list(op.known_ints(1, "the shape"))
    keep_zero = op.attrs.flag("allowzero", False)
    for index, dim in enumerate(wanted):
        if dim == 0 and not keep_zero:
            if index >= x.type.rank:
                raise op.error(f"dimension {index} of the shape is copied from the input", got=str(x.type))
            wanted[index] = x.type.shape[index]
    if wanted.count(-1) > 1 or any(dim < -1 for dim in wanted):
        raise op.error(f"cannot reshape to {wanted}", expected="at most one -1, no other negative number")
    if -1 in wanted:
        known = math.prod(dim for dim in wanted if dim != -1)
        if known == 0 or x.type.elements % known:
            raise op.error(f"{x.type} cannot be reshaped to {wanted}")
        wanted[wanted.index(-1)] = x.type.elements // known
    return op.reshape(x, wanted)


@lift("Flatten", since=1)
def lift_flatten(op: OpView) -> Value:
    """A matrix: dimensions before `axis` by those from it on."""
    x, axis = op.input(0), op.attrs.integer("axis", 1)
    rank = x.type.rank
    if not -rank <= axis <= rank:
        raise op.error(f"axis {axis} of a tensor of rank {rank}", expected=f"{-rank} to {rank}")
    axis += rank if axis < 0 else 0
    return op.reshape(x, (math.prod(x.type.shape[:axis]), math.prod(x.type.shape[axis:])))


@lift("Squeeze", since=1)
def lift_squeeze(op: OpView) -> Value:
    """Without the axes given, or without all of length 1."""
    x = op.input(0)
    given = op.ints("axes", 1, 13)
    if given is None:
        axes = tuple(axis for axis, size in enumerate(x.type.shape) if size == 1)
    else:
        axes = op.axes(given, x.type.rank)
    for axis in axes:
        if x.type.shape[axis] != 1:
            raise op.error(f"axis {axis} cannot be squeezed", expected="length 1", got=str(x.type))
    return op.reshape(x, [size for axis, size in enumerate(x.type.shape) if axis not in axes])


@lift("Unsqueeze", since=1)
def lift_unsqueeze(op: OpView) -> Value:
    """With new axes of length 1 at the places given, counted in the result."""
    x, given = op.input(0), op.ints("axes", 1, 13)
    if given is None:
        raise op.error("Unsqueeze without axes")
    rank = x.type.rank + len(given)
    axes, rest = op.axes(given, rank), iter(x.type.shape)
    return op.reshape(x, [1 if axis in axes else next(rest) for axis in range(rank)])


@lift("Transpose", since=1)
def lift_transpose(op: OpView) -> Value:
    """Axis i of the result is axis perm[i]; in reverse order by default."""
    x = op.input(0)
    perm = op.attrs.ints("perm")
    if perm is None:
        perm = tuple(reversed(range(x.type.rank)))
    if sorted(perm) != list(range(x.type.rank)):
        raise op.error(f"perm {list(perm)}", expected=f"a permutation of {x.type.rank} axes")
    return op.transpose(x, perm)


@lift("Concat", since=4)
def lift_concat(op: OpView) -> Value:
    """One after the other."""
    xs = op.inputs()
    if not op.attrs.has("axis"):
        raise op.error("Concat without axis")
    axis = op.axis(op.attrs.integer("axis", 0), xs[0].type.rank)
    return xs[0] if len(xs) == 1 else op.add(sh.Concat(axis=axis), *xs)


def slice_axis(op: OpView, x: Value, axis: int, start: int, size: int) -> Value:
    """`size` elements from `start` on along one axis."""
    if size == x.type.shape[axis]:
        return x
    starts = [start if i == axis else 0 for i in range(x.type.rank)]
    sizes = [size if i == axis else dim for i, dim in enumerate(x.type.shape)]
    return op.add(sh.Slice(starts=starts, sizes=sizes), x)


@lift("Split", since=2)
def lift_split(op: OpView) -> Results:
    """Parts of the sizes given, else of equal size; the last one may be smaller with `num_outputs`."""
    x = op.input(0)
    axis = op.axis(op.attrs.integer("axis", 0), x.type.rank)
    sizes, whole = op.ints("split", 1, 13), x.type.shape[axis]
    count = op.attrs.integer("num_outputs", len(op.node.output))
    if count != len(op.node.output):
        raise op.error(f"num_outputs is {count}", expected=str(len(op.node.output)))
    if sizes is None:
        if op.opset < 18 and whole % count:
            raise op.error(f"{whole} elements do not split into {count} equal parts")
        part = -(-whole // count)
        sizes = tuple(max(min(part, whole - index * part), 0) for index in range(count))
    if len(sizes) != len(op.node.output) or sum(sizes) != whole or min(sizes) < 0:
        raise op.error(f"a split into {list(sizes)}", expected=f"{len(op.node.output)} sizes that add up to {whole}")
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [
        slice_axis(op, x, axis, start, size) if op.wants(index) else None
        for index, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]


def slice_range(size: int, start: int, end: int, step: int) -> tuple[int, int]:
    """(start, number of elements) of start:end:step, both ends clamped as the standard says."""
    if step > 0:
        first = min(max(start + size if start < 0 else start, 0), size)
        last = min(max(end + size if end < 0 else end, 0), size)
        return first, max(-(-(last - first) // step), 0)
    first = min(max(start + size if start < 0 else start, 0), size - 1)
    last = min(max(end + size if end < 0 else end, -1), size - 1)
    return first, max(-((last - first) // -step), 0)


@lift("Slice", since=1)
def lift_slice_attributes(op: OpView) -> Value:
    """Starts, ends and axes as attributes."""
    starts, ends = op.attrs.ints("starts"), op.attrs.ints("ends")
    if starts is None or ends is None:
        raise op.error("Slice without starts or ends")
    axes = op.attrs.ints("axes")
    return _slice(op, starts, ends, axes, (1,) * len(starts))


@lift("Slice", since=10)
def lift_slice(op: OpView) -> Value:
    """Starts, ends, axes and steps as inputs."""
    starts, ends = op.known_ints(1, "'starts'"), op.known_ints(2, "'ends'")
    axes = op.known_ints(3, "'axes'") if op.has(3) else None
    steps = op.known_ints(4, "'steps'") if op.has(4) else (1,) * len(starts)
    return _slice(op, starts, ends, axes, steps)


def _slice(
    op: OpView, starts: Sequence[int], ends: Sequence[int], given: Sequence[int] | None, steps: Sequence[int]
) -> Value:
    x = op.input(0)
    axes = op.axes(range(len(starts)) if given is None else given, x.type.rank)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise op.error("starts, ends, axes and steps of different lengths")
    if 0 in steps:
        raise op.error("a slice with step 0")
    picks = [(0, size, 1) for size in x.type.shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        picks[axis] = (*slice_range(x.type.shape[axis], start, end, step), step)
    if picks == [(0, size, 1) for size in x.type.shape]:
        return x
    first, sizes, strides = zip(*picks, strict=True)
    return op.add(sh.Slice(starts=first, sizes=sizes, steps=() if set(strides) == {1} else strides), x)


@lift("Expand", since=8)
def lift_expand(op: OpView) -> Value:
    """Both the tensor and the shape broadcast."""
    x = op.input(0)
    shape = broadcast_shapes(x.type.shape, op.known_ints(1, "the shape"))
    return x if shape == x.type.shape else op.add(sh.Expand(shape=shape), x)


@lift("Tile", since=6)
def lift_tile(op: OpView) -> Value:
    """The tensor several times along each axis."""
    x, repeats = op.input(0), op.known_ints(1, "'repeats'")
    if len(repeats) != x.type.rank or any(count < 0 for count in repeats):
        raise op.error(f"repeats {list(repeats)}", expected=f"{x.type.rank} numbers of at least 0")
    if set(repeats) <= {1}:
        return x
    # Each repeated axis becomes two, of which the first is broadcast; as many at once as the rank allows.
    todo = [axis for axis, count in enumerate(repeats) if count != 1]
    while todo:
        now, todo = todo[: MAX_RANK - x.type.rank], todo[MAX_RANK - x.type.rank :]
        if not now:
            raise op.unsupported(f"Tile of a tensor of rank {x.type.rank}")
        narrow: list[int] = []
        wide: list[int] = []
        for axis, size in enumerate(x.type.shape):
            narrow += [1, size] if axis in now else [size]
            wide += [repeats[axis], size] if axis in now else [size]
        final = [size * (repeats[axis] if axis in now else 1) for axis, size in enumerate(x.type.shape)]
        x = op.reshape(op.add(sh.Expand(shape=wide), op.reshape(x, narrow)), final)
    return x


_MODES = {"constant": sh.PadMode.CONSTANT, "reflect": sh.PadMode.REFLECT, "edge": sh.PadMode.EDGE}


@lift("Pad", since=2)
def lift_pad_attributes(op: OpView) -> Value:
    """Pads and value as attributes."""
    pads = op.attrs.ints("pads")
    if pads is None:
        raise op.error("Pad without pads")
    return pad(op, op.input(0), pads, op.attrs.real("value", 0.0))


@lift("Pad", since=11)
def lift_pad(op: OpView) -> Value:
    """Pads, value and axes as inputs."""
    x, given = op.input(0), op.known_ints(1, "'pads'")
    axes = op.axes(op.known_ints(3, "'axes'"), x.type.rank) if op.has(3) else tuple(range(x.type.rank))
    if len(given) != 2 * len(axes):
        raise op.error("'pads' of Pad", expected=f"{2 * len(axes)} numbers", got=str(len(given)))
    pads = [0] * (2 * x.type.rank)
    for index, axis in enumerate(axes):
        pads[axis], pads[axis + x.type.rank] = given[index], given[index + len(axes)]
    return pad(op, x, pads, op.known_number(2, "the value") if op.has(2) else 0.0)


def pad(op: OpView, x: Value, pads: Sequence[int], value: float) -> Value:
    """Elements around the tensor; a negative width takes some away."""
    mode = op.attrs.text("mode", "constant", ("constant", "reflect", "edge", "wrap"))
    rank = x.type.rank
    if len(pads) != 2 * rank:
        raise op.error("'pads' of Pad", expected=f"{2 * rank} numbers", got=str(len(pads)))
    if min(pads, default=0) < 0:
        kept = [size + min(a, 0) + min(b, 0) for size, a, b in zip(x.type.shape, pads, pads[rank:], strict=False)]
        if min(kept) < 0:
            raise op.error("negative pads leave nothing", got=str(list(pads)))
        x = op.add(sh.Slice(starts=[max(-width, 0) for width in pads[:rank]], sizes=kept), x)
        pads = [max(width, 0) for width in pads]
    if not any(pads):
        return x
    if x.type.dtype is DType.BOOL:
        return cast(op, pad(op, cast(op, x, DType.U8), pads, value), DType.BOOL)
    ir = sh.Pad(pads=pads, mode=_MODES.get(mode, sh.PadMode.WRAP), value=value if mode == "constant" else 0.0)
    return op.add(ir, x)


@lift("DepthToSpace", since=1)
def lift_depth_to_space(op: OpView) -> Value:
    """Channels into blocks of pixels: DCR has the block first among the channels, CRD the channel."""
    x, size = op.input(0), _block_size(op)
    mode = op.attrs.text("mode", "DCR", ("DCR", "CRD"))
    n, c, h, w = x.type.shape
    if c % (size * size):
        raise op.error(f"{c} channels do not fill blocks of {size} by {size}")
    out = c // (size * size)
    if mode == "DCR":
        parts = op.transpose(op.reshape(x, (n, size, size, out, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        parts = op.transpose(op.reshape(x, (n, out, size, size, h, w)), (0, 1, 4, 2, 5, 3))
    return op.reshape(parts, (n, out, h * size, w * size))


@lift("SpaceToDepth", since=1)
def lift_space_to_depth(op: OpView) -> Value:
    """Blocks of pixels into channels."""
    x, size = op.input(0), _block_size(op)
    mode = op.attrs.text("mode", "DCR", ("DCR", "CRD"))
    n, c, h, w = x.type.shape
    if h % size or w % size:
        raise op.error(f"{h} x {w} pixels do not fill blocks of {size} by {size}")
    parts = op.reshape(x, (n, c, h // size, size, w // size, size))
    perm = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return op.reshape(op.transpose(parts, perm), (n, c * size * size, h // size, w // size))


def _block_size(op: OpView) -> int:
    size = op.attrs.integer("blocksize", 0)
    if size < 1:
        raise op.error(f"'blocksize' must be at least 1, got {size}")
    if op.input(0).type.rank != 4:
        raise op.error(f"{op.type} of no image", expected="rank 4", got=str(op.input(0).type))
    return size
