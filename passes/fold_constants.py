"""The pass `fold-constants`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqzc.diagnostics import InternalError
from sqzc.ir.constant import Array, Constant
from sqzc.ir.graph import Graph, Node
from sqzc.ir.types import DType
from sqzc.passes.base import PassContext, RewritePass, option
from sqzc.passes.rewriting import erase_unused, label


@dataclass(frozen=True)
class FoldConstants(RewritePass):
    """Computes nodes whose operands are all constants, with the evaluator that the driver hands in.

    A result that is larger than its operands and than `max_bytes` is left to run time, so that an `expand` does not
    blow up the library.

    Before:
        graph @g(%x: f32[1,2]) {
          const %a = [1.0, 2.0] : f32[2]
          const %b = [0.5, -4.0] : f32[2]
          %c = add(%a, %b) : f32[2]
          %y = mul(%x, %c) : f32[1,2]
          yield %y as "y"
        }
    After:
        graph @g(%x: f32[1,2]) {
          const %c = [1.5, -2.0] : f32[2]
          %y = mul(%x, %c) : f32[1,2]
          yield %y as "y"
        }
    """

    name: ClassVar[str] = "fold-constants"
    max_bytes: int = option(1 << 20, "largest result that may exceed its operands")

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        if not all(value.is_constant for value in node.inputs):
            return False
        names = ", ".join(map(label, node.outputs))
        if ctx.evaluate is None:
            ctx.note(f"{names} is constant, but there is no evaluator to compute it")
            return False
        size = sum(value.type.physical_bytes for value in node.outputs)
        if size > max(self.max_bytes, sum(value.type.physical_bytes for value in node.inputs)):
            ctx.note(f"{names} is constant, but its {size} bytes are more than max_bytes={self.max_bytes}")
            return False
        if any(not value.type.layout.is_plain for value in node.outputs):
            ctx.note(f"{names} is constant, but constants are row-major only")
            return False
        if not ctx.take(f"computed {node.op.name} {names}"):
            return False
        results = ctx.evaluate(node, [value.data for value in node.inputs])
        inputs = list(dict.fromkeys(node.inputs))
        _install(graph, node, results)
        erase_unused(graph, *inputs)
        return True


def _install(graph: Graph, node: Node, results: Sequence[Array]) -> None:
    for value, data in zip(node.outputs, results, strict=True):
        if tuple(data.shape) != value.type.shape or DType.of(data.dtype) is not value.type.dtype:
            raise InternalError(f"evaluating {node!r} gave {data.dtype}{list(data.shape)}, not {value.type}")
        name = value.name
        graph.rename(value, f"{name}.old")
        constant = graph.add_constant(Constant(name, data), source=value.source)
        graph.replace_uses(value, constant)
    graph.erase(node)
