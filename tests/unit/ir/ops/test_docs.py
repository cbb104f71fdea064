"""docs/ops.md says what the declarations say."""

from __future__ import annotations

from pathlib import Path

from sqzc.ir import registry
from sqzc.ir.docs import render_ops

PAGE = Path(__file__).resolve().parents[4] / "docs" / "ops.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render_ops(), "run: python -m sqzc.ir.docs > docs/ops.md"


def test_every_op_has_a_meaning() -> None:
    page = render_ops()
    for name, cls in registry.items():
        assert f"### {name}(" in page
        assert vars(cls).get("__doc__"), f"{name} has no docstring of its own"


def test_operands_and_attributes_are_listed() -> None:
    page = render_ops()
    conv = page[page.index("### conv2d(x, w, bias?, residual?)") :]
    assert "- `w`: `[M, C / group, kh, kw]`" in conv
    assert "- `stride` (pair, default `1x1`, at least 1)" in conv
    assert "- `kernel` (pair, required, at least 1)" in page
    assert "### concat(xs...)" in page
    assert "- `indices`: i64" in page
