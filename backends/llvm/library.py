"""The kernel families of the LLVM backend, and the choice between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqzc.backends.llvm.family import CautiousFamily, Family
from sqzc.backends.llvm.general import GENERAL
from sqzc.backends.llvm.kernels.conv_direct import ConvDirect
from sqzc.backends.llvm.kernels.conv_pool import ConvGlobalAverage, ConvMaxPool
from sqzc.backends.llvm.kernels.conv_split import ConvSplit, ConvSplitAverage, ConvSplitMaxPool
from sqzc.backends.llvm.kernels.conv_strassen import ConvStrassen, ConvStrassenAverage
from sqzc.backends.llvm.kernels.conv_winograd import ConvWinograd
from sqzc.backends.llvm.kernels.conv_winograd_split import ConvWinogradSplit
from sqzc.backends.llvm.kernels.copy import ClearBorder, CopyImage
from sqzc.backends.llvm.kernels.pool import AvgPoolBlocked, MaxPoolBlocked
from sqzc.backends.llvm.kernels.softmax import SoftmaxRows
from sqzc.backends.llvm.spaces import SPACES, wherever
from sqzc.backends.llvm.tuning import NO_TUNING, Tuning, TuningError
from sqzc.diagnostics import Location, ScheduleError, UnsupportedError
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.types import TensorType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target

WINOGRAD: Mapping[str, ConvWinograd | None] = {
    "auto": ConvWinograd(),
    "off": None,
    "f2": ConvWinograd((2,), always=True, bounded=False),
    "f4": ConvWinograd((4,), always=True, bounded=False),
}
"""Choices of `Library`: where it pays, never, or wherever it can be done in this form."""

FAMILIES: tuple[Family, ...] = (
    ConvWinogradSplit(),
    ConvWinograd(),
    ConvSplitMaxPool(),
    ConvMaxPool(),
    ConvSplitAverage(),
    ConvSplit(),
    ConvStrassenAverage(),
    ConvGlobalAverage(),
    ConvStrassen(),
    ConvDirect(),
    MaxPoolBlocked(),
    AvgPoolBlocked(),
    SoftmaxRows(),
    CopyImage(),
    ClearBorder(),
    *GENERAL,
)


class Library:
    """Kernels for one target. A tuning's choices come before those of the cost model."""

    def __init__(self, target: Target, winograd: str = "auto", tuning: Tuning = NO_TUNING) -> None:
        self.target, self.tuning = target, tuning
        chosen = WINOGRAD[winograd]
        special: tuple[Family, ...] = ()
        if chosen is not None:
            special = (ConvWinogradSplit.beside(chosen), chosen) if target.tile_products else (chosen,)
        self.order = (*special, *(family for family in FAMILIES if not isinstance(family, ConvWinograd)))
        self.families = {family.name: family for family in self.order}

    def select(self, graph: Graph, node: Node) -> Selection:
        """The first family that takes `node`, in the order of FAMILIES: special forms before general ones."""
        tuned = self.tuned_selection(graph, node)
        if tuned is not None:
            return tuned
        refused: dict[str, str] = {}
        for family in self.order:
            selection = family.select(graph, node, self.target)
            if selection is not None:
                return replace(selection, facts={**selection.facts, **refused}) if refused else selection
            why = family.refusal(node, self.target) if isinstance(family, CautiousFamily) else ""
            if why:
                refused[f"not_{family.name}"] = why
        types = ", ".join(str(v.type) for v in node.inputs)
        raise UnsupportedError(
            f"the LLVM backend has no kernel for {node.op!r} of {types}",
            location=Location(f"@{graph.name}", repr(node)),
        )

    def tuned_selection(self, graph: Graph, node: Node) -> Selection | None:
        """What the tuning says of `node`; TuningError when the kernel that it names cannot run it."""
        entry = self.tuning.kernel_for(graph, node)
        if entry is None:
            return None
        possible = self.alternatives(graph, node)
        if entry.kernel not in possible:
            raise TuningError(
                f"the tuning wants {entry.kernel} for what that cannot run",
                location=self.tuning.location(entry),
                expected=", ".join(possible) or "no entry",
                hint="the model or the options changed: make another tuning with sqzc tune",
            )
        return possible[entry.kernel]

    def alternatives(self, graph: Graph, node: Node) -> dict[str, Selection]:
        """The families with a choice of schedules that can run `node`, also where they are not predicted to be best."""
        found = {}
        for family in self.order:
            selection = wherever(family).select(graph, node, self.target) if family.name in SPACES else None
            if selection is not None:
                found[family.name] = selection
        return found

    def copy(self, type_: TensorType, *, images: bool) -> str:
        """`copy.image` where layout, border or slices matter, else `copy.flat`."""
        return "copy.image" if images else "copy.flat"

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array]) -> Finished:
        """Asks the family of the step, which keeps to a schedule that the step already has."""
        return self.families[step.kernel].finish(program, self.scheduled(program, step), arrays, self.target)

    def scheduled(self, program: Program, step: Step) -> Step:
        """The step with the tuning's schedule if it has one; TuningError when that is no schedule of the kernel."""
        entry = self.tuning.schedule_for(program, step)
        if entry is None:
            return step
        where = self.tuning.location(entry)
        if step.kernel not in SPACES:
            raise TuningError(f"the kernel {step.kernel} has no schedules to choose from", location=where)
        try:
            family = self.families[step.kernel]
            schedule = SPACES[step.kernel].read(family, program, step, entry.schedule, self.target)
        except ScheduleError as error:
            hint = "the schedules of this kernel changed: make another tuning with sqzc tune"
            raise TuningError(
                error.message, location=where, expected=error.expected, got=error.got, hint=hint
            ) from None
        return replace(step, schedule=schedule.to_fields())
