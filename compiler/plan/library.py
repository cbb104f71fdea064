"""What lowering asks of a backend: which kernel runs a node, and with which schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.types import TensorType
from sqzc.plan.program import Border, Program, ScheduleFields, Step
from sqzc.target import Target


@dataclass(frozen=True)
class Selection:
    """A kernel for one node, or for a chain of nodes that it fuses.

    `nodes` are the covered nodes, the asked one first. `reads` are the image or tensor operands that stay buffers,
    `constants` the raw arrays by role, `borders` the zero borders that the kernel needs around its reads (one per
    read; empty for none). `images`: reads and writes may have borders and be channel slices; otherwise the kernel takes
    whole, gapless tensors only.
    """

    kernel: str
    nodes: tuple[Node, ...]
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    constants: dict[str, Array] = field(default_factory=dict)
    borders: tuple[Border, ...] = ()
    facts: ScheduleFields = field(default_factory=dict)
    images: bool = True


@dataclass(frozen=True)
class Finished:
    """What can only be said once buffers have their borders: schedule, packed constants, scratch bytes a thread,
    bytes prepared once.
    """

    schedule: ScheduleFields = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)
    scratch: int = 0
    prepared: int = 0


class KernelLibrary(Protocol):
    """A backend's kernels."""

    target: Target

    def select(self, graph: Graph, node: Node) -> Selection:
        """The kernel to use for `node`; UnsupportedError when there is none."""
        ...

    def copy(self, type_: TensorType, *, images: bool) -> str:
        """The kernel that copies a tensor of this type; `images` when source or target has a border or is a slice."""
        ...

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array]) -> Finished:
        """Schedule and packed constants of a step whose buffers have their final shape."""
        ...
