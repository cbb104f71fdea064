"""What a kernel family is: it recognises nodes, chooses a schedule, packs constants and emits code.

select    graph node -> Selection: does the family take it, which borders does it need, at what cost
finish    placed buffers -> schedule, packed constants, scratch (geometry is known only then)
items     how many independent work items a step has; threads take ranges of them
emit      the body of the kernel function for items begin..end
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.diagnostics import ScheduleError
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


@dataclass(frozen=True)
class Args:
    """Pointers of one kernel call, to element 0 of each buffer's memory, and its range of work items.

    `prepared` points to what `PreparingFamily.prepare` has filled; it is null where nobody has.
    """

    reads: tuple[Val, ...]
    constants: tuple[Val, ...]
    writes: tuple[Val, ...]
    scratch: Val
    prepared: Val
    begin: Val
    end: Val


class Family(Protocol):
    """One kernel family; stateless.

    A family with a true `shares_code` emits code that depends on a step's ops, facts, schedule and the shapes and
    layouts of its buffers alone, so that equal steps run one function.
    """

    name: ClassVar[str]

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        """A selection when the family can run `node`, else None."""
        ...

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        """Schedule and packed constants; `arrays` are the raw constants of the selection."""
        ...

    def items(self, program: Program, step: Step) -> int:
        """Number of work items, each computable alone."""
        ...

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        """Appends the code for items args.begin to args.end."""
        ...


class PreparingFamily(Family, Protocol):
    """A family whose steps may ask for memory that is filled from the constants once."""

    def prepare(self, e: Emitter, program: Program, step: Step, constants: tuple[Val, ...], prepared: Val) -> None:
        """Appends the code that fills `step.prepared` bytes."""
        ...


@runtime_checkable
class CautiousFamily(Family, Protocol):
    """A family that leaves nodes whose weights would make it too inaccurate, and says so in the plan."""

    def refusal(self, node: Node, target: Target) -> str:
        """Why it leaves a node that it would take with other weights; empty where that is not so."""
        ...


@dataclass(frozen=True)
class Schedule:
    """Base of schedule records: integer or word fields that print as `a=1.b=2` in a plan."""

    def to_fields(self) -> dict[str, int | str]:
        """The fields in declaration order."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_fields(cls, given: Mapping[str, Any]) -> Self:
        """The record; ScheduleError when a field is missing or unknown."""
        known = {f.name for f in fields(cls)}
        if set(given) != known:
            raise ScheduleError(
                f"{cls.__name__} with fields {', '.join(given) or 'none'}", expected=", ".join(sorted(known))
            )
        for f in fields(cls):
            if type(given[f.name]).__name__ != f.type:
                raise ScheduleError(
                    f"field '{f.name}' of {cls.__name__}", expected=str(f.type), got=repr(given[f.name])
                )
        return cls(**given)


S = TypeVar("S", bound=Schedule)


def given(step: Step, kind: type[S]) -> S | None:
    """The schedule with which a step comes to `finish`: a tuned one, which the library has checked.

    None leaves the choice to the family, as nearly always.
    """
    return kind.from_fields(step.schedule) if step.schedule else None
