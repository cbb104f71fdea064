"""Names of passes and the text form of pipelines, both ways.

pipeline := [step {',' step}]
step     := pass | level | 'fixpoint' ['{max=' N '}'] '(' pass {',' pass} ')'
pass     := name ['{' option '=' value {',' option '=' value} '}']
level    := 'O0' | 'O1' | 'O2' | 'O3'           the pipeline of that name, spliced in
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqzc.diagnostics import PassError, nearest
from sqzc.passes.base import Pass

PASSES: Mapping[str, str] = {
    "assign-layout": "AssignLayout",
    "cancel-transposes": "CancelTransposes",
    "common-subexpressions": "CommonSubexpressions",
    "dead-code": "DeadCode",
    "drop-inference-noops": "DropInferenceNoops",
    "elide-concat": "ElideConcat",
    "fold-batch-norm": "FoldBatchNorm",
    "fold-constants": "FoldConstants",
    "fold-mean": "FoldMean",
    "fold-pad": "FoldPad",
    "forward-slices": "ForwardSlices",
    "fuse-conv-add": "FuseConvAdd",
    "fuse-conv-relu": "FuseConvRelu",
    "merge-affine": "MergeAffine",
    "reassociate": "Reassociate",
    "subsample-pointwise": "SubsamplePointwise",
}
"""Class of each pass; it lives in `sqzc.passes.<name with '_' for '-'>` and is imported on first use."""

MAX_SPEC = 1 << 16
DEFAULT_ROUNDS = 8

_extra: dict[str, type[Pass]] = {}


@dataclass(frozen=True)
class Fixpoint:
    """Passes run in turn until a whole round changes nothing; more than `max` rounds is a bug in one of them."""

    steps: tuple[Pass, ...]
    max: int = DEFAULT_ROUNDS


Step = Pass | Fixpoint


def known_passes() -> list[str]:
    """Names of all registered passes, sorted."""
    return sorted({*PASSES, *_extra})


@contextmanager
def registered(*classes: type[Pass]) -> Iterator[None]:
    """Registers more passes inside a `with` block; tests plant broken ones this way."""
    for cls in classes:
        assert cls.name not in known_passes(), f"pass '{cls.name}' is registered twice"
        _extra[cls.name] = cls
    try:
        yield
    finally:
        for cls in classes:
            del _extra[cls.name]


def pass_class(name: str) -> type[Pass]:
    """The class of a registered pass; PassError with a suggestion for an unknown name."""
    if name in _extra:
        return _extra[name]
    if name not in PASSES:
        known = known_passes()
        raise PassError(f"unknown pass '{name}'", expected=", ".join(known), hint=nearest(name, known))
    module = importlib.import_module(f"sqzc.passes.{name.replace('-', '_')}")
    cls: type[Pass] = getattr(module, PASSES[name])
    assert cls.name == name, f"{cls} is not the pass '{name}'"
    return cls


def show_pipeline(steps: Sequence[Step]) -> str:
    """Text of a pipeline; `parse_pipeline` reads it back to equal steps."""
    return ",".join(_show_step(step) for step in steps)


def _show_step(step: Step) -> str:
    if isinstance(step, Pass):
        return step.spec
    bound = "" if step.max == DEFAULT_ROUNDS else f"{{max={step.max}}}"
    return f"fixpoint{bound}({show_pipeline(step.steps)})"


def parse_pipeline(text: str) -> tuple[Step, ...]:
    """The steps that `text` describes; PassError for anything that is not a pipeline."""
    if len(text) > MAX_SPEC:
        raise PassError(f"a pipeline of {len(text)} characters", expected=f"at most {MAX_SPEC}")
    reader = _Reader(text)
    steps = reader.steps(nested=False)
    reader.end()
    return tuple(steps)


_WORDS = re.compile(r"\s*([A-Za-z0-9_.+-]+|[{}(),=]|$)")


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def peek(self) -> str:
        match = _WORDS.match(self.text, self.at)
        if match is None:
            raise self.error("unexpected text")
        return match.group(1)

    def take(self) -> str:
        match = _WORDS.match(self.text, self.at)
        if match is None:
            raise self.error("unexpected text")
        self.at = match.end()
        return match.group(1)

    def accept(self, word: str) -> bool:
        if self.peek() != word:
            return False
        self.take()
        return True

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise self.error(f"'{word}' is missing")

    def error(self, message: str) -> PassError:
        rest = self.text[self.at :].strip()
        return PassError(
            f"bad pipeline: {message} at '{rest[:40]}'" if rest else f"bad pipeline: {message} at its end",
            expected="for example fold-mean,fuse-conv-relu{limit=3},dead-code",
        )

    def end(self) -> None:
        if self.peek():
            raise self.error("unexpected text")

    def steps(self, nested: bool) -> list[Step]:
        steps: list[Step] = []
        if self.peek() in ("", ")"):
            return steps
        while True:
            steps.extend(self.step(nested))
            if not self.accept(","):
                return steps

    def step(self, nested: bool) -> Sequence[Step]:
        from sqzc.passes.pipelines import PIPELINES

        name = self.peek()
        if not name or name in "{}(),=":
            raise self.error("the name of a pass is missing")
        self.take()
        if name in PIPELINES:
            return parse_pipeline(PIPELINES[name])
        if name != "fixpoint":
            return [_make(pass_class(name), self.options())]
        if nested:
            raise self.error("a fixpoint within a fixpoint")
        options = self.options()
        bound = _read(int, options.pop("max", str(DEFAULT_ROUNDS)), "fixpoint", "max")
        if options or bound < 1:
            raise PassError("bad options of fixpoint", expected="{max=N} with N at least 1")
        self.expect("(")
        inner = self.steps(nested=True)
        self.expect(")")
        return [Fixpoint(tuple(p for p in inner if isinstance(p, Pass)), bound)]

    def options(self) -> dict[str, str]:
        options: dict[str, str] = {}
        if not self.accept("{"):
            return options
        while not self.accept("}"):
            if options:
                self.expect(",")
            key = self.take()
            self.expect("=")
            if key in options:
                raise self.error(f"option '{key}' stands twice")
            options[key] = self.take()
        return options


def _make(cls: type[Pass], options: Mapping[str, str]) -> Pass:
    hints = typing.get_type_hints(cls)
    known = [item.name for item in dataclasses.fields(cls)]
    values: dict[str, object] = {}
    for key, text in options.items():
        if key not in known:
            raise PassError(
                f"pass {cls.name} has no option '{key}'", expected=", ".join(known), hint=nearest(key, known)
            )
        values[key] = _read(hints[key], text, cls.name, key)
    return cls(**values)  # type: ignore[arg-type]


def _read(kind: object, text: str, owner: str, key: str) -> typing.Any:
    """`text` as a value of type `kind` (int, float, bool, str, or one of them or None)."""
    kinds = typing.get_args(kind) or (kind,)
    if type(None) in kinds and text == "none":
        return None
    try:
        if bool in kinds:
            return {"true": True, "false": False}[text]
        if int in kinds:
            value = int(text)
            if value < 0:
                raise ValueError
            return value
        if float in kinds:
            return float(text)
    except (ValueError, KeyError):
        words = {bool: "true or false", int: "a whole number, zero or more", float: "a number"}
        wanted = next(words[k] for k in (bool, int, float) if k in kinds)
        raise PassError(f"option '{key}' of {owner} is '{text}'", expected=wanted) from None
    return text
