"""A small net through the whole driver, without trained weights or golden data."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from small_nets import CLASSES, INPUT_SHAPE, write_labels, write_small_net

import sqzc
from sqzc.diagnostics import UsageError
from sqzc.driver import build
from sqzc.driver.api import WatchOptions
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.ir.equality import first_difference
from sqzc.ir.files import load_graph
from sqzc.passes.pipelines import PIPELINES
from sqzc.plan.text import parse_program, print_program
from sqzc.runtime import Model
from sqzc.runtime.metadata import validate

LEVELS = sorted(PIPELINES)


def pixels(shape: tuple[int, ...] = INPUT_SHAPE, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


def library(model: Path, output: Path, *, dump: Path | None = None, **code: object) -> bytes:
    """The bytes of the library that a model gives."""
    build(model, output, ModelOptions(), CodeOptions(**code), WatchOptions(dump_ir=dump))  # type: ignore[arg-type]
    return output.read_bytes()


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_agrees_with_the_reference(small_net: Path, level: str) -> None:
    mean = (104.0, 117.0, 123.0)
    expected = sqzc.evaluate(sqzc.lift(small_net, mean=mean), {"data": pixels()})["prob"]
    model = sqzc.compile(small_net, opt_level=level, mean=mean)
    np.testing.assert_allclose(model(pixels()), expected, rtol=0, atol=2e-6)


def test_first_convolution_with_padding_stays_exact(tmp_path: Path) -> None:
    net = write_small_net(tmp_path / "net", first_pad=1)
    mean = (104.0, 117.0, 123.0)
    expected = sqzc.evaluate(sqzc.lift(net, mean=mean), {"data": pixels()})["prob"]
    np.testing.assert_allclose(sqzc.compile(net, mean=mean)(pixels()), expected, rtol=0, atol=2e-6)


def test_a_graph_compiles_too(small_net: Path) -> None:
    graph = sqzc.lift(small_net)
    expected = sqzc.compile(small_net)(pixels())
    np.testing.assert_array_equal(sqzc.compile(graph)(pixels()), expected)
    optimised = sqzc.optimize(graph, "O2")
    assert len(optimised.nodes) < len(graph.nodes)
    np.testing.assert_array_equal(sqzc.compile(optimised, passes="")(pixels()), expected)


def test_other_shapes_and_batches(small_net: Path) -> None:
    shape = (1, 3, 35, 31)
    model = sqzc.compile(small_net, inputs={"data": np.zeros(shape, np.float32)})
    assert model.inputs[0].shape == shape
    graph = sqzc.lift(small_net, inputs={"data": shape})
    batch = pixels((3, *shape[1:]))
    expected = np.concatenate([sqzc.evaluate(graph, {"data": batch[i : i + 1]})["prob"] for i in range(3)])
    np.testing.assert_allclose(model(batch), expected, rtol=0, atol=2e-6)


def test_library_is_the_in_process_code(small_net: Path, tmp_path: Path) -> None:
    in_process = sqzc.compile(small_net)
    loaded = sqzc.compile(small_net, tmp_path / "lib.so")
    np.testing.assert_array_equal(loaded(pixels()), in_process(pixels()))
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(again(pixels()), in_process(pixels()))
    assert isinstance(again, Model)


def test_metadata_says_what_the_model_is(small_net: Path, tmp_path: Path) -> None:
    names = write_labels(small_net)
    model = sqzc.compile(small_net, tmp_path / "lib.so", mean=(1, 2, 3), opt_level=2)
    facts = model.metadata
    validate(facts)
    assert facts["labels"] == names
    assert facts["mean"] == [1.0, 2.0, 3.0]
    assert facts["channel_order"] == "BGR"
    assert facts["weights"] == "file"
    assert facts["opt_level"] == 2
    assert facts["tolerance"] is None
    assert [source["name"] for source in facts["sources"]] == ["predict_net.pb", "init_net.pb"]
    assert not any(source["verified"] for source in facts["sources"])
    assert facts["inputs"] == [{"name": "data", "shape": list(INPUT_SHAPE), "dtype": "f32", "layout": "nchw"}]
    graph = sqzc.lift(small_net)
    assert (facts["flops"], facts["params"]) == (graph.flops, graph.parameters)
    assert facts["workspace_bytes"] == model.workspace_bytes > 0


def test_random_weights_are_seeded_and_marked(small_net: Path) -> None:
    a, b, c = (sqzc.compile(small_net, weights=f"random:{seed}") for seed in (1, 1, 2))
    assert a.metadata["weights"] == "random:1"
    np.testing.assert_array_equal(a(pixels()), b(pixels()))
    assert np.abs(a(pixels()) - c(pixels())).max() > 1e-6


def test_labels_that_do_not_fit(small_net: Path, tmp_path: Path) -> None:
    write_labels(small_net, CLASSES + 1)
    with pytest.warns(sqzc.driver.SqzcWarning, match="11 labels do not fit"):
        assert sqzc.compile(small_net).metadata["labels"] is None
    with pytest.raises(UsageError, match="11 labels"):
        sqzc.compile(small_net, labels=small_net / "synset_words.txt")


@pytest.mark.parametrize("level", [0, 3])
def test_every_dump_goes_on_to_the_same_library(small_net: Path, tmp_path: Path, level: int) -> None:
    write_labels(small_net)
    options = {"opt_level": level, "prefix": "other", "threads_max": 3}
    plain = library(small_net, tmp_path / "plain.so", **options)
    dumps = tmp_path / "dumps"
    assert library(small_net, tmp_path / "dumped.so", dump=dumps, **options) == plain
    files = sorted(dumps.glob("*.sqz"))
    assert files[0].name == "00-input.sqz"
    assert len(files) > 1
    for file in files:
        graph = load_graph(file)
        assert first_difference(graph, sqzc.parse(str(graph), weights_beside(file))) is None
        assert library(file, tmp_path / f"{file.stem}.so") == plain, file.name


def weights_beside(file: Path) -> dict[str, np.ndarray]:
    import safetensors.numpy

    return safetensors.numpy.load_file(file.parent / "weights.safetensors")


def test_dumps_list_every_pass(small_net: Path, tmp_path: Path) -> None:
    dumps = tmp_path / "dumps"
    library(small_net, tmp_path / "a.so", dump=dumps)
    (dumps / "99-stale.sqz").write_text("of an earlier run")
    library(small_net, tmp_path / "a.so", dump=dumps)
    entries = json.loads((dumps / "index.json").read_text())["dumps"]
    passes = [entry for entry in entries if "name" in entry]
    assert [entry["name"] for entry in passes] == PIPELINES["O3"].split(",")
    for entry in passes:
        assert (entry["file"] is not None) == entry["changed"]
    present = {path.name for path in dumps.iterdir()}
    assert present == {entry["file"] for entry in entries if entry["file"]} | {
        "index.json",
        "index.html",
        "weights.safetensors",
    }
    (plan,) = dumps.glob("*-plan.txt")
    program = parse_program(plan.read_text(), weights_beside(plan))
    assert print_program(program) == plan.read_text()
    (module,) = dumps.glob("*.ll")
    (assembly,) = dumps.glob("*.s")
    assert "define" in module.read_text()
    assert ".text" in assembly.read_text()


def test_going_on_elsewhere_by_choice(small_net: Path, tmp_path: Path) -> None:
    dumps = tmp_path / "dumps"
    library(small_net, tmp_path / "a.so", dump=dumps, opt_level=2)
    first = dumps / "00-input.sqz"
    result = build(first, None, ModelOptions(), CodeOptions(), WatchOptions())
    assert result.optimised.settings.opt_level == 2
    result = build(first, None, ModelOptions(), CodeOptions(opt_level=0), WatchOptions())
    assert [record.spec for record in result.optimised.records] == PIPELINES["O0"].split(",")
    with pytest.raises(UsageError, match="has its weights, shapes and mean already"):
        build(first, None, ModelOptions(weights="random"), CodeOptions(), WatchOptions())


def test_verify_passes_measures_and_changes_nothing(small_net: Path, tmp_path: Path) -> None:
    options = ModelOptions(mean=(104.0, 117.0, 123.0))
    build(small_net, tmp_path / "a.so", options, CodeOptions(), WatchOptions())
    result = build(small_net, tmp_path / "b.so", options, CodeOptions(), WatchOptions(verify_passes=2))
    assert (tmp_path / "b.so").read_bytes() == (tmp_path / "a.so").read_bytes()
    assert result.verified is not None
    assert [check.spec for check in result.verified.checks] == [record.spec for record in result.optimised.records]
    assert 0 < max(check.relative for check in result.verified.checks) < 1e-5


def test_compile_warns_of_nothing_by_itself(small_net: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sqzc.compile(small_net)
