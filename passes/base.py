"""What a pass is, and what it is given when it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sqzc.diagnostics import InternalError, PassError
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.target import Target

Evaluate = Callable[[Node, Sequence[Array]], Sequence[Array]]
"""Results of one node for arrays as operands; the driver passes the reference backend's."""


def option(default: Any, doc: str) -> Any:
    """A pass option: a dataclass field with its default and a sentence for docs/passes.md."""
    return field(default=default, metadata={"doc": doc})


@dataclass
class PassContext:
    """The surroundings of one run of one pass.

    `target` is None when the code's target does not matter, `evaluate` when nothing can compute. `rewrites` says in
    order what was changed and `notes` what could have been and why it was not.
    """

    target: Target | None = None
    evaluate: Evaluate | None = None
    limit: int | None = None
    rewrites: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, what: str) -> bool:
        """Whether one more rewrite is allowed; counts it when so. To be asked last, when the rewrite is certain."""
        if self.limit is not None and len(self.rewrites) >= self.limit:
            return False
        self.rewrites.append(what)
        return True

    def note(self, text: str) -> None:
        """Says once why something was not done."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def lanes(self) -> int:
        """float32 lanes of the target's vectors; PassError without a target."""
        if self.target is None:
            raise PassError("this pass needs a target", hint="name one with --target")
        return self.target.vector_lanes


@dataclass(frozen=True)
class Pass:
    """A rewrite of graphs: valid IR in, valid IR out, same inputs and outputs, same function.

    Subclasses are frozen dataclasses; the fields are the options of the pass. The class docstring shows the IR
    `Before:` and `After:`, which a test executes.
    """

    name: ClassVar[str] = ""
    limit: int | None = option(None, "most rewrites to make; for bisection")

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        """Changes `graph` in place; True iff it did."""
        raise NotImplementedError

    @property
    def spec(self) -> str:
        """The pass with every option that differs from its default, as text that parses back."""
        given = []
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value != item.default:
                given.append(f"{item.name}={str(value).lower() if isinstance(value, bool) else value}")
        return f"{self.name}{{{','.join(given)}}}" if given else self.name


@dataclass(frozen=True)
class RewritePass(Pass):
    """A pass made of local rewrites, tried on node after node until none applies."""

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        """One rewrite at `node`; True iff it changed the graph."""
        raise NotImplementedError

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        # No rewrite here adds work for itself without end; the bound turns a mistake in one into a message.
        budget = 64 + 16 * len(graph.nodes)
        changed = False
        while True:
            before = len(ctx.rewrites)
            self._sweep(graph, ctx, budget)
            if len(ctx.rewrites) == before:
                return changed
            changed = True

    def _sweep(self, graph: Graph, ctx: PassContext, budget: int) -> None:
        present = {id(node) for node in graph.nodes}
        for node in list(graph.nodes):
            while id(node) in present and self.rewrite(graph, node, ctx):
                present = {id(known) for known in graph.nodes}
                if len(ctx.rewrites) > budget:
                    raise InternalError(f"{self.name} does not settle: {budget} rewrites, last '{ctx.rewrites[-1]}'")
