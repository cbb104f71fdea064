"""Rows of a text difference hold every line once and in order, and say what changed within lines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sqzc.report.textdiff import changed_spans, count_changes, diff_lines

LINES = st.lists(st.sampled_from(["a = x", "b = relu(a)", "c = conv(b, w)", "c = conv(b, w) {act=relu}", "d", ""]))


def rebuilt(rows: list[list[object]], left: list[str], right: list[str]) -> tuple[list[str], list[str]]:
    """Both texts, put together from the rows."""
    before: list[str] = []
    after: list[str] = []
    for row in rows:
        kind, first = row[0], row[1]
        assert isinstance(first, int)
        if kind == "=":
            _, i, j, n = row
            assert isinstance(i, int)
            assert isinstance(j, int)
            assert isinstance(n, int)
            assert left[i : i + n] == right[j : j + n]
            before += left[i : i + n]
            after += right[j : j + n]
        elif kind == "-":
            before.append(left[first])
        elif kind == "+":
            after.append(right[first])
        else:
            second = row[2]
            assert isinstance(second, int)
            before.append(left[first])
            after.append(right[second])
    return before, after


@settings(max_examples=200, deadline=None)
@given(LINES, LINES)
def test_rows_hold_every_line_once_and_in_order(left: list[str], right: list[str]) -> None:
    assert rebuilt(diff_lines(left, right), left, right) == (left, right)


def test_a_fusion_puts_the_fused_op_beside_what_it_was() -> None:
    left = ["%a = conv2d(%x, %w) : f32[4]", "%a.1 = relu(%a) : f32[4]", "%b = max_pool2d(%a.1) : f32[2]"]
    right = ["%a = conv2d(%x, %w) {act=relu} : f32[4]", "%b = max_pool2d(%a) : f32[2]"]
    rows = diff_lines(left, right)
    assert [row[:3] for row in rows] == [["~", 0, 0], ["-", 1], ["~", 2, 1]]
    assert count_changes(rows) == {"added": 0, "removed": 1, "changed": 2}
    start, end = rows[0][4][0]
    assert right[0][start:end].strip() == "{act=relu}"
    (start, end), (fresh_start, fresh_end) = rows[2][3][0], rows[2][4][0]
    assert (left[2][start:end], right[1][fresh_start:fresh_end]) == ("%a.1", "%a")


def test_lines_without_likeness_stay_apart() -> None:
    assert diff_lines(["%a = relu(%b)"], ["yield nothing at all"]) == [["-", 0], ["+", 0]]


def test_spans_cover_exactly_what_differs() -> None:
    left, right = "%y = pool(%x) {kernel=2x2}", "%y = pool(%x) {kernel=3x3}"
    spans = changed_spans(left, right)
    assert [left[a:b] for a, b in spans[0]] == ["2x2"]
    assert [right[a:b] for a, b in spans[1]] == ["3x3"]
    assert changed_spans(left, left) == ([], [])


def test_large_blocks_pair_lines_by_the_value_they_define() -> None:
    left = [f"  %v{i} = relu(%v{i - 1})" for i in range(400)]
    right = [f"  %v{i} = tanh(%v{i - 1}) {{x={i}}}" for i in range(400)]
    assert [row[:3] for row in diff_lines(left, right)] == [["~", i, i] for i in range(400)]


def test_texts_too_long_for_a_difference_are_shown_side_by_side() -> None:
    left = [f"%a{i} = x" for i in range(11_000)]
    rows = diff_lines(left, [*left[1:], "%last = y"])
    assert rows[0] == ["-", 0]
    assert rows[-1] == ["+", 10_999]
    assert len(rows) == 11_001
