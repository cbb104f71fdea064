"""What differs between two texts of the same IR, line by line and within lines.

A difference is a list of rows that together hold every line of both texts once and in order:

    ["=", i, j, n]          n equal lines, from line i of the left and line j of the right
    ["-", i]                a line of the left alone
    ["+", j]                a line of the right alone
    ["~", i, j, a, b]       a line that changed; a and b are the [start, end) characters that differ on either side

Whole lines are matched by difflib; within a block that differs, lines that resemble each other are put side by side.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

Row = list[Any]
Spans = list[list[int]]

_TOKEN = re.compile(r"[%@]?[\w./-]+|\s+|.")
_ALIKE = 0.5
_MAX_PAIRS = 60_000
"""Above so many pairs of lines in one block, lines are only put side by side when they define the same value."""

_MAX_DIFF_LINES = 20_000
_DEFINED = re.compile(r"\s*(?:const\s+)?(%[^\s=,]+)")


def diff_lines(left: Sequence[str], right: Sequence[str]) -> list[Row]:
    """The rows that lead from one text to the other."""
    if len(left) + len(right) > _MAX_DIFF_LINES:
        return _replaced(left, right, 0, 0)
    rows: list[Row] = []
    for tag, i, i_end, j, j_end in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            rows.append(["=", i, j, i_end - i])
        else:
            rows += _replaced(left[i:i_end], right[j:j_end], i, j)
    return rows


def count_changes(rows: Sequence[Row]) -> dict[str, int]:
    """How many lines came, went and changed."""
    kinds = Counter(row[0] for row in rows)
    return {"added": kinds["+"], "removed": kinds["-"], "changed": kinds["~"]}


def _replaced(left: Sequence[str], right: Sequence[str], first_left: int, first_right: int) -> list[Row]:
    """The rows of a block in which no line is equal to its neighbour across."""
    rows: list[Row] = []
    i = j = 0
    for pair_left, pair_right in [*_pairs(left, right), (len(left), len(right))]:
        rows += [["-", first_left + k] for k in range(i, pair_left)]
        rows += [["+", first_right + k] for k in range(j, pair_right)]
        if pair_left < len(left):
            spans = changed_spans(left[pair_left], right[pair_right])
            rows.append(["~", first_left + pair_left, first_right + pair_right, *spans])
        i, j = pair_left + 1, pair_right + 1
    return rows


def _pairs(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """Which lines to put side by side, in order: those that make the sum of their likenesses largest."""
    if not left or not right:
        return []
    if len(left) * len(right) > _MAX_PAIRS:
        return _pairs_by_name(left, right)
    bags_left, bags_right = [_bag(line) for line in left], [_bag(line) for line in right]
    likeness = [[_likeness(a, b) for b in bags_right] for a in bags_left]
    # best[i][j]: the most that lines from i and from j on can make.
    best = [[0.0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in reversed(range(len(left))):
        for j in reversed(range(len(right))):
            skip = max(best[i + 1][j], best[i][j + 1])
            best[i][j] = max(skip, likeness[i][j] + best[i + 1][j + 1]) if likeness[i][j] > _ALIKE else skip
    found: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            found.append((i, j))
            i, j = i + 1, j + 1
    return found


def _pairs_by_name(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of lines that define the same value, as long as they come in the same order."""
    where = {name: j for j, line in enumerate(right) if (name := _defined(line))}
    found: list[tuple[int, int]] = []
    for i, line in enumerate(left):
        j = where.get(_defined(line), -1)
        if j > (found[-1][1] if found else -1):
            found.append((i, j))
    return found


def _defined(line: str) -> str:
    match = _DEFINED.match(line)
    return match.group(1) if match else ""


def _bag(line: str) -> Counter[str]:
    """The words of a line; the name that it defines counts double, as it is what makes two lines the same op."""
    words = Counter(token for token in _TOKEN.findall(line) if not token.isspace())
    words[_defined(line)] += 1
    return words


def _likeness(a: Counter[str], b: Counter[str]) -> float:
    """The share of words that two lines have in common, from 0 to 1."""
    common = sum((a & b).values())
    return 2 * common / ((a.total() + b.total()) or 1)


def changed_spans(left: str, right: str) -> tuple[Spans, Spans]:
    """The ranges of characters by which two lines differ, word by word."""
    words_left, words_right = _TOKEN.findall(left), _TOKEN.findall(right)
    starts_left, starts_right = _starts(words_left), _starts(words_right)
    spans: tuple[Spans, Spans] = ([], [])
    for tag, i, i_end, j, j_end in SequenceMatcher(None, words_left, words_right, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        if i < i_end:
            spans[0].append([starts_left[i], starts_left[i_end]])
        if j < j_end:
            spans[1].append([starts_right[j], starts_right[j_end]])
    return spans


def _starts(words: Sequence[str]) -> list[int]:
    """Where each word begins, and where the last ends."""
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word))
    return starts
