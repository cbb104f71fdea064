"""A short run of `tests/random_graphs.py`: random graphs through the reference and generated code."""

from __future__ import annotations

import pytest
from random_graphs import check


@pytest.mark.parametrize("seed", range(40))
def test_generated_code_agrees_with_the_reference(seed: int) -> None:
    ran, faults = check(seed)
    assert {"O0", "O3"} <= set(ran)
    assert not faults
