"""Random graphs through everything: the reference, generated code at O0 and O3, and onnxruntime where it is installed.

    PYTHONPATH=tests python tests/random_graphs.py [--count 2000] [--first 0]

A difference beyond rounding prints the seed; `seeded_graph(seed)` makes the graph again.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from property.graphs import inputs_for, seeded_graph

import sqzc
from sqzc.backends.reference import evaluate
from sqzc.diagnostics import UnsupportedError
from sqzc.ir import Graph

Arrays = Mapping[str, npt.NDArray[Any]]

# Results beyond this share of the float64 result's largest element, or of what float32 arithmetic itself loses times
# SLACK, are differences. Winograd's forms lose a few times more than sums in order.
SHARE = 1e-4
SLACK = 64.0


def excess(got: npt.NDArray[Any], exact: npt.NDArray[Any], plain: npt.NDArray[Any]) -> float:
    """By what factor `got` is further from `exact` than allowed; `plain` is the float32 reference."""
    if got.shape != exact.shape or not np.array_equal(np.isnan(got), np.isnan(plain)):
        return np.inf
    if got.dtype.kind != "f":
        return 0.0 if np.array_equal(got, plain) else np.inf
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.isfinite(exact) & np.isfinite(plain)
        if not np.array_equal(got[~finite], plain[~finite], equal_nan=True):
            return np.inf
        error = np.abs(got.astype(np.float64) - exact)[finite].max(initial=0.0)
        lost = np.abs(plain.astype(np.float64) - exact)[finite].max(initial=0.0)
        largest = np.abs(exact[finite]).max(initial=0.0)
    return float(error / max(SHARE * largest, SLACK * lost, 1e-6))


def contenders(graph: Graph, inputs: Arrays) -> dict[str, Arrays]:
    """The outputs of everybody who can run the graph."""
    found: dict[str, Arrays] = {}
    for level in (0, 3):
        found[f"O{level}"] = sqzc.compile(graph, opt_level=level).run(dict(inputs))
    if importlib.util.find_spec("onnxruntime") is not None:
        outputs = run_onnxruntime(graph, inputs)
        if outputs is not None:
            found["onnxruntime"] = outputs
    return found


def run_onnxruntime(graph: Graph, inputs: Arrays) -> Arrays | None:
    """The answers of onnxruntime; None where the graph has no ONNX form or onnxruntime does not implement it."""
    import onnxruntime

    from sqzc.backends.onnx_export import export

    try:
        model = export(graph)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # It moves a Pad into the pool behind it also where the pool then has more padding than it accepts.
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=["Pad_Fusion"]
        )
    except (UnsupportedError, onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented):
        return None
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def check(seed: int) -> tuple[list[str], list[str]]:
    """Who ran the graph of a seed, and what differed."""
    graph = seeded_graph(seed)
    inputs = inputs_for(graph, seed)
    exact, plain = (evaluate(graph, inputs, dtype=kind) for kind in ("float64", "float32"))
    ran = contenders(graph, inputs)
    faults = []
    for who, outputs in ran.items():
        for name, array in outputs.items():
            factor = excess(np.asarray(array), exact[name], plain[name])
            if factor > 1:
                faults.append(f"seed {seed}: '{name}' of {who} is off by {factor:.3g} times what is allowed")
    return list(ran), faults


def main() -> int:
    """Checks a range of seeds; 1 when anything differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    totals: dict[str, int] = {}
    faults = 0
    for seed in range(args.first, args.first + args.count):
        ran, found = check(seed)
        for who in ran:
            totals[who] = totals.get(who, 0) + 1
        for line in found:
            print(line, flush=True)
        faults += bool(found)
        if (seed + 1 - args.first) % 100 == 0 and sys.stderr.isatty():
            print(f"{seed + 1 - args.first} of {args.count}", file=sys.stderr)
    print(f"{args.count - faults} passed, {faults} failed; " + ", ".join(f"{who} ran {n}" for who, n in totals.items()))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
