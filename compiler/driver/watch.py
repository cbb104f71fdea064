"""What to see of a pipeline while it runs: graphs between passes, and how long every pass took."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqzc.diagnostics import PassError, nearest
from sqzc.ir.graph import Graph
from sqzc.ir.printer import print_graph
from sqzc.passes.base import Pass
from sqzc.passes.manager import Instrument, PassRecord
from sqzc.passes.registry import known_passes

ALL = "all"


def check_names(names: Sequence[str]) -> frozenset[str]:
    """The names of passes to watch; PassError for one that no pass has."""
    for name in names:
        if name != ALL and name not in known_passes():
            raise PassError(
                f"unknown pass '{name}'",
                expected=f"{ALL}, {', '.join(known_passes())}",
                hint=nearest(name, known_passes()),
            )
    return frozenset(names)


class PrintIr(Instrument):
    """Shows the graph before and after named passes, or `all`, as text that parses."""

    def __init__(self, before: Sequence[str], after: Sequence[str], show: Callable[[str], None]) -> None:
        self.before, self.after, self.show = check_names(before), check_names(after), show

    def before_pass(self, index: int, step: Pass, graph: Graph) -> None:
        """Shows the graph that the pass is given."""
        if self.before & {ALL, step.name}:
            self.show(f"# before {index:02d} {step.spec}\n{print_graph(graph)}")

    def after_pass(self, index: int, step: Pass, graph: Graph, record: PassRecord) -> None:
        """Shows the graph that the pass left."""
        if self.after & {ALL, step.name}:
            words = "" if record.changed else ", which changed nothing"
            self.show(f"# after {index:02d} {step.spec}{words}\n{print_graph(graph)}")


def timing_rows(records: Sequence[PassRecord]) -> list[Mapping[str, Any]]:
    """What `--time-passes` shows of each pass."""
    return [
        {
            "index": record.index,
            "pass": record.spec,
            "seconds": record.seconds,
            "changed": record.changed,
            "ops": record.ops_after,
            "rewrites": len(record.rewrites),
        }
        for record in records
    ]


def timing_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of `--time-passes`."""
    lines = [f"{'ms':>9}  {'ops':>5}  {'rewrites':>8}  pass"]
    for row in rows:
        lines.append(f"{1000 * row['seconds']:9.2f}  {row['ops']:5}  {row['rewrites']:8}  {row['pass']}")
    lines.append(f"{1000 * sum(row['seconds'] for row in rows):9.2f}  {'':5}  {'':8}  all")
    return "\n".join(lines)
