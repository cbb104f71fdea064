"""Runs cases through generated code and compares with the reference."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

import numpy as np
import pytest
from differential.case import Array, Case, build, expected, feeds
from differential.compiling import Compiled

from sqzc.target import TARGETS, Target, resolve, runs_here

TARGET_NAMES = tuple(TARGETS)

# Unit roundoff of each floating point type.
_ROUNDOFF = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}


# How much rounding errors grow in forms that add and subtract large numbers before they multiply.
GROWTH = {"winograd": 6.0, "strassen": 2.0}


def growth(kernels: Iterable[str]) -> float:
    """The factor by which errors may exceed those of plain sums, given the kernels that ran."""
    return max((factor for word, factor in GROWTH.items() if any(word in k for k in kernels)), default=1.0)


def tolerance(dtype: np.dtype[np.generic], length: int) -> tuple[float, float]:
    """(relative to the value, relative to the largest value) error allowed for sums of `length` numbers of a type.

    Integers and results that are only moved or rounded once (length 0) must be exact. An elementwise function may be
    some roundings off. Rounding errors of a sum grow like the square root of its length.
    """
    if dtype.kind != "f" or length == 0:
        return 0.0, 0.0
    unit = _ROUNDOFF[dtype.name]
    return 16 * unit, (4 + 4 * length**0.5) * unit


def assert_close(got: Array, want: Array, length: int, what: str, factor: float = 1.0) -> None:
    """AssertionError naming the worst element unless all are within the tolerance; NaN and infinities must agree."""
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    with np.errstate(over="ignore"):
        rounded = want.astype(got.dtype).astype(np.float64)
    a = got.astype(np.float64)
    if got.dtype.kind != "f" or length == 0:
        bad = (a != rounded) & ~(np.isnan(a) & np.isnan(rounded))
        _raise_worst(bad, bad.astype(np.float64), got, want, what)
        return
    finite = np.isfinite(rounded)
    odd = ~((a == rounded) | (np.isnan(a) & np.isnan(rounded))) & ~finite
    _raise_worst(odd, odd.astype(np.float64), got, want, f"{what}: NaN or infinity")
    relative, absolute = tolerance(got.dtype, length)
    exact = np.where(finite, want.astype(np.float64), 0.0)
    # Errors are of the size of partial sums, which an activation or a cancellation may hide from the result: a sum of
    # products of numbers about 1 is about the square root of its length, and the terms of a function about 1.
    largest = float(np.max(np.abs(exact), initial=0.0))
    size = max(largest, length**0.5) if length > 1 else min(largest, 1.0)
    smallest = float(np.finfo(got.dtype).smallest_subnormal)
    allowed = factor * (relative * np.abs(exact) + absolute * size) + smallest
    error = np.where(finite, np.abs(np.where(np.isfinite(a), a, np.inf) - exact), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.where(error > allowed, error / allowed, 0.0)
    _raise_worst(error > allowed, excess, got, want, what)


def _raise_worst(bad: Array, excess: Array, got: Array, want: Array, what: str) -> None:
    if not bad.any():
        return
    worst = np.unravel_index(int(np.argmax(excess)), bad.shape)
    place = tuple(int(i) for i in worst)
    raise AssertionError(
        f"{what}: {int(bad.sum())} of {bad.size} off, worst at {place}: "
        f"got {got[worst]!r}, expected {want[worst]!r}, {float(excess[worst]):.3g} times what is allowed"
    )


def target_or_skip(name: str) -> Target:
    """The target, if this CPU runs it."""
    target = resolve(name)
    if not runs_here(target):
        pytest.skip(f"this CPU does not run {name}")
    return target


def check(item: Case, target_name: str) -> None:
    """Compiles a case for a target and compares it; three threads must compute the same bits as one."""
    target = target_or_skip(target_name)
    compiled = Compiled(build(item, target), target)
    kernels = {step.kernel for step in compiled.program.steps}
    assert fnmatch.filter(kernels, item.kernel), f"{item.name}: ran {sorted(kernels)}, expected {item.kernel}"
    inputs = feeds(item)
    kept = {name: array.copy() for name, array in inputs.items()}
    factor = growth(kernels)
    results = compiled(inputs)
    others = {"three threads": compiled(inputs, threads=3)}
    if compiled.program.prepared_bytes:
        others["prepared memory"] = compiled(inputs, prepared=compiled.prepared())
    what = f"{item.name} [{target_name}]"
    for name, want in expected(item).items():
        assert_close(results[name], want, item.length, f"{what} {name}", factor)
        for how, got in others.items():
            # Winograd tiles that overlap may round what they share in different ways, and the later one stays.
            if factor > 1:
                assert_close(got[name], want, item.length, f"{what} {name}, {how}", factor)
            else:
                assert got[name].tobytes() == results[name].tobytes(), f"{what} {name}: {how} give other bits"
    for name, array in inputs.items():
        assert array.tobytes() == kept[name].tobytes(), f"{item.name}: the code changed its input {name}"
