"""Every recorded case of the real Caffe2 runtime, lifted and evaluated by the reference backend."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqzc.backends.reference import evaluate
from sqzc.frontends.caffe2 import lift
from sqzc.ir import DType, TensorType
from sqzc.ir.verifier import verify

TESTS = Path(__file__).resolve().parents[2]


def runner() -> Any:
    """tests/golden_runner.py, which the golden data's own checker loads by its path too."""
    spec = importlib.util.spec_from_file_location("golden_runner", TESTS / "golden_runner.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_recorded_operators(shared_dir):
    reference = runner().reference
    failures = []
    cases = sorted((shared_dir / "golden" / "ops").iterdir())
    for folder in cases:
        case = json.loads((folder / "case.json").read_text())
        with np.load(folder / "inputs.npz") as data:
            inputs = dict(data)
        with np.load(folder / "outputs.npz") as data:
            wanted = dict(data)
        init = folder / "init_net.pb"
        got = reference(folder / "predict_net.pb", init if init.exists() else None, inputs)
        for name, want in wanted.items():
            same = got[name].shape == want.shape and got[name].dtype == want.dtype
            tolerance = (
                {"atol": case["atol"], "rtol": case["rtol"]} if want.dtype.kind == "f" else {"atol": 0, "rtol": 0}
            )
            if not same or not np.allclose(got[name], want, equal_nan=True, **tolerance):
                failures.append(f"{folder.name}: {name}")
    assert len(cases) >= 174
    assert not failures


@pytest.mark.weights
def test_squeezenet_matches_caffe2_on_a_recorded_image(shared_dir, squeezenet_dir):
    golden = shared_dir / "golden" / "squeezenet1.1"
    meta = json.loads((golden / "golden.json").read_text())
    with np.load(golden / "golden.npz") as data:
        crop, want = data["crops"][0].astype(np.float32), data["softmaxout"][0]
    graph = lift(squeezenet_dir, mean=meta["mean_bgr"])
    verify(graph)
    got = evaluate(graph, {"data": crop.transpose(2, 0, 1)[None]})["softmaxout"].ravel()
    assert np.abs(got - want.ravel()).max() <= 1e-5
    assert np.argsort(-got)[:5].tolist() == np.argsort(-want.ravel())[:5].tolist()


@pytest.mark.weights
def test_squeezenet_is_lifted_one_to_one(squeezenet_dir):
    graph = lift(squeezenet_dir)
    assert graph.inputs[0].type == TensorType(DType.F32, (1, 3, 227, 227))
    assert [name for name, _ in graph.outputs] == ["softmaxout"]
    kinds = [node.op.name for node in graph.nodes]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "conv2d": 26,
        "relu": 26,
        "max_pool2d": 3,
        "avg_pool2d": 1,
        "concat": 8,
        "dropout": 1,
        "softmax": 1,
    }
    # legacy_pad 3 rounds up: 113 -> 56 -> 28 -> 14.
    pools = [node.output.type.shape[2] for node in graph.nodes if node.op.name == "max_pool2d"]
    assert pools == [56, 28, 14]
    assert graph.parameters == 1_235_496
