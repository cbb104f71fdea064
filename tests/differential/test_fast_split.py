"""Work items are independent: wherever a step's items are split, and in whatever order they run, no bit changes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from differential.case import build, feeds
from differential.cases_conv import RELU, SAME, conv
from differential.cases_fast import NAMES, case_for, prepare
from differential.checking import TARGET_NAMES, target_or_skip
from differential.stepwise import Stepwise


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_any_split_gives_the_same_bits(name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = target_or_skip(target)
    item, schedule = case_for(name, chosen)
    prepare(monkeypatch, item, schedule)
    steps = Stepwise(build(item, chosen), chosen)
    inputs, split = feeds(item), steps.step(item.kernel)
    total = steps.items(split)
    assert total > 2
    want = steps(inputs)["y0"].tobytes()
    memories = [None, steps.prepared()] if steps.program.prepared_bytes else [None]
    for point in range(total + 1):
        # Threads run at the same time, so the parts may come in either order; one of them may be empty.
        parts = [(0, point), (point, total)]
        for order in (parts, parts[::-1]):

            def ranges(step: int, items: int, order: list[tuple[int, int]] = order) -> Iterable[tuple[int, int]]:
                return order if step == split else [(0, items)]

            for memory in memories:
                got = steps(inputs, ranges, memory)["y0"].tobytes()
                assert got == want, f"{item.name} [{target}] {schedule}: split at {point} of {total}, order {order}"


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_every_item_alone_gives_the_same_bits(name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = target_or_skip(target)
    item, schedule = case_for(name, chosen)
    prepare(monkeypatch, item, schedule)
    steps = Stepwise(build(item, chosen), chosen)
    inputs = feeds(item)
    # Every step, copies and cleared borders too, and from the last item to the first.
    backwards = steps(inputs, lambda step, items: [(i, i + 1) for i in reversed(range(items))])
    assert backwards["y0"].tobytes() == steps(inputs)["y0"].tobytes()


def test_items_without_work_write_nothing() -> None:
    chosen = target_or_skip("x86-64-v2")
    x, w = (1, 4, 5, 7), (8, 4, 3, 3)
    item = conv("conv2d.direct", x, w, layout="blocked", pads=SAME, act=RELU)
    steps = Stepwise(build(item, chosen), chosen)
    nothing = steps(feeds(item), lambda step, items: [(0, 0), (items, items)])
    assert set(nothing["y0"].tobytes()) == {0xFF}
