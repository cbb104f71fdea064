"""The estimated error of fast convolutions: right for random layers, and large where hard layers really lose digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from differential.checking import TARGET_NAMES, target_or_skip
from differential.compiling import Compiled
from layer_errors import DIRECT, layer, library, loss, measure

import sqzc
from sqzc.backends.llvm.error_bounds import BUDGET, ROUNDING, winograd_error, winograd_mean_squares
from sqzc.backends.llvm.kernels.conv_winograd import ConvWinograd
from sqzc.backends.llvm.library import Library
from sqzc.backends.reference import evaluate
from sqzc.plan.lower import lower
from sqzc.plan.text import parse_program, print_program
from sqzc.target import resolve

Array = npt.NDArray[np.float32]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("channels", [16, 96])
def test_the_estimate_is_what_code_loses_on_random_numbers(channels: int, m: int, target: str) -> None:
    x, w = normal(1, channels, 24, 24), normal(48, channels, 3, 3, seed=1)
    found, _ = measure(x, w, f"f{m}", target_or_skip(target))
    assert found.kernel in ("conv2d.winograd", "conv2d.winograd_split")
    expected = ROUNDING * np.sqrt(winograd_mean_squares(w, m).sum() / (w.astype(np.float64) ** 2).sum())
    # Tile units round a sum less often than vectors, for which the estimate is.
    assert (0.7 if found.kernel == "conv2d.winograd" else 0.3) < found.rms / expected < 1.4


# -- layers that lose digits ------------------------------------------------------------------------------------------


def cancelling() -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Large weights of either sign on channels that are alike: results are made of the small differences."""
    w, x = normal(32, 32, 3, 3), normal(1, 32, 24, 24, seed=1)
    w[:, 1::2] += 1e4 * w[:, ::2]
    w[:, ::2] *= -1e4
    x[:, 1::2] = x[:, ::2]
    return x, w, np.ones((24, 24), bool)


def one_strong_input() -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """A channel with large weights that is mostly zero: results far from its pixels are small."""
    w, x = normal(32, 32, 3, 3), normal(1, 32, 24, 24, seed=1)
    w[:, 0] *= 1e5
    x[:, 0] = 0
    x[:, 0, ::6, ::6] = 1
    seen = np.zeros((26, 26), bool)
    for i in range(3):
        for j in range(3):
            seen[i : i + 24, j : j + 24] |= x[0, 0] != 0
    return x, w, ~seen[1:-1, 1:-1]


def one_strong_tap() -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Large weights in the middle of the filters: results where the image is zero are small."""
    w, x = normal(32, 32, 3, 3), normal(1, 32, 24, 24, seed=1)
    w[:, :, 1, 1] *= 1e5
    dark = np.random.default_rng(2).random((24, 24)) < 0.5
    x[:, :, dark] = 0
    return x, w, dark


HARD = pytest.mark.parametrize("make", [cancelling, one_strong_input, one_strong_tap], ids=lambda make: make.__name__)


@HARD
@pytest.mark.parametrize("target", TARGET_NAMES)
def test_weights_that_lose_digits_are_refused(
    make: Callable[[], tuple[Array, Array, npt.NDArray[np.bool_]]], target: str
) -> None:
    chosen = target_or_skip(target)
    x, w, where = make()
    graph = layer(x, w, chosen)
    exact = evaluate(graph, {"x": x}, dtype="float64")["y"][..., where]

    def lost(form: str) -> float:
        compiled = Compiled(graph, chosen, library(form, chosen))
        return loss("", compiled({"x": x})["y"][..., where], exact).rms

    direct, auto, forced = lost(DIRECT), lost("auto"), lost("f4")
    assert forced > max(BUDGET, 4 * direct)
    assert auto <= 1.5 * direct
    assert winograd_error(w, 4) > BUDGET


@HARD
def test_the_plan_says_what_was_refused(make: Callable[[], tuple[Array, Array, npt.NDArray[np.bool_]]]) -> None:
    target = resolve("x86-64-v3")
    x, w, _ = make()
    program = lower(layer(x, w, target), Library(target))
    (step,) = [step for step in program.steps if step.kernel.startswith("conv2d.")]
    if step.kernel == "conv2d.winograd":
        assert (step.facts["largest_form"], step.schedule["m"]) == (2, 2)
    else:
        assert step.facts["not_conv2d.winograd"] == f"f4:{winograd_error(w, 4):.1e} f2:{winograd_error(w, 2):.1e}"
    text = print_program(program)
    assert print_program(parse_program(text, {name: c.data for name, c in program.constants.items()})) == text


def test_what_is_asked_for_is_not_refused() -> None:
    target = resolve("x86-64-v3")
    x, w, _ = one_strong_tap()
    for form in ("f2", "f4"):
        program = lower(layer(x, w, target), Library(target, form))
        (step,) = [step for step in program.steps if step.kernel.startswith("conv2d.")]
        assert (step.kernel, step.schedule["m"]) == ("conv2d.winograd", int(form[1]))
        assert "largest_form" not in step.facts


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("weights", ["pretrained", "random:3"])
def test_a_trained_network_and_a_random_one_lose_nothing_by_the_bound(
    weights: str, target: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: str | Path = "squeezenet1.1"
    if weights == "pretrained":
        model = request.getfixturevalue("squeezenet_dir")
    graph = sqzc.optimize(sqzc.lift(model, weights=weights), target=target)
    bounded = print_program(lower(graph, Library(resolve(target))))
    monkeypatch.setattr(ConvWinograd, "admitted", lambda self, node: self.forms)
    assert bounded == print_program(lower(graph, Library(resolve(target))))
    assert "m=4" in bounded
