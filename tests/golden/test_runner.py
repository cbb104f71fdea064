"""The golden runner itself: it must fail when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden.runner import run_file, stand_in_weights

GRAPH = "graph @g(%x: f32[2]) {\n  %d = dropout(%x) : f32[2]\n  %y = relu(%d) : f32[2]\n  yield %y\n}\n"


def outcome(tmp_path: Path, text: str) -> str:
    path = tmp_path / "case.sqz"
    path.write_text(text)
    return run_file(path)


@pytest.mark.parametrize(
    ("run", "check", "problem"),
    [
        ("sqzc opt --passes drop-inference-noops", "CHECK: relu(%x)", ""),
        ("sqzc opt", "CHECK: relu(%x)", "Couldn't match"),
        ("sqzc opt", "CHECK-NOT: dropout\n# CHECK: yield", "excluded string found"),
        ("sqzc opt --passes drop-inference-nops", "CHECK: relu", "unknown pass 'drop-inference-nops'"),
    ],
)
def test_verdict(tmp_path: Path, run: str, check: str, problem: str) -> None:
    found = outcome(tmp_path, f"# RUN: {run}\n{GRAPH}# {check}\n")
    assert problem in found
    assert bool(problem) == bool(found)


def test_every_run_line_counts(tmp_path: Path) -> None:
    text = f"# RUN: sqzc opt --passes drop-inference-noops\n# RUN: sqzc opt\n{GRAPH}# CHECK: relu(%x)\n"
    assert "RUN: sqzc opt\n" in outcome(tmp_path, text)


def test_no_run_line(tmp_path: Path) -> None:
    assert "has no RUN line" in outcome(tmp_path, f"{GRAPH}# CHECK: relu\n")


def test_no_check_line(tmp_path: Path) -> None:
    assert "No check strings found" in outcome(tmp_path, f"# RUN: sqzc opt\n{GRAPH}")


def test_expected_failure_must_fail(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="expected to fail"):
        outcome(tmp_path, f"# RUN: not sqzc opt\n{GRAPH}# CHECK: relu\n")


def test_unknown_command(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="unknown command"):
        outcome(tmp_path, f"# RUN: rm -rf\n{GRAPH}# CHECK: relu\n")


def test_stand_in_weights_depend_on_symbol_and_type_only() -> None:
    one = stand_in_weights("const %a = @w : f32[2,3]\nconst %i = @n : i64[2]")
    two = stand_in_weights('const %"b c" = @w : f32[2,3] sha=00')
    assert one["w"].tobytes() == two["w"].tobytes()
    assert one["w"].shape == (2, 3)
    assert one["n"].tolist() == [1, 1]
    assert one["w"].tobytes() != stand_in_weights("const %a = @w : f32[3,2]")["w"].tobytes()
