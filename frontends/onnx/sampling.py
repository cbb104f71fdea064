"""Where a resized axis reads its input, and with which weights. Sizes are static, so this is all known at import.

Positions follow the standard's coordinate transformations, in double precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sqzc.frontends.onnx.tensors import Array

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Axis:
    """One resized axis: input and output length, output over input scale, and the part that is read (0 to 1)."""

    size: int
    length: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    @property
    def extent(self) -> float:
        """Output length before it was rounded down; equal to `length` when that was what was asked for."""
        return self.scale * self.size

    @property
    def is_kept(self) -> bool:
        """Whether every output sample is the input sample of the same index, for every rule without a crop."""
        return self.size == self.length and self.scale == 1.0


def positions(axis: Axis, rule: str) -> Array:
    """Position in the input of each output sample."""
    index = np.arange(axis.length, dtype=np.float64)
    size, length, scale = axis.size, axis.length, axis.scale
    if rule == "asymmetric":
        return index / scale
    if rule == "align_corners":
        return index * (size - 1) / (axis.extent - 1) if length > 1 else np.zeros(1)
    if rule == "tf_half_pixel_for_nn":
        return (index + 0.5) / scale
    if rule == "tf_crop_and_resize":
        if length == 1:
            return np.full(1, 0.5 * (axis.start + axis.end) * (size - 1))
        return axis.start * (size - 1) + index * (axis.end - axis.start) * (size - 1) / (axis.extent - 1)
    if rule == "pytorch_half_pixel" and length == 1:
        return np.zeros(1)
    centred = (index + 0.5) / scale - 0.5
    if rule == "half_pixel_symmetric":
        return centred + size / 2 * (1 - length / axis.extent)
    return centred


def nearest(where: Array, rounding: str, size: int) -> Array:
    """Index of the input sample at each position, kept inside."""
    rounded = {
        "round_prefer_floor": np.ceil(where - 0.5),
        "round_prefer_ceil": np.floor(where + 0.5),
        "floor": np.floor(where),
        "ceil": np.ceil(where),
    }[rounding]
    return np.clip(rounded, 0, size - 1).astype(np.int64)


def _triangle(t: Array) -> Array:
    return np.asarray(np.maximum(1 - np.abs(t), 0))


def _cubic(t: Array, a: float) -> Array:
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * a - 4 * a
    return np.asarray(np.where(t <= 1, near, np.where(t < 2, far, 0.0)))


def weights(axis: Axis, where: Array, cubic: float | None, *, antialias: bool, exclude_outside: bool) -> Array:
    """The matrix [length, size] whose rows weigh the input samples: linear, or cubic with this coefficient.

    With `antialias` the kernel is stretched where the axis shrinks. Samples past the ends are those at the ends, or
    are left out and the others weighted up with `exclude_outside`.
    """
    squeeze = min(axis.scale, 1.0) if antialias else 1.0
    reach = math.ceil((1 if cubic is None else 2) / squeeze)
    below = np.floor(where)
    taps = below[:, None] + np.arange(-reach, reach + 2)
    distance = (taps - where[:, None]) * squeeze
    share = _triangle(distance) if cubic is None else _cubic(distance, cubic)
    if exclude_outside:
        share = np.where((taps >= 0) & (taps < axis.size), share, 0.0)
    if antialias or exclude_outside:
        total = share.sum(axis=1, keepdims=True)
        share = share / np.where(total == 0, 1.0, total)
    matrix = np.zeros((axis.length, axis.size))
    inside = np.clip(taps, 0, axis.size - 1).astype(np.int64)
    np.add.at(matrix, (np.arange(axis.length)[:, None], inside), share)
    return matrix
