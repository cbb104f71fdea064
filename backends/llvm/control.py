"""Loops that end on a condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqzc.backends.llvm.emit import Emitter, Val

Test = Callable[[list[Val]], Val]
Body = Callable[[list[Val]], Sequence[Val]]


def repeat_while(e: Emitter, test: Test, body: Body, carried: Sequence[Val]) -> list[Val]:
    """while test(carried): carried = body(carried); the final carried values. The test may branch."""
    b = e.b
    before, head = b.block, b.append_basic_block("while")
    inside, after = b.append_basic_block("again"), b.append_basic_block("ended")
    b.branch(head)
    b.position_at_end(head)
    phis = []
    for value in carried:
        phi = b.phi(value.type)
        phi.add_incoming(value, before)
        phis.append(phi)
    b.cbranch(test(list(phis)), inside, after)
    b.position_at_end(inside)
    results = body(list(phis))
    for phi, value in zip(phis, results, strict=True):
        phi.add_incoming(value, b.block)
    b.branch(head)
    b.position_at_end(after)
    return list(phis)
