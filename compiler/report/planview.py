"""The plan as data to draw: buffers of the arena over time, and the kernels with their schedules."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqzc.ir.printer import show_op
from sqzc.plan.program import NO_BORDER, Buffer, Program, Role, Step
from sqzc.plan.traffic import step_traffic


def plan_view(program: Program) -> dict[str, Any]:
    """The plan as JSON-able data."""
    return {
        "target": program.target,
        "arena_bytes": program.arena_bytes,
        "bound_bytes": program.bound_bytes,
        "scratch_bytes": program.scratch_bytes,
        "prepared_bytes": program.prepared_bytes,
        "constant_bytes": sum(constant.type.physical_bytes for constant in program.constants.values()),
        "buffers": [_buffer(program, buffer) for buffer in program.buffers.values() if buffer.role is Role.ARENA],
        "live_bytes": live_bytes(program),
        "steps": [_step(program, step) for step in program.steps],
    }


def live_bytes(program: Program) -> list[int]:
    """Bytes of the arena that are in use during each step."""
    arena = [buffer for buffer in program.buffers.values() if buffer.role is Role.ARENA]
    return [
        sum(buffer.bytes for buffer in arena if buffer.live[0] <= index <= buffer.live[1])
        for index in range(len(program.steps))
    ]


def schedule_text(step: Step) -> str:
    """The schedule in one line."""
    return " ".join(f"{name}={value}" for name, value in step.schedule.items())


def _buffer(program: Program, buffer: Buffer) -> dict[str, Any]:
    first, last = buffer.live
    touched = [
        index
        for index, step in enumerate(program.steps)
        if any(program.root(name)[0] is buffer for name in (*step.reads, *step.writes))
    ]
    return {
        "name": buffer.name,
        "type": str(buffer.type),
        "offset": buffer.offset,
        "bytes": buffer.bytes,
        # A life can begin before the first step and end after the last one.
        "live": [max(first, 0), min(last, len(program.steps) - 1)],
        "border": "" if buffer.border == NO_BORDER else ",".join(map(str, buffer.border)),
        "steps": touched,
    }


def _step(program: Program, step: Step) -> dict[str, Any]:
    return {
        "kernel": step.kernel,
        "ops": [show_op(op) for op in step.ops],
        "sources": list(step.sources),
        "reads": [_operand(program, name) for name in step.reads],
        "constants": [f"%{name}: {program.constants[name].type}" for name in step.constants],
        "writes": [_operand(program, name) for name in step.writes],
        "schedule": schedule_text(step),
        "facts": " ".join(f"{name}={value}" for name, value in step.facts.items()),
        "scratch": step.scratch,
        "prepared": step.prepared,
        "flops": step.flops,
        "bytes": asdict(step_traffic(program, step)),
    }


def _operand(program: Program, name: str) -> str:
    """A buffer in words; for one that is part of another, which."""
    root, _ = program.root(name)
    where = "" if root.name == name else f" in %{root.name}"
    return f"%{name}: {program.buffers[name].type}{where}"
