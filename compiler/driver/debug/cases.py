"""Inputs that checks are made with: seeded ones and the awkward ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph
from sqzc.ir.ops.elementwise import Cast
from sqzc.ir.types import TensorType

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Case:
    """Inputs by name. `exact_only`: too large for anything but double precision, where nothing overflows."""

    name: str
    inputs: Arrays
    exact_only: bool = False


Draw = Callable[[np.random.Generator, TensorType], Array]

# Like pixels around their mean; and small, so that no softmax saturates and biases count.
_SEEDED: Mapping[str, float] = {"pixels": 64.0, "small": 1.0}


def pass_cases(graph: Graph, seeds: int) -> list[Case]:
    """What passes are checked with: seeded inputs, then zeros, extremes, denormals, and a NaN where ops define it."""
    cases = kernel_cases(graph, seeds)
    if not any(value.type.dtype.is_float for value in graph.inputs):
        return cases
    cases.append(Case("extremes", _draw(graph, 0, _extremes), exact_only=True))
    cases.append(Case("denormals", _draw(graph, 0, _denormals)))
    # What an integer made of NaN is, depends on the machine.
    if not any(isinstance(node.op, Cast) for node in graph.nodes):
        cases.append(Case("nan", _draw(graph, 0, _one_nan)))
    return cases


def kernel_cases(graph: Graph, seeds: int) -> list[Case]:
    """What generated code is checked with: seeded inputs of two sizes, and zeros."""
    cases = [
        Case(f"{name}-{seed}", _draw(graph, seed, _normal(scale)))
        for seed in range(max(seeds, 1))
        for name, scale in _SEEDED.items()
    ]
    return [*cases, Case("zeros", _draw(graph, 0, lambda random, type_: np.zeros(type_.shape)))]


def _draw(graph: Graph, seed: int, draw: Draw) -> Arrays:
    """Depends on the seed and on the order and types of the inputs alone. Integers are 0 and 1: safe as indices."""
    inputs = {}
    for position, value in enumerate(graph.inputs):
        random, type_ = np.random.default_rng([seed, position]), value.type
        values = draw(random, type_) if type_.dtype.is_float else random.integers(0, 2, type_.shape)
        inputs[value.name] = np.asarray(values).astype(type_.dtype.numpy)
    return inputs


def _normal(scale: float) -> Draw:
    return lambda random, type_: np.asarray(random.normal(0.0, scale, type_.shape))


def _extremes(random: np.random.Generator, type_: TensorType) -> Array:
    """The largest numbers there are, of both signs."""
    # In double precision no product with a weight overflows then.
    largest = min(_limits(type_).max, np.finfo(np.float32).max)
    return np.where(random.integers(0, 2, type_.shape) == 0, -float(largest), float(largest))


def _denormals(random: np.random.Generator, type_: TensorType) -> Array:
    """Numbers below the smallest normal one, of both signs."""
    return np.asarray(random.uniform(-1.0, 1.0, type_.shape) * float(_limits(type_).smallest_normal))


def _limits(type_: TensorType) -> np.finfo[Any]:
    return np.finfo(cast(Any, type_.dtype.numpy))


def _one_nan(random: np.random.Generator, type_: TensorType) -> Array:
    """Ordinary numbers with one NaN in the middle."""
    values = random.normal(0.0, 1.0, type_.shape)
    if values.size:
        values[tuple(size // 2 for size in type_.shape)] = np.nan
    return values
