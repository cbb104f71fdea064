"""The schedules that each kernel family has to choose from, and what its cost model predicts of them.

What a family is not told here it decides by itself: it has no schedule, or none that is worth a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from sqzc.backends.llvm.family import Family, Schedule
from sqzc.backends.llvm.kernels.conv_direct import ConvDirect
from sqzc.backends.llvm.kernels.conv_grouped import ConvGrouped, one_group
from sqzc.backends.llvm.kernels.conv_pool import ConvGlobalAverage, ConvMaxPool, row_candidates, rows_price
from sqzc.backends.llvm.kernels.conv_split import ConvSplit, ConvSplitAverage, ConvSplitMaxPool
from sqzc.backends.llvm.kernels.conv_strassen import ConvStrassen, ConvStrassenAverage
from sqzc.backends.llvm.kernels.conv_winograd import ConvWinograd
from sqzc.backends.llvm.kernels.conv_winograd_split import ConvWinogradSplit
from sqzc.backends.llvm.kernels.linear import LinearPacked
from sqzc.backends.llvm.kernels.matmul import MatrixProduct, matrix_problem
from sqzc.backends.llvm.kernels.pool import MaxPoolBlocked
from sqzc.backends.llvm.problems import ConvProblem, PoolProblem, conv_problem, fused_pool_problem, pool_problem
from sqzc.backends.llvm.schedules import (
    conv_direct,
    conv_split,
    conv_strassen,
    conv_winograd,
    conv_winograd_split,
    matrix,
    pool,
)
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule
from sqzc.backends.llvm.schedules.conv_split import SplitSchedule
from sqzc.backends.llvm.schedules.conv_strassen import StrassenSchedule
from sqzc.backends.llvm.schedules.conv_winograd import WinogradSchedule
from sqzc.backends.llvm.schedules.conv_winograd_split import WinogradSplitSchedule
from sqzc.backends.llvm.schedules.matrix import MatrixSchedule
from sqzc.backends.llvm.schedules.pool import PoolSchedule
from sqzc.diagnostics import ScheduleError
from sqzc.plan.program import Program, ScheduleFields, Step
from sqzc.target import Target


@dataclass(frozen=True)
class Space:
    """The schedules of one family.

    `problem` is what candidates and prediction depend on; `check` raises ScheduleError for a schedule that breaks a
    limit; `predict` gives the cycles of the whole step on one core. None for families without such a thing.
    """

    kind: type[Schedule]
    problem: Callable[[Program, Step], Any]
    candidates: Callable[[Family, Any, Target], Iterable[Schedule]]
    predict: Callable[[Any, Any, Target], float] | None = None
    check: Callable[[Any, Any, Target], None] = lambda schedule, problem, target: schedule.check(problem, target)

    def read(self, family: Family, program: Program, step: Step, given: ScheduleFields, target: Target) -> Schedule:
        """The candidate with these fields; ScheduleError, with the limit that is broken if there is one, otherwise."""
        problem, wanted = self.problem(program, step), self.kind.from_fields(given)
        count = 0
        for candidate in self.candidates(family, problem, target):
            if candidate == wanted:
                return candidate
            count += 1
        self.check(wanted, problem, target)
        raise ScheduleError(
            "a schedule that the kernel does not have",
            expected=f"one of {count} for this problem",
            got=" ".join(f"{name}={value}" for name, value in given.items()),
        )


def _rows_problem(program: Program, step: Step) -> tuple[ConvProblem, PoolProblem]:
    p = conv_problem(program, step)
    return p, fused_pool_problem(program, step, p)


def _winograd_candidates(family: Family, p: tuple[ConvProblem, Step], target: Target) -> Iterable[WinogradSchedule]:
    """Those of the forms that the weights admit."""
    assert isinstance(family, ConvWinograd)
    return conv_winograd.candidates(p[0], target, family.forms_of(p[1]))


def _group_of(program: Program, step: Step) -> ConvProblem:
    return one_group(conv_problem(program, step))


def _linear_size(program: Program, step: Step) -> tuple[int, ...]:
    return program.buffers[step.writes[0]].type.shape


def _matrix_size(program: Program, step: Step) -> tuple[int, int]:
    p = matrix_problem(program, step)
    return max(p.m, 1), max(p.n, 1)


def _matrix_space(size: Callable[[Program, Step], tuple[int, ...]]) -> Space:
    return Space(
        MatrixSchedule,
        size,
        lambda family, p, target: matrix.candidates(p[0], p[1], target),
        check=lambda s, p, target: s.check(target),
    )


STRASSEN = Space(
    StrassenSchedule,
    conv_problem,
    lambda family, p, target: conv_strassen.candidates(p, target),
    conv_strassen.cost,
)
SPLIT = Space(
    SplitSchedule,
    conv_problem,
    lambda family, p, target: cast(ConvSplit, family).candidates()(p, target),
    conv_split.predict,
)

SPACES: Mapping[str, Space] = {
    ConvDirect.name: Space(
        DirectSchedule,
        conv_problem,
        lambda family, p, target: conv_direct.candidates(p, target),
        conv_direct.predict,
    ),
    ConvGrouped.name: Space(
        DirectSchedule,
        _group_of,
        lambda family, p, target: conv_direct.candidates(p, target),
    ),
    ConvMaxPool.name: Space(
        DirectSchedule,
        _rows_problem,
        lambda family, p, target: row_candidates(p[0], target),
        lambda p, s, target: rows_price(p[0], p[1], s, target),
        lambda s, p, target: s.check(p[0], target),
    ),
    ConvGlobalAverage.name: Space(
        DirectSchedule,
        conv_problem,
        lambda family, p, target: (s for s in conv_direct.candidates(p, target) if s.order == "oc"),
        conv_direct.predict,
    ),
    ConvSplit.name: SPLIT,
    ConvSplitAverage.name: SPLIT,
    ConvSplitMaxPool.name: SPLIT,
    ConvStrassen.name: STRASSEN,
    ConvStrassenAverage.name: STRASSEN,
    ConvWinograd.name: Space(
        WinogradSchedule,
        lambda program, step: (conv_problem(program, step), step),
        _winograd_candidates,
        lambda p, s, target: conv_winograd.predict(p[0], s, target),
        lambda s, p, target: s.check(p[0], target),
    ),
    ConvWinogradSplit.name: Space(
        WinogradSplitSchedule,
        lambda program, step: (conv_problem(program, step), step),
        lambda family, p, target: conv_winograd_split.candidates(
            p[0], target, cast(ConvWinogradSplit, family).forms_of(p[1])
        ),
        lambda p, s, target: conv_winograd_split.predict(p[0], s, target),
        lambda s, p, target: s.check(p[0], target),
    ),
    MaxPoolBlocked.name: Space(
        PoolSchedule,
        pool_problem,
        lambda family, p, target: pool.candidates(p, target),
        check=lambda s, p, target: None,
    ),
    LinearPacked.name: _matrix_space(_linear_size),
    MatrixProduct.name: _matrix_space(_matrix_size),
}
"""By the name of the family."""


def wherever(family: Family) -> Family:
    """The same family, taking all that it can run: some stand back where they are not predicted to be faster."""
    for name in ("wherever", "always"):
        if hasattr(family, name):
            eager: Family = replace(cast(Any, family), **{name: True})
            return eager
    return family


def predicted_cycles(program: Program, step: Step, target: Target) -> float | None:
    """What the cost model says of a step with its schedule, on one core; None where no model knows the kernel."""
    space = SPACES.get(step.kernel)
    if space is None or space.predict is None:
        return None
    return space.predict(space.problem(program, step), space.kind.from_fields(step.schedule), target)
