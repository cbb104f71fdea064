"""Tuned choices: their keys, their files, and what a library makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.spaces import SPACES, predicted_cycles
from sqzc.backends.llvm.tuning import (
    MAX_BYTES,
    MAX_ENTRIES,
    NO_TUNING,
    Entry,
    Tuning,
    TuningError,
    load_tuning,
    node_problem,
    save_tuning,
    step_problem,
)
from sqzc.diagnostics import FileError
from sqzc.ir.constant import Constant
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Conv2d, Linear, MaxPool2d
from sqzc.ir.types import Layout, f32
from sqzc.plan.lower import lower
from sqzc.plan.program import Program, Step
from sqzc.target import TARGETS

TARGET = TARGETS["x86-64-v4"]
BLOCKS = Layout(16)


def graph_of(*convolutions: tuple[int, int], pool: bool = False, size: int = 16) -> Graph:
    """Blocked convolutions of (output channels, filter size) one after the other, perhaps with a pool behind."""
    random = np.random.default_rng(0)
    graph = Graph("net")
    value = graph.add_input("x", f32(1, 32, size, size).with_layout(BLOCKS))
    for index, (channels, k) in enumerate(convolutions):
        shape = channels, value.type.shape[1], k, k
        weights = graph.add_constant(Constant(f"w{index}", random.standard_normal(shape).astype(np.float32)))
        conv = Conv2d(pads=(k // 2,) * 4)
        (type_,) = conv.result_types([value.type, weights.type])
        value = graph.insert(conv, [value, weights], types=[type_.with_layout(BLOCKS)]).output
    if pool:
        op = MaxPool2d(kernel=(3, 3), stride=(2, 2))
        (type_,) = op.result_types([value.type])
        value = graph.insert(op, [value], types=[type_.with_layout(BLOCKS)]).output
    graph.add_output("y", value)
    return graph


def plan_of(graph: Graph, tuning: Tuning = NO_TUNING) -> Program:
    return lower(graph, Library(TARGET, tuning=tuning))


def convolution(program: Program) -> Step:
    return next(step for step in program.steps if step.kernel.startswith("conv2d."))


def other_schedule(program: Program, step: Step) -> dict[str, int | str]:
    """A schedule of the step's kernel that the model would not choose."""
    space = SPACES[step.kernel]
    every = space.candidates(Library(TARGET).families[step.kernel], space.problem(program, step), TARGET)
    return [s.to_fields() for s in every if s.to_fields() != step.schedule][-1]


def tuned(program: Program, step: Step, schedule: dict[str, Any]) -> Tuning:
    return Tuning(schedules=(Entry(step.kernel, step_problem(program, step), schedule),), file="a.tuning")


GRAPHS = {
    "direct": (graph_of((48, 1)), "conv2d.direct"),
    "winograd": (graph_of((64, 3), size=28), "conv2d.winograd"),
    "pool": (graph_of((64, 1), pool=True), "conv2d.direct+max_pool2d"),
}


# -- choices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_an_entry_overrides_the_model(name: str) -> None:
    graph, kernel = GRAPHS[name]
    program = plan_of(graph)
    step = convolution(program)
    assert step.kernel == kernel
    wanted = other_schedule(program, step)
    other = plan_of(graph, tuned(program, step, wanted))
    assert convolution(other).kernel == kernel
    assert convolution(other).schedule == wanted != step.schedule


@pytest.mark.parametrize("name", GRAPHS)
def test_the_model_chooses_from_the_same_schedules(name: str) -> None:
    program = plan_of(GRAPHS[name][0])
    step = convolution(program)
    space = SPACES[step.kernel]
    found = space.read(Library(TARGET).families[step.kernel], program, step, step.schedule, TARGET)
    assert found.to_fields() == step.schedule
    cycles = predicted_cycles(program, step, TARGET)
    assert cycles is not None
    assert cycles > 0
    worse = replace(step, schedule=other_schedule(program, step))
    assert (predicted_cycles(program, worse, TARGET) or 0) != cycles


def test_linear_layers_have_schedules_to_choose_from() -> None:
    graph = Graph("net")
    x = graph.add_input("x", f32(4, 64))
    w = graph.add_constant(Constant("w", np.ones((128, 64), np.float32)))
    graph.add_output("y", graph.insert(Linear(), [x, w]).output)
    program = plan_of(graph)
    (step,) = program.steps
    assert plan_of(graph, tuned(program, step, dict(step.schedule))).steps == [step]
    wanted = other_schedule(program, step)
    assert plan_of(graph, tuned(program, step, wanted)).steps[0].schedule == wanted
    assert predicted_cycles(program, step, TARGET) is None


def first_node(graph: Graph) -> Node:
    return next(node for node in graph.nodes if isinstance(node.op, Conv2d))


def test_strassens_form_can_be_refused() -> None:
    graph = graph_of((512, 1), (512, 1), size=28)

    def last(tuning: Tuning = NO_TUNING) -> tuple[Program, Step]:
        program = plan_of(graph, tuning)
        return program, [step for step in program.steps if step.kernel.startswith("conv2d.")][-1]

    program, step = last()
    assert step.kernel == "conv2d.strassen"
    assert predicted_cycles(program, step, TARGET)
    node = [node for node in graph.nodes if isinstance(node.op, Conv2d)][-1]
    for kernel in ("conv2d.direct", "conv2d.strassen"):
        assert last(Tuning(kernels=(Entry(kernel, node_problem(graph, node)),)))[1].kernel == kernel


@pytest.mark.parametrize(
    ("name", "kernel"), [("winograd", "conv2d.direct"), ("direct", "conv2d.direct"), ("pool", "conv2d.direct")]
)
def test_an_entry_names_another_kernel(name: str, kernel: str) -> None:
    graph, _ = GRAPHS[name]
    tuning = Tuning(kernels=(Entry(kernel, node_problem(graph, first_node(graph))),))
    assert convolution(plan_of(graph, tuning)).kernel == kernel


def test_a_form_that_was_predicted_to_be_slower_can_be_asked_for() -> None:
    # Winograd's form does not pay for so few channels.
    graph = graph_of((16, 3), size=4)
    assert convolution(plan_of(graph)).kernel == "conv2d.direct"
    tuning = Tuning(kernels=(Entry("conv2d.winograd", node_problem(graph, first_node(graph))),))
    assert convolution(plan_of(graph, tuning)).kernel == "conv2d.winograd"


def test_choices_for_other_problems_change_nothing() -> None:
    graph, _ = GRAPHS["direct"]
    other = plan_of(GRAPHS["winograd"][0])
    step = convolution(other)
    assert plan_of(graph, tuned(other, step, other_schedule(other, step))).steps == plan_of(graph).steps
    assert tuned(other, step, {}).steps(plan_of(graph)) == []


def fails(graph: Graph, tuning: Tuning) -> TuningError:
    with pytest.raises(TuningError) as caught:
        plan_of(graph, tuning)
    assert "a.tuning" in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"oc_vecs": 3, "cols": 28}, "would spill"),
        ({"cols": 0}, "does not have"),
        ({"oc_vecs": "many"}, "field 'oc_vecs'"),
        ({"flat": True}, "field 'flat'"),
        ({"order": "up"}, "order 'up'"),
        ({"tiles": 3}, "with fields"),
    ],
)
def test_a_schedule_that_the_kernel_does_not_have_is_an_error(changes: dict[str, Any], words: str) -> None:
    graph, _ = GRAPHS["direct"]
    program = plan_of(graph)
    step = convolution(program)
    error = fails(graph, tuned(program, step, {**step.schedule, **changes}))
    assert words in error.message
    assert "schedules[0], conv2d.direct: conv2d" in str(error)
    assert "make another tuning" in str(error)


def test_a_kernel_that_cannot_run_the_problem_is_an_error() -> None:
    graph, _ = GRAPHS["direct"]
    for kernel in ("conv2d.winograd", "softmax.rows", "no.such.kernel"):
        error = fails(graph, Tuning(kernels=(Entry(kernel, node_problem(graph, first_node(graph))),), file="a.tuning"))
        assert kernel in error.message
        assert error.expected == "conv2d.strassen, conv2d.direct"


def test_a_kernel_without_schedules_is_an_error() -> None:
    graph = graph_of((16, 3))
    program = plan_of(graph)
    step = program.steps[0]
    assert step.kernel not in SPACES
    assert "no schedules" in fails(graph, tuned(program, step, {"cols": 1})).message


def test_keys_hold_what_the_choice_depends_on() -> None:
    graph, _ = GRAPHS["pool"]
    first = node_problem(graph, first_node(graph))
    assert first == (
        "conv2d(f32[1,32,16,16]:nchw16c, const f32[64,32,1,1]) -> f32[1,64,16,16]:nchw16c, "
        "max_pool2d {kernel=3x3, stride=2x2} -> f32[1,64,7,7]:nchw16c"
    )
    assert node_problem(graph_of((64, 1)), first_node(graph_of((64, 1)))) != first
    program = plan_of(graph_of((16, 1), (16, 3)))
    texts = [step_problem(program, step) for step in program.steps if step.kernel != "border.clear"]
    assert any("border=[1,1,1,1]" in text for text in texts)
    assert len(set(texts)) == len(texts)
    refused = replace(program.steps[-1], facts={**program.steps[-1].facts, "not_conv2d.winograd": "f4:error=1"})
    assert step_problem(program, refused) == texts[-1]


# -- files ------------------------------------------------------------------------------------------------------------

FULL = Tuning(
    "0.1.0",
    "x86-64-v4",
    "A CPU (family 6)",
    "auto",
    2,
    (Entry("conv2d.direct", "a node", {}, 1e-5, None),),
    (Entry("conv2d.direct", "a step", {"cols": 3, "order": "oc"}, 1e-5, 2e-5),),
)


def test_files_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.tuning"
    save_tuning(FULL, path)
    assert load_tuning(path) == FULL
    assert load_tuning(path).file == str(path)
    assert list(tmp_path.iterdir()) == [path]
    text = path.read_text()
    save_tuning(load_tuning(path), path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sqzc": "9.9"}, "sqzc 0.1.0"),
        ({"target": "x86-64-v3"}, "target x86-64-v4"),
        ({"winograd": "off"}, "--winograd auto"),
    ],
)
def test_a_file_for_something_else_is_refused(changes: dict[str, str], words: str) -> None:
    asked = {"sqzc": "0.1.0", "target": "x86-64-v4", "winograd": "auto"}
    FULL.require(**asked)
    with pytest.raises(TuningError, match=words) as caught:
        FULL.require(**{**asked, **changes})
    assert next(iter(changes.values())) in str(caught.value)
    assert "sqzc tune" in str(caught.value)


Change = Callable[[dict[str, Any]], Any]


def with_entry(**changes: Any) -> Change:
    return lambda data: data["schedules"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(format="other"), "'format' makes no sense"),
        (lambda data: data.update(version=2), "'version' makes no sense"),
        (lambda data: data.update(version=True), "'version' makes no sense"),
        (lambda data: data.pop("cpu"), "'cpu' is missing"),
        (lambda data: data.update(cpu="x" * 5000), "'cpu' makes no sense"),
        (lambda data: data.update(target="a\nb"), "'target' makes no sense"),
        (lambda data: data.update(threads=0), "'threads' makes no sense"),
        (lambda data: data.update(more=1), "unknown key 'more'"),
        (lambda data: data.update(kernels={}), "'kernels' makes no sense"),
        (lambda data: data.update(schedules=[0] * (MAX_ENTRIES + 1)), "'schedules' makes no sense"),
        (lambda data: data.update(schedules=[3]), "not a tuning file"),
        (lambda data: data["schedules"].append(data["schedules"][0]), "the same problem"),
        (lambda data: data["kernels"].append(data["kernels"][0]), "the same problem"),
        (lambda data: data["kernels"][0].update(schedule={}), "unknown key 'schedule'"),
        (with_entry(kernel=7), "'kernel' makes no sense"),
        (with_entry(problem=""), "'problem' makes no sense"),
        (with_entry(schedule={}), "'schedule' makes no sense"),
        (with_entry(schedule={"cols": -1}), "'schedule' makes no sense"),
        (with_entry(schedule={"cols": 1 << 40}), "'schedule' makes no sense"),
        (with_entry(schedule={"cols": 1.5}), "'schedule' makes no sense"),
        (with_entry(schedule={"cols": [1]}), "'schedule' makes no sense"),
        (with_entry(schedule={str(i): i for i in range(100)}), "'schedule' makes no sense"),
        (with_entry(measured_seconds="fast"), "'measured_seconds' makes no sense"),
        (with_entry(measured_seconds=-1), "'measured_seconds' makes no sense"),
    ],
)
def test_what_makes_no_sense_is_refused(change: Change, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tuning"
    save_tuning(FULL, path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(TuningError) as caught:
        load_tuning(path)
    assert words in caught.value.message
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}', b"1" * 10_000, b"\0" * 100],
    ids=["empty", "open", "list", "null", "bytes", "deep", "nan", "digits", "zeros"],
)
def test_what_is_no_tuning_at_all_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tuning"
    path.write_bytes(data)
    with pytest.raises(TuningError, match="not a tuning file"):
        load_tuning(path)


def test_files_that_are_missing_or_huge_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read"):
        load_tuning(tmp_path / "none")
    path = tmp_path / "huge"
    with path.open("wb") as handle:
        handle.truncate(MAX_BYTES + 1)
    with pytest.raises(TuningError, match="that large"):
        load_tuning(path)
