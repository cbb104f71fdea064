"""The rules of the arena: life times cover all uses, and buffers that live together share no byte."""

from __future__ import annotations

import bisect
import heapq

from sqzc.diagnostics import Location, VerifyError
from sqzc.plan.memory import Interval, lower_bound
from sqzc.plan.program import ALIGN, Buffer, Program, Role


def verify_arena(program: Program) -> None:
    """VerifyError at the first broken rule; names of the program are known to resolve."""
    _verify_lives(program)
    arena = [buffer for buffer in program.buffers.values() if buffer.role is Role.ARENA]
    for buffer in arena:
        if buffer.offset < 0 or buffer.offset % ALIGN:
            raise _fault(program, buffer, f"the offset is no multiple of {ALIGN}", got=str(buffer.offset))
        if buffer.offset + buffer.bytes > program.arena_bytes:
            raise _fault(
                program,
                buffer,
                "leaves the arena",
                expected=f"at most {program.arena_bytes} bytes",
                got=f"{buffer.bytes} at {buffer.offset}",
            )
    clash = _first_overlap(arena)
    if clash:
        a, b = clash
        raise _fault(
            program,
            b,
            f"shares memory with %{a.name}, which lives at the same time",
            got=f"{_extent(a)} and {_extent(b)}",
        )
    bound = lower_bound([Interval(buffer.bytes, *buffer.live) for buffer in arena])
    where = Location(f"plan @{program.name}")
    if program.bound_bytes != bound:
        raise VerifyError(
            "the lower bound of the arena", location=where, expected=str(bound), got=str(program.bound_bytes)
        )
    if program.arena_bytes < bound:
        raise VerifyError(
            "an arena smaller than its lower bound",
            location=where,
            expected=f"at least {bound}",
            got=str(program.arena_bytes),
        )


def _fault(program: Program, buffer: Buffer, message: str, **more: str | None) -> VerifyError:
    return VerifyError(message, location=Location(f"plan @{program.name}", f"%{buffer.name}"), **more)


def _extent(buffer: Buffer) -> str:
    return f"{buffer.offset}..{buffer.offset + buffer.bytes} in steps {buffer.live[0]}..{buffer.live[1]}"


def _verify_lives(program: Program) -> None:
    touched: set[str] = set()
    for index, step in enumerate(program.steps):
        for name in (*step.reads, *step.writes):
            root = program.root(name)[0]
            touched.add(root.name)
            if root.role is Role.ARENA and not root.live[0] <= index <= root.live[1]:
                raise _fault(
                    program,
                    root,
                    f"step {index} uses %{name} outside its life",
                    got=f"live={root.live[0]}..{root.live[1]}",
                )
    for buffer in program.buffers.values():
        if buffer.role is not Role.ARENA:
            continue
        if buffer.name not in touched:
            raise _fault(program, buffer, "memory that no step uses")
        if not -1 <= buffer.live[0] <= buffer.live[1] <= len(program.steps):
            raise _fault(program, buffer, "no range of steps", got=f"live={buffer.live[0]}..{buffer.live[1]}")


def _first_overlap(arena: list[Buffer]) -> tuple[Buffer, Buffer] | None:
    """Two buffers that live together and share a byte, if there are any.

    Walks the buffers in order of birth and keeps those alive sorted by offset: as they are disjoint, a new one can only
    clash with its neighbours.
    """
    alive: list[tuple[int, int, Buffer]] = []
    deaths: list[tuple[int, int, int]] = []
    order = sorted((b.live[0], number) for number, b in enumerate(arena) if b.bytes)
    for birth, number in order:
        while deaths and deaths[0][0] < birth:
            _, offset, dead = heapq.heappop(deaths)
            del alive[bisect.bisect_left(alive, (offset, dead), key=lambda entry: entry[:2])]
        buffer = arena[number]
        at = bisect.bisect_left(alive, (buffer.offset, number), key=lambda entry: entry[:2])
        if at > 0 and alive[at - 1][2].offset + alive[at - 1][2].bytes > buffer.offset:
            return alive[at - 1][2], buffer
        if at < len(alive) and buffer.offset + buffer.bytes > alive[at][2].offset:
            return alive[at][2], buffer
        alive.insert(at, (buffer.offset, number, buffer))
        heapq.heappush(deaths, (buffer.live[1], buffer.offset, number))
    return None
