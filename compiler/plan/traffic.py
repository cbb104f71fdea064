"""How much memory a step has to touch."""

from __future__ import annotations

from dataclasses import dataclass

from sqzc.plan.program import CLEAR_BORDER, Program, Step


@dataclass(frozen=True)
class Traffic:
    """Bytes that a step moves at least: its operands, constants and results, each once and whole."""

    read: int
    constants: int
    written: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.read + self.constants + self.written


def step_traffic(program: Program, step: Step) -> Traffic:
    """The traffic of one step; of one that clears borders, what it clears."""

    def size(names: tuple[str, ...]) -> int:
        return sum(program.buffers[name].type.physical_bytes for name in dict.fromkeys(names))

    if step.kernel == CLEAR_BORDER:
        whole = sum(program.buffers[name].bytes for name in step.writes)
        return Traffic(0, 0, whole - size(step.writes))
    constants = sum(program.constants[name].type.physical_bytes for name in dict.fromkeys(step.constants))
    return Traffic(size(step.reads), constants, size(step.writes))
