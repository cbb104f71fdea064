"""The elementary functions in generated code: accuracy in units of the last place, and special values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from differential.checking import TARGET_NAMES, target_or_skip
from differential.compiling import Compiled

from sqzc.backends.reference import evaluate
from sqzc.ir import Builder, Graph
from sqzc.ir.opdef import registry
from sqzc.ir.types import f32

ULP = 2.0**-23
SPECIALS = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, -3e38], np.float32)

# Largest relative error in units of the last place, over normal numbers of every size.
BOUNDS = {
    "exp": 2.0, "log": 2.0, "tanh": 3.0, "erf": 3.0, "softplus": 3.0, "elu": 3.0, "selu": 4.0, "sqrt": 1.0,
    "reciprocal": 1.0, "softsign": 2.0, "sigmoid": 4.0, "sign": 0.0, "round": 0.0, "floor": 0.0, "ceil": 0.0,
    "abs": 0.0, "neg": 0.0, "relu": 0.0, "leaky_relu": 2.0,
}  # fmt: skip

Array = npt.NDArray[np.float32]


def numbers(count: int = 60_000) -> Array:
    """Numbers of every size and sign, most of them around 1, and the special ones."""
    rng = np.random.default_rng(1)
    usual = rng.standard_normal(count // 2) * 4
    large = rng.standard_normal(count // 4) * 40
    scaled = np.exp(rng.uniform(-80, 80, count // 4)) * rng.choice([-1.0, 1.0], count // 4)
    return np.concatenate([usual, large, scaled, SPECIALS]).astype(np.float32)


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("name", BOUNDS)
def test_error_in_units_of_the_last_place(name: str, target: str) -> None:
    x = numbers()
    graph = Graph("f")
    graph.add_output("y", Builder(graph).add(registry[name](), graph.add_input("x", f32(*x.shape))))
    got = Compiled(graph, target_or_skip(target))({"x": x})["y"].astype(np.float64)
    want = evaluate(graph, {"x": x}, dtype="float64")["y"]
    with np.errstate(over="ignore"):
        rounded = want.astype(np.float32).astype(np.float64)
    odd = ~np.isfinite(rounded)
    np.testing.assert_array_equal(got[odd], rounded[odd])
    # Of results that are denormal in float32 only the absolute error can be small.
    normal = ~odd & (np.abs(want) >= 2.0**-126)
    error = np.zeros_like(want)
    error[normal] = np.abs(got[normal] - want[normal]) / np.abs(want[normal]) / ULP
    worst = int(np.argmax(error))
    limit = BOUNDS[name] if name != "sigmoid" else np.inf
    assert error[worst] <= limit, f"{name}({x[worst]!r}) = {got[worst]!r}, expected {want[worst]!r}"
    tiny = ~odd & ~normal
    assert np.abs(got[tiny] - want[tiny]).max(initial=0.0) <= 2.0**-126


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_power_is_rounded_once(target: str) -> None:
    rng = np.random.default_rng(2)
    a = np.exp(rng.uniform(-5, 5, 40_000)).astype(np.float32)
    c = rng.uniform(-17, 17, 40_000).astype(np.float32)
    graph = Graph("f")
    inputs = graph.add_input("a", f32(*a.shape)), graph.add_input("c", f32(*c.shape))
    graph.add_output("y", Builder(graph).add(registry["pow"](), *inputs))
    got = Compiled(graph, target_or_skip(target))({"a": a, "c": c})["y"].astype(np.float64)
    want = a.astype(np.float64) ** c.astype(np.float64)
    normal = (want >= 2.0**-126) & (want < 3.4e38)
    error = np.abs(got - want)[normal] / want[normal] / ULP
    assert error.max() <= 0.51


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_power_of_special_numbers_is_that_of_c(target: str) -> None:
    base = np.concatenate([SPECIALS, np.float32([2, -2, 3, -3, 0.5, -0.5, 2.5, -2.5, 1e9, -1e9])])
    a, c = (np.ascontiguousarray(grid.reshape(-1)) for grid in np.meshgrid(base, base))
    graph = Graph("f")
    inputs = graph.add_input("a", f32(*a.shape)), graph.add_input("c", f32(*c.shape))
    graph.add_output("y", Builder(graph).add(registry["pow"](), *inputs))
    got = Compiled(graph, target_or_skip(target))({"a": a, "c": c})["y"]
    with np.errstate(all="ignore"):
        want = np.power(a.astype(np.float64), c.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(got, want, rtol=2 * ULP)
