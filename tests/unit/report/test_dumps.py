"""Reading folders with dumps, good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dump_folders import AFTER, BEFORE, IDLE, PASS, write_dump

from sqzc.diagnostics import FileError, ParseError
from sqzc.report import read_dumps

FILES = {"00-input.sqz": BEFORE, "01-fuse-conv-relu.sqz": AFTER}


def test_a_dump_is_read_whole(dump_folder: Path) -> None:
    dumps = read_dumps(dump_folder)
    assert [entry.spec for entry in dumps.passes] == ["fuse-conv-relu", "dead-code"]
    assert [entry.changed for entry in dumps.passes] == [True, False]
    assert dumps.passes[1].notes == ("nothing is dead",)
    assert len(dumps.graphs["00-input.sqz"].nodes) == 3
    assert len(dumps.last_graph.nodes) == 2
    assert dumps.plan is not None
    assert len(dumps.plan.steps) == 2


def test_a_compilation_that_ended_early_has_no_plan(tmp_path: Path) -> None:
    dumps = read_dumps(write_dump(tmp_path, [{"file": "00-input.sqz"}], {"00-input.sqz": BEFORE}))
    assert dumps.plan is None
    assert dumps.passes == ()
    assert len(dumps.last_graph.nodes) == 3


def test_checks_keep_what_is_known_and_stay_json(tmp_path: Path) -> None:
    check = {"relative": float("inf"), "exact": 0.0, "ulps": 3, "worst": "a", "deep": {"er": 1}, "max_abs": [1]}
    folder = write_dump(tmp_path, [{"file": "00-input.sqz"}, {**PASS, "check": check}], FILES)
    (entry,) = read_dumps(folder).passes
    assert entry.check == {"relative": "inf", "exact": 0.0, "ulps": 3, "worst": "a"}
    json.dumps(entry.check, allow_nan=False)


def test_a_folder_without_a_dump(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no dump in") as caught:
        read_dumps(tmp_path)
    assert "--dump-ir" in str(caught.value)


@pytest.mark.parametrize(
    "index",
    ["", "[", "[]", "{}", '{"dumps": 3}', '{"dumps": [3]}', '{"dumps": []}', "[" * 100_000],
    ids=range(8),
)
def test_a_damaged_index(tmp_path: Path, index: str) -> None:
    with pytest.raises(FileError, match="cannot be used"):
        read_dumps(write_dump(tmp_path, [], FILES, index=index))


@pytest.mark.parametrize("file", ["../secret.sqz", "/etc/passwd", "00-INPUT.sqz", "0-a.sqz", "00-a.exe", 7, ["a"], ""])
def test_only_names_that_a_dump_has_are_followed(tmp_path: Path, file: Any) -> None:
    with pytest.raises(FileError, match="no file of a dump"):
        read_dumps(write_dump(tmp_path, [{"file": "00-input.sqz"}, {**PASS, "file": file}], FILES))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", "long"),
        ("seconds", -1.0),
        ("seconds", float("nan")),
        ("index", "1"),
        ("index", True),
        ("spec", 3),
        ("rewrites", "all"),
        ("rewrites", [1]),
        ("notes", None),
        ("ops_after", 2.5),
        ("check", [1]),
    ],
)
def test_a_damaged_entry(tmp_path: Path, field: str, value: object) -> None:
    folder = write_dump(tmp_path, [{"file": "00-input.sqz"}, {**IDLE, field: value}], FILES)
    with pytest.raises(FileError, match="cannot be used"):
        read_dumps(folder)


def test_too_many_entries(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="over 10000"):
        read_dumps(write_dump(tmp_path, [{"file": None}] * 10_001, FILES))


def test_a_graph_that_does_not_parse_says_where(tmp_path: Path) -> None:
    with pytest.raises(ParseError, match=r"00-input\.sqz"):
        read_dumps(write_dump(tmp_path, [{"file": "00-input.sqz"}], {"00-input.sqz": "graph @"}))


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"00-input\.sqz"):
        read_dumps(write_dump(tmp_path, [{"file": "00-input.sqz"}], {}))
