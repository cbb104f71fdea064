"""The kernel families of the LLVM backend, and the choice between them."""

from __future__ import annotations

from collections.abc import Mapping

from sqzc.backends.llvm.family import Family
from sqzc.backends.llvm.general import GENERAL
from sqzc.backends.llvm.kernels.conv_direct import ConvDirect
from sqzc.backends.llvm.kernels.conv_pool import ConvGlobalAverage, ConvMaxPool
from sqzc.backends.llvm.kernels.conv_strassen import ConvStrassen, ConvStrassenAverage
from sqzc.backends.llvm.kernels.conv_winograd import ConvWinograd
from sqzc.backends.llvm.kernels.copy import ClearBorder, CopyImage
from sqzc.backends.llvm.kernels.pool import AvgPoolBlocked, MaxPoolBlocked
from sqzc.backends.llvm.kernels.softmax import SoftmaxRows
from sqzc.diagnostics import Location, UnsupportedError
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.types import TensorType
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target

WINOGRAD: Mapping[str, ConvWinograd | None] = {
    "auto": ConvWinograd(),
    "off": None,
    "f2": ConvWinograd((2,), always=True),
    "f4": ConvWinograd((4,), always=True),
}
"""Choices of `Library`: where it pays, never, or wherever it can be done in this form."""

FAMILIES: tuple[Family, ...] = (
    ConvWinograd(),
    ConvMaxPool(),
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
    """Kernels for one target."""

    def __init__(self, target: Target, winograd: str = "auto") -> None:
        self.target = target
        chosen = WINOGRAD[winograd]
        special: tuple[Family, ...] = () if chosen is None else (chosen,)
        self.order = (*special, *(family for family in FAMILIES if not isinstance(family, ConvWinograd)))
        self.families = {family.name: family for family in self.order}

    def select(self, graph: Graph, node: Node) -> Selection:
        """The first family that takes `node`, in the order of FAMILIES: special forms before general ones."""
        for family in self.order:
            selection = family.select(graph, node, self.target)
            if selection is not None:
                return selection
        types = ", ".join(str(v.type) for v in node.inputs)
        raise UnsupportedError(
            f"the LLVM backend has no kernel for {node.op!r} of {types}",
            location=Location(f"@{graph.name}", repr(node)),
        )

    def copy(self, type_: TensorType, *, images: bool) -> str:
        """`copy.image` where layout, border or slices matter, else `copy.flat`."""
        return "copy.image" if images else "copy.flat"

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array]) -> Finished:
        """Asks the family of the step."""
        return self.families[step.kernel].finish(program, step, arrays, self.target)
