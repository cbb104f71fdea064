"""What lies between the elements of an image stays zero: its border, and the lanes past its channels."""

from __future__ import annotations

import pytest
from differential.case import build, feeds
from differential.cases_fast import case_for, cases, prepare
from differential.checking import TARGET_NAMES, target_or_skip
from differential.stepwise import Stepwise

BLOCKED = [name for name, (item, _) in cases(4, True).items() if item.layout == "blocked"]


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("name", BLOCKED)
def test_lanes_and_borders_are_zero(name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The activations of these cases move zero, and channels end with one lane of a block.
    chosen = target_or_skip(target)
    item, schedule = case_for(name, chosen)
    prepare(monkeypatch, item, schedule)
    steps = Stepwise(build(item, chosen), chosen)
    steps(feeds(item))
    step = steps.program.steps[steps.step(item.kernel)]
    # The image that is written, and those that are read, are all in memory at the end: nothing came after but a copy.
    for buffer in (*step.reads, *step.writes):
        if buffer not in steps.program.inputs:
            values, used = steps.image(buffer)
            wrong = (values != 0) & ~used
            assert not wrong.any(), f"{item.name} [{target}]: {buffer} {steps.program.buffers[buffer]}"
    (result,) = step.writes
    values, used = steps.image(result)
    assert (values[used] != 0).any()
    assert not used.all()
