"""Makes a chosen kernel family and schedule run where the predictions would choose another."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import cast

import pytest

from sqzc.backends.llvm import library
from sqzc.backends.llvm.family import Family, Schedule
from sqzc.backends.llvm.kernels import (
    conv_direct,
    conv_pool,
    conv_split,
    conv_strassen,
    conv_winograd,
    conv_winograd_split,
    pool,
)
from sqzc.backends.llvm.problems import ConvProblem, PoolProblem
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule
from sqzc.backends.llvm.schedules.conv_split import SplitSchedule
from sqzc.backends.llvm.schedules.conv_strassen import StrassenSchedule, applies
from sqzc.backends.llvm.schedules.conv_winograd import WinogradSchedule
from sqzc.backends.llvm.schedules.pool import PoolSchedule
from sqzc.target import Target

Problem = ConvProblem | PoolProblem


def prefer(patch: pytest.MonkeyPatch, *families: Family) -> None:
    """These families are asked first, in this order, even where others would be faster."""
    names = {family.name for family in families}
    winograd = [family for family in families if isinstance(family, conv_winograd.ConvWinograd)]
    patch.setitem(cast(dict[str, Family | None], library.WINOGRAD), "auto", winograd[0] if winograd else None)
    if not winograd:
        without(patch, conv_winograd.ConvWinograd.name)
    if not any(isinstance(family, conv_winograd_split.ConvWinogradSplit) for family in winograd):
        without(patch, conv_winograd_split.ConvWinogradSplit.name)
    rest = tuple(family for family in library.FAMILIES if family.name not in names)
    patch.setattr(library, "FAMILIES", (*families, *rest))


def without(patch: pytest.MonkeyPatch, *names: str) -> None:
    """These families take nothing, so that those which stand back for them do not."""
    for family in library.FAMILIES:
        if family.name in names:
            patch.setattr(type(family), "select", lambda *_: None)


def force(patch: pytest.MonkeyPatch, schedule: Schedule) -> None:
    """Every kernel of the schedule's kind runs with it; the schedule's own check must pass where it has one."""

    def chosen(problem: Problem, target: Target, *_: object) -> Schedule:
        if isinstance(schedule, DirectSchedule | WinogradSchedule | SplitSchedule):
            assert isinstance(problem, ConvProblem)
            schedule.check(problem, target)
        return schedule

    choosers: dict[type[Schedule], tuple[tuple[ModuleType, str], ...]] = {
        DirectSchedule: ((conv_direct, "choose"), (conv_pool, "choose")),
        WinogradSchedule: ((conv_winograd, "choose"),),
        SplitSchedule: ((conv_split, "choose"),),
        PoolSchedule: ((pool, "choose"), (conv_pool, "choose_pool")),
    }
    if isinstance(schedule, StrassenSchedule):
        patch.setattr(conv_strassen, "choose", _strassen(schedule))
        return
    for module, name in choosers[type(schedule)]:
        patch.setattr(module, name, chosen)
    if isinstance(schedule, DirectSchedule):
        patch.setattr(conv_pool, "choose_rows", lambda p, pool, target: chosen(p, target))


def _strassen(schedule: StrassenSchedule) -> Callable[[ConvProblem, Target], tuple[StrassenSchedule, float]]:
    def chosen(problem: ConvProblem, target: Target) -> tuple[StrassenSchedule, float]:
        schedule.check(problem, target)
        return schedule, 0.0

    return chosen


def always_strassen(patch: pytest.MonkeyPatch) -> None:
    """Strassen's form runs wherever it can."""
    patch.setattr(conv_strassen, "pays", lambda p, target: applies(p))
