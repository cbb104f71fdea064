"""Every pass does what its docstring shows, and docs/passes.md says what the docstrings say."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden.runner import manager, parse

from sqzc.ir.equality import first_difference
from sqzc.passes.docs import example_of, render
from sqzc.passes.registry import known_passes, pass_class

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", known_passes())
def test_docstring_example(name: str) -> None:
    example = example_of(pass_class(name))
    graph, expected = parse(example.before), parse(example.after)
    (record,) = manager(example.spec).run(graph)
    difference = first_difference(graph, expected)
    assert difference is None, f"{difference}\n{graph}"
    assert record.changed
    # No dead constants are left over, which structural equality does not see.
    assert len(graph.constants) == len(expected.constants)


@pytest.mark.parametrize("name", known_passes())
def test_pass_is_idempotent_on_its_example(name: str) -> None:
    example = example_of(pass_class(name))
    (record,) = manager(example.spec).run(parse(example.after))
    assert not record.changed
    assert record.rewrites == ()


@pytest.mark.parametrize("name", known_passes())
def test_golden_file_exists(name: str) -> None:
    assert (ROOT / "tests" / "golden" / "passes" / f"{name}.sqz").is_file()


@pytest.mark.parametrize("name", known_passes())
def test_module_is_called_like_the_pass(name: str) -> None:
    assert pass_class(name).__module__ == f"sqzc.passes.{name.replace('-', '_')}"


def test_page_is_fresh() -> None:
    page = ROOT / "docs" / "passes.md"
    assert page.read_text() == render(), "run python -m sqzc.passes.docs > docs/passes.md"
