"""The record that the page shows."""

from __future__ import annotations

import json
from pathlib import Path

from sqzc.report import read_dumps, report_data


def test_the_pipeline_has_a_row_for_every_pass_with_the_measures_after_it(dump_folder: Path) -> None:
    rows = report_data(read_dumps(dump_folder))["pipeline"]
    assert [row["pass"] for row in rows] == ["input", "fuse-conv-relu", "dead-code"]
    assert [row["ops"] for row in rows] == [3, 2, 2]
    assert [row["changed"] for row in rows] == [True, True, False]
    assert rows[0]["flops"] == rows[1]["flops"]
    # x, w and a; a and a.1; a.1 and b.
    assert rows[0]["bytes"] == (64 + 4 + 64) + (64 + 64) + (64 + 16)
    assert rows[1]["bytes"] == (64 + 4 + 64) + (64 + 16)
    assert (rows[0]["constants"], rows[0]["constant_bytes"]) == (1, 4)
    assert rows[0]["seconds"] is None
    assert rows[2]["notes"] == ["nothing is dead"]


def test_only_graphs_that_differ_are_kept(dump_folder: Path) -> None:
    first, fused = report_data(read_dumps(dump_folder))["stages"]
    assert (first["index"], fused["index"]) == (0, 1)
    assert "diff" not in first
    assert fused["before"]["a.1"] == ["merged", [], ["a"]]
    assert fused["after"]["a"][0] == "changed"
    assert fused["counts"] == {"added": 0, "removed": 1, "changed": 2}
    assert not any('meta "build"' in line for line in fused["text"])
    assert any('meta "weights"' in line for line in fused["text"])


def test_nodes_carry_what_a_click_shows(dump_folder: Path) -> None:
    graph = report_data(read_dumps(dump_folder))["stages"][1]["graph"]
    conv = graph["nodes"][0]
    assert conv["op"] == "conv2d"
    assert conv["attrs"] == [("act", "relu")]
    assert conv["inputs"] == ["x", "w"]
    assert conv["sources"] == ["a"]
    assert conv["text"].startswith("%a = conv2d(%x, %w) {act=relu}")
    assert graph["constants"]["w"].startswith("f32[1,1,1,1], 4 bytes, sha ")
    assert graph["outputs"] == [["b", "b"]]


def test_the_plan_is_buffers_over_time_and_kernels(dump_folder: Path) -> None:
    plan = report_data(read_dumps(dump_folder))["plan"]
    (buffer,) = plan["buffers"]
    assert (buffer["name"], buffer["offset"], buffer["bytes"], buffer["live"]) == ("a", 0, 64, [0, 1])
    assert buffer["steps"] == [0, 1]
    assert plan["live_bytes"] == [64, 64]
    conv = plan["steps"][0]
    assert conv["schedule"] == "tile=4"
    assert conv["bytes"] == {"read": 64, "constants": 4, "written": 64}
    assert conv["reads"] == ["%x: f32[1,1,4,4]"]


def test_the_record_is_json_and_says_what_the_model_is(dump_folder: Path) -> None:
    data = report_data(read_dumps(dump_folder))
    json.dumps(data, allow_nan=False)
    assert data["model"] == "tiny"
    assert data["meta"] == {"weights": "file", "target": "x86-64-v3", "level": "3"}
