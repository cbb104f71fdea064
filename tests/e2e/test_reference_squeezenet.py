"""The real SqueezeNet 1.1 in the reference backend: its size, and the recorded answers of the real Caffe2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sqzc.backends import onnx_export
from sqzc.backends.reference import evaluate
from sqzc.frontends.caffe2 import lift
from sqzc.ir import Graph
from sqzc.ir.types import f32

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def graph(squeezenet_dir: Path) -> Graph:
    predict, init = squeezenet_dir / "predict_net.pb", squeezenet_dir / "init_net.pb"
    return lift(predict, init, input_shapes={"data": f32(1, 3, 227, 227)})


@pytest.fixture(scope="module")
def golden(shared_dir: Path) -> dict[str, Any]:
    return dict(np.load(shared_dir / "golden" / "squeezenet1.1" / "golden.npz"))


@pytest.fixture(scope="module")
def tolerances(shared_dir: Path) -> dict[str, Any]:
    text = (shared_dir / "golden" / "squeezenet1.1" / "golden.json").read_text()
    return dict(json.loads(text))


def prepared(golden: dict[str, Any], tolerances: dict[str, Any], index: int) -> dict[str, Any]:
    crop = golden["crops"][index].astype(np.float32) - np.array(tolerances["mean_bgr"], np.float32)
    return {"data": np.ascontiguousarray(crop.transpose(2, 0, 1)[None])}


def test_size_of_the_network(graph: Graph) -> None:
    """2 per multiply-accumulate, bias, ReLU and 9 compares per max-pool output; the first alone; the parameters."""
    assert round(graph.flops / 1e9, 3) == 0.784
    assert round(2 * graph.macs / 1e9, 4) == 0.7755
    assert graph.parameters == 1_235_496
    assert sum(node.op.name == "conv2d" for node in graph.nodes) == 26


def test_answers_of_caffe2(graph: Graph, golden: dict[str, Any], tolerances: dict[str, Any]) -> None:
    for index in range(0, len(golden["files"]), 8):
        got = evaluate(graph, prepared(golden, tolerances, index))["softmaxout"].ravel()
        want = golden["softmaxout"][index].ravel()
        assert np.abs(got - want).max() <= 1e-5, golden["files"][index]
        assert np.argsort(-got)[:5].tolist() == np.argsort(-want)[:5].tolist(), golden["files"][index]


def test_every_recorded_blob(graph: Graph, golden: dict[str, Any], tolerances: dict[str, Any]) -> None:
    """In float64 too: what is left then is Caffe2's own rounding and that of the recording (half precision)."""
    keys = [key.split("/", 3) for key in golden if key.startswith("tap/")]
    names = sorted({blob for _, _, _, blob in keys})
    assert {"conv1", "fire9/concat", "pool10"} <= set(names)
    for image in golden["tap_images"].tolist():
        for precision in ("float32", "float64"):
            got = evaluate(graph, prepared(golden, tolerances, image), taps=names, dtype=precision)
            for _, _, step, blob in (key for key in keys if int(key[1]) == image):
                want = golden[f"tap/{image}/{step}/{blob}"].astype(np.float64)
                here = got[blob].reshape(-1) if want.ndim == 1 else got[blob][:, :, :: int(step), :: int(step)]
                limit = tolerances["tap_rtol"]
                scale = np.sqrt((want**2).mean())
                np.testing.assert_allclose(here, want.reshape(here.shape), rtol=limit, atol=limit * scale, err_msg=blob)


def test_onnx_export_is_well_formed(graph: Graph) -> None:
    model = onnx_export.export(graph)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["data"]
    assert [value.name for value in model.graph.output] == ["softmaxout"]
    kinds = [node.op_type for node in model.graph.node]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "Conv": 26,
        "Relu": 26,
        "MaxPool": 3,
        "Concat": 8,
        "Identity": 1,
        "GlobalAveragePool": 1,
        "Softmax": 1,
    }
    named = {node.name: node.op_type for node in model.graph.node}
    assert named["fire9/expand3x3"] == "Conv"
