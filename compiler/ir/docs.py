"""The op reference, docs/ops.md, made from the declarations.

python -m sqzc.ir.docs > docs/ops.md
"""

from __future__ import annotations

import inspect
import sys

from sqzc.ir.opdef import Attr, Layouts, OpDef, Operand, registry

_HEAD = """# Ops of the graph IR

Made from the declarations in `compiler/ir/ops` by `python -m sqzc.ir.docs > docs/ops.md`; a test keeps it up to date.
Image shapes are `[n, c, h, w]`, axes count from 0, pads of an image are `[top, left, bottom, right]`.

Memory layouts:

"""

_LAYOUT_WORDS = {
    Layouts.PLAIN: "row-major only",
    Layouts.SAME: "any, the same for operands and results",
    Layouts.IMAGE: "images may be channel-blocked, each for itself; all other operands are row-major",
    Layouts.BROADCAST: "row-major, or channel-blocked with the same channels; operands of one element stay row-major",
    Layouts.CONVERT: "any to any",
}


def render_ops() -> str:
    """The whole page as markdown; ops grouped by the module that declares them, in order of declaration."""
    lines = [_HEAD + "\n".join(f"- `{rule.value}`: {words}" for rule, words in _LAYOUT_WORDS.items()), ""]
    modules: dict[str, list[type[OpDef]]] = {}
    for cls in registry.values():
        modules.setdefault(cls.__module__, []).append(cls)
    for module, ops in sorted(modules.items()):
        lines += [f"## {_summary(module)}", ""]
        for cls in ops:
            lines += [*_render_op(cls), ""]
    return "\n".join(lines).rstrip() + "\n"


def _summary(module: str) -> str:
    """First sentence of a module's docstring: the heading of its ops."""
    return (sys.modules[module].__doc__ or module).strip().split("\n")[0].rstrip(".").split(": ")[0]


def _render_op(cls: type[OpDef]) -> list[str]:
    operands = ", ".join(_operand_name(operand) for operand in cls.operands)
    lines = [f"### {cls.name}({operands})", "", inspect.cleandoc(cls.__doc__ or ""), ""]
    lines += [f"- `{operand.name}`: {words}" for operand in cls.operands if (words := _operand_words(operand))]
    lines += [f"- `{attr.name}` {_attr_words(attr)}" for attr in cls.attributes.values()]
    notes = [f"layouts `{cls.layouts.value}`"]
    if getattr(cls, "is_activation", False):
        notes.append("may be fused as an activation")
    return [*lines, f"- {'; '.join(notes)}"]


def _operand_name(operand: Operand) -> str:
    if operand.variadic:
        return operand.name + "..."
    return operand.name + "?" if operand.optional else operand.name


def _operand_words(operand: Operand) -> str:
    words = []
    if operand.doc:
        words.append(f"`{operand.doc}`")
    elif operand.rank is not None:
        words.append(f"rank {operand.rank}")
    if operand.dtype is not None:
        words.append(operand.dtype.value)
    return ", ".join(words)


def _attr_words(attr: Attr[object]) -> str:
    words = f"({attr.kind.name}, "
    words += "required" if attr.required else f"default `{attr.kind.show(attr.default)}`"
    if attr.at_least is not None:
        words += f", at least {attr.at_least:g}"
    return words + ")" + (f": {attr.doc}" if attr.doc else "")


if __name__ == "__main__":
    import sqzc.ir.ops  # noqa: F401  (registers every op)

    sys.stdout.write(render_ops())
