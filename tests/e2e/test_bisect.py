"""`sqzc bisect`: every planted mistake is named, shrunk and shown again by the command that is printed."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from small_nets import NetWriter

import sqzc
from sqzc.backends.llvm.library import Library
from sqzc.cli.main import run
from sqzc.driver.build import StageFailure
from sqzc.driver.debug import code
from sqzc.ir.files import load_graph
from sqzc.passes.base import Pass
from sqzc.passes.registry import registered
from sqzc.plan.library import Finished
from sqzc.plan.program import Program, Step

NAMED: dict[type[Pass], tuple[str, str]] = {
    planted.FuseAcrossUsers: ("conv2d", "expand3x3"),
    planted.FuseDropsBias: ("conv2d", "expand3x3"),
    planted.ShiftPads: ("conv2d", "expand3x3"),
    planted.FloorForCeil: ("max_pool2d", "pool"),
    planted.SwapConcat: ("concat", "concat"),
    planted.SoftmaxAxis: ("softmax", "softmax"),
    planted.ShareWeights: ("conv2d", "expand1x1"),
    planted.LosesRelu: ("conv2d", "conv1"),
}
"""The op and the end or beginning of the value that each mistake first shows in."""

SIZE = 29

# Time limits are on processor time, which is no less than what a clock shows where nothing else runs.


@pytest.fixture(autouse=True)
def _planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every planted pass can be asked for by name; reproducers go to a folder of their own."""
    monkeypatch.chdir(tmp_path)
    with registered(*planted.PLANTED):
        yield


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fire modules, in miniature."""
    net = NetWriter(seed=3)
    net.predict.external_input.append("data")
    net.conv("data", "conv1", 3, 20, 3, stride=2)
    net.op("MaxPool", ["conv1"], ["pool1"], kernel=3, stride=2, legacy_pad=3)
    channels, below = 20, "pool1"
    for fire in ("fire2", "fire3"):
        squeeze, left, right = f"{fire}/squeeze1x1", f"{fire}/expand1x1", f"{fire}/expand3x3"
        net.conv(below, squeeze, channels, 8, 1)
        net.conv(squeeze, left, 8, 16, 1)
        net.conv(squeeze, right, 8, 16, 3, pad=1)
        channels, below = 32, f"{fire}/concat"
        net.op("Concat", [left, right], [below, f"_{fire}_dims"], order="NCHW")
    net.op("Dropout", [below], [below, "_mask"], ratio=0.5, is_test=1)
    net.conv(below, "conv10", 32, 10, 1)
    net.op("AveragePool", ["conv10"], ["pool10"], kernel=0, global_pooling=1)
    net.op("Softmax", ["pool10"], ["softmaxout"])
    net.predict.external_output.append("softmaxout")
    return net.save(tmp_path_factory.mktemp("net"), (1, 3, SIZE, SIZE))


def pixels() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 64, (1, 3, SIZE, SIZE)).astype(np.float32)


Capture = pytest.CaptureFixture[str]


def bisected(capfd: Capture, expected: int, *arguments: str | Path) -> dict[str, Any]:
    """The verdict in JSON form of one `sqzc bisect`."""
    capfd.readouterr()
    assert run(["bisect", *map(str, arguments), "--json"]) == expected
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def check_reproducer(found: dict[str, Any], capfd: Capture) -> None:
    """A reproducer of a few ops, which fails when it is replayed by the printed command."""
    assert 0 < found["reproducer_ops"] < 10
    graph = load_graph(Path(found["reproducer"]) / "repro.sqz")
    assert len(graph.nodes) == found["reproducer_ops"]
    words = shlex.split(found["command"])
    assert words[:2] == ["sqzc", "bisect"]
    capfd.readouterr()
    assert run(words[1:]) == 70
    said = capfd.readouterr().out
    assert "off by" in said or "expected shape" in said or "failed" in said, said
    # Without the mistake, it does not fail.
    passes = words.index("--passes") + 1
    assert run([*words[1:passes], "", *words[passes + 1 :]]) == 0
    assert "are those expected" in capfd.readouterr().out


def check_named(found: dict[str, Any], bad: type[Pass]) -> None:
    """The pass, the one rewrite and the op."""
    assert (found["verdict"], found["pass"]) == ("pass", bad.name)
    assert found["predecessors"] == ["drop-inference-noops", "fold-constants", "fold-mean"]
    op, value = NAMED[bad]
    assert f" = {op}(" in found["op"]
    assert value in found["value"]
    assert found["rewrites_needed"] == 1
    assert found["rewrite"]


@pytest.mark.parametrize("bad", NAMED, ids=lambda bad: bad.name)
def test_planted_passes_are_named(bad: type[Pass], net: Path, capfd: Capture) -> None:
    found = bisected(capfd, 70, net, "--passes", planted.pipeline(bad.name))
    check_named(found, bad)
    check_reproducer(found, capfd)


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("bad", NAMED, ids=lambda bad: bad.name)
def test_planted_passes_are_named_in_squeezenet(bad: type[Pass], squeezenet_dir: Path, capfd: Capture) -> None:
    start = time.process_time()
    arguments = ["squeezenet1.1", "--model-dir", squeezenet_dir, "--passes", planted.pipeline(bad.name)]
    found = bisected(capfd, 70, *arguments)
    assert time.process_time() - start < 60
    check_named(found, bad)
    check_reproducer(found, capfd)


def test_words_for_people(net: Path, capfd: Capture) -> None:
    assert run(["bisect", str(net), "--passes", planted.pipeline("bad-fuse-drops-bias")]) == 70
    said = capfd.readouterr().out
    lines = said.splitlines()
    assert lines[0] == "pass 4 bad-fuse-drops-bias is wrong"
    assert "rewrite 4 of 8: fused relu" in lines[1]
    assert "conv2d(%fire2/squeeze1x1.1, %fire2/expand3x3_w)" in lines[2]
    assert "expected" in lines[3]
    assert "sqzc-repro/ shows it with 2 ops:" in said
    assert (Path("sqzc-repro") / "report.txt").read_text().startswith(lines[0])
    # The next one does not overwrite it.
    assert run(["bisect", str(net), "--passes", planted.pipeline("bad-shift-pads")]) == 70
    assert "sqzc-repro-2/ shows it" in capfd.readouterr().out


def test_a_pass_that_breaks_down(net: Path, capfd: Capture) -> None:
    found = bisected(capfd, 70, net, "--passes", planted.pipeline("bad-breaks-down"))
    assert (found["verdict"], found["pass"]) == ("pass", "bad-breaks-down")
    assert "AssertionError: sizes are rounded down" in found["failure"]
    assert found["reproducer_ops"] == 1
    check_reproducer(found, capfd)


def test_nothing_is_wrong(net: Path, capfd: Capture) -> None:
    assert run(["bisect", str(net)]) == 0
    assert "agrees with the reference on all inputs" in capfd.readouterr().out
    assert not Path("sqzc-repro").exists()


# -- what is right ----------------------------------------------------------------------------------------------------


def test_expected_outputs(net: Path, capfd: Capture) -> None:
    np.save("x.npy", pixels())
    right = sqzc.evaluate(sqzc.lift(net), {"data": pixels()})["softmaxout"]
    np.save("y.npy", right)
    given = [net, "--input", "data=x.npy", "--expect", "y.npy"]
    assert bisected(capfd, 0, *given)["verdict"] == "right"
    found = bisected(capfd, 70, *given, "--passes", planted.pipeline("bad-swap-concat"))
    assert (found["pass"], found["case"]) == ("bad-swap-concat", "given")
    np.save("y.npy", np.roll(right, 1))
    found = bisected(capfd, 1, *given)
    assert found["verdict"] == "expectation"
    assert "no pass is to blame" in found["text"]
    assert found["reproducer"] is None


def test_expected_from_other_code(net: Path, capfd: Capture) -> None:
    sqzc.compile(net, "good.so")
    assert bisected(capfd, 0, net, "--against", "good.so")["verdict"] == "right"
    assert bisected(capfd, 0, net, "--against", "O0", "-O2")["verdict"] == "right"
    bad = ["--passes", planted.pipeline("bad-share-weights")]
    for against in ("O1", "good.so"):
        assert bisected(capfd, 70, net, "--against", against, *bad)["pass"] == "bad-share-weights"
    with_mean = ["--mean", "10,20,30"]
    found = bisected(capfd, 1, net, "--against", "good.so", *with_mean)
    assert "is not what good.so says" in found["text"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--expect", "y.npy"], "--expect needs --input"),
        (["--input", "x.npy", "--expect", "y.npy", "--against", "O0"], "both say what is right"),
        (["--replay"], "--replay needs"),
        (["--input", "none.npy"], "cannot read none.npy"),
        (["--input", "y.npy"], "the array for input 'data' does not fit"),
        (["--input", "other=x.npy"], "the model has no input 'other'"),
        (["--against", "nothing.so"], "--against nothing.so"),
        (["--passes", "no-such-pass"], "unknown pass"),
        (["--input", "x.npy", "--expect", "prob=y.npy"], "the model has no output 'prob'"),
    ],
)
def test_mistakes_of_the_users(arguments: list[str], words: str, net: Path, capfd: Capture) -> None:
    np.save("x.npy", pixels())
    np.save("y.npy", np.zeros((1, 10, 1, 1), np.float32))
    assert run(["bisect", str(net), *arguments]) == 1
    said = capfd.readouterr()
    assert words in said.err
    assert said.out == ""


# -- code -------------------------------------------------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, kernel: str, role: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Lets kernels have a constant that is not the right one."""
    finish = Library.finish

    def wrong(self: Library, program: Program, step: Step, arrays: dict[str, np.ndarray]) -> Finished:
        done = finish(self, program, step, arrays)
        if not step.kernel.startswith(kernel) or role not in done.constants:
            return done
        return replace(done, constants={**done.constants, role: change(done.constants[role])})

    monkeypatch.setattr(Library, "finish", wrong)


def test_a_wrong_kernel(net: Path, capfd: Capture) -> None:
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, "conv2d", "w", lambda w: np.roll(w, 1, axis=-1))
        found = bisected(capfd, 70, net)
        assert found["verdict"] == "kernel"
        assert found["kernel"].startswith("conv2d")
        assert {"conv1", "pool1"} & set(found["sources"])
        assert 0 < found["reproducer_ops"] < 10
        words = shlex.split(found["command"])
        assert run(words[1:]) == 70
        assert "the outputs of the code are not those expected" in capfd.readouterr().out
    assert run(words[1:]) == 0


@pytest.mark.weights
@pytest.mark.slow
def test_a_wrong_kernel_in_squeezenet(squeezenet_dir: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "conv2d.winograd", "w", lambda w: np.roll(w, 1, axis=-1))
    start = time.process_time()
    found = bisected(capfd, 70, "squeezenet1.1", "--model-dir", squeezenet_dir)
    assert time.process_time() - start < 90
    assert (found["verdict"], found["kernel"]) == ("kernel", "conv2d.winograd")
    assert found["value"] == "fire2/expand3x3"
    assert 0 < found["reproducer_ops"] < 10
    assert run(shlex.split(found["command"])[1:]) == 70


def test_code_that_cannot_be_made(net: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Library.finish

    def stumbles(self: Library, program: Program, step: Step, arrays: dict[str, np.ndarray]) -> Finished:
        assert "softmax" not in step.kernel, "softmax is too hard"
        return finish(self, program, step, arrays)

    monkeypatch.setattr(Library, "finish", stumbles)
    found = bisected(capfd, 70, net)
    assert found["verdict"] == "stage"
    assert "softmax is too hard" in found["failure"]
    graph = load_graph(Path(found["reproducer"]) / "repro.sqz")
    assert [node.op.name for node in graph.nodes] == ["softmax"]
    assert run(shlex.split(found["command"])[1:]) == 70


def test_a_plan_that_breaks_a_rule(net: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqzc.plan.lower.place", lambda intervals: ([0] * len(intervals), 1 << 20))
    found = bisected(capfd, 70, net)
    assert found["verdict"] == "stage"
    assert "shares memory with" in found["failure"]
    assert 0 < found["reproducer_ops"] < 10
    assert run(shlex.split(found["command"])[1:]) == 70


def test_code_that_is_wrong_as_a_whole(net: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel right, the library wrong: as if its outputs were mixed up."""
    load = code.load_code

    class Wrong:
        def __init__(self, model: sqzc.Model) -> None:
            self.model = model

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: 1 - array for name, array in self.model.run(inputs).items()}

        def __enter__(self) -> Wrong:
            return self

        def __exit__(self, *error: object) -> None:
            self.model.close()

    monkeypatch.setattr(code, "load_code", lambda *arguments: Wrong(load(*arguments)))
    found = bisected(capfd, 70, net)
    assert found["verdict"] == "code"
    assert "every kernel by itself is right" in found["text"]
    assert found["reproducer_ops"] == 1


def test_stage_failures_are_still_bugs(net: Path) -> None:
    assert issubclass(StageFailure, sqzc.diagnostics.InternalError)


# -- the checks of compile --------------------------------------------------------------------------------------------


def test_compile_checks_itself(net: Path, capfd: Capture) -> None:
    assert run(["compile", "--verify-passes", str(net), "--verify-kernels", "-o", "lib.so"]) == 0
    said = capfd.readouterr()
    assert "every pass keeps the numbers of pixels-0, small-0, zeros, extremes, denormals, nan" in said.err
    assert "every kernel computes what its ops do" in said.err
    checked = Path("lib.so").read_bytes()
    assert run(["compile", str(net), "-o", "lib.so"]) == 0
    assert Path("lib.so").read_bytes() == checked
    capfd.readouterr()
    assert run(["compile", str(net), "-o", "lib.so", "--json", "--verify-passes=2", "--verify-kernels=2"]) == 0
    verified = json.loads(capfd.readouterr().out)["verified"]
    assert max(entry["relative"] for entry in verified["passes"]) < verified["budget"]
    assert {"index", "kernel", "value", "own", "total"} <= verified["kernels"][0].keys()


def test_compile_stops_at_a_wrong_kernel(net: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqzc.cli import crash

    monkeypatch.setattr(crash.tempfile, "tempdir", str(Path.cwd()))
    spoil(monkeypatch, "conv2d", "b", np.zeros_like)
    assert run(["compile", str(net), "-o", "lib.so", "--verify-kernels"]) == 70
    said = capfd.readouterr().err
    assert "differs from that of its ops" in said
    assert not Path("lib.so").exists()
    (folder,) = Path.cwd().glob("sqzc-bug-*")
    assert len(load_graph(folder / "repro.sqz").nodes) < 10
    command = next(line for line in said.splitlines() if line.startswith("  sqzc bisect"))
    assert run(shlex.split(command)[1:]) == 70


def test_code_for_elsewhere_cannot_be_checked(net: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqzc.driver.api.runs_here", lambda target: False)
    assert run(["compile", str(net), "-o", "lib.o", "--verify-kernels"]) == 1
    assert "does not run here" in capfd.readouterr().err


@pytest.mark.weights
@pytest.mark.slow
def test_compile_checks_squeezenet(squeezenet_dir: Path, capfd: Capture) -> None:
    start = time.process_time()
    arguments = ["compile", "squeezenet1.1", "--model-dir", str(squeezenet_dir), "-O3", "--emit", "ir", "-o", "o3.sqz"]
    assert run([*arguments, "--verify-passes", "--json"]) == 0
    assert time.process_time() - start < 90
    verified = json.loads(capfd.readouterr().out)["verified"]
    assert max(entry["relative"] for entry in verified["passes"]) < verified["budget"]
    assert run(["compile", "squeezenet1.1", "--model-dir", str(squeezenet_dir), "-o", "l.so", "--verify-kernels"]) == 0
    assert "fire9/expand3x3" in capfd.readouterr().err
