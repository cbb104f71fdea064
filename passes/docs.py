"""Writes docs/passes.md from the passes' own declarations: `python -m sqzc.passes.docs > docs/passes.md`."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import typing
from dataclasses import dataclass

from sqzc.passes.base import Pass
from sqzc.passes.pipelines import PIPELINES
from sqzc.passes.registry import known_passes, pass_class

_BLOCK = re.compile(r"^(Before|After)(?: (\{[^}]*\}))?:\n((?:(?:    .*)?\n)+)", re.MULTILINE)

_HEAD = """# Passes

Written by `python -m sqzc.passes.docs`; a test keeps it fresh. A pass is named in a pipeline by its name, with options
in braces: `sqzc opt net.sqz --passes "fold-mean,fuse-conv-relu{limit=3},dead-code"`. `O0` to `O3` stand for whole
pipelines, `fixpoint(a,b)` for passes repeated until none changes anything (`fixpoint{max=20}(a,b)` sets the bound,
after which it is an error). Every pass takes `limit`, the most rewrites it may make.
"""


@dataclass(frozen=True)
class Example:
    """The IR before and after a pass, as its docstring shows it; `spec` has the options used."""

    spec: str
    before: str
    after: str


def _docstring(cls: type[Pass]) -> str:
    return (inspect.getdoc(cls) or "") + "\n"


def example_of(cls: type[Pass]) -> Example:
    """The example in the docstring of a pass."""
    blocks = _BLOCK.findall(_docstring(cls))
    kinds = [kind for kind, _, _ in blocks]
    assert kinds == ["Before", "After"], f"the docstring of {cls.name} shows {kinds}, not one Before and one After"
    (_, _, before), (_, options, after) = blocks
    return Example(cls.name + options, textwrap.dedent(before).strip(), textwrap.dedent(after).strip())


def prose_of(cls: type[Pass]) -> str:
    """The docstring of a pass without its example."""
    return _BLOCK.sub("", _docstring(cls)).strip()


def _option_rows(cls: type[Pass]) -> list[str]:
    hints = typing.get_type_hints(cls)
    rows = []
    for item in dataclasses.fields(cls):
        if item.name == "limit":
            continue
        kind = getattr(hints[item.name], "__name__", str(hints[item.name]))
        rows.append(f"| `{item.name}` | {kind} | `{item.default}` | {item.metadata.get('doc', '')} |")
    return ["| option | kind | default | |", "| --- | --- | --- | --- |", *rows, ""] if rows else []


def render() -> str:
    """The whole page."""
    lines = [_HEAD, "## Pipelines\n"]
    for name, spec in PIPELINES.items():
        lines.append(f"- `{name}`: `{spec.replace(',', ', ')}`")
    lines.append("")
    for name in known_passes():
        cls = pass_class(name)
        example = example_of(cls)
        levels = [level for level, spec in PIPELINES.items() if name in spec.split(",")]
        lines += [f"## {name}\n", prose_of(cls), "", f"Runs in {', '.join(levels) or 'no level'}.", ""]
        lines += _option_rows(cls)
        shown = "" if example.spec == name else f" with `{example.spec}`"
        lines += [
            "Before:",
            "",
            "```",
            example.before,
            "```",
            "",
            f"After{shown}:",
            "",
            "```",
            example.after,
            "```",
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(render(), end="")
