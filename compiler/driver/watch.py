"""Instruments for the pass manager: printing graphs between passes, checking numbers after every pass, timing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sqzc.backends.reference import evaluate
from sqzc.diagnostics import PassError, nearest
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph
from sqzc.ir.printer import print_graph
from sqzc.ir.types import TensorType
from sqzc.passes.base import Pass
from sqzc.passes.manager import Instrument, PassFailure, PassRecord
from sqzc.passes.registry import known_passes

ALL = "all"

SCALES = (64.0, 1.0, 0.0)
"""Of the inputs that passes are checked with: like pixels; small, so that softmax is not saturated and biases count;
and zeros."""


def check_names(names: Sequence[str]) -> frozenset[str]:
    """The names of passes to watch; PassError for one that no pass has."""
    for name in names:
        if name != ALL and name not in known_passes():
            raise PassError(
                f"unknown pass '{name}'",
                expected=f"{ALL}, {', '.join(known_passes())}",
                hint=nearest(name, known_passes()),
            )
    return frozenset(names)


class PrintIr(Instrument):
    """Shows the graph before and after named passes, or `all`, as text that parses."""

    def __init__(self, before: Sequence[str], after: Sequence[str], show: Callable[[str], None]) -> None:
        self.before, self.after, self.show = check_names(before), check_names(after), show

    def before_pass(self, index: int, step: Pass, graph: Graph) -> None:
        """Shows the graph that the pass is given."""
        if self.before & {ALL, step.name}:
            self.show(f"# before {index:02d} {step.spec}\n{print_graph(graph)}")

    def after_pass(self, index: int, step: Pass, graph: Graph, record: PassRecord) -> None:
        """Shows the graph that the pass left."""
        if self.after & {ALL, step.name}:
            words = "" if record.changed else ", which changed nothing"
            self.show(f"# after {index:02d} {step.spec}{words}\n{print_graph(graph)}")


class VerifyPasses(Instrument):
    """Evaluates the graph by the reference backend before and after every pass that changed it.

    Each output may move by `budget` times the largest magnitude it has, from before any pass; NaN and infinities must
    stay where they are. A pass that moves one further is a bug: PassFailure, which holds the graph it was given.
    """

    def __init__(self, *, seeds: int = 1, budget: float = 1e-5) -> None:
        self.seeds, self.budget = seeds, budget
        self.inputs: list[dict[str, Array]] = []
        self.expected: list[dict[str, Array]] = []
        self.before: Graph | None = None
        self.ran: list[str] = []
        self.errors: list[tuple[str, float]] = []

    def before_pipeline(self, graph: Graph) -> None:
        """Draws the inputs and notes the answers."""
        self.inputs = [draw_inputs(graph, seed, scale) for seed in range(self.seeds) for scale in SCALES]
        self.expected = [evaluate(graph, inputs) for inputs in self.inputs]

    def before_pass(self, index: int, step: Pass, graph: Graph) -> None:
        """Keeps the graph for the reproducer."""
        self.before = graph.clone()

    def after_pass(self, index: int, step: Pass, graph: Graph, record: PassRecord) -> None:
        """Compares the answers, if there is anything new to compare."""
        assert self.before is not None
        worst = 0.0
        if record.changed:
            for inputs, expected in zip(self.inputs, self.expected, strict=True):
                got = evaluate(graph, inputs)
                for name in expected:
                    error, words = relative_error(got[name], expected[name])
                    worst = max(worst, error)
                    if not error <= self.budget:
                        reason = f"it changed output '{name}' by {error:.3g}, over {self.budget:.3g}; {words}"
                        raise PassFailure(reason, step.spec, self.ran, self.before)
        self.errors.append((step.spec, worst))
        self.ran.append(step.spec)


def draw_inputs(graph: Graph, seed: int, scale: float) -> dict[str, Array]:
    """Normal floats of a deviation, and small integers; they depend on the inputs' order and types alone."""
    return {
        value.name: _draw(value.type, np.random.default_rng([seed, i]), scale) for i, value in enumerate(graph.inputs)
    }


def _draw(type_: TensorType, random: np.random.Generator, scale: float) -> Array:
    if type_.dtype.is_float:
        return np.asarray(random.normal(0.0, scale, type_.shape)).astype(type_.dtype.numpy)
    return np.asarray(random.integers(0, 2, type_.shape)).astype(type_.dtype.numpy)


def relative_error(got: Array, expected: Array) -> tuple[float, str]:
    """The largest difference over the largest finite magnitude expected, and words that say where it is.

    Infinite where NaN or an infinity is not where it should be, or a shape differs.
    """
    if got.shape != expected.shape:
        return float("inf"), f"expected shape {expected.shape}, got {got.shape}"
    if not expected.size:
        return 0.0, ""
    a, b = got.astype(np.float64), expected.astype(np.float64)
    special = ~np.isfinite(b)
    same = np.where(special, (a == b) | (np.isnan(a) & np.isnan(b)), np.isfinite(a))
    with np.errstate(invalid="ignore"):
        off = np.where(same, np.where(special, 0.0, np.abs(a - b)), np.inf)
    scale = float(np.max(np.abs(b), where=~special, initial=0.0)) or 1.0
    worst = np.unravel_index(int(np.argmax(off)), off.shape)
    where = [int(i) for i in worst]
    return float(off[worst]) / scale, f"worst at {where}: expected {b[worst]:.9g}, got {a[worst]:.9g}"


def timing_rows(records: Sequence[PassRecord]) -> list[Mapping[str, Any]]:
    """What `--time-passes` shows of each pass."""
    return [
        {
            "index": record.index,
            "pass": record.spec,
            "seconds": record.seconds,
            "changed": record.changed,
            "ops": record.ops_after,
            "rewrites": len(record.rewrites),
        }
        for record in records
    ]


def timing_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of `--time-passes`."""
    lines = [f"{'ms':>9}  {'ops':>5}  {'rewrites':>8}  pass"]
    for row in rows:
        lines.append(f"{1000 * row['seconds']:9.2f}  {row['ops']:5}  {row['rewrites']:8}  {row['pass']}")
    lines.append(f"{1000 * sum(row['seconds'] for row in rows):9.2f}  {'':5}  {'':8}  all")
    return "\n".join(lines)
