"""Generated code kernel by kernel: memory as tensors, right code passes, planted mistakes are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golden.runner import parse
from property.graphs import seeded_graph

import sqzc
from sqzc.backends.llvm.library import Library
from sqzc.backends.reference import evaluate
from sqzc.driver.debug import kernels
from sqzc.driver.debug.cases import Case, kernel_cases
from sqzc.driver.debug.kernels import KernelChecker, StepCheck, WrongKernel, WrongStep, verify_kernels
from sqzc.driver.debug.setting import Setting
from sqzc.driver.debug.tap import SteppedCode
from sqzc.ir.files import load_graph
from sqzc.ir.graph import Graph
from sqzc.plan.library import Finished
from sqzc.plan.lower import lower
from sqzc.plan.program import CLEAR_BORDER, NO_BORDER, Program, Role, Step
from sqzc.target import resolve

TARGET = resolve("native")
SETTING = Setting(TARGET)

# Padding, so that a border is kept; a placed concat, so that there are slices; channels that fill no whole block.
NET = """
graph @net(%x: f32[1,3,13,13]) {
  const %w0 = @w0 : f32[16,3,3,3]
  const %b0 = @b0 : f32[16]
  const %w1 = @w1 : f32[16,16,1,1]
  const %b1 = @b1 : f32[16]
  const %w3 = @w3 : f32[19,16,3,3]
  const %w9 = @w9 : f32[10,35,1,1]
  %a = conv2d(%x, %w0, %b0) {stride=2x2} : f32[1,16,6,6] @"a"
  %r = relu(%a) : f32[1,16,6,6] @"r"
  %e1 = conv2d(%r, %w1, %b1) : f32[1,16,6,6] @"e1"
  %e3 = conv2d(%r, %w3) {pads=[1,1,1,1]} : f32[1,19,6,6] @"e3"
  %c = concat(%e1, %e3) {axis=1} : f32[1,35,6,6] @"c"
  %p = max_pool2d(%c) {kernel=3x3, stride=2x2, rounding=ceil} : f32[1,35,3,3] @"p"
  %z = conv2d(%p, %w9) : f32[1,10,3,3] @"z"
  %m = reduce_mean(%z) {axes=[2,3], keepdims=false} : f32[1,10] @"m"
  %y = softmax(%m) {axes=[1]} : f32[1,10] @"y"
  yield %y as "y"
}
"""


def planned(level: str = "O3") -> tuple[Graph, Program]:
    graph = sqzc.optimize(parse(NET), level, target=TARGET.name)
    return graph, lower(graph, Library(TARGET))


def check(graph: Graph, program: Program) -> list[StepCheck]:
    return verify_kernels(graph, program, SETTING, kernel_cases(graph, 1))


@pytest.mark.parametrize("level", ["O0", "O3"])
def test_right_code_is_right(level: str) -> None:
    graph, program = planned(level)
    found = check(graph, program)
    assert [entry.index for entry in found] == list(range(len(program.steps)))
    assert [entry.kernel for entry in found] == [step.kernel for step in program.steps]
    assert all(entry.own < 2e-5 for entry in found)
    assert max(entry.own for entry in found) > 0
    assert found[0].to_json()["kernel"] == program.steps[0].kernel


@pytest.mark.parametrize("seed", range(6))
def test_right_code_of_random_graphs(seed: int) -> None:
    graph = seeded_graph(seed, max_ops=12)
    optimised = sqzc.optimize(graph, "O3")
    program = lower(optimised, Library(TARGET))
    verify_kernels(optimised, program, SETTING, [kernel_cases(graph, 1)[1]])


def test_buffers_are_tensors() -> None:
    graph, program = planned()
    (case, *_) = kernel_cases(graph, 1)
    values = evaluate(graph, case.inputs, taps="all")
    roles, layouts, borders = set(), set(), 0
    code = SteppedCode(program, TARGET, 2)
    for _, step, buffers, run in code.run(case.inputs):
        run()
        if step.kernel == CLEAR_BORDER:
            borders += 1
            continue
        for name in (*step.reads, *step.writes):
            buffer = program.buffers[name]
            roles.add(buffer.role)
            layouts.add(str(buffer.type.layout))
            if name in values:
                np.testing.assert_allclose(buffers.tensor(name), values[name], atol=1e-4 * np.abs(values[name]).max())
            assert not buffers.spare_lanes(name).any()
            if buffer.border != NO_BORDER:
                top, left, bottom, right = buffer.border
                n, c, h, w = buffer.type.physical_shape[0], buffer.type.physical_shape[1], *buffer.type.shape[2:]
                size = (h + top + bottom) * (w + left + right) - h * w
                assert buffers.border(name).size == n * c * size * (buffer.type.layout.block or 1)
                assert not buffers.border(name).any()
    assert {Role.INPUT, Role.OUTPUT, Role.ARENA, Role.VIEW} <= roles
    assert len(layouts) == 2
    assert borders


# -- planted mistakes -------------------------------------------------------------------------------------------------


def spoiled(monkeypatch: pytest.MonkeyPatch, kernel: str, role: str, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
    """Lets every kernel of a name have a constant that is not the right one."""
    finish = Library.finish

    def wrong(self: Library, program: Program, step: Step, arrays: dict[str, np.ndarray]) -> Finished:
        done = finish(self, program, step, arrays)
        if not step.kernel.startswith(kernel):
            return done
        assert role in done.constants, f"{step.kernel} has {list(done.constants)}"
        return replace(done, constants={**done.constants, role: spoil(done.constants[role])})

    monkeypatch.setattr(Library, "finish", wrong)


def first_wrong(graph: Graph, program: Program, case: Case | None = None) -> WrongStep:
    for found in KernelChecker(graph, program, SETTING).run(case or kernel_cases(graph, 1)[1]):
        if isinstance(found, WrongStep):
            return found
    raise AssertionError("nothing was found wrong")


def test_a_bias_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spoiled(monkeypatch, "conv2d", "b", np.zeros_like)
    graph, program = planned()
    with pytest.raises(WrongKernel) as failure:
        check(graph, program)
    wrong = failure.value.wrong
    assert (wrong.value, program.steps[wrong.index].sources) == ("r", ("a", "r"))
    assert wrong.ops == "conv2d {stride=2x2, act=relu}"
    for words in (f"step {wrong.index} conv2d", "stands for: a, r", "expected", "schedule: "):
        assert words in str(failure.value)
    assert failure.value.save_reproducer(tmp_path).startswith("sqzc bisect ")
    assert len(load_graph(tmp_path / "repro.sqz").nodes) < 4
    assert wrong.to_json()["kernel"] == wrong.step.kernel


def test_lanes_in_the_wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    spoiled(monkeypatch, "conv2d", "w", lambda w: np.roll(w, 1, axis=-1))
    graph, program = planned()
    wrong = first_wrong(graph, program)
    assert wrong.step.sources == ("a", "r")
    assert "differs from that of its ops on what it read" in wrong.what


def test_only_the_guilty_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, program = planned()
    index = next(i for i, step in enumerate(program.steps) if "p" in step.sources)
    monkeypatch.setattr(kernels, "_CANCELLED", 0.0)
    original = SteppedCode._runner

    def runner(self: SteppedCode, at: int, step: Step, buffers, prepared, parts):  # type: ignore[no-untyped-def]
        run = original(self, at, step, buffers, prepared, parts)

        def worse() -> None:
            run()
            if at == index:
                memory, offset = buffers.place(step.writes[0])
                memory[offset : offset + 64].view(np.float32)[3] += 1.0

        return worse

    monkeypatch.setattr(SteppedCode, "_runner", runner)
    wrong = first_wrong(graph, program)
    assert (wrong.index, wrong.value) == (index, "p")
    assert wrong.difference.max_abs == pytest.approx(1.0, rel=1e-3)


def spoil_memory(monkeypatch: pytest.MonkeyPatch, when: Callable[[Step], bool], spoil: Callable[..., None]) -> None:
    """Writes to memory after certain steps."""
    original = SteppedCode._runner

    def runner(self: SteppedCode, at: int, step: Step, buffers, prepared, parts):  # type: ignore[no-untyped-def]
        run = original(self, at, step, buffers, prepared, parts)

        def worse() -> None:
            run()
            if when(step):
                spoil(buffers)

        return worse

    monkeypatch.setattr(SteppedCode, "_runner", runner)


def test_memory_overwritten_while_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, program = planned()

    def spoil(buffers) -> None:  # type: ignore[no-untyped-def]
        memory, offset = buffers.place("r")
        offset += 4 * program.geometry("r").origin
        memory[offset : offset + 64] = 0x3F

    spoil_memory(monkeypatch, lambda step: "e1" in step.sources, spoil)
    wrong = first_wrong(graph, program)
    assert wrong.what == "what it reads has been overwritten since it was made"
    assert (wrong.value, wrong.step.sources) == ("r", ("e3",))


def test_borders_and_spare_lanes_must_hold_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, program = planned()
    border = next(step for step in program.steps if step.kernel == CLEAR_BORDER).writes[0]

    def into_border(buffers) -> None:  # type: ignore[no-untyped-def]
        memory, offset = buffers.place(border)
        memory[offset : offset + 4].view(np.float32)[:] = 5.0

    spoil_memory(monkeypatch, lambda step: step.kernel == CLEAR_BORDER, into_border)
    assert "border" in first_wrong(graph, program).what
    monkeypatch.undo()

    def into_lanes(buffers) -> None:  # type: ignore[no-untyped-def]
        lanes = buffers.spare_lanes("p")
        assert lanes.size
        lanes[...] = 1.0

    spoil_memory(monkeypatch, lambda step: "p" in step.sources, into_lanes)
    wrong = first_wrong(graph, program)
    assert (wrong.what, wrong.value) == ("the lanes past the last channel do not hold zeros", "p")


def test_work_in_parts_is_the_same_work() -> None:
    graph, program = planned()
    case = kernel_cases(graph, 1)[0]
    results = []
    for prepare, parts in ((True, 1), (True, 4), (False, 1)):
        code = SteppedCode(program, TARGET, 2)
        memories = []
        for _, _, buffers, run in code.run(case.inputs, prepare=prepare, parts=parts):
            run()
            memories.append(buffers)
        ((_, name),) = program.outputs
        results.append(memories[-1].tensor(name))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_allclose(results[0], results[2], rtol=1e-5)
