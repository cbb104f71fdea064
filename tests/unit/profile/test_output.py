"""The other forms of a profile: trace, picture, command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sqzc.cli import profile as cli
from sqzc.cli import target as target_cli
from sqzc.diagnostics import UsageError
from sqzc.plan.program import Program
from sqzc.profile import build as profile_build
from sqzc.profile.machine import Machine
from sqzc.profile.picture import check_picture, draw_roofline
from sqzc.profile.rows import Profile
from sqzc.profile.trace import chrome_trace


def test_the_trace_is_the_fastest_run(profile: Profile) -> None:
    trace = json.loads(json.dumps(chrome_trace(profile), allow_nan=False))
    bars = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [bar["name"] for bar in bars] == ["%a", "data, conv", "pool"]
    assert [bar["ts"] for bar in bars] == pytest.approx([0, 0.010, 0.070])
    assert [bar["dur"] for bar in bars] == pytest.approx([0.010, 0.060, 0.020])
    assert bars[1]["args"]["kernel"] == "conv2d.winograd"
    names = [event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"]
    assert names == ["tiny, 1 threads", "steps"]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture_is_drawn_and_is_the_same_again(profile: Profile, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib", reason="the roofline is not drawn: no matplotlib (extra `plot`)")
    first = tmp_path / f"a{suffix}"
    check_picture(first)
    draw_roofline(profile, first)
    data = first.read_bytes()
    assert data.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    if suffix == ".svg":
        text = data.decode()
        assert "conv2d.winograd *" in text or "<text" not in text
    else:
        again = tmp_path / f"b{suffix}"
        draw_roofline(profile, again)
        assert again.read_bytes() == data


def test_pictures_of_unknown_form_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no picture"):
        check_picture(tmp_path / "roof.jpeg")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"sqzc\[plot\]"):
        check_picture(tmp_path / "roof.png")


Invoke = Callable[..., Result]


@pytest.fixture
def invoke(profile: Profile, program: Program, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """The command, with a profile that needs no compiling."""

    def fake(model: str, *_: object, **__: object) -> profile_build.Result:
        return profile_build.Result(profile, program, (f"no such thing as {model}",))

    monkeypatch.setattr(cli, "profile_model", fake)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli.command, list(arguments), catch_exceptions=False)

    return run


def test_the_table_says_what_the_rows_are(invoke: Invoke) -> None:
    done = invoke("tiny")
    lines = done.output.splitlines()
    assert "no such thing as tiny" in done.output
    conv = next(line for line in lines if "conv2d.winograd" in line)
    assert "data, conv" in conv
    assert "m=4 oc_vecs=2" in conv
    assert "0.00*" in conv
    assert any(line.startswith("sum of rows") for line in lines)
    assert any("10.0 % of the total" in line for line in lines)
    assert any("the probes cost 4.2 %" in line for line in lines)
    assert any("does less arithmetic" in line for line in lines)
    assert any("warning: the rows leave over 3.0 %" in line for line in lines)
    assert any("peak 100.0 GFLOP/s" in line for line in lines)


def test_json_trace_and_picture_at_once(invoke: Invoke, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    done = invoke("tiny", "--json", "--trace", str(trace))
    data = json.loads(done.stdout)
    assert data["model"] == "tiny"
    assert json.loads(trace.read_text())["traceEvents"]


def test_a_library_cannot_be_profiled(tmp_path: Path) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(b"\x7fELF and so on")
    with pytest.raises(UsageError, match="compiled library") as caught:
        CliRunner().invoke(cli.command, [str(library)], catch_exceptions=False)
    assert "sqzc profile MODEL" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "0"], "0 threads"),
        (["--runs", "0"], "0 runs"),
        (["--target", "z80"], "unknown target"),
        (["--plot", "roof.gif"], "no picture"),
    ],
)
def test_mistakes_are_found_before_any_work(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        CliRunner().invoke(cli.command, ["nothing", *arguments], catch_exceptions=False)


def test_the_target_command_shows_record_and_measures(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_cli, "measure", lambda target, threads: machine)
    monkeypatch.setattr(target_cli, "runs_here", lambda target: True)
    done = CliRunner().invoke(target_cli.command, ["x86-64-v3"], catch_exceptions=False)
    assert "vector lanes         8" in done.output
    assert "100.0 GFLOP/s, 1 thread" in done.output
    assert "read from memory     10.0 GB/s" in done.output
    data = json.loads(CliRunner().invoke(target_cli.command, ["x86-64-v3", "--json"]).output)
    assert data["vector_lanes"] == 8
    assert data["measured"]["peak_flops"] == 100e9


def test_a_target_that_does_not_run_here_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_cli, "runs_here", lambda target: False)
    done = CliRunner().invoke(target_cli.command, ["x86-64-v4"], catch_exceptions=False)
    assert "nothing was measured" in done.output
    data = json.loads(CliRunner().invoke(target_cli.command, ["x86-64-v4", "--json"]).output)
    assert data["measured"] is None


def test_all_targets_can_be_listed() -> None:
    done = CliRunner().invoke(target_cli.command, ["--list"], catch_exceptions=False)
    assert "x86-64-v2" in done.output
    rows = json.loads(CliRunner().invoke(target_cli.command, ["--list", "--json"]).output)
    assert sum(row["native"] for row in rows) <= 1


def test_a_number_of_threads_that_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="0 threads"):
        CliRunner().invoke(target_cli.command, ["--threads", "0"], catch_exceptions=False)
