"""The pass manager: order, instruments, stopping, fixed points, resuming, and passes that break their promise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
from golden.runner import manager, parse

from sqzc.diagnostics import InternalError, PassError, VerifyError
from sqzc.ir.equality import equal, first_difference
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops import elementwise
from sqzc.ir.parser import parse_graph
from sqzc.ir.printer import print_graph
from sqzc.ir.types import f32
from sqzc.passes.base import Pass, PassContext, RewritePass
from sqzc.passes.manager import Instrument, PassFailure, PassManager, PassRecord, replay_spec
from sqzc.passes.registry import registered

NET = """
graph @net(%x: f32[1,2,4,4]) {
  const %w = [1.0, 2.0, 3.0, 4.0] : f32[2,2,1,1]
  const %mean = [1.0] : f32[1]
  %d = dropout(%x) : f32[1,2,4,4] @"d"
  %s = sub(%d, %mean) : f32[1,2,4,4] @"s"
  %a = conv2d(%s, %w) : f32[1,2,4,4] @"a"
  %b = relu(%a) : f32[1,2,4,4] @"b"
  %c = conv2d(%b, %w) {pads=[1,1,1,1]} : f32[1,2,6,6] @"c"
  %e = relu(%c) : f32[1,2,6,6] @"e"
  %f = identity(%e) : f32[1,2,6,6] @"f"
  yield %f as "y"
}
"""


class Watcher(Instrument):
    """Remembers what it is shown."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, str, int]] = []
        self.records: list[PassRecord] = []

    def before_pipeline(self, graph: Graph) -> None:
        self.events.append(("start", 0, "", len(graph.nodes)))

    def before_pass(self, index: int, step: Pass, graph: Graph) -> None:
        self.events.append(("before", index, step.name, len(graph.nodes)))

    def after_pass(self, index: int, step: Pass, graph: Graph, record: PassRecord) -> None:
        self.events.append(("after", index, step.name, len(graph.nodes)))
        self.records.append(record)


@dataclass(frozen=True)
class NeverSettles(RewritePass):
    """Turns relu into abs and back."""

    name: ClassVar[str] = "never-settles"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        if not isinstance(node.op, elementwise.Relu | elementwise.Abs) or not ctx.take("flipped"):
            return False
        node.op = elementwise.Abs() if isinstance(node.op, elementwise.Relu) else elementwise.Relu()
        return True


@dataclass(frozen=True)
class Flips(Pass):
    """Turns the first relu into abs and back: valid, but never done."""

    name: ClassVar[str] = "flips"

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        node = next(n for n in graph.nodes if isinstance(n.op, elementwise.Relu | elementwise.Abs))
        node.op = elementwise.Abs() if isinstance(node.op, elementwise.Relu) else elementwise.Relu()
        return True


@dataclass(frozen=True)
class Lies(Flips):
    """Changes the graph and denies it."""

    name: ClassVar[str] = "lies"

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        super().run(graph, ctx)
        return False


@dataclass(frozen=True)
class Corrupts(Pass):
    """Leaves a value of the wrong type."""

    name: ClassVar[str] = "corrupts"

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        graph.nodes[0].output.type = f32(7)
        return True


@dataclass(frozen=True)
class Raises(Pass):
    """Fails after it has changed something."""

    name: ClassVar[str] = "raises"

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        graph.nodes.pop()
        raise RuntimeError("no such luck")


@dataclass(frozen=True)
class Refuses(Pass):
    """Is asked what it cannot do."""

    name: ClassVar[str] = "refuses"

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        graph.nodes.pop()
        raise PassError("not for me")


@pytest.fixture(autouse=True)
def _bad_passes() -> Iterator[None]:
    with registered(NeverSettles, Flips, Lies, Corrupts, Raises, Refuses):
        yield


def test_records_and_instruments() -> None:
    graph, watcher = parse(NET), Watcher()
    runner = PassManager("drop-inference-noops,fuse-conv-relu{limit=1},elide-concat", [watcher])
    records = runner.run(graph)
    assert watcher.records == records
    assert watcher.events == [
        ("start", 0, "", 7),
        ("before", 1, "drop-inference-noops", 7),
        ("after", 1, "drop-inference-noops", 5),
        ("before", 2, "fuse-conv-relu", 5),
        ("after", 2, "fuse-conv-relu", 4),
        ("before", 3, "elide-concat", 4),
        ("after", 3, "elide-concat", 4),
    ]
    assert [(r.index, r.spec, r.changed, r.ops_before, r.ops_after) for r in records] == [
        (1, "drop-inference-noops", True, 7, 5),
        (2, "fuse-conv-relu{limit=1}", True, 5, 4),
        (3, "elide-concat", False, 4, 4),
    ]
    assert records[1].rewrites == ("fused relu %b into conv2d %a",)
    assert all(r.seconds >= 0 for r in records)
    assert records[0].remaining == "fuse-conv-relu{limit=1},elide-concat"
    json.dumps([record.to_json() for record in records])


@pytest.mark.parametrize(("stop", "ran"), [(0, 0), (1, 1), ("2", 2), (99, 3), ("fuse-conv-relu", 2)])
def test_stop_after(stop: int | str, ran: int) -> None:
    runner = PassManager("drop-inference-noops,fuse-conv-relu,dead-code", stop_after=stop)
    assert len(runner.run(parse(NET))) == ran


def test_stop_after_unknown_pass() -> None:
    with pytest.raises(PassError, match="did you mean 'dead-code'"):
        PassManager("drop-inference-noops,dead-code", stop_after="dead-cod")


@pytest.mark.parametrize("level", ["O1", "O2", "fixpoint(fuse-conv-relu{limit=1},drop-inference-noops),dead-code"])
def test_resuming_anywhere_ends_the_same(level: str) -> None:
    """What was left to do, done on the text of any intermediate graph, gives the very same text."""
    seen: list[tuple[str, str]] = []

    class Keep(Instrument):
        def after_pass(self, index: int, step: Pass, graph: Graph, record: PassRecord) -> None:
            if record.changed:
                seen.append((print_graph(graph), record.remaining))

    graph = parse(NET)
    runner = manager(level)
    runner.instruments = (Keep(),)
    runner.run(graph)
    assert len(seen) > 2
    for text, remaining in seen:
        again = parse_graph(text)
        manager(remaining).run(again)
        assert print_graph(again) == print_graph(graph)


def test_fixpoint_runs_until_nothing_changes() -> None:
    graph = parse(NET)
    runner = PassManager("fixpoint(fuse-conv-relu{limit=1},drop-inference-noops{limit=1})")
    records = runner.run(graph)
    assert [r.changed for r in records] == [True, True, True, True, False, False]
    assert len(graph.nodes) == 3


def test_fixpoint_fails_loudly() -> None:
    with pytest.raises(InternalError, match=r"fixpoint\{max=3\}\(dead-code,flips\) still changes .* by flips"):
        PassManager("fixpoint{max=3}(dead-code,flips)").run(parse(NET))


def test_replay_spec_cuts_anywhere() -> None:
    graph = parse(NET)
    records = PassManager("fixpoint(fuse-conv-relu,drop-inference-noops),dead-code").run(graph)
    assert replay_spec(records, 3) == "fuse-conv-relu,drop-inference-noops,fuse-conv-relu"
    assert replay_spec(records, 2, limit=1) == "fuse-conv-relu,drop-inference-noops{limit=1}"
    whole = parse(NET)
    PassManager(replay_spec(records, len(records))).run(whole)
    assert equal(whole, graph)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("corrupts", "it left an invalid graph"),
        ("raises", "RuntimeError: no such luck"),
        ("lies", "it says that it changed nothing, but"),
        ("never-settles", "never-settles does not settle"),
    ],
)
def test_broken_pass_is_named_with_its_surroundings(spec: str, reason: str) -> None:
    graph = parse(NET)
    with pytest.raises(PassFailure) as caught:
        PassManager(f"drop-inference-noops,fuse-conv-relu{{limit=1}},{spec},dead-code").run(graph)
    failure = caught.value
    assert reason in failure.reason
    assert failure.spec == spec
    assert failure.predecessors == ("drop-inference-noops", "fuse-conv-relu{limit=1}")
    assert "fuse-conv-relu{limit=1}" in str(failure)
    assert print_graph(failure.before) in str(failure)
    # The graph is left as it was before the pass.
    assert first_difference(graph, failure.before) is None
    assert len(graph.nodes) == 4


def test_a_mistake_of_the_users_is_no_bug() -> None:
    graph = parse(NET)
    with pytest.raises(PassError, match="not for me"):
        PassManager("refuses").run(graph)
    assert first_difference(graph, parse(NET)) is None
    with pytest.raises(PassError, match="needs a target"):
        PassManager("assign-layout").run(graph)


def test_invalid_input_is_refused() -> None:
    graph = parse(NET)
    graph.nodes[0].output.type = f32(7)
    with pytest.raises(VerifyError):
        PassManager("").run(graph)


def test_take_counts_to_the_limit() -> None:
    ctx = PassContext(limit=2)
    assert [ctx.take("a"), ctx.take("b"), ctx.take("c")] == [True, True, False]
    assert ctx.rewrites == ["a", "b"]
    ctx.note("once")
    ctx.note("once")
    assert ctx.notes == ["once"]
