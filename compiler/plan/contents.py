"""Which memory of a program holds data, while its steps are walked in order."""

from __future__ import annotations

from sqzc.plan.program import CLEAR_BORDER, NO_BORDER, Buffer, Program, Role, Step


class Contents:
    """What has been written so far, by buffer: views are parts of their parents and parents the sum of their views."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.written: set[str] = set()
        self.cleared: set[str] = set()
        self.views: dict[str, list[Buffer]] = {}
        for buffer in program.buffers.values():
            if buffer.role is Role.VIEW:
                self.views.setdefault(buffer.parent, []).append(buffer)

    def write(self, step: Step) -> None:
        """Takes note of what a step writes."""
        if step.kernel == CLEAR_BORDER:
            self.cleared.update(self.program.root(name)[0].name for name in step.writes)
        else:
            self.written.update(step.writes)

    def missing(self, name: str) -> str:
        """What must happen before `name` can be read; empty when it can be."""
        if not self._holds(name):
            return "all of it is written"
        root = self.program.root(name)[0]
        if self.program.buffers[name].border != NO_BORDER and root.name not in self.cleared:
            return "its border is cleared"
        return ""

    def _holds(self, name: str) -> bool:
        buffer = self.program.buffers[name]
        first, last = _whole(buffer)
        while not self._covered(buffer, first, last):
            if buffer.role is not Role.VIEW:
                return buffer.role in (Role.INPUT, Role.CONSTANT)
            parent = self.program.buffers[buffer.parent]
            if self.program.is_slice(buffer.name):
                first, last = first + buffer.channel, last + buffer.channel
            else:
                first, last = _whole(parent)
            buffer = parent
        return True

    def _covered(self, buffer: Buffer, first: int, last: int) -> bool:
        """Whether channels first..last were written, to the buffer itself or to views of it."""
        if buffer.name in self.written:
            return True
        slices: list[tuple[int, int]] = []
        for view in self.views.get(buffer.name, ()):
            if not self._covered(view, *_whole(view)):
                continue
            if self.program.is_slice(view.name):
                slices.append((view.channel, view.channel + view.type.shape[1]))
            elif view.bytes == buffer.bytes:
                slices.append(_whole(buffer))
        for start, end in sorted(slices):
            if start <= first:
                first = max(first, end)
        covered = first >= last
        if covered and (first, last) == _whole(buffer):
            self.written.add(buffer.name)
        return covered


def _whole(buffer: Buffer) -> tuple[int, int]:
    """All channels; a tensor that is no image counts as one."""
    return (0, buffer.type.shape[1]) if buffer.type.rank == 4 else (0, 1)
