"""The table of a profile says what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sqzc.plan.program import Program
from sqzc.plan.traffic import Traffic, step_traffic
from sqzc.profile.machine import Machine
from sqzc.profile.probed import Timings, draw_inputs
from sqzc.profile.rows import Profile, heaviest


def test_rows_and_gap_make_the_total(profile: Profile) -> None:
    assert [row.seconds for row in profile.rows] == pytest.approx([10e-9, 60e-9, 20e-9])
    assert [row.share for row in profile.rows] == pytest.approx([0.1, 0.6, 0.2])
    assert profile.sum == pytest.approx(90e-9)
    assert profile.gap == pytest.approx(10e-9)
    assert profile.gap_share == pytest.approx(0.1)
    assert profile.total == pytest.approx(profile.sum + profile.gap)
    assert profile.runs == 10


def test_the_cost_of_probes_is_against_the_runs_without(profile: Profile) -> None:
    assert profile.plain_total == pytest.approx(96e-9)
    assert profile.probe_cost == pytest.approx(100 / 96 - 1)


def test_means_are_over_the_fastest_tenth() -> None:
    counters = np.array([[0, run] for run in range(40)], np.uint64)
    timings = Timings(counters, np.arange(40.0)[::-1], np.arange(40.0), 1.0)
    assert list(timings.best) == [39, 38, 37, 36]
    assert timings.total == pytest.approx(1.5)
    assert timings.steps == pytest.approx([37.5])
    assert timings.plain_total == pytest.approx(1.5)


def test_rates_and_shares_of_the_limits(profile: Profile) -> None:
    conv = profile.rows[1]
    assert (conv.layer, conv.kernel, conv.schedule) == ("data, conv", "conv2d.winograd", "m=4 oc_vecs=2")
    assert conv.bytes == 64 + 4 + 64
    assert conv.flops_per_second == pytest.approx(4000 / 60e-9)
    assert conv.peak_share == pytest.approx(4000 / 60e-9 / 100e9)
    assert conv.bandwidth_share == pytest.approx(132 / 60e-9 / 10e9)
    assert conv.intensity == pytest.approx(4000 / 132)
    assert (conv.bound, conv.roof_share) == ("compute", conv.peak_share)
    assert conv.fewer_operations


def test_the_roof_is_that_of_the_nearest_level_with_room(profile: Profile) -> None:
    pool = profile.rows[2]
    # 80 bytes fit in L1: 12 FLOPs for them at 100 GB/s.
    assert pool.bytes == 80
    assert pool.bound == "L1"
    assert pool.roof_share == pytest.approx(pool.flops_per_second / (12 / 80 * 100e9))
    assert not pool.fewer_operations


def test_a_step_without_arithmetic_is_measured_by_its_bytes(profile: Profile) -> None:
    clear = profile.rows[0]
    assert clear.layer == "%a"
    assert clear.bytes == 144 - 64
    assert (clear.flops_per_second, clear.peak_share) == (0.0, 0.0)
    assert (clear.bound, clear.roof_share) == ("L1", pytest.approx(80 / 10e-9 / 100e9))


def test_traffic_counts_every_operand_once(program: Program) -> None:
    assert step_traffic(program, program.steps[1]) == Traffic(64, 4, 64)
    assert step_traffic(program, program.steps[0]) == Traffic(0, 0, 80)
    assert step_traffic(program, program.steps[2]).total == 80


def test_steps_that_take_no_time_have_no_rate(program: Program, machine: Machine) -> None:
    from sqzc.profile.rows import make_profile

    timings = Timings(np.array([[5, 5, 5, 9]], np.uint64), np.array([4.0]), np.array([4.0]), 1.0)
    rows = make_profile(program, timings, machine).rows
    assert (rows[1].flops_per_second, rows[1].bytes_per_second, rows[1].roof_share) == (0.0, 0.0, 0.0)


def test_json_has_everything(profile: Profile) -> None:
    data = json.loads(json.dumps(profile.to_json(), allow_nan=False))
    assert data["sum_seconds"] + data["gap_seconds"] == pytest.approx(data["total_seconds"])
    assert [row["kernel"] for row in data["rows"]] == ["border.clear", "conv2d.winograd", "max_pool2d.plain"]
    assert data["rows"][1]["sources"] == ["data", "conv"]
    assert data["machine"]["peak_flops"] == 100e9
    assert [level["level"] for level in data["machine"]["bandwidths"]] == ["L1", "L2", "memory"]
    assert data["flops"] == 4012


def test_the_heaviest_come_first(profile: Profile) -> None:
    assert [row.index for row in heaviest(profile.rows, 2)] == [1, 2]


def test_inputs_are_the_same_every_time(program: Program) -> None:
    first, again = draw_inputs(program)[0], draw_inputs(program)[0]
    assert first.shape == (1, 1, 4, 4)
    assert first.dtype == np.float32
    assert (first == again).all()
