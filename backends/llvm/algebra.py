"""Number systems over which transforms and sums are written: vector code, and plain arithmetic."""

from __future__ import annotations

from typing import Any

from sqzc.backends.llvm.emit import Emitter, Val


class VectorAlgebra:
    """Vector code as a number system of `winograd_math` and `strassen_math`."""

    def __init__(self, e: Emitter) -> None:
        self.e = e

    def add(self, a: Val, c: Val) -> Val:
        """a + c."""
        return self.e.b.fadd(a, c)

    def sub(self, a: Val, c: Val) -> Val:
        """a - c."""
        return self.e.b.fsub(a, c)

    def scale(self, a: Val, factor: float) -> Val:
        """a * factor."""
        return self.e.b.fmul(a, self.e.splat(factor))

    def muladd(self, a: Val, factor: float, c: Val) -> Val:
        """a * factor + c."""
        return self.e.fma(a, self.e.splat(factor), c)


class Numbers:
    """Plain arithmetic as a number system of `winograd_math` and `strassen_math`."""

    def add(self, a: Any, c: Any) -> Any:
        """a + c."""
        return a + c

    def sub(self, a: Any, c: Any) -> Any:
        """a - c."""
        return a - c

    def scale(self, a: Any, factor: float) -> Any:
        """a * factor."""
        return a * factor

    def muladd(self, a: Any, factor: float, c: Any) -> Any:
        """a * factor + c."""
        return a * factor + c
