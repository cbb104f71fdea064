"""Every op and every kernel family has cases, and every op runs in row-major layout."""

from __future__ import annotations

import fnmatch

import pytest
from differential import cases_conv, cases_elementwise, cases_nn, cases_shape, cases_wide
from differential.case import Case, build

from sqzc.backends.llvm.general import GENERAL
from sqzc.backends.llvm.library import FAMILIES, Library
from sqzc.ir.opdef import registry
from sqzc.ir.ops.elementwise import Identity
from sqzc.ir.ops.shape import Reshape
from sqzc.plan.lower import lower
from sqzc.target import resolve

CASES: list[Case] = [
    *cases_elementwise.CASES,
    *cases_shape.CASES,
    *cases_nn.CASES,
    *cases_conv.CASES,
    *cases_wide.CASES,
]

VIEWS = {name for name, cls in registry.items() if issubclass(cls, Identity | Reshape)}
"""Ops that the plan turns into other views of the same memory: no kernel runs them."""

BY_LOWERING = {"copy.flat", "border.clear"}
"""Families that lowering calls by itself; `test_lowering` has their cases."""


def test_every_op_has_a_case_in_row_major_layout() -> None:
    covered = {op.name for case in CASES if case.layout == "plain" for op in case.ops}
    assert set(registry) - VIEWS - {"relayout"} <= covered


def test_every_family_has_a_case() -> None:
    names = {family.name for family in FAMILIES} - BY_LOWERING
    exact = {case.kernel for case in CASES}
    missing = {name for name in names if name not in exact}
    ran = set()
    for case in CASES:
        if "*" in case.kernel and any(fnmatch.fnmatch(name, case.kernel) for name in missing):
            for target in map(resolve, ("x86-64-v2", "x86-64-v4", "x86-64-v4-amx")):
                ran |= {step.kernel for step in lower(build(case, target), Library(target)).steps}
    assert not missing - ran


def test_case_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("family", GENERAL, ids=lambda family: family.name)
def test_general_families_have_exact_cases(family: object) -> None:
    # A pattern would let a fast kernel stand in for the general one.
    assert any(fnmatch.fnmatch(getattr(family, "name", ""), case.kernel) for case in CASES) or (
        getattr(family, "name", "") in BY_LOWERING
    )
