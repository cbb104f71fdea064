"""docs/onnx.md: ONNX's own node tests, how many of them sqzc says it runs, and how many it gets right."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from sqzc.diagnostics import SqzcError
from sqzc.frontends.onnx.table import NEWEST_OPSET, OLDEST_OPSET
from sqzc.onnx_backend.backend import CompiledBackend, ReferenceBackend, SqzcBackend
from sqzc.onnx_backend.declared import EXCEPTIONS, operators, operators_of, undeclared

BACKENDS: dict[str, type[SqzcBackend]] = {"compiled": CompiledBackend, "reference": ReferenceBackend}


@dataclass(frozen=True)
class Case:
    """One node test: `why_not` says what keeps it from being declared, None that it is."""

    test: Any
    operators: frozenset[str]
    why_not: str | None

    @property
    def name(self) -> str:
        """The test's name."""
        return str(self.test.name)

    def failure(self, backend: type[SqzcBackend]) -> str | None:
        """What goes wrong on a backend, in one line; None when nothing does."""
        try:
            prepared = backend.prepare(self.test.model)
            for inputs, wanted in self.test.data_sets:
                got = prepared.run([_array(item) for item in inputs])
                expected = [_array(item) for item in wanted]
                Runner.assert_similar_outputs(expected, got, rtol=self.test.rtol, atol=self.test.atol)
        except (SqzcError, AssertionError) as error:
            return " ".join(str(error).split())[:200]
        return None


def _array(item: Any) -> Any:
    return numpy_helper.to_array(item) if isinstance(item, onnx.TensorProto) else item


def cases() -> list[Case]:
    """All node tests of the installed onnx package, by name."""
    with warnings.catch_warnings():
        # The tests' own arithmetic on infinities and their deprecated helpers are not our business.
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    made = [
        Case(test, frozenset(operators_of(test.model)), EXCEPTIONS.get(test.name) or undeclared(test.model))
        for test in found
    ]
    return sorted(made, key=lambda case: case.name)


@dataclass(frozen=True)
class Row:
    """Counts of the tests that an operator takes part in."""

    operator: str
    passed: int
    declared: int
    total: int

    def __str__(self) -> str:
        return f"| {self.operator} | {self.passed} | {self.declared} | {self.total} |"


def rows(found: Sequence[Case], passed: frozenset[str]) -> list[Row]:
    """One row for each operator that is lifted, and a last one for all tests."""
    total, declared, right = Counter[str](), Counter[str](), Counter[str]()
    for case in found:
        total.update(case.operators)
        if case.why_not is None:
            declared.update(case.operators)
            if case.name in passed:
                right.update(case.operators)
    known = [Row(name, right[name], declared[name], total[name]) for name in sorted(operators(), key=str.lower)]
    counts = sum(case.why_not is None for case in found)
    return [*known, Row("all tests", sum(case.name in passed for case in found), counts, len(found))]


_HEAD = """# ONNX

Made by `python -m sqzc.onnx_backend --table > docs/onnx.md`; tests keep it up to date.

sqzc reads ONNX models of operator sets {oldest} to {newest}; older ones are converted first. Shapes are static: an
input whose value decides a shape must be known at compile time, and an unknown batch is 1 unless given.

The figures are those of ONNX's own node tests (onnx {version}), run through compiled code. A test is *declared* when
sqzc says that it runs it: every operator in it is lifted, and every tensor has an element type of the IR
({types}). A test counts for every operator in it.

| operator | passed | declared | total |
| --- | ---: | ---: | ---: |"""

_WHY = """
Why tests of lifted operators are not declared:

| reason | tests |
| --- | ---: |"""


def document(found: Sequence[Case], passed: frozenset[str]) -> str:
    """The text of docs/onnx.md."""
    return "\n".join([*_lines(found, passed), ""])


def _lines(found: Sequence[Case], passed: frozenset[str]) -> Iterator[str]:
    from sqzc.ir.types import DType

    types = ", ".join(dtype.value for dtype in DType)
    yield _HEAD.format(oldest=OLDEST_OPSET, newest=NEWEST_OPSET, version=onnx.__version__, types=types)
    yield from map(str, rows(found, passed))
    reasons = Counter(
        case.why_not for case in found if case.why_not is not None and not case.why_not.startswith("operator ")
    )
    yield _WHY
    yield from (f"| {reason} | {count} |" for reason, count in sorted(reasons.items()))


def run(found: Sequence[Case], backend: type[SqzcBackend]) -> dict[str, str]:
    """What went wrong, by name of every declared test that does not pass."""
    failures = {}
    for case in found:
        if case.why_not is None:
            words = case.failure(backend)
            if words is not None:
                failures[case.name] = words
    return failures
