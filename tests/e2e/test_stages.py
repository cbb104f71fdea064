"""The graph at every stage for other tools: ONNX after any pass, text through `sqzc opt` from pass to pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from small_nets import INPUT_SHAPE

import sqzc
from sqzc.cli.main import run
from sqzc.ir.equality import first_difference
from sqzc.ir.files import load_graph
from sqzc.passes.pipelines import PIPELINES
from sqzc.passes.registry import parse_pipeline, show_pipeline

NAMES = [str(getattr(step, "name", step)) for step in parse_pipeline(PIPELINES["O3"])]


@pytest.mark.parametrize("stop", ["0", *dict.fromkeys(NAMES)])
def test_onnx_after_every_pass(stop: str, small_net: Path, tmp_path: Path) -> None:
    file = tmp_path / "stage.onnx"
    given = [
        "compile",
        str(small_net),
        "--mean",
        "104,117,123",
        "--stop-after",
        stop,
        "--emit",
        "onnx",
        "-o",
        str(file),
    ]
    assert run(given) == 0
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).uniform(0, 255, INPUT_SHAPE).astype(np.float32)
    (got,) = ReferenceEvaluator(model).run(None, {"data": x})
    expected = sqzc.evaluate(sqzc.lift(small_net, mean=(104.0, 117.0, 123.0)), {"data": x})["prob"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_pass_by_pass_through_opt_is_the_whole_pipeline(small_net: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.sqz" for i in range(len(NAMES) + 1)]
    assert run(["compile", str(small_net), "--passes", "", "-o", str(files[0])]) == 0
    for before, after, step in zip(files, files[1:], parse_pipeline(PIPELINES["O3"]), strict=False):
        assert run(["opt", str(before), "--passes", show_pipeline([step]), "-o", str(after), "--verify-passes"]) == 0
    assert run(["opt", str(files[0]), "--passes", "O3", "-o", str(tmp_path / "all.sqz")]) == 0
    stepwise, whole = load_graph(files[-1]), load_graph(tmp_path / "all.sqz")
    stepwise.meta, whole.meta = {}, {}
    assert first_difference(stepwise, whole) is None
    assert run(["diff", str(files[-1]), str(tmp_path / "all.sqz")]) == 0
