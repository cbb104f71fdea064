"""The compiled SqueezeNet 1.1 against the recorded answers of the real Caffe2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_runner import compiled, compiled_O0, compiled_O1, compiled_O2

import sqzc
from sqzc.backends.reference import evaluate
from sqzc.diagnostics import UnsupportedError
from sqzc.driver import SqzcWarning, build
from sqzc.driver.api import WatchOptions
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.ir.ops.elementwise import Sub
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.ops.shape import Concat

pytestmark = pytest.mark.weights

TOLERANCE = 1e-5
"""The largest difference from Caffe2 in any probability."""

Runner = Callable[..., dict[str, Any]]

LEVELS: dict[str, Runner] = {"O0": compiled_O0, "O1": compiled_O1, "O2": compiled_O2, "O3": compiled}


@pytest.fixture(scope="module")
def golden(shared_dir: Path) -> dict[str, Any]:
    folder = shared_dir / "golden" / "squeezenet1.1"
    arrays = dict(np.load(folder / "golden.npz"))
    return {**arrays, "facts": json.loads((folder / "golden.json").read_text()), "folder": folder}


def raw_pixels(golden: dict[str, Any], index: int) -> np.ndarray:
    """A crop as BGR planes with values from 0 to 255."""
    return np.ascontiguousarray(golden["crops"][index].astype(np.float32).transpose(2, 0, 1)[None])


def check_answer(golden: dict[str, Any], index: int, got: np.ndarray) -> None:
    want = golden["softmaxout"][index].ravel()
    name = golden["files"][index]
    assert np.abs(got.ravel() - want).max() <= TOLERANCE, name
    assert np.argsort(-got.ravel())[:5].tolist() == np.argsort(-want)[:5].tolist(), name


@pytest.mark.parametrize("level", LEVELS)
def test_answers_at_every_level(level: str, golden: dict[str, Any], squeezenet_dir: Path) -> None:
    mean = np.array(golden["facts"]["mean_bgr"], np.float32).reshape(1, 3, 1, 1)
    nets = squeezenet_dir / "predict_net.pb", squeezenet_dir / "init_net.pb"
    for index in range(len(golden["files"])):
        check_answer(golden, index, LEVELS[level](*nets, {"data": raw_pixels(golden, index) - mean})["softmaxout"])


@pytest.fixture(scope="module")
def library(squeezenet_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> sqzc.Model:
    """The zoo's model with its mean inside, from a library on disk."""
    path = tmp_path_factory.mktemp("lib") / "libsqz.so"
    with pytest.warns(SqzcWarning, match="unverified"):
        return sqzc.compile("squeezenet1.1", path, model_dir=squeezenet_dir)


@pytest.mark.parametrize("threads", [1, 2])
def test_raw_pixels_through_the_library_alone(library: sqzc.Model, golden: dict[str, Any], threads: int) -> None:
    model = library.with_threads(threads)
    for index in range(len(golden["files"])):
        check_answer(golden, index, model(raw_pixels(golden, index)))


def test_a_batch_is_its_images(library: sqzc.Model, golden: dict[str, Any]) -> None:
    batch = np.concatenate([raw_pixels(golden, index) for index in range(5)])
    for model in (library, library.with_threads(2)):
        for index, answer in enumerate(model(batch)):
            check_answer(golden, index, answer)


def test_pictures_get_their_labels(library: sqzc.Model, golden: dict[str, Any]) -> None:
    """From the file to the label: decoding and resizing, as golden.json's figures were made."""
    names = (golden["folder"] / "synset_words.txt").read_text().splitlines()
    wanted = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in names}
    right = 0
    for index, file in enumerate(golden["files"]):
        best = library.classify(golden["folder"] / "images" / str(file), top=1)[0]
        assert best.index == int(golden["softmaxout"][index].argmax()), file
        right += best.label == wanted[str(file).split("_")[0]]
    assert right / len(golden["files"]) == pytest.approx(golden["facts"]["top1_of_these"])


def test_what_the_library_says_of_itself(library: sqzc.Model) -> None:
    facts = library.metadata
    assert facts["mean"] == [103.96, 116.78, 123.68]
    assert facts["channel_order"] == "BGR"
    assert facts["licence"] == "Apache-2.0"
    assert facts["weights"] == "pretrained"
    assert facts["labels"] is not None
    assert len(facts["labels"]) == 1000
    assert round(facts["flops"] / 1e9, 3) == 0.784
    assert round(facts["params"] / 1e6, 3) == 1.235
    assert {source["name"]: source["verified"] for source in facts["sources"]} == {
        "predict_net.pb": True,
        "init_net.pb": False,
    }
    assert library.path is not None
    assert Path(library.path).stat().st_size <= 5.5e6


def test_shape_of_the_optimised_network(squeezenet_dir: Path) -> None:
    options = ModelOptions(model_dir=squeezenet_dir, allow_network=False)
    result = build("squeezenet1.1", None, options, CodeOptions(opt_level=2, target="x86-64-v3"), WatchOptions())
    graph, code = result.optimised.graph, result.code
    convolutions = [node.op for node in graph.nodes if isinstance(node.op, Conv2d)]
    assert len(convolutions) == 26
    assert all(str(op.act) == "relu" for op in convolutions)
    assert not [node for node in graph.nodes if isinstance(node.op, Sub) or node.op.name in ("dropout", "relu")]
    assert all(node.op.placed for node in graph.nodes if isinstance(node.op, Concat))
    assert code is not None
    assert not [step for step in code.program.steps if step.kernel.startswith("copy")]
    assert code.program.arena_bytes <= 1.25 * code.program.bound_bytes


def test_optimised_graphs_keep_every_answer(golden: dict[str, Any], squeezenet_dir: Path) -> None:
    graph = sqzc.lift(squeezenet_dir, mean=golden["facts"]["mean_bgr"])
    for level in ("O0", "O1", "O2", "O3"):
        got = evaluate(sqzc.optimize(graph, level), {"data": raw_pixels(golden, 0)})["softmaxout"]
        check_answer(golden, 0, got)


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_narrower_targets(target: str, golden: dict[str, Any], squeezenet_dir: Path) -> None:
    from sqzc.target import resolve, runs_here

    if not runs_here(resolve(target)):
        pytest.skip(f"this machine does not run {target}")
    model = sqzc.compile(squeezenet_dir, mean=golden["facts"]["mean_bgr"], target=target)
    for index in range(3):
        check_answer(golden, index, model(raw_pixels(golden, index)))


def test_random_weights_have_the_published_structure(squeezenet_dir: Path) -> None:
    """The structure that comes with sqzc is that of the published net."""
    ours = sqzc.lift("squeezenet1.1", weights="random:3")
    published = sqzc.lift(squeezenet_dir, weights="random:3", mean=[103.96, 116.78, 123.68])
    ours.meta = published.meta = {}
    from sqzc.ir.equality import first_difference

    assert first_difference(ours, published) is None


def test_op_cases_of_the_ops_that_squeezenet_uses(shared_dir: Path) -> None:
    used = {"Conv", "Relu", "MaxPool", "AveragePool", "Concat", "Dropout", "Softmax"}
    count = 0
    for folder in sorted((shared_dir / "golden" / "ops").iterdir()):
        case = json.loads((folder / "case.json").read_text())
        if not set(case["ops"]) <= used:
            continue
        inputs, want = dict(np.load(folder / "inputs.npz")), dict(np.load(folder / "outputs.npz"))
        init = folder / "init_net.pb"
        try:
            got = compiled(folder / "predict_net.pb", init if init.exists() else None, inputs)
        except UnsupportedError as error:
            pytest.fail(f"{folder.name}: {error.message}")
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, case["rtol"], case["atol"], err_msg=f"{folder.name} {name}")
        count += 1
    assert count > 20
