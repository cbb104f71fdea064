"""Choices that were measured on a machine and override those of the cost model: a record, and its file.

There are two kinds. A `kernel` entry says which family runs a convolution, and is keyed by the convolution in the
graph; a `schedule` entry says with which schedule a kernel runs, and is keyed by the kernel's problem in the plan, so
with the places of its images in memory. Keys are text, and hold every fact that the choice depends on.

A file may come from anywhere: what it says is bounded and checked, and a schedule must be one that its family has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sqzc.diagnostics import FileError, Location, SqzcError
from sqzc.ir.files import write_text
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.nn import Pool2d
from sqzc.ir.printer import show_op
from sqzc.plan.program import NO_BORDER, Program, ScheduleFields, Step

FORMAT = "sqzc-tuning"
VERSION = 1

MAX_BYTES = 8 << 20
MAX_ENTRIES = 20_000
MAX_TEXT = 4096
MAX_FIELDS = 32


class TuningError(SqzcError):
    """A tuning file that is malformed, was made for something else, or asks for what a kernel cannot do."""

    code = "TU01"


@dataclass(frozen=True)
class Entry:
    """One choice. `schedule` is empty where a family is chosen. Seconds are of one run of the kernel, or of the kernels
    that stand for the convolution and its pool; None where they were not measured or no model predicts them.
    """

    kernel: str
    problem: str
    schedule: ScheduleFields = field(default_factory=dict)
    measured_seconds: float | None = None
    predicted_seconds: float | None = None

    @property
    def words(self) -> str:
        """What the entry is about."""
        return f"{self.kernel}: {self.problem}"


@dataclass(frozen=True)
class Tuning:
    """The contents of a tuning file, and what it holds for: compiler, target, CPU, choice of Winograd's form."""

    sqzc: str = ""
    target: str = ""
    cpu: str = ""
    winograd: str = "auto"
    threads: int = 1
    kernels: tuple[Entry, ...] = ()
    schedules: tuple[Entry, ...] = ()
    file: str = field(default="", compare=False)

    def __bool__(self) -> bool:
        return bool(self.kernels or self.schedules)

    @cached_property
    def _by_node(self) -> Mapping[str, Entry]:
        return {entry.problem: entry for entry in self.kernels}

    @cached_property
    def _by_step(self) -> Mapping[tuple[str, str], Entry]:
        return {(entry.kernel, entry.problem): entry for entry in self.schedules}

    def kernel_for(self, graph: Graph, node: Node) -> Entry | None:
        """The entry that says which family runs `node`."""
        return self._by_node.get(node_problem(graph, node)) if self.kernels else None

    def schedule_for(self, program: Program, step: Step) -> Entry | None:
        """The entry that says with which schedule `step` runs."""
        return self._by_step.get((step.kernel, step_problem(program, step))) if self.schedules else None

    def steps(self, program: Program) -> list[int]:
        """The steps of a plan whose schedule is an entry's."""
        return [i for i, step in enumerate(program.steps) if self.schedule_for(program, step) is not None]

    def location(self, entry: Entry) -> Location:
        """Where an entry stands."""
        for name, entries in (("kernels", self.kernels), ("schedules", self.schedules)):
            if entry in entries:
                return Location(self.file, f"{name}[{entries.index(entry)}], {entry.words}")
        raise AssertionError("an entry of another tuning")

    def require(self, *, sqzc: str, target: str, winograd: str) -> None:
        """TuningError unless the file was made by this compiler, for this target and choice of Winograd's form."""
        pairs = (("sqzc", self.sqzc, sqzc), ("target", self.target, target), ("--winograd", self.winograd, winograd))
        for what, has, wanted in pairs:
            if has != wanted:
                raise TuningError(
                    f"the tuning was made for {what} {has}",
                    location=Location(self.file),
                    expected=wanted,
                    got=has,
                    hint="make another one with sqzc tune and the same options",
                )


NO_TUNING = Tuning()


# -- keys -------------------------------------------------------------------------------------------------------------


def node_problem(graph: Graph, node: Node) -> str:
    """A node as text, with the pool behind it if that is its only user, as kernels may fuse the two."""
    types = ", ".join(f"const {value.type}" if value.is_constant else str(value.type) for value in node.inputs)
    text = f"{show_op(node.op, operands=f'({types})')} -> {', '.join(str(value.type) for value in node.outputs)}"
    user = graph.sole_user(node.outputs[0]) if node.outputs else None
    if user is not None and isinstance(user.op, Pool2d):
        text += f", {show_op(user.op)} -> {user.output.type}"
    return text


def step_problem(program: Program, step: Step) -> str:
    """A step as text: its ops and facts, and type and place of each of its images."""
    ops = ", ".join(show_op(op) for op in step.ops)
    # Facts that say why another kernel was not taken are no matter of this one.
    facts = "".join(f" {name}={value}" for name, value in step.facts.items() if not name.startswith("not_"))
    reads, writes = (", ".join(_image(program, name) for name in names) for names in (step.reads, step.writes))
    return f"{ops}{facts} ({reads}) -> {writes}"


def _image(program: Program, name: str) -> str:
    buffer = program.buffers[name]
    text = str(buffer.type)
    if buffer.type.rank != 4:
        return text
    if buffer.border != NO_BORDER:
        text += f" border=[{','.join(map(str, buffer.border))}]"
    # Of one image the distance to the next says nothing.
    return text if buffer.type.shape[0] == 1 else f"{text} image={program.geometry(name).image}"


# -- files ------------------------------------------------------------------------------------------------------------


def save_tuning(tuning: Tuning, path: Path) -> None:
    """Writes the file, whole or not at all."""
    data = {
        "format": FORMAT,
        "version": VERSION,
        "sqzc": tuning.sqzc,
        "target": tuning.target,
        "cpu": tuning.cpu,
        "winograd": tuning.winograd,
        "threads": tuning.threads,
        "kernels": [_entry_data(entry) for entry in tuning.kernels],
        "schedules": [{**_entry_data(entry), "schedule": dict(entry.schedule)} for entry in tuning.schedules],
    }
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def _entry_data(entry: Entry) -> dict[str, Any]:
    return {
        "kernel": entry.kernel,
        "problem": entry.problem,
        "measured_seconds": entry.measured_seconds,
        "predicted_seconds": entry.predicted_seconds,
    }


def load_tuning(path: Path) -> Tuning:
    """Reads a file; FileError or TuningError when that fails."""
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise FileError(f"cannot read the tuning {path}", got=error.strerror) from None
    if len(data) > MAX_BYTES:
        raise TuningError("a tuning file that large", location=Location(str(path)), expected=f"at most {MAX_BYTES} B")
    try:
        return _Reader(str(path)).read(json.loads(data, parse_constant=_no_number))
    except (ValueError, RecursionError) as error:
        raise TuningError("not a tuning file", location=Location(str(path)), expected="JSON", got=str(error)) from None


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not a number")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()


def _is_seconds(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value < 1e9 and math.isfinite(value))


def _is_schedule(value: Any) -> bool:
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_FIELDS or not all(map(_is_text, value)):
        return False
    return all(_is_text(v) or (type(v) is int and 0 <= v < 1 << 31) for v in value.values())


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_ENTRIES


_Checks = Mapping[str, tuple[Callable[[Any], bool], str]]

_HEAD: _Checks = {
    "format": (lambda value: value == FORMAT, f"'{FORMAT}'"),
    "version": (lambda value: type(value) is int and value == VERSION, str(VERSION)),
    "sqzc": (_is_text, "the version of sqzc"),
    "target": (_is_text, "the name of a target"),
    "cpu": (_is_text, "the name of a CPU"),
    "winograd": (_is_text, "a choice of --winograd"),
    "threads": (lambda value: type(value) is int and 1 <= value <= 4096, "a number of threads"),
    "kernels": (_is_list, f"a list of at most {MAX_ENTRIES}"),
    "schedules": (_is_list, f"a list of at most {MAX_ENTRIES}"),
}
_ENTRY: _Checks = {
    "kernel": (_is_text, "the name of a kernel"),
    "problem": (_is_text, f"text of at most {MAX_TEXT} characters"),
    "measured_seconds": (_is_seconds, "seconds or null"),
    "predicted_seconds": (_is_seconds, "seconds or null"),
}
_SCHEDULE: _Checks = {**_ENTRY, "schedule": (_is_schedule, "whole numbers and words by name")}


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file

    def read(self, data: Any) -> Tuning:
        head = self.record(data, _HEAD, "")
        kernels = self.entries(head["kernels"], _ENTRY, "kernels")
        schedules = self.entries(head["schedules"], _SCHEDULE, "schedules")
        self.check_twins([entry.problem for entry in kernels], "kernels")
        self.check_twins([(entry.kernel, entry.problem) for entry in schedules], "schedules")
        fixed = {name: head[name] for name in ("sqzc", "target", "cpu", "winograd", "threads")}
        return Tuning(**fixed, kernels=kernels, schedules=schedules, file=self.file)

    def record(self, data: Any, checks: _Checks, place: str) -> dict[str, Any]:
        """`data` if it has the checked keys and no others."""
        where = Location(self.file, place)
        if not isinstance(data, dict):
            got = repr(data)[:80]
            raise TuningError("not a tuning file", location=where, expected=f"{{{', '.join(checks)}}}", got=got)
        for key, (check, words) in checks.items():
            if key not in data:
                raise TuningError(f"'{key}' is missing", location=where, expected=words)
            if not check(data[key]):
                got = repr(data[key])[:80]
                raise TuningError(f"'{key}' makes no sense", location=where, expected=words, got=got)
        for key in data:
            if key not in checks:
                raise TuningError(f"unknown key '{key[:80]}'", location=where, expected=", ".join(checks))
        return data

    def entries(self, data: list[Any], checks: _Checks, name: str) -> tuple[Entry, ...]:
        return tuple(Entry(**self.record(item, checks, f"{name}[{index}]")) for index, item in enumerate(data))

    def check_twins(self, keys: list[Any], name: str) -> None:
        seen: dict[Any, int] = {}
        for index, key in enumerate(keys):
            if key in seen:
                where = Location(self.file, f"{name}[{index}]")
                raise TuningError(f"the same problem as in {name}[{seen[key]}]", location=where, got=str(key)[:160])
            seen[key] = index
