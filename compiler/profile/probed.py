"""Running code with counters between its steps beside the same code without, and reading the counters."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sqzc.backends.llvm.jit import load_in_process
from sqzc.backends.llvm.probes import COUNT_INTO
from sqzc.driver.build import Code
from sqzc.ir.types import TensorType
from sqzc.plan.program import Program
from sqzc.profile.machine import cycles_per_second
from sqzc.runtime.abi import FUNCTION_NAMES
from sqzc.runtime.library import Functions

BLOCK = 10
"""Runs in a row of one build before the other has its turn; one more before them warms the caches up."""

_SECONDS = 1.5
MIN_RUNS, MAX_RUNS = 30, 1000

Counters = npt.NDArray[np.uint64]
Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Timings:
    """What was read. `counters` are [runs, steps + 1]; `walls` the wall time of the same runs; `plain` that of as many
    runs without probes.
    """

    counters: Counters
    walls: Seconds
    plain: Seconds
    cycles_per_second: float

    @property
    def best(self) -> npt.NDArray[np.intp]:
        """The fastest tenth of the runs, fastest first: other processes only ever slow a run down."""
        return np.argsort(self.walls, kind="stable")[: _tenth(len(self.walls))]

    @property
    def steps(self) -> Seconds:
        """Mean seconds of each step over the fastest tenth of the runs."""
        chosen = self.counters[self.best]
        return np.asarray(np.diff(chosen.astype(np.int64), axis=1).mean(axis=0) / self.cycles_per_second)

    @property
    def total(self) -> float:
        """Mean wall seconds of the same runs."""
        return float(self.walls[self.best].mean())

    @property
    def plain_total(self) -> float:
        """Mean wall seconds of the fastest tenth of the runs without probes."""
        return float(np.sort(self.plain)[: _tenth(len(self.plain))].mean())


def _tenth(runs: int) -> int:
    return math.ceil(runs / 10)


class Runner:
    """Code in memory with a handle, inputs and outputs, to be run again and again."""

    def __init__(self, code: Code, threads: int) -> None:
        loaded = load_in_process(code.objects, code.settings.target)
        addresses = {name: loaded.addresses[f"{code.settings.prefix}_{name}"] for name in FUNCTION_NAMES}
        self.functions = Functions.from_addresses(addresses, loaded, "the model being profiled")
        self.count_into = loaded.addresses.get(COUNT_INTO)
        self.steps = len(code.program.steps)
        self.inputs = draw_inputs(code.program)
        self.outputs = [
            np.empty(buffer.shape, buffer.dtype.numpy)
            for buffer in (code.program.buffers[name].type for _, name in code.program.outputs)
        ]
        self._pointers = _pointers(self.inputs), _pointers(self.outputs)
        self.handle = ctypes.c_void_p()
        self.functions.check(self.functions.create(ctypes.byref(self.handle), threads), "making the model")

    def run(self) -> None:
        """One image."""
        self.functions.check(self.functions.run(self.handle, 1, *self._pointers), "running the model")

    def count(self, counters: Counters) -> None:
        """Sends the counters of all later runs into an array, which has to live as long as they do."""
        assert self.count_into is not None, "this code has no probes"
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.count_into)(counters.ctypes.data)

    def close(self) -> None:
        """Ends the threads and frees the memory."""
        self.functions.destroy(self.handle)


@contextmanager
def running(code: Code, threads: int) -> Iterator[Runner]:
    """A Runner for the length of a block."""
    runner = Runner(code, threads)
    try:
        yield runner
    finally:
        runner.close()


def measure_runs(probed: Code, plain: Code, threads: int, runs: int | None = None) -> Timings:
    """Runs both builds in turns, so that both see the same machine.

    `runs` is how often each is measured; None takes as many as fit in about one and a half seconds.
    """
    counters = np.zeros((1, len(probed.program.steps) + 1), np.uint64)
    with running(probed, threads) as with_probes, running(plain, threads) as without:
        with_probes.count(counters)
        with_probes.run()
        without.run()
        count = _affordable(with_probes) if runs is None else runs
        found: list[Counters] = []
        walls: list[float] = []
        starts: list[float] = []
        plain_walls: list[float] = []
        while len(walls) < count:
            block = min(BLOCK, count - len(walls))
            with_probes.run()
            for _ in range(block):
                start = time.perf_counter()
                with_probes.run()
                walls.append(time.perf_counter() - start)
                starts.append(start)
                found.append(counters[0].copy())
            without.run()
            for _ in range(block):
                start = time.perf_counter()
                without.run()
                plain_walls.append(time.perf_counter() - start)
    rate = _rate(found, starts, walls)
    return Timings(np.stack(found), np.array(walls), np.array(plain_walls), rate)


def _affordable(runner: Runner) -> int:
    start = time.perf_counter()
    runner.run()
    return int(min(max(_SECONDS / max(time.perf_counter() - start, 1e-6), MIN_RUNS), MAX_RUNS))


def _rate(counters: list[Counters], starts: list[float], walls: list[float]) -> float:
    """The rate of the counter; from within a run where there is just one."""
    if len(counters) == 1:
        return float(counters[0][-1] - counters[0][0]) / walls[0]
    return cycles_per_second([int(row[0]) for row in counters], starts)


def draw_inputs(program: Program) -> list[npt.NDArray[Any]]:
    """Seeded inputs in the order of the program's: floats like pixels, and zeros and ones, which may be indices."""
    random = np.random.default_rng(0)
    return [_draw(program.buffers[name].type, random) for name in program.inputs]


def _draw(type_: TensorType, random: np.random.Generator) -> npt.NDArray[Any]:
    if type_.dtype.is_float:
        return np.asarray(random.uniform(0.0, 255.0, type_.shape)).astype(type_.dtype.numpy)
    return np.asarray(random.integers(0, 2, type_.shape)).astype(type_.dtype.numpy)


def _pointers(arrays: list[npt.NDArray[Any]]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
