"""Whose turn it is, and the figures made of the times."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sqzc.diagnostics import UsageError
from sqzc.driver.bench import agreement, machine, summary, timing


class Player:
    """Notes its turns in a list that all share; a call takes `seconds`."""

    def __init__(self, name: str, log: list[tuple[str, int, int]], seconds: float = 0.001) -> None:
        self.name, self.log, self.seconds = name, log, seconds

    def turn(self, warmups: int, calls: int) -> list[float]:
        self.log.append((self.name, warmups, calls))
        return [self.seconds] * calls


def test_every_contender_is_in_every_place_equally_often() -> None:
    orders = [timing.order_of(round, 3) for round in range(6)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    for place in range(3):
        assert sorted(order[place] for order in orders) == [0, 0, 1, 1, 2, 2]


def test_turns_are_taken_in_that_order_and_times_kept_apart() -> None:
    log: list[tuple[str, int, int]] = []
    begun: list[int] = []
    players = [Player("a", log, 1.0), Player("b", log, 2.0)]
    pace = timing.Pace(rounds=3, runs=4, warmups=2, pause_seconds=0)
    times = timing.interleave(players, pace, begun.append)
    assert log == [(name, 2, 4) for name in "abbaab"]
    assert times == [[[1.0] * 4] * 3, [[2.0] * 4] * 3]
    assert begun == [0, 1, 2]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"runs": 0}, {"warmups": -1}])
def test_a_pace_without_turns_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least one round"):
        timing.Pace(**wrong)


def test_the_number_of_runs_follows_the_slowest() -> None:
    players = [Player("fast", [], 1e-5), Player("slow", [], 1e-3)]
    assert timing.runs_for(players, 0.020) == 20
    assert timing.runs_for(players[:1], 0.020, most=50) == 50
    assert timing.runs_for(players, 0.0001) == 3


def test_figures_of_times_in_any_order() -> None:
    for order in itertools.permutations([[1.0, 9.0], [5.0], [3.0, 7.0]]):
        found = summary.summarise(list(order))
        assert (found.median, found.minimum, found.calls) == (5.0, 1.0, 5)
        assert found.quartiles == (3.0, 7.0)
    assert summary.summarise([[4.0]]).quartiles == (4.0, 4.0)


def test_ratios_are_ours_by_theirs() -> None:
    ours, peer = summary.summarise([[1.0], [1.2], [1.1]]), summary.summarise([[2.0], [2.0], [2.2]])
    found = summary.ratio(ours, peer)
    assert found.of_medians == pytest.approx(0.55)
    assert found.quartiles == pytest.approx((0.5, 0.55))
    assert summary.best({"a": peer, "b": ours}) == "b"


def test_agreement_of_every_pair() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    other = scores + np.float32(1e-3)
    flipped = scores[:, ::-1]
    found = agreement.compare({"a": [scores], "b": [other], "c": [flipped]}, images=2)
    assert [(a.first, a.second, a.same_top1) for a in found] == [("a", "b", 2), ("a", "c", 0), ("b", "c", 0)]
    assert found[0].largest == pytest.approx(1e-3, rel=1e-3)
    assert found[0].holds(2e-3)
    assert not found[0].holds(1e-4)
    assert str(found[0]) == "a and b: largest difference 0.001, same top-1 on 2 of 2"


@pytest.mark.parametrize(
    ("ours", "theirs", "holds"),
    [
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, np.nan], [1.0, 1.0], False),
        ([1.0, np.inf], [1.0, np.inf], True),
        ([1.0, np.inf], [1.0, -np.inf], False),
        ([1.0, np.inf], [1.0, 3.0], False),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([], [], True),
    ],
)
def test_agreement_on_what_is_no_number(ours: list[float], theirs: list[float], holds: bool) -> None:
    (found,) = agreement.compare({"a": [np.array(ours)], "b": [np.array(theirs)]}, images=0)
    assert found.holds(1e-3) is holds


def test_other_shapes_never_agree() -> None:
    (found,) = agreement.compare({"a": [np.zeros(2)], "b": [np.zeros(3)]}, images=0)
    assert not found.holds(1e9)
    assert found.to_data()["largest"] is None
    assert agreement.Agreement.from_data(found.to_data()) == found


def test_the_first_core_describes_the_machine() -> None:
    core = "processor\t: {}\nmodel name\t: Some CPU\ncpu family\t: 6\nmodel\t\t: 143\nstepping\t: {}\nflags\t: a b\n\n"
    assert machine._cpu_facts(core.format(0, 8) + core.format(1, 9)) == {
        "cpu": "Some CPU",
        "family": 6,
        "model": 143,
        "stepping": 8,
    }
    assert machine._cpu_facts("") == {}


def test_who_else_works_here_is_said() -> None:
    assert machine.busy_warning({"load_at_start": 0.1, "others_share": 0.01, "stolen_share": 0.0}) is None
    assert machine.busy_warning({"load_at_start": None}) is None
    words = machine.busy_warning({"load_at_start": 2.5, "others_share": 0.4, "stolen_share": 0.2})
    assert words is not None
    assert all(part in words for part in ("load average was 2.50", "processes used 40%", "machines took 20%"))


def test_own_work_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([machine._Reading(0.0, 0.0, 10.0, 0.0), machine._Reading(100.0, 1.0, 70.0, 0.0)])
    own = iter([0.0, 60.0])
    monkeypatch.setattr(machine, "_now", lambda: next(readings))
    monkeypatch.setattr(machine, "_own_seconds", lambda: next(own))
    facts = machine.Watch().facts()
    assert facts["others_share"] == 0.0
    assert facts["load_at_end"] == 1.0
