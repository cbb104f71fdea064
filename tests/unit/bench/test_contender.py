"""Processes of contenders: what they answer, and what is said of them when they do not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import sqzc
from sqzc.diagnostics import FileError, SqzcError, UsageError
from sqzc.driver.bench import Contender, Spec, contender, find_peers, opened, peers
from sqzc.driver.bench.contender import ContenderError
from sqzc.target import native

from .conftest import FakePeers

TEXT = """
graph @sums(%left: f32[1,4], %right: f32[1,4]) {
  %sum = add(%left, %right) : f32[1,4]
  %up = relu(%sum) : f32[1,4]
  yield %up as "up", %sum as "sum"
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with two inputs and two outputs."""
    path = tmp_path_factory.mktemp("library") / "sums.so"
    sqzc.compile(sqzc.parse(TEXT), path)
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Two images, as files."""
    paths = {}
    for name, values in (("left", [[1, 2, 3, 4], [5, 6, 7, 8]]), ("right", [[-2, 0, 1, -9], [0, 0, 0, 0]])):
        paths[name] = tmp_path / f"{name}.npy"
        np.save(paths[name], np.array(values, np.float32))
    return paths


@pytest.mark.parametrize("bound", [False, True])
def test_a_library_takes_its_turns(library: Path, inputs: dict[str, Path], bound: bool) -> None:
    with opened([Spec("sqzc", library, inputs, bound=bound)]) as (ours,):
        assert ours.version == sqzc.__version__
        assert {"import_seconds", "load_seconds", "first_seconds"} < ours.facts.keys()
        times = ours.turn(1, 5)
        assert len(times) == 5
        assert min(times) > 0
        up, total = ours.answer()
    expected = [[-1, 2, 4, -5], [5, 6, 7, 8]]
    assert total.tolist() == expected
    assert up.tolist() == np.maximum(expected, 0).tolist()
    assert ours._process.returncode == 0


def test_what_a_contender_says_is_wrong(tmp_path: Path, inputs: dict[str, Path]) -> None:
    with pytest.raises(ContenderError, match=r"sqzc failed[\s\S]*does not exist"):
        Contender(Spec("sqzc", tmp_path / "absent.so", inputs))


def test_a_contender_that_ends(tmp_path: Path, fake_peers: FakePeers) -> None:
    python = fake_peers.script("ends", "echo out of luck >&2; exit 3\n")
    with pytest.raises(ContenderError, match=r"onnxruntime ended with status 3[\s\S]*out of luck"):
        Contender(Spec("onnxruntime", tmp_path / "x.onnx", {}, python=python))


def test_a_contender_that_hangs(tmp_path: Path, fake_peers: FakePeers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contender, "PATIENCE_SECONDS", 0.1)
    python = fake_peers.script("hangs", "read line; read end\n")
    with pytest.raises(ContenderError, match="does not answer"):
        Contender(Spec("onnxruntime", tmp_path / "x.onnx", {}, python=python))


def test_all_are_ended_when_one_cannot_start(library: Path, inputs: dict[str, Path]) -> None:
    specs = [Spec("sqzc", library, inputs), Spec("openvino", library, inputs, python=Path("/no/such/python"))]
    with pytest.raises(ContenderError, match="cannot start /no/such/python"), opened(specs):
        pytest.fail("one of them is missing")


def test_other_interpreters_are_not_told_what_ours_imports(library: Path) -> None:
    assert Spec("sqzc", library, {}).command[:2] == [sys.executable, "-P"]
    assert Spec("openvino", library, {}, python=Path("peers/bin/python")).command[:2] == ["peers/bin/python", "-I"]


# -- finding peers ----------------------------------------------------------------------------------------------------


def test_peers_of_another_interpreter(fake_peers: FakePeers) -> None:
    python = fake_peers.python()
    found = find_peers(["onnxruntime"], python)
    assert found.versions == {"onnxruntime": "9.9"}
    assert found.names == ("onnxruntime",)
    assert find_peers([], None).names == ()


def test_missing_peers_come_with_the_command(fake_peers: FakePeers, monkeypatch: pytest.MonkeyPatch) -> None:
    python = fake_peers.python()
    with pytest.raises(UsageError) as caught:
        find_peers(["onnxruntime", "openvino"], python)
    assert caught.value.message.startswith("openvino cannot be imported")
    assert caught.value.hint == f"{python} -m pip install openvino"
    monkeypatch.setattr(peers, "_versions_here", lambda names: {})
    with pytest.raises(UsageError) as caught:
        find_peers(["openvino"], None)
    assert caught.value.hint is not None
    assert "python -m venv peers" in caught.value.hint
    assert "--peer-python" in caught.value.hint


def test_an_interpreter_that_is_none(fake_peers: FakePeers, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot run"):
        find_peers(["openvino"], tmp_path / "absent")
    with pytest.raises(FileError, match="is not a Python interpreter"):
        find_peers(["openvino"], fake_peers.script("shell", "exit 1\n"))


def test_names_of_peers() -> None:
    assert peers.parse_peers("openvino, onnxruntime,openvino") == ("openvino", "onnxruntime")
    assert peers.parse_peers("") == ()
    with pytest.raises(SqzcError) as caught:
        peers.parse_peers("onxruntime")
    assert caught.value.hint == "did you mean 'onnxruntime'?"


def test_peers_are_limited_to_a_lesser_target() -> None:
    assert peers.isa_limit(native().name) is None
    assert peers.limit_note("openvino", None) is None
    if native().name != "x86-64-v2":
        assert peers.isa_limit("x86-64-v2") == "SSE41"
    assert peers.limit_note("openvino", "AVX2") == "openvino is limited to AVX2"
    assert "no setting" in (peers.limit_note("onnxruntime", "AVX2") or "")
