"""`sqzc opt`, `info` and `zoo`, which generate no code."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from small_nets import write_small_net

from sqzc.ir.files import load_graph

GRAPH = """\
graph @g(%x: f32[2]) {
  const %a = [1.0, 2.0] : f32[2]
  const %b = [0.5, 4.0] : f32[2]
  %c = add(%a, %b) : f32[2]
  %d = relu(%x) : f32[2] @"unused"
  %y = mul(%x, %c) : f32[2]
  yield %y as "y"
}
"""
FOLDED = """\
graph @g(%x: f32[2]) {
  const %c = [1.5, 6.0] : f32[2]
  %y = mul(%x, %c) : f32[2]
  yield %y as "y"
}
"""


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch):
    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return give


def test_opt_is_a_filter(sqzc, stdin) -> None:
    stdin(GRAPH)
    assert sqzc("opt", "-", "--passes", "fold-constants,dead-code") == (0, FOLDED, "")


def test_opt_without_passes_reads_and_prints(sqzc, place: Path) -> None:
    (place / "g.sqz").write_text(GRAPH)
    assert sqzc("opt", "g.sqz") == (0, GRAPH, "")


def test_opt_between_files_takes_weights_along(sqzc, place: Path, tmp_path: Path) -> None:
    net = write_small_net(tmp_path / "net")
    assert sqzc("compile", net, "-o", "in.sqz", "--passes", "").code == 0
    assert sqzc("opt", "in.sqz", "--passes", "O2", "--target", "x86-64-v3", "-o", "out.sqz").code == 0
    graph = load_graph(place / "out.sqz")
    assert any("nchw8c" in str(value.type) for value in graph.values())
    assert graph.meta["build"]["done"][-1] == "dead-code"
    assert sorted(path.name for path in place.iterdir()) == [
        "in.safetensors",
        "in.sqz",
        "out.safetensors",
        "out.sqz",
    ]


def test_opt_reads_weights_from_elsewhere(sqzc, stdin, place: Path, tmp_path: Path) -> None:
    net = write_small_net(tmp_path / "net")
    assert sqzc("compile", net, "-o", "in.sqz", "--passes", "").code == 0
    text = (place / "in.sqz").read_text()
    stdin(text)
    assert sqzc("opt", "-", "--weights", "in.safetensors") == (0, text, "")
    stdin(text)
    done = sqzc("opt", "-")
    assert done.code == 1
    assert "no data for @conv1_w" in done.err


def test_opt_shows_what_happens(sqzc, place: Path) -> None:
    (place / "g.sqz").write_text(GRAPH)
    passes = "fold-constants,dead-code"
    watch = ["--print-before", "dead-code", "--print-after", "all", "--verify-passes", "--time-passes"]
    done = sqzc("opt", "g.sqz", "--passes", passes, *watch)
    assert done.code == 0
    assert done.out == FOLDED
    assert done.err.count("# after ") == 2
    assert done.err.count("# before 02 dead-code\ngraph @g") == 1
    assert "rewrites  pass" in done.err
    assert sqzc("opt", "g.sqz", "--passes", passes, "--stop-after", "1").out.count("relu") == 1


def test_info_of_a_model(sqzc, tmp_path: Path) -> None:
    net = write_small_net(tmp_path / "net")
    done = sqzc("info", net, "--json", "--layers")
    assert done.code == 0
    facts = json.loads(done.out)
    assert facts["inputs"] == [{"name": "data", "type": "f32[1,3,27,27]", "layout": "nchw"}]
    assert facts["ops"]["conv2d"] == 5
    assert facts["mean"] is None
    assert sum(row["flops"] for row in facts["layers"]) == pytest.approx(1e9 * facts["gflops"])
    assert sum(row["params"] for row in facts["layers"]) == pytest.approx(1e6 * facts["mparams"])
    words = sqzc("info", net, "--layers").out
    assert "data: f32[1,3,27,27] NCHW" in words
    assert "fire/right" in words


def test_info_of_a_zoo_model_without_its_weights(sqzc) -> None:
    done = sqzc("info", "squeezenet1.1", "--json")
    assert done.code == 0
    assert "sqzc zoo fetch squeezenet1.1" in done.err
    facts = json.loads(done.out)
    assert round(facts["gflops"], 3) == 0.784
    assert round(facts["gflops_mac"], 4) == 0.7755
    assert round(facts["mparams"], 3) == 1.235
    assert facts["licence"] == "Apache-2.0"
    assert facts["mean"] == [103.96, 116.78, 123.68]


def test_zoo_list_and_verify(sqzc, place: Path, tmp_path: Path) -> None:
    done = sqzc("zoo", "list")
    assert done.code == 0
    assert "squeezenet1.1" in done.out
    assert "Apache-2.0" in done.out
    assert "(not here yet)" in done.out
    assert sqzc("zoo", "verify").code == 0
    done = sqzc("zoo", "verify", "squeezenet1.1")
    assert done.code == 1
    assert "not on this machine" in done.err
    folder = write_small_net(place / "models" / "squeezenet1.1")
    (place / "pyproject.toml").write_text('[tool.sqzc]\nmodel-path = ["models"]\n')
    rows = json.loads(sqzc("zoo", "list", "--json").out)
    assert rows[0]["folder"] == str(folder)
    assert rows[0]["verified"] is False
    done = sqzc("zoo", "verify")
    assert done.code == 1
    assert done.out.count("UNVERIFIED") == 2
    assert done.err.count("unverified") == 2
    assert sqzc("zoo", "verify", "squeezenet").code == 1
