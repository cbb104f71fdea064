"""Measures what fast convolutions lose, against float64: of one layer, of every layer of a network, and in its answer.

    PYTHONPATH=tests python tests/layer_errors.py [--image 0] [--target x86-64-v4]

prints the tables of docs/performance.md for SqueezeNet 1.1, with its real weights and one of the recorded images where
$SQZC_SHARED (or ../shared) has them, otherwise with random ones.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from differential.compiling import Compiled

import sqzc
from sqzc.backends.llvm.error_bounds import winograd_error
from sqzc.backends.llvm.library import WINOGRAD, Library
from sqzc.backends.llvm.strassen_error import strassen_error
from sqzc.backends.reference import evaluate, evaluate_values
from sqzc.ir import Graph
from sqzc.ir.constant import Constant
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.ops.shape import Relayout
from sqzc.ir.types import PLAIN, Layout, f32
from sqzc.plan.program import Step
from sqzc.target import Target, resolve

Array = npt.NDArray[Any]
DIRECT = "direct"
INEXACT = ("strassen", "split")
MEAN = (103.96, 116.78, 123.68)


@dataclass(frozen=True)
class Loss:
    """Errors of one form of a layer as shares of its results: root mean square, and largest to largest."""

    kernel: str
    rms: float
    worst: float


def loss(kernel: str, got: Array, exact: Array) -> Loss:
    """The errors of `got`."""
    error = np.abs(got.astype(np.float64) - exact)
    size = np.abs(exact)
    return Loss(kernel, float(np.sqrt((error**2).mean() / (size**2).mean())), float(error.max() / size.max()))


def layer(x: Array, w: Array, target: Target) -> Graph:
    """A convolution of stride 1 alone, padded to the same size, of blocked images as inside a network."""
    graph, blocks = Graph("layer"), Layout(target.vector_lanes)
    entry = graph.add_input("x", f32(*x.shape))
    image = graph.insert(Relayout(), [entry], types=[entry.type.with_layout(blocks)]).output
    weights = graph.add_constant(Constant("w", np.ascontiguousarray(w, np.float32)))
    op = Conv2d(pads=(w.shape[2] // 2,) * 4)
    (type_,) = op.result_types([image.type, weights.type])
    y = graph.insert(op, [image, weights], types=[type_.with_layout(blocks)]).output
    graph.add_output("y", graph.insert(Relayout(), [y], types=[type_.with_layout(PLAIN)]).output)
    return graph


def library(form: str, target: Target) -> Library:
    """The kernels for `direct`, `f2` or `f4`, or for Strassen's form or parts of bfloat16 where they pay (`auto`)."""
    if form != DIRECT:
        return Library(target, form)
    found = Library(target, "off")
    found.order = tuple(family for family in found.order if not any(word in family.name for word in INEXACT))
    return found


def measure(x: Array, w: Array, form: str, target: Target) -> tuple[Loss, Step]:
    """What a form of a layer loses for an image, and the step that ran it."""
    graph = layer(x, w, target)
    compiled = Compiled(graph, target, library(form, target))
    (step,) = [step for step in compiled.program.steps if step.kernel.startswith("conv2d.")]
    exact = evaluate(graph, {"x": x}, dtype="float64")["y"]
    return loss(step.kernel, compiled({"x": x})["y"], exact), step


# -- a network --------------------------------------------------------------------------------------------------------


def layers(graph: Graph, inputs: dict[str, Array]) -> Iterator[tuple[str, Array, Array]]:
    """Name, image and weights of every convolution of stride 1 with 16 channels or more."""
    values = evaluate_values(graph, inputs)
    for node in graph.nodes:
        if isinstance(node.op, Conv2d) and node.op.stride == (1, 1) and node.inputs[1].type.shape[1] >= 16:
            yield node.output.source[-1], values[node.inputs[0].name], node.inputs[1].data


def layer_table(graph: Graph, inputs: dict[str, Array], target: Target) -> Iterator[str]:
    """One row for each layer that Winograd's or Strassen's form, or parts of bfloat16, can run."""
    yield "| layer | form | estimate | rms | largest | direct: rms | largest |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for name, x, w in layers(graph, inputs):
        plain, _ = measure(x, w, DIRECT, target)
        for form in ("f2", "f4") if w.shape[2] == 3 else ("auto",):
            found, step = measure(x, w, form, target)
            if found.kernel == plain.kernel:
                continue
            if w.shape[2] == 3:
                words, estimate = f"F({form[1]},3)", winograd_error(w, int(form[1]))
            elif "split" in found.kernel:
                words, estimate = "bfloat16 parts", float("nan")
            else:
                levels = int(step.schedule.get("levels", 1))
                words, estimate = f"Strassen, {levels}", strassen_error(w, levels, target.vector_lanes)
            figures = (estimate, found.rms, found.worst, plain.rms, plain.worst)
            yield f"| {name} | {words} | " + " | ".join(f"{figure:.1e}" for figure in figures) + " |"


def answer_table(model: str | Path, inputs: dict[str, Array], graph: Graph, options: dict[str, Any]) -> Iterator[str]:
    """The largest difference of an output from float64's, for every choice of `--winograd`."""
    yield "| | largest difference |"
    yield "| --- | ---: |"
    (exact,), (plain,) = (evaluate(graph, inputs, dtype=kind).values() for kind in ("float64", "float32"))
    yield f"| reference in float32 | {np.abs(plain - exact).max():.1e} |"
    for form in WINOGRAD:
        got = sqzc.compile(model, winograd=form, **options)(*inputs.values())
        yield f"| `--winograd {form}` | {np.abs(got - exact).max():.1e} |"


def golden_table(model: str | Path, recorded: Path, options: dict[str, Any]) -> Iterator[str]:
    """The largest difference from what Caffe2 answered to all recorded images, and how often the first five agree."""
    golden = np.load(recorded)
    crops, wanted = golden["crops"], golden["softmaxout"].reshape(len(golden["crops"]), -1)
    yield "| Caffe2's answers | largest difference | same top-5 |"
    yield "| --- | ---: | ---: |"
    for form in WINOGRAD:
        compiled = sqzc.compile(model, winograd=form, **options)
        got = np.stack([compiled(np.float32(crop).transpose(2, 0, 1)[None].copy()).ravel() for crop in crops])
        same = (np.argsort(-got)[:, :5] == np.argsort(-wanted)[:, :5]).all(axis=1).sum()
        yield f"| `--winograd {form}` | {np.abs(got - wanted).max():.1e} | {same} of {len(crops)} |"


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=int, default=0, help="which of the recorded images")
    parser.add_argument("--target", default="native", help="the CPU to compile for")
    args = parser.parse_args()
    shared = Path(os.environ.get("SQZC_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    target = resolve(args.target)
    options: dict[str, Any] = {"mean": MEAN}
    model: str | Path = shared / "models" / "squeezenet1.1"
    if shared.is_dir():
        crop = np.load(shared / "golden" / "squeezenet1.1" / "golden.npz")["crops"][args.image]
        pixels = np.ascontiguousarray(crop.astype(np.float32).transpose(2, 0, 1)[None])
    else:
        print("no recorded images and weights: random ones", file=sys.stderr)
        model, options["weights"] = "squeezenet1.1", "random:1"
        pixels = np.random.default_rng(args.image).uniform(0, 255, (1, 3, 227, 227)).astype(np.float32)
    graph = sqzc.lift(model, **options)
    inputs = {graph.inputs[0].name: pixels}
    options["target"] = target.name
    print(*layer_table(graph, inputs, target), "", sep="\n")
    print(*answer_table(model, inputs, graph, options), sep="\n")
    if shared.is_dir():
        print("", *golden_table(model, shared / "golden" / "squeezenet1.1" / "golden.npz", options), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
