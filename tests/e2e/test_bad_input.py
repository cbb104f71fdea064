"""Mistakes of the user's: each gives one message and exit code 1, and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from small_nets import NetWriter, write_small_net

from sqzc.cli.main import run

SHAPE = (1, 3, 9, 9)


def tiny(folder: Path, edit: Callable[[NetWriter], None] = lambda net: None) -> Path:
    """One convolution and a softmax; `edit` spoils it."""
    net = NetWriter()
    net.predict.external_input.append("data")
    net.conv("data", "y", 3, 4, 3)
    net.predict.external_output.append("y")
    edit(net)
    return net.save(folder, SHAPE)


def missing_init(folder: Path) -> Path:
    net = tiny(folder)
    (net / "init_net.pb").unlink()
    return net


def truncated(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        net = tiny(folder)
        data = (net / name).read_bytes()
        (net / name).write_bytes(data[: len(data) // 2 + 1])
        return net

    return make


def replaced(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        net = tiny(folder)
        (net / name).write_bytes(data)
        return net

    return make


def edited(edit: Callable[[NetWriter], None]) -> Callable[[Path], Path]:
    return lambda folder: tiny(folder, edit)


def reads_nobodys_blob(net: NetWriter) -> None:
    net.op("Relu", ["z"], ["z2"])


def names_missing_output(net: NetWriter) -> None:
    net.predict.external_output.append("nowhere")


def wrong_weight_shape(net: NetWriter) -> None:
    del net.init.op[0].arg[0].ints[:]
    net.init.op[0].arg[0].ints.extend([4, 27])


def more_values_than_shape(net: NetWriter) -> None:
    net.init.op[0].arg[0].ints[0] = 3


def unknown_operator(net: NetWriter) -> None:
    net.op("Frobnicate", ["y"], ["y"])


def unknown_argument(net: NetWriter) -> None:
    net.predict.op[0].arg.add(name="twist", i=3)


def huge_shape(net: NetWriter) -> None:
    net.init.op[0].arg[0].ints[0] = 1 << 40


MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty folder": (lambda folder: (folder.mkdir(), folder)[1], "no Caffe2 net"),
    "no init net": (missing_init, "nothing fills"),
    "truncated predict net": (truncated("predict_net.pb"), "predict_net.pb"),
    "truncated init net": (truncated("init_net.pb"), "init_net.pb"),
    "empty predict net": (replaced("predict_net.pb", b""), "is empty"),
    "text for a net": (replaced("predict_net.pb", b"hello, world\n"), "not a Caffe2"),
    "zip for a net": (replaced("predict_net.pb", b"PK\x03\x04" + bytes(100)), "zip"),
    "git-lfs pointer": (replaced("init_net.pb", b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "bad value_info": (replaced("value_info.json", b"{"), "value_info.json"),
    "nobody makes a blob": (edited(reads_nobodys_blob), "'z'"),
    "missing output": (edited(names_missing_output), "nowhere"),
    "weight of another shape": (edited(wrong_weight_shape), "weight does not fit"),
    "values that do not fill the shape": (edited(more_values_than_shape), "values"),
    "unknown operator": (edited(unknown_operator), "Frobnicate"),
    "unknown argument": (edited(unknown_argument), "twist"),
    "huge shape": (edited(huge_shape), "init_net.pb"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with no models to be found from it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SQZC_MODEL_PATH", raising=False)
    return folder


def check_error(capfd: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    """The command fails with one message that contains `words`."""
    assert run(arguments) == 1
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("error[") == 1, captured.err
    assert words in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("case", MODELS)
def test_broken_models(case: str, tmp_path: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, words = MODELS[case]
    model = make(tmp_path / "net")
    check_error(capfd, ["compile", str(model), "-o", "lib.so", "--dump-ir", "dumps"], words)
    assert os.listdir(place) == []


OPTIONS: dict[str, tuple[list[str], str]] = {
    "unknown pass": (["--passes", "fold-men"], "did you mean 'fold-mean'?"),
    "unknown option of a pass": (["--passes", "fold-mean{limt=3}"], "limt"),
    "malformed passes": (["--passes", "fold-mean{"], "bad pipeline"),
    "unknown pass to print": (["--print-after", "dead-cod"], "did you mean 'dead-code'?"),
    "unknown pass to stop at": (["--stop-after", "dead-cod"], "dead-cod"),
    "unknown target": (["--target", "x86-64-v9"], "x86-64-v"),
    "bad prefix": (["--prefix", "7up"], "7up"),
    "bad weights": (["--weights", "good"], "random"),
    "bad mean": (["--mean", "1,two,3"], "mean"),
    "mean of another length": (["--mean", "1,2"], "mean of 2 numbers"),
    "bad input shape": (["--input-shape", "data"], "NAME:DIMS"),
    "shape of no input": (["--input-shape", "dta:1,3,9,9"], "no input 'dta'"),
    "shape that does not fit": (["--input-shape", "data:1,4,9,9"], "conv"),
    "shape too small": (["--input-shape", "data:1,3,2,2"], "conv"),
    "no threads": (["--threads-max", "0"], "threads"),
    "unknown level": (["-O9"], "O9"),
    "missing labels": (["--labels", "none.txt"], "none.txt"),
    "unknown linker": (["--linker", "gold"], "gold"),
    "missing init net": (["--init-net", "none.pb"], "none.pb"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_options(case: str, tmp_path: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options, words = OPTIONS[case]
    model = tiny(tmp_path / "net")
    check_error(capfd, ["compile", str(model), "-o", "lib.so", *options], words)
    assert os.listdir(place) == []


def test_outputs_that_cannot_be_written(tmp_path: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = str(tiny(tmp_path / "net"))
    (place / "file").write_text("kept")
    (place / "folder").mkdir()
    os.mkfifo(place / "pipe")
    before = sorted(os.listdir(place))
    for output, words in (("no/lib.so", "does not exist"), ("file/lib.so", "does not exist"), ("folder", "folder")):
        check_error(capfd, ["compile", model, "-o", output], words)
    check_error(capfd, ["compile", model, "-o", "pipe"], "not a regular file")
    check_error(capfd, ["compile", model, "-o", "lib.so", "--dump-ir", "file"], "cannot write dumps")
    assert sorted(os.listdir(place)) == before
    assert (place / "file").read_text() == "kept"
    assert os.listdir(place / "folder") == []


def test_a_failing_compilation_keeps_the_old_library(
    tmp_path: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / "lib.so").write_text("of yesterday")
    check_error(capfd, ["compile", str(missing_init(tmp_path / "net")), "-o", "lib.so"], "nothing fills")
    assert (place / "lib.so").read_text() == "of yesterday"
    assert os.listdir(place) == ["lib.so"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("squeeznet1.1", "did you mean 'squeezenet1.1'?"),
        ("somewhere/predict_net.pb", "there is no file or folder"),
        ("net.onnx", "there is no file or folder"),
    ],
)
def test_models_that_are_not_there(model: str, words: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check_error(capfd, ["compile", model, "-o", "lib.so"], words)
    assert os.listdir(place) == []


def test_zoo_weights_that_are_nowhere(place: Path, capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    from sqzc.zoo import fetch

    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setattr(fetch, "_ask", refuse)
    assert run(["compile", "squeezenet1.1", "-o", "lib.so"]) == 1
    message = capfd.readouterr().err
    assert message.count("error[") == 1
    for words in ("sha256 d8115221", "sha384", "--weights random", "--model-dir", "amazonaws.com", str(place)):
        assert words in message
    assert not (place / "lib.so").exists()


def refuse(url: str, start: int, timeout: float) -> None:
    from sqzc.zoo.fetch import _Refused

    raise _Refused("no network in this test")


def test_bad_text_ir(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "a.sqz").write_text("graph @g(%x: f32[2]) {\n  %y = relo(%x) : f32[2]\n  yield %y\n}\n")
    check_error(capfd, ["compile", "a.sqz", "-o", "lib.so"], "did you mean 'relu'?")
    check_error(capfd, ["opt", "a.sqz", "-o", "b.sqz"], "line 2")
    (place / "a.sqz").write_text('graph @g(%x: f32[2]) {\n  meta "mean" = "much"\n  yield %x as "x"\n}\n')
    check_error(capfd, ["compile", "a.sqz", "-o", "lib.so"], "meta 'mean'")
    (place / "a.sqz").write_bytes(b"\xff\xfe\x00")
    check_error(capfd, ["info", "a.sqz"], "not text IR")
    assert os.listdir(place) == ["a.sqz"]


def test_bad_libraries_and_arrays(tmp_path: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    np.save(place / "x.npy", np.zeros(SHAPE, np.float32))
    check_error(capfd, ["run", "no.so", "--input", "data=x.npy", "-o", "y.npy"], "does not exist")
    (place / "bad.so").write_bytes(b"\x7fELF but no more")
    for arguments in (["run", "bad.so", "--input", "data=x.npy", "-o", "y.npy"], ["info", "bad.so"]):
        check_error(capfd, arguments, "cannot be loaded")
    assert run(["compile", str(write_small_net(tmp_path / "net")), "-o", "lib.so"]) == 0
    capfd.readouterr()
    (place / "not.npy").write_text("no array")
    for given, words in (
        (["--input", "data=none.npy"], "cannot read none.npy"),
        (["--input", "data=not.npy"], "not a .npy file"),
        (["--input", "dta=x.npy"], "no input 'dta'"),
        (["--input", "data=x.npy"], "wrong shape"),
    ):
        check_error(capfd, ["run", "lib.so", *given, "-o", "y.npy"], words)
    check_error(capfd, ["run", "lib.so", "--input", "data=x.npy", "-o", "y.txt"], ".npy or .npz")
    check_error(capfd, ["classify", "lib.so", "not.npy", "--mean", "none", "--channel-order", "BGR"], "no picture")
    check_error(capfd, ["classify", "lib.so", "not.npy"], "in which order it takes the colours")
    assert sorted(os.listdir(place)) == ["bad.so", "lib.so", "not.npy", "x.npy"]


def test_bad_onnx(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "a.onnx").write_bytes(b"\x08\x07")
    check_error(capfd, ["compile", "a.onnx", "-o", "lib.so"], "a.onnx")
    check_error(capfd, ["compile", "a.onnx", "-o", "lib.so", "--weights", "random"], "random weights for an ONNX model")
    assert os.listdir(place) == ["a.onnx"]
