"""What can be said of a machine without running anything on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sqzc.backends.llvm.objects import assembly
from sqzc.profile.machine import Machine, cycles_per_second, fed_tiles, last_cache_bytes, limits_module
from sqzc.target import TARGETS, Target


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


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_multiply_adds_are_fed_from_memory(target: Target) -> None:
    text = assembly(str(limits_module(target)), target)
    functions = dict(re.findall(r"^(sqz_\w+):\n(.*?)^\.Lfunc_end", text, re.MULTILINE | re.DOTALL))
    tiles = fed_tiles(target)
    assert tiles
    assert {name for name in functions if name.startswith("sqz_fed")} == {f"sqz_fed_{v}x{p}" for v, p in tiles}
    for vectors, pixels in tiles:
        body = functions[f"sqz_fed_{vectors}x{pixels}"]
        assert len(re.findall(r"\tv?(?:fmadd\w+|mul)ps\t", body)) == 16 * vectors * pixels
    # The best of them counts, so one that stays in registers is enough.
    spilling = [name for name, body in functions.items() if re.search(r"\(%rsp\), %[xyz]mm", body)]
    assert not target.has_fma or len(spilling) < len(tiles)
    assert ("sqz_tiles" in functions) == target.tile_products
    if target.tile_products:
        assert functions["sqz_tiles"].count("tdpbf16ps") == 4
