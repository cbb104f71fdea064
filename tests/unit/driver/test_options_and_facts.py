"""Reading options, and facts on their way through a graph's meta."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_nets import write_small_net

import sqzc
from sqzc.diagnostics import FileError, ParseError, UsageError
from sqzc.driver.facts import BuildState, ModelFacts
from sqzc.driver.labels import labels_array, stored_labels
from sqzc.driver.options import ModelOptions, parse_input_shape, parse_level, parse_mean, parse_threads_max
from sqzc.ir.files import load_graph, save_graph, save_weights
from sqzc.ir.parser import parse_graph
from sqzc.ir.types import TensorType
from sqzc.runtime.labels import Labels

GRAPH = 'graph @g(%x: f32[2]) {\n  %y = relu(%x) : f32[2]\n  yield %y as "y"\n}\n'

FACTS = ModelFacts(
    format="caffe2",
    sources=({"name": "predict_net.pb", "sha256": "a" * 64, "verified": True},),
    weights="random:7",
    mean=(1.5, 2.0, 3.0),
    channel_order="RGB",
    licence="Apache-2.0",
    layouts={"data": "nchw"},
    labels_sha256="b" * 64,
    flops=10,
    macs=4,
    params=3,
    build=BuildState(2, "x86-64-v3", "net", 4, ("fold-mean",), "dead-code"),
)


def test_facts_survive_text() -> None:
    graph = parse_graph(GRAPH)
    graph.meta = FACTS.to_meta()
    assert json.loads(json.dumps(graph.meta)) == graph.meta
    assert ModelFacts.of(parse_graph(str(graph))) == FACTS


def test_a_graph_without_facts_has_the_defaults() -> None:
    assert ModelFacts.of(parse_graph(GRAPH)) == ModelFacts()
    assert ModelFacts().to_meta() == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [1, "two"]),
        ("mean", 3),
        ("weights", "stolen"),
        ("channel_order", "GRB"),
        ("labels_sha256", "../../etc/passwd"),
        ("flops", -1),
        ("flops", True),
        ("sources", [{"name": "a"}]),
        ("sources", [{"name": "a", "sha256": "g" * 64, "verified": True}]),
        ("layouts", {"x": "nhcw"}),
        ("build", {}),
        ("build", {**FACTS.to_meta()["build"], "opt_level": 9}),
        ("build", {**FACTS.to_meta()["build"], "done": "all"}),
    ],
)
def test_meta_from_files_is_checked(key: str, value: object) -> None:
    graph = parse_graph(GRAPH)
    graph.meta = {key: value}
    with pytest.raises(ParseError, match=f"meta '{key}'"):
        ModelFacts.of(parse_graph(str(graph)), "g.sqz")


def test_a_lifted_graph_knows_its_model(tmp_path: Path) -> None:
    net = write_small_net(tmp_path / "net")
    graph = sqzc.lift(net, mean="104,117,123")
    facts = ModelFacts.of(graph)
    plain = sqzc.lift(net)
    assert facts.mean == (104.0, 117.0, 123.0)
    assert facts.channel_order == "BGR"
    assert facts.layouts == {"data": "nchw"}
    assert (facts.flops, facts.params) == (plain.flops, plain.parameters)
    assert graph.flops > plain.flops
    assert [source["name"] for source in facts.sources] == ["predict_net.pb", "init_net.pb"]
    assert graph.name == "model"


def test_the_text_of_a_graph_stands_for_its_source(tmp_path: Path) -> None:
    from sqzc.driver.sources import read_model

    save_graph(parse_graph(GRAPH), tmp_path / "g.sqz")
    source = read_model(tmp_path / "g.sqz", ModelOptions())
    assert [entry["name"] for entry in source.facts.sources] == ["g.sqz"]
    assert source.facts.flops == load_graph(tmp_path / "g.sqz").flops


def test_labels_travel_in_the_weights_file(tmp_path: Path) -> None:
    labels = Labels(("tench", "gold fish, Carassius", "größte"), "c" * 64)
    for name in ("net.safetensors", "weights.safetensors"):
        save_weights(tmp_path / name, labels_array(labels))
        assert stored_labels(tmp_path / "net.sqz", labels.sha256) == labels
        (tmp_path / name).unlink()
    assert stored_labels(tmp_path / "net.sqz", labels.sha256) is None
    (tmp_path / "net.safetensors").write_bytes(b"no such thing")
    with pytest.raises(FileError):
        stored_labels(tmp_path / "net.sqz", labels.sha256)


def test_means() -> None:
    assert parse_mean(None) is None
    assert parse_mean("none") is None
    assert parse_mean("model") == "model"
    assert parse_mean("104, 117.5,123") == (104.0, 117.5, 123.0)
    assert parse_mean([1, 2]) == (1.0, 2.0)
    for wrong in ("", "1,,2", "nan", "1,inf,2", "mean"):
        with pytest.raises(UsageError):
            parse_mean(wrong)


def test_input_shapes() -> None:
    assert parse_input_shape("data:1,3,227,227") == ("data", (1, 3, 227, 227))
    assert parse_input_shape("a:b:2x4") == ("a:b", (2, 4))
    for wrong in ("data", "data:", ":1,2", "data:1,-2", "data:1,a", "data:1,,2"):
        with pytest.raises(UsageError):
            parse_input_shape(wrong)
    options = ModelOptions(inputs={"x": np.zeros((1, 2), np.int32), "y": (3,)})
    assert str(options.input_types["x"]) == "i32[1,2]"
    assert isinstance(options.input_types["x"], TensorType)
    assert options.input_types["y"] == (3,)


def test_levels_and_threads() -> None:
    assert [parse_level(level) for level in ("O0", "1", 2, "O3")] == [0, 1, 2, 3]
    for wrong in ("O4", "fast", -1, "OO1"):
        with pytest.raises(UsageError):
            parse_level(wrong)
    assert parse_threads_max(1) == 1
    for wrong in (0, -1, 10**6):
        with pytest.raises(UsageError):
            parse_threads_max(wrong)


def test_api_is_exported_lazily() -> None:
    for name in ("compile", "lift", "parse", "optimize", "evaluate", "load"):
        assert callable(getattr(sqzc, name))
        assert name in dir(sqzc)


def test_optimize_and_evaluate() -> None:
    graph = sqzc.parse(GRAPH)
    assert str(sqzc.optimize(graph, "O2")) == GRAPH
    assert sqzc.evaluate(graph, {"x": np.array([-1, 2], np.float32)})["y"].tolist() == [0, 2]
    wide = sqzc.evaluate(graph, {"x": np.array([-1, 2], np.float64)}, dtype="float64")["y"]
    assert wide.dtype == np.float64
    with pytest.raises(UsageError):
        sqzc.evaluate(graph, {}, dtype="float16")
