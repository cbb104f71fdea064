"""The rules every buffer program keeps: names, shapes of views, steps and their order. Memory is in arena.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqzc.diagnostics import Location, VerifyError, nearest
from sqzc.plan.arena import verify_arena
from sqzc.plan.contents import Contents
from sqzc.plan.program import NO_BORDER, Buffer, Program, Role, Step, image_geometry

# Deeper nesting than any lowering makes; it bounds recursion over views.
MAX_NESTING = 64


def verify_program(program: Program) -> None:
    """VerifyError at the first broken rule.

    Every name is known; a view lies inside its parent; inputs, outputs and constants are whole row-major tensors; a
    step reads only what was written before, and writes neither what it reads nor inputs or constants; an image with a
    border has it cleared before anyone reads it; buffers live together share no byte of the arena; the arena's size
    and its lower bound are true.
    """
    _verify_buffers(program)
    _verify_interface(program)
    _verify_steps(program)
    verify_arena(program)


def _fault(program: Program, place: str, message: str, **more: str | None) -> VerifyError:
    return VerifyError(message, location=Location(f"plan @{program.name}", place), **more)


# -- buffers ----------------------------------------------------------------------------------------------------------


def _verify_buffers(program: Program) -> None:
    nesting: dict[str, int] = {}
    for name, buffer in program.buffers.items():
        place = f"%{name}"
        if buffer.name != name:
            raise _fault(program, place, f"the buffer is called %{buffer.name}")
        if min(buffer.border) < 0 or (buffer.type.rank != 4 and buffer.border != NO_BORDER):
            raise _fault(program, place, f"border {list(buffer.border)} on {buffer.type}")
        if buffer.role is not Role.VIEW:
            if buffer.parent or buffer.channel:
                raise _fault(program, place, f"{buffer.role.value} memory is no part of another buffer")
            nesting[name] = 0
            continue
        if buffer.parent not in nesting:
            hint = nearest(buffer.parent, program.buffers)
            raise _fault(program, place, f"its parent %{buffer.parent} does not stand before it", hint=hint)
        nesting[name] = nesting[buffer.parent] + 1
        if nesting[name] > MAX_NESTING:
            raise _fault(program, place, f"views nested over {MAX_NESTING} deep")
        _verify_view(program, buffer, program.buffers[buffer.parent])


def _verify_view(program: Program, view: Buffer, parent: Buffer) -> None:
    place = f"%{view.name}"
    if program.is_slice(view.name):
        _verify_slice(program, view, parent)
        return
    if view.channel:
        raise _fault(program, place, "a channel of a parent of another shape", got=f"{view.type} of {parent.type}")
    if view.border != NO_BORDER or parent.border != NO_BORDER:
        raise _fault(program, place, "a border does not survive another shape", got=f"{view.type} of {parent.type}")
    if not program.is_gapless(parent.name):
        raise _fault(program, place, f"another shape of the images of %{parent.name}, between which others lie")
    if view.offset < 0 or view.offset + view.bytes > parent.bytes:
        raise _fault(
            program,
            place,
            f"leaves its parent %{parent.name}",
            expected=f"at most {parent.bytes} bytes",
            got=f"{view.bytes} at {view.offset}",
        )


def _verify_slice(program: Program, view: Buffer, parent: Buffer) -> None:
    place = f"%{view.name}"
    first, last, channels = view.channel, view.channel + view.type.shape[1], parent.type.shape[1]
    if first < 0 or last > channels:
        raise _fault(
            program, place, f"leaves its parent %{parent.name}", expected=f"{channels} channels", got=f"{first}..{last}"
        )
    block = parent.type.layout.block or 1
    if first % block or (last % block and last != channels):
        raise _fault(program, place, f"channels {first}..{last} are no whole blocks of {block}")
    if view.border != parent.border:
        raise _fault(
            program, place, f"another border than %{parent.name}", expected=str(parent.border), got=str(view.border)
        )
    wanted = first // block * image_geometry(parent.type, parent.border).plane * parent.type.dtype.item_bytes
    if view.offset != wanted:
        raise _fault(program, place, f"the offset of channel {first}", expected=str(wanted), got=str(view.offset))


# -- inputs, outputs, constants ---------------------------------------------------------------------------------------


def _verify_interface(program: Program) -> None:
    _verify_distinct(program, "input", program.inputs)
    _verify_distinct(program, "output", [name for name, _ in program.outputs])
    for name in program.inputs:
        if _known(program, "inputs", name).role is not Role.INPUT:
            raise _fault(program, "inputs", f"%{name} is no input buffer")
    owners = [_verify_output(program, name, buffer) for name, buffer in program.outputs]
    _verify_distinct(program, "output buffer", owners)
    for name, buffer in program.buffers.items():
        if buffer.role in (Role.INPUT, Role.OUTPUT, Role.CONSTANT) and buffer.border != NO_BORDER:
            raise _fault(program, f"%{name}", f"{buffer.role.value} memory has no border")
        if buffer.role is Role.INPUT and (name not in program.inputs or not buffer.type.layout.is_plain):
            raise _fault(program, f"%{name}", "not a row-major input of the program", got=str(buffer.type))
        if buffer.role is Role.OUTPUT and name not in owners:
            raise _fault(program, f"%{name}", "belongs to no output of the program")
        if buffer.role is Role.CONSTANT:
            constant = program.constants.get(name)
            if constant is None or constant.type != buffer.type:
                got = "none" if constant is None else str(constant.type)
                raise _fault(program, f"%{name}", "the constant's data", expected=str(buffer.type), got=got)


def _verify_output(program: Program, name: str, buffer_name: str) -> str:
    """The name of the buffer whose memory is the output."""
    buffer = _known(program, "outputs", buffer_name)
    root, offset = program.root(buffer_name)
    whole = offset == 0 and buffer.bytes == root.bytes
    if root.role is not Role.OUTPUT or not whole or not buffer.type.layout.is_plain:
        raise _fault(program, "outputs", f"'{name}' is %{buffer_name}", expected="a whole row-major output buffer")
    return root.name


def _verify_distinct(program: Program, what: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _fault(program, f"{what}s", f"the {what} '{twice}' stands twice")


def _known(program: Program, place: str, name: str) -> Buffer:
    if name not in program.buffers:
        raise _fault(program, place, f"there is no buffer %{name}", hint=nearest(name, program.buffers))
    return program.buffers[name]


# -- steps ------------------------------------------------------------------------------------------------------------


def _verify_steps(program: Program) -> None:
    contents = Contents(program)
    for index, step in enumerate(program.steps):
        place = f"step {index}, {step.kernel}"
        _verify_step(program, place, step)
        for name in step.reads:
            missing = contents.missing(name)
            if missing:
                raise _fault(program, place, f"reads %{name} before {missing}")
        contents.write(step)
    for name, buffer in program.outputs:
        if contents.missing(buffer):
            raise _fault(program, "outputs", f"no step writes all of '{name}', %{buffer}")


def _verify_step(program: Program, place: str, step: Step) -> None:
    for name in step.constants:
        if name not in program.constants:
            hint = nearest(name, program.constants)
            raise _fault(program, place, f"there is no constant %{name}", hint=hint)
    for name in (*step.reads, *step.writes):
        _known(program, place, name)
    if not step.writes:
        raise _fault(program, place, "writes nothing")
    if min(step.scratch, step.prepared, step.flops) < 0:
        raise _fault(
            program,
            place,
            "a negative count",
            got=f"scratch {step.scratch}, prepared {step.prepared}, flops {step.flops}",
        )
    for name in step.writes:
        role = program.root(name)[0].role
        if role in (Role.INPUT, Role.CONSTANT):
            raise _fault(program, place, f"writes %{name}, which is {role.value} memory")
    # Kernels may assume that what they write is not aliased by any other operand.
    for position, name in enumerate(step.writes):
        clash = _overlapping(program, name, (*step.reads, *step.writes[:position]))
        if clash:
            raise _fault(program, place, f"writes %{name}, which shares memory with its operand %{clash}")


def _overlapping(program: Program, name: str, others: Iterable[str]) -> str | None:
    """The first of the others that shares memory with `name`."""
    return next((other for other in others if program.shares_memory(name, other)), None)
