"""`sqzc bench` on a small network, beside a runtime that computes with numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sqzc
from sqzc.cli.main import run
from sqzc.driver.bench import model as bench_model

from .conftest import FakePeers

QUICK = ("--rounds", "2", "--runs", "2", "--warmups", "1")
MEAN = "10,20,30"

Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Bench:
    """Runs `sqzc bench`, quickly."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run(["bench", *QUICK, *map(str, arguments)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, small_net: Path) -> Path:
    """The small net with a mean, compiled."""
    path = tmp_path_factory.mktemp("library") / "small.so"
    sqzc.compile(small_net, path, mean=[float(part) for part in MEAN.split(",")])
    return path


def test_a_model_beside_a_peer(bench: Bench, small_net: Path, fake_peers: FakePeers, tmp_path: Path) -> None:
    peer = ("--vs", "onnxruntime", "--peer-python", fake_peers.python(delay=0.02))
    code, out, err = bench(small_net, "--mean", MEAN, *peer, "--batch", "1,3", "--json", tmp_path / "r.json")
    assert code == 0, err
    assert "same top-1 on 3 of 3" in out
    assert "with the mean already subtracted" in out
    record = json.loads((tmp_path / "r.json").read_text())
    assert [(s["batch"], s["threads"], s["agree"], s["best_peer"]) for s in record["settings"]] == [
        (1, 1, True, "onnxruntime"),
        (3, 1, True, "onnxruntime"),
    ]
    ours, theirs = record["settings"][1]["contenders"]
    assert (ours["name"], theirs["name"], theirs["version"]) == ("sqzc", "onnxruntime", "9.9")
    assert ours["calls"] == theirs["calls"] == 4
    assert theirs["minimum"] > 0.02
    assert theirs["per_image"] == pytest.approx(theirs["median"] / 3)
    assert (
        theirs["ratio"]["of_medians"]
        == pytest.approx(ours["median"] / theirs["median"])
        == record["settings"][1]["ratio"]
    )
    assert record["versions"].keys() == {"sqzc", "llvm", "onnxruntime"}
    assert record["machine"]["cores"] >= 1
    assert record["compile_seconds"] > 0
    assert str(tmp_path) not in json.dumps(record)


def test_contenders_that_do_not_agree(bench: Bench, small_net: Path, fake_peers: FakePeers) -> None:
    python = fake_peers.python(offset=0.1)
    code, out, err = bench(small_net, "--vs", "onnxruntime", "--peer-python", python)
    assert code == 1
    assert "error[BN02]: the contenders do not agree" in err
    assert "largest difference 0.1" in out


def test_a_library_and_the_model_it_was_made_of(
    bench: Bench, library: Path, small_net: Path, fake_peers: FakePeers, tmp_path: Path
) -> None:
    peer = ("--vs", "onnxruntime", "--peer-python", fake_peers.python())
    code, out, err = bench(library, *peer, "--model", small_net, "--json", "-")
    assert code == 0, err
    record = json.loads(out)
    assert record["settings"][0]["agree"]
    assert record["compile_seconds"] is None
    code, _, err = bench(library, *peer)
    assert code == 1
    assert "--model MODEL" in err


def test_a_library_of_another_model(bench: Bench, library: Path, fake_peers: FakePeers, tmp_path: Path) -> None:
    from small_nets import write_small_net

    other = write_small_net(tmp_path / "other", seed=5)
    peer = ("--vs", "onnxruntime", "--peer-python", fake_peers.python())
    code, _, err = bench(library, *peer, "--model", other)
    assert code == 1
    assert "was not compiled from" in err


def test_without_peers_it_only_times(bench: Bench, library: Path) -> None:
    code, out, err = bench(library, "--threads", "1,2")
    assert code == 0, err
    assert "2 threads" in out
    assert "mean" not in out
    assert "largest difference" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--vs", "tensorflow"), "unknown peer 'tensorflow'"),
        (("--rounds", "0"), "at least one round"),
        (("-O", "2"), "compiled already"),
        (("--json", "/no/such/folder/r.json"), "/no/such/folder"),
        (("--vs", "onnxruntime", "--peer-python", "/no/such/python"), "cannot run /no/such/python"),
    ],
)
def test_mistakes(bench: Bench, library: Path, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = bench(library, *arguments)
    assert code == 1
    assert words in err


@pytest.mark.parametrize("numbers", ["0", "1,x", ""])
def test_numbers_that_are_none(bench: Bench, library: Path, numbers: str) -> None:
    assert bench(library, "--threads", numbers)[0] == 2
    assert bench(library, "--batch", numbers)[0] == 2


def test_inputs_fit_what_is_asked(library: Path) -> None:
    facts: Any = {
        "inputs": [
            {"name": "image", "shape": [1, 2, 3, 3], "dtype": "f32"},
            {"name": "index", "shape": [2], "dtype": "i64"},
        ],
        "mean": [1.0, 2.0],
    }
    inputs = bench_model.make_inputs(facts, 4, seed=1)
    assert {name: (a.shape, a.dtype.name) for name, a in inputs.items()} == {
        "image": ((4, 2, 3, 3), "float32"),
        "index": ((8,), "int64"),
    }
    assert 0 <= inputs["image"].min() < 10 < 200 < inputs["image"].max() <= 255
    again = bench_model.make_inputs(facts, 4, seed=1)
    assert np.array_equal(inputs["image"], again["image"])
    less = bench_model.minus_mean({"image": inputs["image"]}, facts["mean"])["image"]
    assert np.allclose(inputs["image"] - less, np.array([1, 2]).reshape(1, 2, 1, 1), atol=1e-4)
    facts["mean"] = None
    assert bench_model.make_inputs(facts, 1, seed=1)["image"].min() < 0
