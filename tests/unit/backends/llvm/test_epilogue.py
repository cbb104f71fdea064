"""The end of every fused kernel: the activation, and zeros past the channels."""

from __future__ import annotations

import numpy as np
import pytest
from unit.backends.llvm.emitting import TARGET_NAMES, Body, assembly_of, call, floats, target_or_skip

from sqzc.backends.llvm.emit import I64, PTR, Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.ir.ops.activation import NONE, Activation

ACTS = {
    "none": NONE,
    "relu": Activation("relu"),
    "clip": Activation("clip", (-0.25, 0.5)),
    "clip above zero": Activation("clip", (0.25, 0.5)),
    "clip below zero": Activation("clip", (-0.5, -0.25)),
    "sigmoid": Activation("sigmoid"),
}
MOVES_ZERO = {"clip above zero", "clip below zero", "sigmoid"}


def applied(name: str, x: np.ndarray) -> np.ndarray:
    """The activation in float64."""
    wide = x.astype(np.float64)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-wide))
    if name == "relu":
        return np.maximum(wide, 0)
    return np.clip(wide, *ACTS[name].params) if ACTS[name] else wide


def finish(channels: int, act: Activation) -> Body:
    """A function of (result, vector, its channel block)."""

    def body(e: Emitter, out: Val, x: Val, block: Val) -> None:
        e.store(finish_vector(e, e.load(x), act, channels, block), out)

    return body


@pytest.mark.parametrize("target_name", TARGET_NAMES)
@pytest.mark.parametrize("name", ACTS)
def test_lanes_past_the_channels_are_zero(name: str, target_name: str) -> None:
    target = target_or_skip(target_name)
    lanes = target.vector_lanes
    for blocks in (1, 3):
        for rest in {1, 2, lanes - 1, lanes}:
            channels = (blocks - 1) * lanes + rest
            for block in range(blocks):
                used = min(lanes, channels - block * lanes)
                # Packed weights give zeros in the lanes past the channels.
                x = floats(lanes, seed=block)
                x[used:] = 0.0
                out = np.full(lanes + 1, 7.0, np.float32)
                call(target, finish(channels, ACTS[name]), out, x, block)
                np.testing.assert_allclose(out[:used], applied(name, x[:used]), rtol=3e-7, atol=1e-7)
                np.testing.assert_array_equal(out[used:], [0.0] * (lanes - used) + [7.0])


@pytest.mark.parametrize("target_name", TARGET_NAMES)
@pytest.mark.parametrize("name", ACTS)
def test_only_activations_that_move_zero_cost_a_mask(name: str, target_name: str) -> None:
    target = target_or_skip(target_name)
    lanes = target.vector_lanes
    arguments = [PTR, PTR, I64]
    whole = assembly_of(target, arguments, finish(2 * lanes, ACTS[name]))
    part = assembly_of(target, arguments, finish(2 * lanes - 1, ACTS[name]))
    assert (whole != part) == (name in MOVES_ZERO)
