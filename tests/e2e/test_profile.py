"""Profiles of real code: counters in every row, numbers that fit together, limits that are what they say."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest

from sqzc.backends.llvm.jit import load_in_process
from sqzc.backends.llvm.objects import compile_module
from sqzc.diagnostics import UsageError
from sqzc.driver.build import make_plan, run_passes, settle
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.driver.sources import read_model
from sqzc.profile.build import both_builds, profile_model
from sqzc.profile.machine import PEAK, STREAM, Machine, limits_module, measure
from sqzc.profile.probed import measure_runs, running
from sqzc.profile.rows import GAP_BAR, PROBE_BAR
from sqzc.target import TARGETS, Target, runs_here

HERE = [target for target in TARGETS.values() if runs_here(target)]
SMALL = 4 << 20


@pytest.fixture(scope="module")
def machine() -> Machine:
    """This machine, measured in a hurry."""
    return measure(HERE[-1], memory_bytes=SMALL)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_step_has_its_time(small_net: Path, threads: int) -> None:
    machine = measure(HERE[-1], threads, memory_bytes=SMALL)
    result = profile_model(small_net, ModelOptions(), CodeOptions(), threads=threads, runs=20, machine=machine)
    profile = result.profile
    assert [row.kernel for row in profile.rows] == [step.kernel for step in result.program.steps]
    assert profile.runs == 20
    assert all(row.seconds >= 0 for row in profile.rows)
    assert 0 < profile.sum <= profile.total
    assert list(profile.timeline) == sorted(profile.timeline)
    assert profile.flops == sum(step.flops for step in result.program.steps) > 0


@pytest.mark.parametrize("threads", [1, 2])
def test_probes_change_no_result(small_net: Path, threads: int) -> None:
    source = read_model(small_net, ModelOptions())
    optimised = run_passes(source, settle(source, CodeOptions()))
    program = make_plan(optimised)
    probed, plain = both_builds(optimised, program)
    counters = np.zeros((1, len(program.steps) + 1), np.uint64)
    with running(probed, threads) as with_probes, running(plain, threads) as without:
        assert without.count_into is None
        with_probes.count(counters)
        with_probes.run()
        without.run()
        for got, wanted in zip(with_probes.outputs, without.outputs, strict=True):
            assert got.tobytes() == wanted.tobytes()
            assert np.any(got)
    row = counters[0].astype(np.int64)
    assert row[0] > 0
    assert (np.diff(row) >= 0).all()


def test_the_counter_runs_as_fast_as_the_clock_says(small_net: Path) -> None:
    source = read_model(small_net, ModelOptions())
    optimised = run_passes(source, settle(source, CodeOptions()))
    timings = measure_runs(*both_builds(optimised, make_plan(optimised)), 1, 30)
    assert timings.counters.shape[0] == len(timings.walls) == len(timings.plain) == 30
    # Between the counters of x86: a fixed rate somewhere near that of the core.
    assert 5e8 < timings.cycles_per_second < 6e9
    inside = (timings.counters[:, -1] - timings.counters[:, 0]) / timings.cycles_per_second
    assert (inside <= timings.walls * 1.05 + 1e-6).all()


@pytest.mark.slow
def test_the_rows_of_squeezenet_explain_its_time_and_the_probes_are_cheap() -> None:
    options = ModelOptions(weights="random:1")
    measured = measure(HERE[-1], memory_bytes=SMALL)
    gap, cost = 1.0, 1.0
    # Other processes can spoil any one of these; the code is the same in all.
    for _ in range(4):
        profile = profile_model("squeezenet1.1", options, CodeOptions(), runs=100, machine=measured).profile
        gap, cost = min(gap, abs(profile.gap_share)), min(cost, profile.probe_cost)
        if gap < GAP_BAR and cost < PROBE_BAR:
            break
    assert gap < GAP_BAR
    assert cost < PROBE_BAR
    names = {name for row in profile.rows for name in row.sources}
    assert {"fire2/expand3x3", "pool10", "softmaxout"} <= names


def test_too_many_threads_are_refused(small_net: Path, machine: Machine) -> None:
    with pytest.raises(UsageError, match="2 threads"):
        profile_model(small_net, ModelOptions(), CodeOptions(threads_max=1), threads=2, machine=machine)


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_the_peak_code_does_the_multiply_adds_that_it_is_counted_for(target: Target) -> None:
    code = load_in_process([compile_module(str(limits_module(target)), target)], target)
    lanes, count = target.vector_lanes, target.vector_registers * 3 // 4
    out = np.random.default_rng(0).uniform(0.5, 1.0, (count, lanes)).astype(np.float32)
    wanted, factor, addend = out.astype(np.float64), out[0].astype(np.float64), out[1].astype(np.float64)
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(code.addresses[PEAK])(3, out.ctypes.data)
    for _ in range(3 * 4):
        wanted = wanted * factor + addend
    np.testing.assert_allclose(out, wanted, rtol=1e-5)


@pytest.mark.parametrize("target", HERE, ids=lambda target: target.name)
def test_the_streaming_code_reads_every_byte_every_time(target: Target) -> None:
    code = load_in_process([compile_module(str(limits_module(target)), target)], target)
    floats = 8 * target.vector_lanes * 5
    memory = np.zeros(floats + 16, np.float32)
    start = (-memory.ctypes.data % 64) // 4
    data = memory[start : start + floats]
    data[:] = np.arange(floats)
    out = np.zeros(target.vector_lanes, np.float32)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    function(code.addresses[STREAM])(data.ctypes.data, 5, 3, out.ctypes.data)
    assert out.sum() == 3 * data.sum()


def test_the_limits_are_in_the_order_of_nature(machine: Machine) -> None:
    rates = {entry.level: entry.bytes_per_second for entry in machine.bandwidths}
    assert rates["L1"] > rates["memory"]
    assert machine.bandwidths[-1].holds is None
    assert machine.peak_flops > 1e9
    # A core reads two vectors a cycle at most and does at least as many multiply-adds, of two FLOPs for four bytes.
    assert machine.peak_flops > rates["L1"] / 8
    json.dumps(machine.to_json(), allow_nan=False)
