"""The programs in benchmarks/: the table of shapes, one shape from end to end, the roofline, the filled page."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from sqzc.backends.llvm.problems import conv_problem
from sqzc.backends.llvm.schedules.conv_strassen import StrassenSchedule
from sqzc.backends.llvm.schedules.conv_winograd import WinogradSchedule
from sqzc.driver.bench import find_peers
from sqzc.driver.build import make_plan, run_passes, settle
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.driver.sources import read_model
from sqzc.plan.program import Program, Step

from .conftest import ROOT, FakePeers, load_script


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """benchmarks/kernels.py."""
    return load_script("kernels")


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_sixty_shapes_of_other_networks(shapes: ModuleType) -> None:
    found = shapes.read_shapes()
    assert len(found) == 60
    assert len({shape.name for shape in found}) == 60
    assert len({(s.n, s.ic, s.h, s.w, s.oc, s.k, s.stride, s.pad, s.group) for s in found}) == 60
    nets = {shape.net for shape in found}
    assert nets == {"resnet50", "vgg16", "mobilenet_v1", "mobilenet_v2", "inception_v1", "inception_v3"}
    assert all(shape.ic % shape.group == shape.oc % shape.group == 0 for shape in found)


def test_a_shape_is_read_and_told(shapes: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("# words\nnet layer 2 4 9 8 6 1x7 2 0x3 2\n\n")
    (shape,) = shapes.read_shapes(tmp_path / "t.txt")
    assert (shape.k, shape.stride, shape.pad) == ((1, 7), (2, 2), (0, 3))
    assert str(shape) == "2 x 4x9x8 -> 6, 1x7 / 2, group 2"


@pytest.fixture(scope="module")
def tiny(shapes: ModuleType) -> Any:
    """A shape that is quickly done."""
    return shapes.Shape("net", "tiny", 1, 16, 9, 9, 16, (3, 3), (1, 1), (1, 1), 1)


def test_the_graph_of_a_shape(shapes: ModuleType) -> None:
    for shape in shapes.read_shapes():
        graph = shapes.graph_of(shape)
        size = [
            (extent + 2 * pad - k) // stride + 1
            for extent, pad, k, stride in zip((shape.h, shape.w), shape.pad, shape.k, shape.stride, strict=True)
        ]
        assert graph.outputs[0][1].type.shape == (shape.n, shape.oc, *size)
        assert graph.macs == shape.n * shape.oc * math.prod(size) * shape.ic // shape.group * math.prod(shape.k)


def job_of(shapes: ModuleType, python: Path) -> Any:
    peers = find_peers(["onnxruntime"], python)
    return shapes.Job(peers, 1, None, rounds=2, turn_seconds=0.001, tolerance=2e-5, limits=None)


def test_a_shape_from_end_to_end(shapes: ModuleType, tiny: Any, fake_peers: FakePeers) -> None:
    record = shapes.run_shape(tiny, job_of(shapes, fake_peers.python()))
    assert record["error"] is None
    assert record["agree"]
    assert record["difference"] < 2e-5
    assert record["best_peer"] == "onnxruntime"
    assert any(step.startswith("conv2d.") for step in record["plan"])
    summary = shapes.summary_of([record, {**record, "name": "other", "ratio": 4 * record["ratio"]}])
    assert summary["geometric_mean"] == pytest.approx(2 * record["ratio"])
    assert summary["worst"]["name"] == "other"
    assert "net/tiny" in shapes.row_text(record, tiny)
    json.dumps(record, allow_nan=False)


def test_a_shape_with_a_wrong_answer(shapes: ModuleType, tiny: Any, fake_peers: FakePeers) -> None:
    record = shapes.run_shape(tiny, job_of(shapes, fake_peers.python(offset=0.25)))
    words = re.fullmatch(r"wrong answer; differences from float64: sqzc (\S+), onnxruntime 0\.25", record["error"])
    assert words is not None
    assert float(words[1]) < 1e-4
    assert shapes.summary_of([record]) == {"geometric_mean": None, "worst": None, "failed": ["net/tiny"]}
    assert "FAILED" in shapes.row_text(record, tiny)


def test_a_shape_that_does_not_compile(shapes: ModuleType, tiny: Any, fake_peers: FakePeers) -> None:
    job = replace(job_of(shapes, fake_peers.python()), target="no-such-cpu")
    assert "unknown target" in shapes.run_shape(tiny, job)["error"]


def test_a_pattern_without_a_match(shapes: ModuleType) -> None:
    done = CliRunner().invoke(shapes.main, ["--vs", "", "--only", "^alexnet"])
    assert done.exit_code == 1
    assert "no shape has a match" in done.output


# -- the roofline -----------------------------------------------------------------------------------------------------


def planned(shapes: ModuleType, tiny: Any, **changes: Any) -> tuple[Program, Step]:
    """The plan of a shape, and its convolution."""
    source = read_model(shapes.graph_of(replace(tiny, **changes)), ModelOptions())
    program = make_plan(run_passes(source, settle(source, CodeOptions(opt_level=3, target="x86-64-v3"))))
    return program, next(step for step in program.steps if step.kernel.startswith("conv2d"))


def test_direct_convolutions_are_counted_by_definition(shapes: ModuleType, kernels: ModuleType, tiny: Any) -> None:
    program, step = planned(shapes, tiny, stride=(2, 2))
    assert kernels.done_flops(program, step) == 2 * 16 * 5 * 5 * 16 * 9


def test_winograd_is_counted_in_what_it_does(shapes: ModuleType, kernels: ModuleType, tiny: Any) -> None:
    program, step = planned(shapes, tiny, ic=64, oc=64, h=16, w=16)
    p = conv_problem(program, step)
    schedule = WinogradSchedule(4, 1, 4, 1, "tile", 1)
    products = 2 * 16 * 36 * 64 * 64
    transforms = 2 * 16 * 64 * (12 * 12 + 10 * 10)
    assert kernels.winograd_flops(p, schedule) == products + transforms
    # Nine tiles where two and a quarter are needed: what hangs over the edge is done too.
    assert kernels.winograd_flops(replace(p, oh=9, ow=9), schedule) == (products + transforms) * 9 // 16
    assert kernels.winograd_flops(p, schedule) < kernels.conv_flops(p)


def test_strassen_does_seven_eighths_and_some_sums(shapes: ModuleType, kernels: ModuleType, tiny: Any) -> None:
    program, step = planned(shapes, tiny, ic=256, oc=256, h=14, w=14, k=(1, 1), pad=(0, 0))
    p, whole = conv_problem(program, step), 256 * 256 * 196
    once = 7 * whole // 8 + 4 * 128 * 98 + 2 * 128 * 98
    assert kernels.strassen_flops(p, StrassenSchedule(1, 2, 14)) == 2 * once
    # Sums of slots: two of four parts at the outer level, two with and six without an operand in each inner one.
    sums = 4 * 128 * 98 + 7 * 4 * 64 * 49 + (8 + 2 * 2 + 5 * 6) * 64 * 49
    assert kernels.strassen_flops(p, StrassenSchedule(2, 4, 5)) == 2 * (49 * whole // 64 + sums)


def test_the_roofline_of_a_small_network(kernels: ModuleType, small_net: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        kernels.main, [str(small_net), "--runs", "5", "--json", str(tmp_path / "k.json")], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "k.json").read_text())
    assert record["kind"] == "kernels"
    assert len(record["kernels"]) > 5
    for kernel in record["kernels"]:
        assert kernel["least"] > 0 or kernel["bytes"] == 0
        assert kernel["bound"] in ("FMA", "tiles", "L1", "L2", "L3", "memory")
    assert record["below"] <= sum(kernel["judged"] for kernel in record["kernels"])
    assert "of the roofline" in done.output


# -- the page ---------------------------------------------------------------------------------------------------------

PAGE = "# Speed\n\n<!-- results: a -->\nstale words\n<!-- end -->\n\nBetween.\n\n<!-- results: b.c -->\n<!-- end -->\n"
COMMON = {
    "machine": {"architecture": "x86_64", "cpu": "Some CPU", "family": 6, "cores": 2, "target": "x86-64-v4"},
    "load": {},
    "warning": None,
    "versions": {"sqzc": "1.0", "onnxruntime": "9.9"},
}


def contender(name: str, seconds: float, share: float | None = None) -> dict[str, Any]:
    ratio = {} if share is None else {"ratio": {"of_medians": share}}
    return {"name": name, "median": seconds, "per_image": seconds, **ratio}


def test_tables_stand_where_the_page_wants_them(tables: ModuleType, tmp_path: Path) -> None:
    rows = [contender("sqzc", 0.003), contender("onnxruntime", 0.006, 0.5), contender("openvino", 0.004, 0.75)]
    setting = {"threads": 1, "batch": 1, "best_peer": "openvino", "contenders": rows}
    record = {**COMMON, "kind": "model", "notes": ["onnxruntime is not limited"], "settings": [setting]}
    (tmp_path / "a.json").write_text(json.dumps(record))
    filled = tables.fill(PAGE, tmp_path)
    assert "| 1 | 1 | 3.000 | 6.000 | 4.000 | 0.500 | **0.750** |" in filled
    assert "Some CPU (family 6), 2 cores; target x86-64-v4; sqzc 1.0, onnxruntime 9.9. onnxruntime is not" in filled
    assert "stale" not in filled
    assert "<!-- results: b.c -->\nNot measured yet.\n<!-- end -->" in filled
    assert tables.fill(filled, tmp_path) == filled


def test_a_busy_machine_shows_in_the_page(tables: ModuleType) -> None:
    assert "**Warning:** the machine was not idle" in tables.where({**COMMON, "warning": "the machine was not idle"})


def test_tables_of_shapes_and_kernels(
    tables: ModuleType, shapes: ModuleType, tiny: Any, fake_peers: FakePeers, kernels: ModuleType
) -> None:
    row = json.loads(json.dumps(shapes.run_shape(tiny, job_of(shapes, fake_peers.python()))))
    failed = {**row, "error": "compilation: no"}
    record = {**COMMON, "kind": "shapes", "threads": 1, **shapes.summary_of([row, failed]), "shapes": [row, failed]}
    text = tables.shapes_table(record)
    assert "| net/tiny | 16x9x9 to 16, 3x3 | " in text
    assert "| failed |" in text
    kernel = kernels.Kernel("conv1", "conv2d.direct", "cols=4", 2e-6, 100, 200, 64, 1e-6, "FMA")
    limits = {"peak_flops": 1e11, "bandwidths": [{"level": "L1", "bytes_per_second": 2e11}]}
    record = {
        **COMMON,
        "machine": {**COMMON["machine"], "limits": limits},  # type: ignore[dict-item]
        "bar": kernels.BAR,
        "kernel_seconds": 2e-6,
        "least_seconds": 1e-6,
        "kernels": [{**kernel.to_data(), "judged": True}, {**kernel.to_data(), "layer": "short", "judged": False}],
    }
    text = tables.kernels_table(record)
    assert "| conv1 | conv2d.direct | cols=4 | 2.0 | 0.1 | FMA | **50%** |" in text
    assert "short" not in text


def test_the_page_is_what_the_records_say(tables: ModuleType) -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert tables.fill(page, ROOT / "benchmarks" / "results") == page
    assert page.count("<!-- results: ") == page.count("<!-- end -->") == 5
