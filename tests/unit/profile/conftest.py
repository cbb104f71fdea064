"""A plan of three steps, a machine of round numbers, and timings of both."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.plan.program import Program
from sqzc.plan.text import parse_program
from sqzc.profile.machine import Bandwidth, Machine
from sqzc.profile.probed import Timings
from sqzc.profile.rows import Profile, make_profile
from sqzc.target import TARGETS

PLAN = """
plan @tiny target=x86-64-v3 arena=192 bound=192 {
  in %x
  out %b as "b"
  const %w = [1.0] : f32[1,1,1,1]
  buf %x : f32[1,1,4,4] input bytes=64
  buf %a : f32[1,1,4,4] arena border=[1,1,1,1] bytes=144 live=0..2
  buf %b : f32[1,1,2,2] output bytes=16
  0: border.clear() -> (%a)
  1: conv2d.winograd(%x) with(%w) -> (%a) [conv2d {act=relu}] sched={m=4, oc_vecs=2} flops=4000 @"data" @"conv"
  2: max_pool2d.plain(%a) -> (%b) [max_pool2d {kernel=2x2, stride=2x2}] flops=12 @"pool"
}
"""


@pytest.fixture
def program() -> Program:
    """Three steps: a border, a convolution, a pool."""
    return parse_program(PLAN)


@pytest.fixture
def machine() -> Machine:
    """100 GFLOP/s; 100, 50 and 10 GB/s."""
    levels = (Bandwidth("L1", 50, 100e9, 100), Bandwidth("L2", 500, 50e9, 1000), Bandwidth("memory", 5000, 10e9))
    return Machine(TARGETS["x86-64-v3"], 1, 100e9, levels, 2000)


@pytest.fixture
def timings() -> Timings:
    """Ten runs at a counter of 1 GHz: the fourth is the fastest and takes 10 ns, 60 ns and 20 ns, and 10 ns besides."""
    counters = np.array([[1000 * run, 1000 * run + 50, 1000 * run + 300, 1000 * run + 400] for run in range(10)])
    counters[3] = [3000, 3010, 3070, 3090]
    walls = np.full(10, 500e-9)
    walls[3] = 100e-9
    return Timings(counters.astype(np.uint64), walls, np.linspace(96e-9, 400e-9, 10), 1e9)


@pytest.fixture
def profile(program: Program, timings: Timings, machine: Machine) -> Profile:
    """The profile of all that."""
    return make_profile(program, timings, machine)
