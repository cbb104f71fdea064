"""Resize and Upsample: the IR's op where it has the rule, gathers and small matrix products elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sqzc.frontends.onnx.ops_elementwise import cast
from sqzc.frontends.onnx.sampling import COORDINATES, ROUNDINGS, Axis, nearest, positions, weights
from sqzc.frontends.onnx.table import OpView, lift
from sqzc.frontends.onnx.tensors import Array
from sqzc.ir import Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops.nn import MatMul
from sqzc.ir.ops.shape import Coordinates, Gather, Resize2d, ResizeMode
from sqzc.ir.types import DType

MAX_SIDE = 1 << 20
MAX_WEIGHTS = 1 << 24

_RULES = {
    "asymmetric": Coordinates.ASYMMETRIC,
    "align_corners": Coordinates.ALIGN_CORNERS,
    "half_pixel": Coordinates.HALF_PIXEL,
}


@dataclass(frozen=True)
class Rule:
    """How samples are made, apart from the sizes."""

    mode: str = "nearest"
    coordinates: str = "asymmetric"
    rounding: str = "floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    outside: float = 0.0


@lift("Upsample", since=7)
def lift_upsample(op: OpView) -> Value:
    """By scales, an attribute or from opset 9 on an input; output i reads i / scale."""
    mode = op.attrs.text("mode", "nearest", ("nearest", "linear", "bilinear"))
    scales = op.attrs.reals("scales") if op.opset < 9 else _scales(op, 1)
    if scales is None:
        raise op.error("Upsample without scales")
    return _resize(op, Rule(mode="nearest" if mode == "nearest" else "linear"), _by_scales(op, scales, None))


@lift("Resize", since=10)
def lift_resize_by_scales(op: OpView) -> Value:
    """By scales; output i reads i / scale."""
    mode = op.attrs.text("mode", "nearest", ("nearest", "linear"))
    scales = _scales(op, 1)
    if scales is None:
        raise op.error("Resize without scales")
    return _resize(op, Rule(mode=mode), _by_scales(op, scales, None))


@lift("Resize", since=11)
def lift_resize(op: OpView) -> Value:
    """By scales or sizes, of all axes or of those that `axes` names."""
    attrs = op.attrs
    rule = Rule(
        mode=attrs.text("mode", "nearest", ("nearest", "linear", "cubic")),
        coordinates=attrs.text("coordinate_transformation_mode", "half_pixel", COORDINATES),
        rounding=attrs.text("nearest_mode", "round_prefer_floor", ROUNDINGS),
        cubic=attrs.real("cubic_coeff_a", -0.75),
        antialias=attrs.flag("antialias", False),
        exclude_outside=attrs.flag("exclude_outside", False),
        outside=attrs.real("extrapolation_value", 0.0),
    )
    x = op.input(0)
    given = attrs.ints("axes")
    axes = tuple(range(x.type.rank)) if given is None else op.axes(given, x.type.rank)
    scales = _scales(op, 2) if op.has(2) else None
    sizes = op.known_ints(3, "'sizes'") if op.has(3) else None
    policy = attrs.text("keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller"))
    if scales:
        return _resize(op, rule, _cropped(op, rule, _by_scales(op, scales, axes), axes))
    if sizes:
        return _resize(op, rule, _cropped(op, rule, _by_sizes(op, sizes, axes, policy), axes))
    raise op.error("Resize without scales or sizes")


def _scales(op: OpView, index: int) -> tuple[float, ...] | None:
    if not op.has(index):
        return None
    array = op.known(index, "the scales")
    if array.dtype.kind != "f" or array.ndim != 1:
        raise op.error("the scales", expected="a list of numbers", got=f"{array.dtype.name}{list(array.shape)}")
    return tuple(float(scale) for scale in array)


def _kept(x: Value) -> list[Axis]:
    return [Axis(size, size, 1.0) for size in x.type.shape]


def _length(op: OpView, length: float) -> int:
    if not 1 <= length <= MAX_SIDE:
        raise op.error(f"a result with {length:g} samples along an axis", expected=f"1 to {MAX_SIDE}")
    return int(length)


def _by_scales(op: OpView, scales: Sequence[float], axes: Sequence[int] | None) -> list[Axis]:
    x = op.input(0)
    found = _kept(x)
    axes = range(x.type.rank) if axes is None else axes
    if len(scales) != len(axes):
        raise op.error("the scales do not fit", expected=f"{len(axes)} numbers", got=str(len(scales)))
    for axis, scale in zip(axes, scales, strict=True):
        if not 0 < scale <= MAX_SIDE:
            raise op.error(f"a scale of {scale:g}", expected="a positive number")
        size = x.type.shape[axis]
        # Scales are single precision: 3 * 1.6666666 is meant to be 5.
        length = math.floor(float(np.float32(size) * np.float32(scale)))
        found[axis] = Axis(size, _length(op, length), scale)
    return found


def _by_sizes(op: OpView, sizes: Sequence[int], axes: Sequence[int], policy: str) -> list[Axis]:
    x = op.input(0)
    found = _kept(x)
    if len(sizes) != len(axes) or 0 in x.type.shape:
        raise op.error("the sizes do not fit", expected=f"{len(axes)} numbers", got=str(len(sizes)))
    ratios = [_length(op, length) / x.type.shape[axis] for axis, length in zip(axes, sizes, strict=True)]
    if policy != "stretch":
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        ratios = [ratio] * len(axes)
        sizes = [math.floor(ratio * x.type.shape[axis] + 0.5) for axis in axes]
    for axis, length, ratio in zip(axes, sizes, ratios, strict=True):
        found[axis] = Axis(x.type.shape[axis], _length(op, length), ratio)
    return found


def _cropped(op: OpView, rule: Rule, found: list[Axis], axes: Sequence[int]) -> list[Axis]:
    """The axes with the region that tf_crop_and_resize reads."""
    if rule.coordinates != "tf_crop_and_resize":
        return found
    roi = op.known(1, "the region").astype(np.float64).ravel()
    if roi.size != 2 * len(axes) or not np.isfinite(roi).all():
        raise op.error("the region does not fit", expected=f"{2 * len(axes)} numbers", got=str(roi.size))
    for index, axis in enumerate(axes):
        old = found[axis]
        found[axis] = Axis(old.size, old.length, old.scale, float(roi[index]), float(roi[index + len(axes)]))
    return found


def _resize(op: OpView, rule: Rule, found: Sequence[Axis]) -> Value:
    x = op.input(0)
    if rule.antialias and rule.mode == "nearest":
        raise op.error("antialias has no meaning for nearest samples")
    ir = _as_op(rule, x, found)
    if ir is not None:
        return op.add(ir, x)
    crop = rule.coordinates == "tf_crop_and_resize"
    y = x if x.type.dtype.is_float or rule.mode == "nearest" else cast(op, x, DType.F32)
    for number, axis in enumerate(found):
        if axis.is_kept and not crop and rule.coordinates != "tf_half_pixel_for_nn":
            continue
        y = _sampled(op, rule, y, number, axis)
    y = cast(op, y, x.type.dtype)
    return _outside(op, rule, y, found) if crop else y


def _as_op(rule: Rule, x: Value, found: Sequence[Axis]) -> Resize2d | None:
    """The IR's op if it reads the same samples: images, both of whose sides follow one of its rules."""
    if x.type.rank != 4 or any(not axis.is_kept for axis in found[:2]) or 0 in x.type.shape:
        return None
    sides = found[2:]
    scales = [0.0 if s.length / s.size == s.scale else s.scale for s in sides]
    size = tuple(s.length for s in sides)
    if rule.mode == "linear" and not rule.antialias and x.type.dtype.is_float:
        name = rule.coordinates
        if name == "pytorch_half_pixel" and min(size) > 1:
            name = "half_pixel"
        exact = name != "align_corners" or all(s.extent == s.length for s in sides)
        if name in _RULES and exact and not rule.exclude_outside:
            return Resize2d(
                size=size, mode=ResizeMode.LINEAR, coordinates=_RULES[name], scale_h=scales[0], scale_w=scales[1]
            )
    if rule.mode == "nearest" and rule.coordinates != "tf_crop_and_resize":
        wanted = [nearest(positions(s, rule.coordinates), rule.rounding, s.size) for s in sides]
        for name, coordinates in _RULES.items():
            if all(map(np.array_equal, wanted, [_single(s, name) for s in sides])):
                return Resize2d(size=size, coordinates=coordinates, scale_h=scales[0], scale_w=scales[1])
    return None


def _single(axis: Axis, rule: str) -> Array:
    """The samples that the IR's nearest mode reads: floors of positions in single precision."""
    index, one_half = np.arange(axis.length, dtype=np.float32), np.float32(0.5)
    if rule == "align_corners":
        where = index * np.float32(axis.size - 1) / np.float32(max(axis.length - 1, 1))
    else:
        ratio = np.float32(axis.scale)
        where = index / ratio if rule == "asymmetric" else (index + one_half) / ratio - one_half
    return nearest(where, "floor", axis.size)


def _sampled(op: OpView, rule: Rule, x: Value, number: int, axis: Axis) -> Value:
    """x resized along one axis."""
    where = positions(axis, rule.coordinates)
    if rule.mode == "nearest":
        picks = nearest(where, rule.rounding, axis.size)
        return op.add(Gather(axis=number), x, op.constant(picks, "samples"))
    if axis.size * axis.length > MAX_WEIGHTS:
        raise op.unsupported(f"{op.type} of {axis.size} samples to {axis.length} in this mode")
    matrix = weights(
        axis,
        where,
        rule.cubic if rule.mode == "cubic" else None,
        antialias=rule.antialias,
        exclude_outside=rule.exclude_outside,
    )
    factor = op.constant(matrix.astype(x.type.dtype.numpy), "weights")
    rank = x.type.rank
    if rank >= 2 and number == rank - 2:
        return op.add(MatMul(), factor, x)
    to_last = (*(i for i in range(rank) if i != number), number)
    back = tuple(sorted(range(rank), key=lambda i: to_last[i]))
    rows = op.reshape(op.transpose(x, to_last), (x.type.elements // axis.size, axis.size))
    y = op.add(MatMul(trans_b=True), rows, factor)
    shape = [x.type.shape[i] for i in to_last[:-1]] + [axis.length]
    return op.transpose(op.reshape(y, shape), back)


def _outside(op: OpView, rule: Rule, y: Value, found: Sequence[Axis]) -> Value:
    """The extrapolation value where a position lies outside the input."""
    rank = y.type.rank
    outside = np.zeros((1,) * rank, np.bool_)
    for number, axis in enumerate(found):
        where = positions(axis, rule.coordinates)
        line = (where < 0) | (where > axis.size - 1)
        if line.any():
            outside = outside | line.reshape([-1 if i == number else 1 for i in range(rank)])
    if not outside.any():
        return y
    if outside.size > MAX_WEIGHTS:
        raise op.unsupported(f"{op.type} that reads outside of a result of {outside.size} elements")
    return op.add(ew.Where(), op.constant(outside, "outside"), op.number(rule.outside, y, "extrapolation"), y)
