"""Buffer programs as text, both ways.

    plan   := 'plan' '@'name 'target='name 'arena='int 'bound='int '{'
              {'meta' string '=' json} {'in' '%'name} {'out' '%'name 'as' string}
              {'const' '%'name '=' const} {buffer} {step} '}'
    buffer := 'buf' '%'name ':' type role {field}
              with the fields of='%'name channel=int at=int border='['int,int,int,int']' bytes=int live=int..int
    role   := 'input' | 'output' | 'constant' | 'arena' | 'view'
    step   := number ':' kernel '(' names ')' ['with' '(' names ')'] '->' '(' names ')' ['[' op {',' op} ']'] {field}
              {'@' string}
              with the fields facts='{'entries'}' sched='{'entries'}' scratch=int prepared=int flops=int
    entries := name '=' (int | name) {',' ...}

`at` is the offset in the arena, or in the parent of a view; what stands after `with` are constants; `const`, `op`,
`type` and `name` are those of graph text. Fields are left out when they have their default. `bytes` says no more than
type and border do and is checked against them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqzc.diagnostics import Location, SqzcError, nearest
from sqzc.ir.constant import Array
from sqzc.ir.cursor import Cursor, shown
from sqzc.ir.opdef import OpDef
from sqzc.ir.pieces import (
    Weights,
    make_op,
    read_attributes,
    read_constant,
    read_meta,
    read_op_name,
    weights_lookup,
)
from sqzc.ir.printer import print_constant, print_meta, show_op, show_sources, symbol
from sqzc.plan.program import NO_BORDER, Border, Buffer, Program, Role, ScheduleFields, Step
from sqzc.plan.verifier import verify_program

# -- to text ----------------------------------------------------------------------------------------------------------


def print_program(program: Program) -> str:
    """The whole program; ends with a newline. Equal programs print equal."""
    head = f"plan {symbol('@', program.name)} target={symbol('', program.target)}"
    lines = [f"{head} arena={program.arena_bytes} bound={program.bound_bytes} {{"]
    lines += ["  " + line for line in print_meta(program.meta)]
    lines += [f"  in {symbol('%', name)}" for name in program.inputs]
    lines += [f"  out {symbol('%', buffer)} as {json.dumps(name)}" for name, buffer in program.outputs]
    lines += ["  " + print_constant(name, constant) for name, constant in program.constants.items()]
    lines += ["  " + print_buffer(buffer) for buffer in program.buffers.values()]
    lines += [f"  {index}: {print_step(step)}" for index, step in enumerate(program.steps)]
    lines.append("}")
    return "\n".join(lines) + "\n"


def print_buffer(buffer: Buffer) -> str:
    """One `buf` line."""
    parts = [f"buf {symbol('%', buffer.name)} : {buffer.type} {buffer.role.value}"]
    if buffer.parent:
        parts.append(f"of={symbol('%', buffer.parent)}")
    if buffer.channel:
        parts.append(f"channel={buffer.channel}")
    if buffer.offset or buffer.role is Role.ARENA:
        parts.append(f"at={buffer.offset}")
    if buffer.border != NO_BORDER:
        parts.append(f"border=[{','.join(map(str, buffer.border))}]")
    parts.append(f"bytes={buffer.bytes}")
    if buffer.live != (0, 0) or buffer.role is Role.ARENA:
        parts.append(f"live={buffer.live[0]}..{buffer.live[1]}")
    return " ".join(parts)


def print_step(step: Step) -> str:
    """One step without its number."""
    text = f"{symbol('', step.kernel)}{_show_names(step.reads)}"
    if step.constants:
        text += f" with{_show_names(step.constants)}"
    text += f" -> {_show_names(step.writes)}"
    if step.ops:
        text += f" [{', '.join(show_op(op) for op in step.ops)}]"
    for word, entries in (("facts", step.facts), ("sched", step.schedule)):
        if entries:
            text += f" {word}={_show_entries(entries)}"
    for word, number in (("scratch", step.scratch), ("prepared", step.prepared), ("flops", step.flops)):
        if number:
            text += f" {word}={number}"
    return text + show_sources(step.sources)


def _show_names(names: Iterable[str]) -> str:
    return f"({', '.join(symbol('%', name) for name in names)})"


def _show_entries(entries: ScheduleFields) -> str:
    shown = (symbol("", value) if isinstance(value, str) else str(int(value)) for value in entries.values())
    return "{" + ", ".join(f"{symbol('', name)}={value}" for name, value in zip(entries, shown, strict=True)) + "}"


# -- from text --------------------------------------------------------------------------------------------------------


def parse_program(text: str, weights: Mapping[str, Array] | Weights | None = None, file: str = "") -> Program:
    """The verified program that `text` describes; ParseError with place and caret, or VerifyError, otherwise.

    `weights` gives arrays for constants that are not inline: a mapping by `symbol#sha` or plain symbol, or a function
    of (symbol, sha).
    """
    cursor = Cursor(text, file)
    program = _Reader(cursor, weights_lookup(weights)).read()
    if cursor.now.kind != "end":
        raise cursor.error("text after the end of the plan")
    try:
        verify_program(program)
    except SqzcError as error:
        error.location = error.location or Location(file)
        raise
    return program


class _Reader:
    def __init__(self, cursor: Cursor, weights: Weights) -> None:
        self.c = cursor
        self.weights = weights
        self.program = Program("", "")

    def read(self) -> Program:
        c, program = self.c, self.program
        c.expect("plan")
        program.name = c.symbol("@")
        head = self.fields({"target": c.name, "arena": self.count, "bound": self.count}, needed=True)
        program.target, program.arena_bytes, program.bound_bytes = head["target"], head["arena"], head["bound"]
        c.expect("{")
        lines: dict[str, Callable[[], None]] = {
            "meta": lambda: read_meta(c, program.meta),
            "in": lambda: program.inputs.append(c.symbol("%")),
            "out": self.output,
            "const": self.constant,
            "buf": self.buffer,
        }
        while not c.accept("}"):
            token = c.now
            if token.kind == "number":
                self.step()
            elif token.kind == "word" and token.text in lines:
                c.take()
                lines[token.text]()
            else:
                known = f"{', '.join(lines)}, a step's number or '}}'"
                raise c.error("unexpected text", token, expected=known, got=shown(token))
        return program

    def fields(self, readers: Mapping[str, Callable[[], Any]], *, needed: bool = False) -> dict[str, Any]:
        """`name=value` as long as they come; all of them when `needed`."""
        c = self.c
        found: dict[str, Any] = {}
        while c.now.kind == "word" and c.ahead.text == "=":
            token = c.take()
            if token.text not in readers:
                raise c.error(f"unknown field '{token.text}'", token, hint=nearest(token.text, readers))
            if token.text in found:
                raise c.error(f"field '{token.text}' stands twice", token)
            c.expect("=")
            found[token.text] = readers[token.text]()
        missing = [name for name in readers if name not in found]
        if needed and missing:
            raise c.error(f"field '{missing[0]}' is missing")
        return found

    def count(self) -> int:
        token = self.c.now
        number = self.c.integer()
        if number < 0:
            raise self.c.error("a negative number", token)
        return number

    def output(self) -> None:
        buffer = self.c.symbol("%")
        self.c.expect("as")
        self.program.outputs.append((self.c.string(), buffer))

    def constant(self) -> None:
        c, token = self.c, self.c.now
        name = c.symbol("%")
        if name in self.program.constants:
            raise c.error(f"the constant %{name} is defined twice", token)
        c.expect("=")
        self.program.constants[name] = read_constant(c, name, self.weights)

    def buffer(self) -> None:
        c, start = self.c, self.c.now
        name = c.symbol("%")
        if name in self.program.buffers:
            raise c.error(f"the buffer %{name} is defined twice", start)
        c.expect(":")
        type_ = c.type()
        token = c.now
        try:
            role = Role(c.name())
        except ValueError:
            known = ", ".join(member.value for member in Role)
            raise c.error(f"unknown role '{token.text}'", token, expected=f"one of {known}") from None
        given = self.fields(
            {
                "of": lambda: c.symbol("%"),
                "channel": self.count,
                "at": self.count,
                "border": self.border,
                "bytes": self.count,
                "live": self.live,
            }
        )
        buffer = Buffer(
            name,
            type_,
            role,
            given.get("border", NO_BORDER),
            given.get("of", ""),
            given.get("channel", 0),
            given.get("at", 0),
            given.get("live", (0, 0)),
        )
        if given.get("bytes", buffer.bytes) != buffer.bytes:
            raise c.error(f"the size of %{name}", start, expected=f"bytes={buffer.bytes}", got=f"{given['bytes']}")
        self.program.buffers[name] = buffer

    def border(self) -> Border:
        token = self.c.now
        top, left, bottom, right = self.c.integers(4)
        if min(top, left, bottom, right) < 0:
            raise self.c.error("a negative border", token)
        return top, left, bottom, right

    def live(self) -> tuple[int, int]:
        first = self.c.integer()
        self.c.expect("..")
        return first, self.c.integer()

    def step(self) -> None:
        c, token = self.c, self.c.now
        number, wanted = c.integer(), len(self.program.steps)
        if number != wanted:
            raise c.error("steps are numbered in order", token, expected=str(wanted), got=str(number))
        c.expect(":")
        kernel = c.name()
        reads = self.names()
        constants = self.names() if c.accept("with") else ()
        c.expect("->")
        writes = self.names()
        ops = self.ops() if c.accept("[") else ()
        given = self.fields(
            {
                "facts": self.entries,
                "sched": self.entries,
                "scratch": self.count,
                "prepared": self.count,
                "flops": self.count,
            }
        )
        self.program.steps.append(
            Step(
                kernel,
                ops,
                reads,
                constants,
                writes,
                given.get("facts", {}),
                given.get("sched", {}),
                given.get("scratch", 0),
                c.sources(),
                given.get("flops", 0),
                given.get("prepared", 0),
            )
        )

    def names(self) -> tuple[str, ...]:
        c = self.c
        c.expect("(")
        found: list[str] = []
        while not c.accept(")"):
            if found:
                c.expect(",")
            found.append(c.symbol("%"))
        return tuple(found)

    def ops(self) -> tuple[OpDef, ...]:
        c = self.c
        found: list[OpDef] = []
        while not c.accept("]"):
            if found:
                c.expect(",")
            token = c.now
            word = read_op_name(c)
            attrs = read_attributes(c, word)
            try:
                found.append(make_op(word, attrs))
            except SqzcError as error:
                raise c.moved(error, token) from None
        return tuple(found)

    def entries(self) -> dict[str, int | str]:
        c = self.c
        found: dict[str, int | str] = {}
        c.expect("{")
        while not c.accept("}"):
            if found:
                c.expect(",")
            token = c.now
            name = c.name()
            if name in found:
                raise c.error(f"'{name}' stands twice", token)
            c.expect("=")
            found[name] = c.integer() if c.now.kind == "number" else c.name()
        return found
