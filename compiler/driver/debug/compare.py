"""How far numbers are from what they should be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sqzc.ir.constant import Array
from sqzc.ir.types import DType

BUDGETS: Mapping[DType, float] = {DType.F64: 1e-10, DType.F32: 1e-5, DType.F16: 4e-3}
"""Largest error allowed in a value, relative to its largest magnitude: about 100 roundings of its type, 4 for f16."""

NOISE_FACTOR = 8.0
"""Where a value is ill-conditioned, its error may be this many times the one that it had before the pass."""

# Differences below this are of no consequence, whatever the value's magnitude: denormals round coarsely.
_FLOOR = 1e-30

# Elements below this part of the largest are not counted in representable steps: near zero steps have no end.
_MATTERS = 1e-3


def budget_of(dtype: DType) -> float:
    """The budget of a type; integers and booleans must be equal."""
    return BUDGETS.get(dtype, 0.0)


@dataclass(frozen=True)
class Difference:
    """The worst of an array: `index` is where, `relative` the difference there over the largest magnitude expected.

    Infinite where NaN or an infinity is not where it should be, or the shapes differ. `ulps` is the largest distance in
    representable numbers among elements of at least a thousandth of the magnitude, which may be elsewhere; None for
    integers and in double precision.
    """

    max_abs: float
    relative: float
    ulps: int | None = None
    index: tuple[int, ...] = ()
    expected: float = 0.0
    got: float = 0.0
    shapes: str = ""

    @property
    def words(self) -> str:
        """Where it is and what stands there."""
        if self.shapes:
            return self.shapes
        at = f"at {list(self.index)}" if self.index else "there"
        return f"{at} expected {self.expected:.9g}, got {self.got:.9g}"

    def to_json(self) -> dict[str, Any]:
        """JSON-able data; numbers that JSON cannot say are text."""
        return {
            "max_abs": _plain(self.max_abs),
            "relative": _plain(self.relative),
            "ulps": self.ulps,
            "index": list(self.index),
            "expected": _plain(self.expected),
            "got": _plain(self.got),
            "shapes": self.shapes or None,
        }


def _plain(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


NOTHING = Difference(0.0, 0.0)


def compare(got: Array, expected: Array, *, floor: float = 0.0) -> Difference:
    """The worst of `got` against `expected`, which is more precise or equally so.

    Where a finite `expected` is outside the range of `got`'s type, anything will do. `floor` is the least magnitude
    that counts as the value's own.
    """
    if got.shape != expected.shape:
        return Difference(math.inf, math.inf, shapes=f"expected shape {list(expected.shape)}, got {list(got.shape)}")
    if not expected.size or _identical(got, expected):
        return NOTHING
    a, b = got.astype(np.float64, copy=False), expected.astype(np.float64, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(a - b)
        sizes = np.abs(b)
    largest = float(np.max(sizes))
    if not math.isfinite(largest + float(np.max(off))):
        off = _with_specials(a, b, off)
        sizes = np.where(np.isfinite(b), sizes, 0.0)
        largest = float(np.max(sizes))
    if got.dtype.kind == "f" and largest > float(np.finfo(got.dtype).max):
        off = np.where(sizes > float(np.finfo(got.dtype).max), 0.0, off)
    scale = max(largest, floor, _FLOOR) if got.dtype.kind == "f" else 1.0
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(off)), off.shape))
    ulps = _ulps(got, b, sizes > largest * _MATTERS)
    return Difference(float(off[worst]), float(off[worst]) / scale, ulps, worst, float(b[worst]), float(a[worst]))


def _identical(got: Array, expected: Array) -> bool:
    return got is expected or (got.dtype == expected.dtype and bool((got == expected).all()))


def _with_specials(a: Array, b: Array, off: Array) -> Array:
    """NaN is equal to NaN and an infinity to itself; either is infinitely far from all else."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isfinite(b) & np.isfinite(a), off, np.inf))


def _ulps(got: Array, expected: Array, where: Array) -> int | None:
    """The largest number of representable steps between elements chosen by a mask; None where steps mean nothing."""
    if got.dtype not in (np.float32, np.float16):
        return None
    integer = np.int32 if got.dtype == np.float32 else np.int16
    a, b = got[where], expected[where]
    finite = np.isfinite(a)
    with np.errstate(over="ignore", under="ignore"):
        wanted = b[finite].astype(got.dtype)
    return int(np.max(np.abs(_ordered(a[finite], integer) - _ordered(wanted, integer)), initial=0))


def _ordered(x: Array, integer: type[np.int32] | type[np.int16]) -> Array:
    """Integers in the order of the floats, neighbours one apart, both zeros at 0."""
    bits = np.ascontiguousarray(x).view(integer).astype(np.int64)
    return np.where(bits < 0, np.int64(np.iinfo(integer).min) - bits, bits)
