"""Trigonometric functions; what else there is of them is composed from these."""

from __future__ import annotations

from sqzc.ir.opdef import Layouts, op
from sqzc.ir.ops.elementwise import FloatUnary


@op("sin", layouts=Layouts.SAME)
class Sin(FloatUnary):
    """Sine of an angle in radians."""


@op("cos", layouts=Layouts.SAME)
class Cos(FloatUnary):
    """Cosine of an angle in radians."""


@op("atan", layouts=Layouts.SAME)
class Atan(FloatUnary):
    """Arc tangent in radians, between -pi/2 and pi/2."""
