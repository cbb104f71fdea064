"""Where resizing reads its input; plain numpy at compile time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sqzc.ir.constant import Array
from sqzc.ir.ops.shape import Coordinates


@dataclass(frozen=True)
class Samples:
    """For every output sample the input samples on both sides, clamped to the edge, and the weight of the upper one."""

    lower: Array
    upper: Array
    weight: Array


def sample_positions(size: int, length: int, scale: float, rule: Coordinates) -> Samples:
    """`length` output samples over an axis of `size`; all in float32, as the op declares."""
    index = np.arange(length, dtype=np.float32)
    if rule is Coordinates.ALIGN_CORNERS:
        position = index * np.float32(size - 1) / np.float32(max(length - 1, 1))
    else:
        ratio = np.float32(scale) if scale else np.float32(length) / np.float32(size)
        half = np.float32(0.5 if rule is Coordinates.HALF_PIXEL else 0.0)
        position = (index + half) / ratio - half
    below = np.floor(position)
    return Samples(
        np.clip(below, 0, size - 1).astype(np.int64),
        np.clip(below + 1, 0, size - 1).astype(np.int64),
        (position - below).astype(np.float32),
    )
