"""Pipelines as text: both ways, and every way to get one wrong."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest

from sqzc.diagnostics import PassError
from sqzc.ir.graph import Graph
from sqzc.passes.assign_layout import AssignLayout
from sqzc.passes.base import Pass, PassContext, option
from sqzc.passes.dead_code import DeadCode
from sqzc.passes.fuse_conv_relu import FuseConvRelu
from sqzc.passes.pipelines import PIPELINES
from sqzc.passes.registry import Fixpoint, known_passes, parse_pipeline, pass_class, registered, show_pipeline


@dataclass(frozen=True)
class Picky(Pass):
    """Options of every kind."""

    name: ClassVar[str] = "picky"
    whole: int = option(1, "")
    ratio: float = option(0.5, "")
    loud: bool = option(False, "")
    word: str = option("a", "")

    def run(self, graph: Graph, ctx: PassContext) -> bool:
        return False


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", ()),
        ("dead-code", (DeadCode(),)),
        ("fuse-conv-relu{limit=3}", (FuseConvRelu(limit=3),)),
        (" fuse-conv-relu { limit = 3 } , dead-code ", (FuseConvRelu(limit=3), DeadCode())),
        ("assign-layout{limit=2,lanes=4}", (AssignLayout(limit=2, lanes=4),)),
        ("fixpoint(dead-code,fuse-conv-relu)", (Fixpoint((DeadCode(), FuseConvRelu())),)),
        ("fixpoint{max=3}(dead-code),dead-code", (Fixpoint((DeadCode(),), 3), DeadCode())),
    ],
)
def test_parses(text: str, steps: tuple[object, ...]) -> None:
    assert parse_pipeline(text) == steps
    assert parse_pipeline(show_pipeline(parse_pipeline(text))) == steps


def test_options_of_every_kind() -> None:
    text = "picky{limit=7,whole=0,ratio=1e-05,loud=true,word=O2.x}"
    with registered(Picky):
        steps = parse_pipeline(text)
        assert steps == (Picky(limit=7, whole=0, ratio=1e-5, loud=True, word="O2.x"),)
        assert show_pipeline(steps) == text
        assert parse_pipeline("picky{limit=none,loud=false}") == (Picky(),)
    assert "picky" not in known_passes()


@pytest.mark.parametrize("level", PIPELINES)
def test_levels_parse_and_splice(level: str) -> None:
    steps = parse_pipeline(level)
    assert steps == parse_pipeline(PIPELINES[level])
    assert parse_pipeline(f"dead-code,{level},dead-code") == (DeadCode(), *steps, DeadCode())


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("fuse-conv-rely", "unknown pass 'fuse-conv-rely'", "did you mean 'fuse-conv-relu'?"),
        ("dead_code", "unknown pass 'dead_code'", "did you mean 'dead-code'?"),
        ("dead-code{limits=1}", "pass dead-code has no option 'limits'", "did you mean 'limit'?"),
        ("dead-code{limit=-1}", "option 'limit' of dead-code is '-1'", None),
        ("dead-code{limit=x}", "option 'limit' of dead-code is 'x'", None),
        ("picky{loud=yes}", "option 'loud' of picky is 'yes'", None),
        ("picky{ratio=half}", "option 'ratio' of picky is 'half'", None),
        ("dead-code{limit=1,limit=2}", "option 'limit' stands twice", None),
        ("dead-code{limit}", "'=' is missing", None),
        ("dead-code{limit=1", "',' is missing", None),
        ("dead-code dead-code", "unexpected text at 'dead-code'", None),
        ("dead-code,", "the name of a pass is missing at its end", None),
        (",dead-code", "the name of a pass is missing", None),
        ("dead-code;rm", "unexpected text at ';rm'", None),
        ("fixpoint(dead-code", "')' is missing", None),
        ("fixpoint(fixpoint(dead-code))", "a fixpoint within a fixpoint", None),
        ("fixpoint{max=0}(dead-code)", "bad options of fixpoint", None),
        ("fixpoint{min=1}(dead-code)", "bad options of fixpoint", None),
        ("dead-code," * 10000, "a pipeline of 100000 characters", None),
    ],
)
def test_mistakes(text: str, message: str, hint: str | None) -> None:
    with registered(Picky), pytest.raises(PassError) as caught:
        parse_pipeline(text)
    assert message in caught.value.message
    assert hint is None or caught.value.hint == hint


def test_every_pass_is_a_frozen_dataclass_with_documented_options() -> None:
    for name in known_passes():
        cls = pass_class(name)
        assert cls() == cls()
        assert hash(cls()) == hash(cls())
        assert cls().spec == name
        for item in dataclasses.fields(cls):
            assert item.metadata.get("doc"), f"option {item.name} of {name} says nothing"


def test_levels_grow() -> None:
    names = {level: {step.name for step in parse_pipeline(level) if isinstance(step, Pass)} for level in PIPELINES}
    assert names["O0"] <= names["O1"] <= names["O2"] <= names["O3"]
    assert names["O0"] == {"drop-inference-noops", "dead-code"}
    assert "assign-layout" not in names["O1"]
    assert set(known_passes()) == names["O3"]
