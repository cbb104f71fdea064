"""`sqzc tune`, and its file on the way through the commands that take it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_nets import INPUT_SHAPE, write_small_net

import sqzc
from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.tuning import Tuning, TuningError, load_tuning, save_tuning
from sqzc.cli.main import run
from sqzc.driver.build import make_plan, run_passes, settle
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.driver.sources import read_model
from sqzc.target import host_cpu, native
from sqzc.tune.questions import schedule_questions, with_choices


@pytest.fixture
def tuning(small_net: Path, tmp_path: Path) -> Path:
    """A file with another schedule for every kernel of the small net."""
    source = read_model(small_net, ModelOptions())
    program = make_plan(run_passes(source, settle(source, CodeOptions())))
    empty = Tuning(sqzc.__version__, native().name, host_cpu())
    questions = schedule_questions(Library(native()), program)
    save_tuning(with_choices(empty, ((q, q.options[1]) for q in questions)), tmp_path / "net.tuning")
    return tmp_path / "net.tuning"


def change(path: Path, **changes: str) -> Path:
    """The file with some facts changed."""
    save_tuning(replace(load_tuning(path), **changes), path)
    return path


def test_other_schedules_give_the_same_answers(small_net: Path, tuning: Path) -> None:
    image = np.random.default_rng(1).uniform(0, 255, INPUT_SHAPE).astype(np.float32)
    plain, tuned = sqzc.compile(small_net), sqzc.compile(small_net, tuning=tuning, verify_kernels=True)
    np.testing.assert_allclose(tuned(image), plain(image), rtol=0, atol=1e-6)
    layers = [[layer["schedule"] for layer in model.metadata["layers"]] for model in (plain, tuned)]
    assert layers[0] != layers[1]


def test_equal_tunings_give_equal_bytes(
    small_net: Path, tuning: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = []
    for options in ([], ["--tuning", str(tuning)], ["--tuning", str(tuning)]):
        output = tmp_path / "lib.so"
        assert run(["compile", str(small_net), "-o", str(output), *options]) == 0
        data.append(output.read_bytes())
        shown = capfd.readouterr()
        assert ("tuned on" in shown.out) == bool(options)
        assert shown.err == ""
    assert data[0] != data[1] == data[2]


def test_the_plan_says_what_was_tuned(small_net: Path, tuning: Path, tmp_path: Path) -> None:
    arguments = ["compile", str(small_net), "-o", str(tmp_path / "lib.so"), "--dump-ir", str(tmp_path / "dumps")]
    assert run([*arguments, "--tuning", str(tuning)]) == 0
    (plan,) = (tmp_path / "dumps").glob("*-plan.txt")
    assert 'meta "tuning" = {"cpu": ' in plan.read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sqzc": "0.0.1"}, "made for sqzc 0.0.1"),
        ({"target": "x86-64-v1"}, "made for target x86-64-v1"),
        ({"winograd": "f2"}, "made for --winograd f2"),
    ],
)
def test_a_tuning_for_something_else_is_refused(
    changes: dict[str, str], words: str, small_net: Path, tuning: Path, tmp_path: Path
) -> None:
    with pytest.raises(TuningError, match=words):
        sqzc.compile(small_net, tuning=change(tuning, **changes))
    assert not (tmp_path / "lib.so").exists()


def test_a_stale_entry_is_named(small_net: Path, tuning: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = json.loads(tuning.read_text())
    data["schedules"][2]["schedule"]["oc_vecs"] = 40
    tuning.write_text(json.dumps(data))
    assert run(["compile", str(small_net), "-o", "lib.so", "--tuning", str(tuning)]) == 1
    words = capfd.readouterr().err
    assert "error[TU01]" in words
    assert f"{tuning}, schedules[2], {data['schedules'][2]['kernel']}: " in words
    assert "would spill" in words


def test_tunings_of_other_nets_and_cpus_are_noted(small_net: Path, tuning: Path, tmp_path: Path) -> None:
    other = write_small_net(tmp_path / "other", size=35)
    data = json.loads(tuning.read_text())
    data["schedules"] = data["schedules"][:1]
    tuning.write_text(json.dumps(data))
    with pytest.warns(sqzc.driver.api.SqzcWarning, match="none of the kernels"):
        sqzc.compile(other, tuning=tuning)
    with pytest.warns(sqzc.driver.api.SqzcWarning, match="measured on Another CPU, this is"):
        sqzc.compile(small_net, tuning=change(tuning, cpu="Another CPU"))


def test_from_tune_to_profile(small_net: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "net.tuning"
    assert run(["tune", str(small_net), "-o", str(output), "--budget", "2", "--json"]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert summary["file"] == str(output)
    assert summary["cpu"] == load_tuning(output).cpu == host_cpu()
    assert {row["kernel_before"] for row in summary["rows"]} >= {"conv2d.direct"}
    assert all(row["measured"] >= 0 for row in summary["rows"])
    assert run(["profile", str(small_net), "--runs", "3", "--tuning", str(output), "--json"]) == 0
    profile = json.loads(capfd.readouterr().out)
    assert profile["machine"]["clock"] > 1e8
    predicted = {row["kernel"]: row["predicted_seconds"] for row in profile["rows"]}
    assert predicted["conv2d.direct"] > 0
    assert predicted["softmax.rows"] is None
    arguments = ["bench", str(small_net), "--rounds", "1", "--runs", "1", "--tuning", str(output)]
    assert run(arguments) == 0


def test_the_table_of_tune(small_net: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "net.tuning"
    assert run(["tune", str(small_net), "-o", str(output), "--budget", "0.01"]) == 0
    words = capfd.readouterr().out
    for expected in ("conv2d.direct+max_pool2d", "0 rounds", "a larger one tries more", f"{output}: 0 entries"):
        assert expected in words


def test_mistakes_are_found_before_the_search(
    small_net: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["tune", str(small_net), "-o", str(tmp_path / "no" / "folder")]) == 1
    assert run(["tune", str(small_net), "-o", str(tmp_path / "t"), "--budget", "0"]) == 1
    assert run(["tune", str(small_net), "-o", str(tmp_path / "t"), "--threads", "0"]) == 1
    assert not (tmp_path / "t").exists()
    assert capfd.readouterr().err.count("error[") == 3
