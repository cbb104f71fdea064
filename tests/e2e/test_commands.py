"""Subcommands that make and use libraries, as one types them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from small_nets import CLASSES, INPUT_SHAPE, write_labels, write_small_net

import sqzc as package
from sqzc.cli import crash
from sqzc.cli.main import run
from sqzc.ir.files import load_graph
from sqzc.ir.graph import Graph
from sqzc.ir.ops.nn import Conv2d
from sqzc.passes.base import Pass, PassContext
from sqzc.passes.registry import registered
from sqzc.zoo.pictures import PICTURES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a net, its library, and a picture."""
    folder = tmp_path_factory.mktemp("made")
    net = write_small_net(folder / "net")
    write_labels(net)
    assert run(["compile", str(net), "-o", str(folder / "lib.so"), "--mean", "104,117,123"]) == 0
    next(iter(PICTURES.values())).draw().save(folder / "picture.png")
    return folder


def test_compile_says_what_it_made(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "lib.so"
    assert run(["compile", str(made / "net"), "-o", str(output)]) == 0
    words = capfd.readouterr()
    assert words.err == ""
    for expected in (f"{output}: ", "kB in ", "at O3", "weights file", "7 kernels", "lower bound"):
        assert expected in words.out
    assert run(["compile", str(made / "net"), "-o", str(output), "--json", "--time-passes", "-O2"]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert summary["bytes"] == output.stat().st_size
    assert summary["arena_bytes"] >= summary["arena_bound_bytes"] > 0
    assert summary["opt_level"] == 2
    assert [row["index"] for row in summary["passes"]] == list(range(1, len(summary["passes"]) + 1))


def test_text_to_standard_output(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for kind, words in (("llvm-ir", "define "), ("asm", ".text"), ("header", "model_run("), ("ir", "graph @model(")):
        assert run(["compile", str(made / "net"), "-o", "-", "--emit", kind]) == 0
        captured = capfd.readouterr()
        assert words in captured.out
        assert captured.err == ""
    assert run(["compile", str(made / "net"), "-o", "-"]) == 1
    assert "standard output" in capfd.readouterr().err


def test_onnx_out_and_in_again(made: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    assert run(["compile", str(made / "net"), "-o", str(tmp_path / "net.onnx"), "--stop-after", "dead-code"]) == 0
    onnx.checker.check_model(onnx.load(tmp_path / "net.onnx"), full_check=True)
    assert run(["compile", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "again.so")]) == 0
    image = np.random.default_rng(3).uniform(0, 255, INPUT_SHAPE).astype(np.float32)
    expected = package.compile(made / "net")(image)
    np.testing.assert_allclose(package.load(tmp_path / "again.so")(image), expected, rtol=0, atol=1e-6)


def test_random_weights_are_loud(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "lib.so")
    assert run(["compile", str(made / "net"), "-o", output, "--weights", "random:4", "--mean", "none"]) == 0
    assert "RANDOM WEIGHTS" in capfd.readouterr().out
    arguments = ["classify", output, str(made / "picture.png"), "--mean", "none", "--channel-order", "BGR"]
    assert run(arguments) == 0
    assert "random weights" in capfd.readouterr().err


def test_printing_between_passes(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["compile", str(made / "net"), "-o", str(tmp_path / "lib.so")]
    assert run([*arguments, "--print-after", "fuse-conv-relu", "--print-before", "dead-code"]) == 0
    shown = capfd.readouterr().err
    assert shown.count("\ngraph @model") == shown.count("# before ") + shown.count("# after ") >= 2
    assert "# after " in shown


@dataclass(frozen=True)
class LoseBias(Pass):
    """A planted bug: the first convolution forgets its bias."""

    name: ClassVar[str] = "lose-bias"

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        node = next(node for node in graph.nodes if isinstance(node.op, Conv2d))
        fresh = graph.insert(node.op, node.inputs[:2], sources=[node.output.source], before=node)
        graph.replace_uses(node.output, fresh.output)
        graph.erase(node)
        return True


def test_verify_passes_stops_at_a_bad_one(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["compile", str(made / "net"), "-o", str(tmp_path / "lib.so")]
    with registered(LoseBias), pytest.MonkeyPatch.context() as patch:
        patch.setattr(crash.tempfile, "tempdir", str(tmp_path))
        passes = ["--passes", "drop-inference-noops,lose-bias,dead-code"]
        assert run([*arguments, *passes, "--verify-passes"]) == 70
    words = capfd.readouterr().err
    assert "pass lose-bias changed the numbers: 'conv1' is off by" in words
    assert "passes before it: drop-inference-noops" in words
    assert not (tmp_path / "lib.so").exists()
    (folder,) = tmp_path.glob("sqzc-bug-*")
    assert (folder / "before.sqz").exists()
    assert len(load_graph(folder / "repro.sqz").nodes) < 10
    assert "--passes lose-bias" in words


def test_run_on_arrays(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(3).uniform(0, 255, (2, *INPUT_SHAPE[1:])).astype(np.float32)
    np.save(tmp_path / "x.npy", images)
    expected = package.load(made / "lib.so")(images)
    for given, output in ((f"data={tmp_path}/x.npy", "y.npy"), (f"{tmp_path}/x.npy", "y.npz")):
        arguments = ["run", str(made / "lib.so"), "--input", given, "-o", str(tmp_path / output), "--threads", "2"]
        assert run(arguments) == 0
        assert f"prob float32[2, {CLASSES}, 1, 1]" in capfd.readouterr().out
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["prob"], expected)


def test_classify_pictures(made: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = str(made / "picture.png")
    expected = package.load(made / "lib.so").classify(picture, top=3)
    assert run(["classify", str(made / "lib.so"), picture, picture, "--top", "3", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert [row["image"] for row in rows] == [picture, picture]
    assert rows[0]["top"] == [{"class": p.index, "score": p.score, "label": p.label} for p in expected]
    assert run(["classify", str(made / "lib.so"), picture]) == 0
    words = capfd.readouterr()
    assert f"{expected[0].label}" in words.out
    assert words.err == ""
    (tmp_path / "labels.txt").write_text("\n".join(f"other {i}" for i in range(CLASSES)))
    assert run(["classify", str(made / "lib.so"), picture, "--labels", str(tmp_path / "labels.txt")]) == 0
    assert f"other {expected[0].index}" in capfd.readouterr().out


def test_info_of_a_library(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(made / "lib.so"), "--json", "--layers"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["format"] == "library"
    assert facts["mean"] == [104.0, 117.0, 123.0]
    assert facts["labels"] == CLASSES
    assert len(facts["layers"]) == 7
    assert {"kernel", "sources", "result", "flops", "schedule"} == set(facts["layers"][0])
    assert run(["info", str(made / "lib.so"), "--layers"]) == 0
    words = capfd.readouterr().out
    assert "104.0, 117.0, 123.0" in words
    assert "fire/right" in words


def test_demo_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SQZC_MODEL_PATH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run(["demo", "--offline"]) == 0
    words = capfd.readouterr()
    assert "RANDOM weights" in words.err
    assert "random weights: the answers mean nothing" in words.out
    model = package.load(tmp_path / "libsqz.so")
    assert model.metadata["weights"] == "random:0"
    assert round(model.metadata["params"] / 1e6, 3) == 1.235
    header = (tmp_path / "libsqz.h").read_text()
    assert "squeezenet1_1_run(" in header
    assert "random" in header
    assert (tmp_path / "dumps" / "index.json").exists()


@pytest.mark.weights
def test_demo_with_the_trained_weights(
    tmp_path: Path, squeezenet_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--model-dir", str(squeezenet_dir), "--picture", "traffic-light"]) == 0
    words = capfd.readouterr()
    first = next(line for line in words.out.splitlines() if "920" in line)
    assert "traffic light, traffic signal, stoplight" in first
    assert "RANDOM" not in words.err
    assert "fire9/expand3x3" in words.out
