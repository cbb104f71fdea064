"""Activations: unary functions that another op may apply to its result before storing it."""

from __future__ import annotations

from dataclasses import dataclass

from sqzc.diagnostics import ParseError, VerifyError, nearest
from sqzc.ir.opdef import Kind, OpDef, registry, show_float


@dataclass(frozen=True)
class Activation:
    """A unary elementwise op by name with its attribute values, in the order of its declaration.

    The name is that of the op (`relu`, `leaky_relu`, `clip`, ...); `none` is the identity.
    """

    fn: str = "none"
    params: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return self.fn != "none"

    def __str__(self) -> str:
        if not self.params:
            return self.fn
        return f"{self.fn}({','.join(show_float(p) for p in self.params)})"

    def as_op(self) -> OpDef:
        """The unary op that this activation applies; VerifyError when there is none or the parameters do not fit."""
        cls = registry.get(self.fn)
        if cls is None or not getattr(cls, "is_activation", False):
            known = [name for name, known in registry.items() if getattr(known, "is_activation", False)]
            raise VerifyError(f"there is no activation '{self.fn}'", hint=nearest(self.fn, known))
        if len(self.params) != len(cls.attributes):
            raise VerifyError(
                f"activation '{self.fn}' with {len(self.params)} parameters",
                expected=", ".join(cls.attributes) or "none",
            )
        return cls(**dict(zip(cls.attributes, self.params, strict=True)))

    @staticmethod
    def parse(text: str) -> Activation:
        """Reads `relu` or `clip(0.0,6.0)`."""
        name, bracket, rest = text.partition("(")
        if not bracket:
            return Activation(name)
        if not rest.endswith(")"):
            raise ParseError(f"'{text}' is not an activation", expected="relu or clip(0.0,6.0)")
        try:
            return Activation(name, tuple(float(part) for part in rest[:-1].split(",")))
        except ValueError:
            raise ParseError(f"'{text}' has a parameter that is no number") from None


NONE = Activation()
ACT: Kind[Activation] = Kind("activation", lambda v: v if isinstance(v, Activation) else None, str, Activation.parse)
