"""The pass `reassociate`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sqzc.ir.constant import Array, Constant
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.ops import elementwise
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import constant_operand, erase_unused, label, replace_node, rounded


@dataclass(frozen=True)
class Term:
    """sign * x + c for a sum, x^sign * c for a product; c in float64, sign is 1 or -1."""

    x: Value
    sign: int
    c: Array


@dataclass(frozen=True)
class Reassociate(RewritePass):
    """Gathers constants in chains of floating point sums, and of products: (x + a) - b is x + (a - b).

    Applies to add and sub, and to mul and div, with one constant operand each, when nobody else reads the result in
    between. The constants may broadcast. The new constant is computed in float64 and rounded once.

    Before:
        graph @g(%x: f32[1,2,4,4]) {
          const %a = [1.0, 2.0] : f32[2,1,1]
          const %b = [4.0] : f32[1]
          %s = add(%x, %a) : f32[1,2,4,4] @"s"
          %t = sub(%b, %s) : f32[1,2,4,4] @"t"
          yield %t as "y"
        }
    After:
        graph @g(%x: f32[1,2,4,4]) {
          const %c = [3.0, 2.0] : f32[2,1,1]
          %t = sub(%c, %x) : f32[1,2,4,4] @"s" @"t"
          yield %t as "y"
        }
    """

    name: ClassVar[str] = "reassociate"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        for family in (_SUM, _PRODUCT):
            outer = family.term(node)
            if outer is None or outer.x.producer is None or graph.sole_user(outer.x) is not node:
                continue
            inner = family.term(outer.x.producer)
            if inner is None:
                continue
            with np.errstate(all="ignore"):
                merged = family.compose(outer, inner)
            if merged.c.size > max(outer.c.size, inner.c.size):
                return False
            data = rounded(merged.c, node.output.type.dtype.numpy)
            if data is None or not family.fits(data):
                ctx.note(f"declined {label(node.output)}: the joined constant would leave its range")
                return False
            if not ctx.take(f"joined constants of {label(outer.x)} and {label(node.output)}"):
                return False
            constant = graph.add_constant(Constant(f"{node.output.name}_c", data))
            old = [outer.x, *node.inputs]
            forwards = merged.sign > 0
            operands = [merged.x, constant] if forwards else [constant, merged.x]
            replace_node(graph, node, family.op(forwards), operands, absorbed=[outer.x])
            erase_unused(graph, *old)
            return True
        return False


class _Sum:
    def term(self, node: Node) -> Term | None:
        pair = _float_pair(node)
        if pair is None or not isinstance(node.op, elementwise.Add | elementwise.Sub):
            return None
        x, c = pair[0], np.asarray(pair[1].data, dtype=np.float64)
        if isinstance(node.op, elementwise.Add):
            return Term(x, 1, c)
        return Term(x, -1, c) if node.inputs[0] is pair[1] else Term(x, 1, -c)

    def compose(self, outer: Term, inner: Term) -> Term:
        return Term(inner.x, outer.sign * inner.sign, outer.sign * inner.c + outer.c)

    def fits(self, data: Array) -> bool:
        return True

    def op(self, forwards: bool) -> elementwise.Binary:
        return elementwise.Add() if forwards else elementwise.Sub()


class _Product:
    def term(self, node: Node) -> Term | None:
        pair = _float_pair(node)
        if pair is None or not isinstance(node.op, elementwise.Mul | elementwise.Div):
            return None
        x, c = pair[0], np.asarray(pair[1].data, dtype=np.float64)
        if not np.all(c != 0):
            return None
        if isinstance(node.op, elementwise.Mul):
            return Term(x, 1, c)
        return Term(x, -1, c) if node.inputs[0] is pair[1] else Term(x, 1, 1 / c)

    def compose(self, outer: Term, inner: Term) -> Term:
        # c_o * (x^s_i * c_i)^s_o
        return Term(inner.x, outer.sign * inner.sign, inner.c**outer.sign * outer.c)

    def fits(self, data: Array) -> bool:
        # A product that underflows would turn a number into zero.
        return bool(np.all(np.abs(data) >= np.finfo(data.dtype).tiny))

    def op(self, forwards: bool) -> elementwise.Binary:
        return elementwise.Mul() if forwards else elementwise.Div()


_SUM, _PRODUCT = _Sum(), _Product()


def _float_pair(node: Node) -> tuple[Value, Value] | None:
    """(variable, constant) operands of floating point arithmetic whose result is no smaller than its constant."""
    pair = constant_operand(node)
    if pair is None or not pair[0].type.dtype.is_float or not np.isfinite(pair[1].data).all():
        return None
    return pair if math.prod(pair[1].type.shape) <= pair[0].type.elements else None
