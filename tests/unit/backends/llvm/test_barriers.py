"""Threads wait for each other only where one step must be over before the next."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from differential.compiling import Compiled

from sqzc.backends.llvm.codegen import BARRIER, generate
from sqzc.backends.llvm.library import Library
from sqzc.backends.reference import evaluate
from sqzc.ir.constant import Constant
from sqzc.ir.graph import Graph
from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.ops.shape import Concat
from sqzc.ir.types import f32
from sqzc.passes.manager import PassManager
from sqzc.plan.lower import lower
from sqzc.plan.program import Program
from sqzc.target import TARGETS, runs_here

TARGET = TARGETS["x86-64-v3"]
LIBRARY = Library(TARGET)


def fire(first: int, images: int = 2) -> Graph:
    """A squeeze and two expand convolutions, of `first` and 24 channels, as the passes leave them; then another one."""
    rng = np.random.default_rng(0)
    graph, act = Graph("fire"), Activation("relu")
    x = graph.add_input("x", f32(images, 32, 9, 7))

    def conv(source: Any, name: str, oc: int, k: int) -> Any:
        shape = (oc, source.type.shape[1], k, k)
        w = graph.add_constant(Constant(name, rng.standard_normal(shape).astype(np.float32) / 8))
        return graph.insert(Conv2d(pads=(k // 2,) * 4, act=act), [source, w], sources=[(name,)]).output

    s = conv(x, "squeeze", 16, 1)
    both = graph.insert(Concat(axis=1), [conv(s, "narrow", first, 1), conv(s, "wide", 24, 3)]).output
    graph.add_output("y", conv(both, "last", 8, 1))
    PassManager("O2", target=TARGET).run(graph)
    return graph


def index(program: Program, source: str) -> int:
    """The step of a convolution."""
    (found,) = [k for k, step in enumerate(program.steps) if source in step.sources and step.kernel[:4] == "conv"]
    return found


def barriers(program: Program, *, probes: bool = False) -> int:
    """Calls of the barrier."""
    return len(re.findall(rf'call void @"{BARRIER}"', str(generate(program, LIBRARY.families, TARGET, probes=probes))))


def test_steps_that_only_read_what_others_read_need_not_wait() -> None:
    program = lower(fire(16), LIBRARY)
    squeeze, narrow, wide, last = (index(program, name) for name in ("squeeze", "narrow", "wide", "last"))
    follow = {
        (a, b): program.must_follow(program.steps[a], program.steps[b])
        for a in range(len(program.steps))
        for b in range(a + 1, len(program.steps))
    }
    assert not follow[narrow, wide]
    assert follow[squeeze, narrow]
    assert follow[squeeze, wide]
    assert follow[narrow, last]
    assert follow[wide, last]
    assert barriers(program) < len(program.steps) - 1
    # A step that is timed is timed alone.
    assert barriers(program, probes=True) == len(program.steps)


def test_slices_that_share_vectors_wait() -> None:
    aligned, shared = lower(fire(16), LIBRARY), lower(fire(12), LIBRARY)
    for program, waits in ((aligned, False), (shared, True)):
        narrow, wide = index(program, "narrow"), index(program, "wide")
        slices = [name for step in (narrow, wide) for name in program.steps[step].writes if program.is_slice(name)]
        assert slices or waits
        if slices:
            assert program.must_follow(program.steps[narrow], program.steps[wide]) == waits


def test_memory_that_is_used_again_waits() -> None:
    program = lower(fire(16), LIBRARY)
    roots = {program.root(name)[0].name for step in program.steps for name in (*step.reads, *step.writes)}
    buffers = [program.buffers[name] for name in sorted(roots)]
    arena = [buffer for buffer in buffers if buffer.role.name == "ARENA"]
    overlapping = [
        (a.name, b.name)
        for a in arena
        for b in arena
        if a is not b and a.offset < b.offset + b.bytes and b.offset < a.offset + a.bytes
    ]
    assert overlapping
    assert all(program.may_touch(*pair) for pair in overlapping)


@pytest.mark.skipif(not runs_here(TARGET), reason=f"this machine has no {TARGET.name}")
@pytest.mark.parametrize("first", [16, 12])
def test_threads_that_do_not_wait_compute_the_same(first: int) -> None:
    graph = fire(first)
    compiled = Compiled(graph, TARGET)
    data = {"x": np.random.default_rng(1).standard_normal((2, 32, 9, 7), np.float32)}
    alone = compiled(data)["y"]
    np.testing.assert_allclose(alone, evaluate(graph, data)["y"], rtol=1e-4, atol=1e-5)
    for threads in (2, 3, 5):
        for _ in range(5):
            assert compiled(data, threads=threads)["y"].tobytes() == alone.tobytes()
