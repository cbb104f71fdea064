"""What can be said of a machine without running anything on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sqzc.profile.machine import Machine, cycles_per_second, last_cache_bytes


def test_the_counter_rate_does_not_mind_one_late_reading() -> None:
    seconds = [0.001 * k for k in range(20)]
    counters = [int(2.6e9 * at) for at in seconds]
    assert cycles_per_second(counters, seconds) == pytest.approx(2.6e9)
    seconds[4] += 0.005
    assert cycles_per_second(counters, seconds) == pytest.approx(2.6e9)


def test_the_nearest_level_with_room(machine: Machine) -> None:
    assert machine.level_for(100).level == "L1"
    assert machine.level_for(101).level == "L2"
    assert machine.level_for(10**12).level == "memory"
    assert machine.memory_bandwidth == 10e9


def test_memory_that_a_cache_may_hold_is_owned_up_to(machine: Machine) -> None:
    assert not machine.memory_in_cache
    huge = Machine(machine.target, 1, machine.peak_flops, machine.bandwidths, 1 << 30)
    assert huge.memory_in_cache
    assert not Machine(machine.target, 1, 1.0, machine.bandwidths, None).memory_in_cache
    json.dumps(huge.to_json(), allow_nan=False)


def test_the_largest_cache_counts(tmp_path: Path) -> None:
    for index, size in enumerate(("48K", "2048K", "32M", "strange")):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "size").write_text(size + "\n")
    assert last_cache_bytes(tmp_path) == 32 << 20
    assert last_cache_bytes(tmp_path / "none") is None
