"""Generated code against the reference: the cases of cases_wide."""

from __future__ import annotations

import pytest
from differential.case import Case
from differential.cases_wide import CASES
from differential.checking import TARGET_NAMES, check


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("item", CASES, ids=lambda item: item.name)
def test_agrees_with_the_reference(item: Case, target: str) -> None:
    check(item, target)
