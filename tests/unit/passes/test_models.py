"""What the levels make of real networks. Needs the shared models; the SqueezeNet weights are the trained ones."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sqzc.backends.reference import evaluate, evaluate_node
from sqzc.frontends.caffe2 import lift
from sqzc.ir.files import weights_of
from sqzc.ir.graph import Graph
from sqzc.ir.parser import parse_graph
from sqzc.ir.printer import print_graph
from sqzc.ir.types import Layout
from sqzc.passes.base import Pass
from sqzc.passes.manager import Instrument, PassManager, PassRecord
from sqzc.target import TARGETS, Target

MEAN = (103.96, 116.78, 123.68)


def optimized(graph: Graph, level: str, target: str = "x86-64-v4", *instruments: Instrument) -> Graph:
    """A copy of the graph after a level."""
    result = graph.clone()
    PassManager(level, instruments, target=TARGETS[target], evaluate=evaluate_node).run(result)
    return result


def counts(graph: Graph) -> Counter[str]:
    """How many there are of each op."""
    return Counter(node.op.name for node in graph.nodes)


@pytest.fixture(scope="module")
def squeezenet(shared_dir: Path) -> Graph:
    """SqueezeNet 1.1 with its mean as an op."""
    return lift(shared_dir / "models" / "squeezenet1.1", mean=MEAN)


def from_net(shared_dir: Path, name: str) -> Graph:
    """A net of the golden data with random weights."""
    folder = shared_dir / "golden" / "nets" / name
    shapes = {item["name"]: item["shape"] for item in json.loads((folder / "case.json").read_text())["inputs"]}
    params = {p["name"]: p["shape"] for p in json.loads((folder / "recipe.json").read_text())["params"]}
    return lift(folder / "predict_net.pb", input_shapes=shapes, param_shapes=params, weights="random")


@pytest.mark.weights
@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
@pytest.mark.parametrize("level", ["O2", "O3"])
def test_squeezenet(squeezenet: Graph, level: str, target: Target) -> None:
    graph = optimized(squeezenet, level, target.name)
    # The image is read row-major on every target; only the class vector changes its layout.
    assert counts(graph) == {
        "conv2d": 26, "max_pool2d": 3, "concat": 8, "avg_pool2d": 1, "relayout": 1, "softmax": 1
    }  # fmt: skip
    for node in graph.nodes:
        if node.op.name == "conv2d":
            assert str(node.op.attrs["act"]) == "relu"
        if node.op.name == "concat":
            assert node.op.attrs["placed"]
        if node.op.name not in ("softmax", "relayout"):
            assert node.output.type.layout == Layout(target.vector_lanes)
    assert graph.nodes[0].inputs[0] is graph.inputs[0]


@pytest.mark.weights
def test_squeezenet_keeps_its_numbers(squeezenet: Graph) -> None:
    image = {"data": np.random.default_rng(0).uniform(0, 255, (1, 3, 227, 227)).astype(np.float32)}
    before = evaluate(squeezenet, image)["softmaxout"]
    for level in ("O0", "O1", "O2"):
        after = evaluate(optimized(squeezenet, level), image)["softmaxout"]
        # The budget of the whole compiler is 1e-5; the passes must leave most of it to the kernels.
        assert np.abs(after - before).max() <= (0 if level == "O0" else 1e-6)


@pytest.mark.weights
def test_squeezenet_goes_on_from_any_dump(squeezenet: Graph) -> None:
    seen: list[tuple[str, str]] = []

    class Keep(Instrument):
        def after_pass(self, index: int, step: Pass, graph: Graph, record: PassRecord) -> None:
            if record.changed:
                weights.update(weights_of(graph))
                seen.append((print_graph(graph), record.remaining))

    weights = weights_of(squeezenet)
    final = optimized(squeezenet, "O2", "x86-64-v4", Keep())
    assert len(seen) >= 5
    for text, remaining in seen:
        again = optimized(parse_graph(text, weights), remaining)
        assert print_graph(again) == print_graph(final)


@pytest.mark.weights
def test_same_text_under_every_hash_seed(squeezenet: Graph, tmp_path: Path) -> None:
    script = tmp_path / "level.py"
    script.write_text(
        "import hashlib, sys\n"
        "from sqzc.frontends.caffe2 import lift\n"
        "from sqzc.passes.manager import PassManager\n"
        "from sqzc.target import TARGETS\n"
        f"graph = lift(sys.argv[1], mean={MEAN})\n"
        "PassManager('O2', target=TARGETS['x86-64-v4']).run(graph)\n"
        "print(hashlib.sha256(str(graph).encode()).hexdigest())\n"
    )
    wanted = hashlib.sha256(print_graph(optimized(squeezenet, "O2")).encode()).hexdigest()
    shared = Path(os.environ.get("SQZC_SHARED") or Path(__file__).resolve().parents[4] / "shared")
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, str(script), str(shared / "models" / "squeezenet1.1")]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == wanted


def test_resnet50(shared_dir: Path) -> None:
    graph = optimized(from_net(shared_dir, "resnet50"), "O2")
    # Batch norms, activations and residual sums all live in the convolutions, and no image goes back and forth.
    # The last two shortcuts with a stride have filters enough to collect their pixels first.
    assert counts(graph) == {
        "conv2d": 53, "max_pool2d": 3, "avg_pool2d": 1, "relayout": 1, "reshape": 1, "linear": 1, "softmax": 1
    }  # fmt: skip
    convs = [node for node in graph.nodes if node.op.name == "conv2d"]
    assert sum(node.operand("residual") is not None for node in convs) == 16
    assert sum(str(node.op.attrs["act"]) == "relu" for node in convs) == 49
    assert all(node.output.type.layout == Layout(16) for node in convs)


def test_inception(shared_dir: Path) -> None:
    graph = optimized(from_net(shared_dir, "inception_v1"), "O2")
    found = counts(graph)
    assert found["conv2d"] == 57
    assert found["dropout"] == found["relu"] == 0
    assert all(node.op.attrs["placed"] for node in graph.nodes if node.op.name == "concat")
    # Two LRN layers are row-major: in and out of each, and out at the end.
    assert found["relayout"] == 5
