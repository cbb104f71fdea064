"""Elementwise ops: one input element per output element, and arithmetic with numpy's broadcasting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from sqzc.diagnostics import VerifyError
from sqzc.ir.opdef import DTYPE, FLOAT, Attr, Layouts, OpDef, Operand, op
from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.rules import require_floats, require_numbers, require_same_dtype
from sqzc.ir.types import DType, TensorType


def broadcast_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the result by numpy's rule; VerifyError when the shapes do not broadcast."""
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    out = []
    for x, y in zip(left, right, strict=True):
        if x != y and 1 not in (x, y):
            raise VerifyError(f"shapes {list(a)} and {list(b)} do not broadcast")
        out.append(y if x == 1 else x)
    return tuple(out)


class Unary(OpDef):
    """One input, one result of the same type. `is_activation`: may be fused as an `Activation`."""

    is_activation: ClassVar[bool] = True
    x = Operand()

    def infer(self, x: TensorType) -> TensorType:
        return require_numbers(self.name, x)

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return outputs[0].elements

    def activation(self) -> Activation:
        """This op as an activation that a producer can apply."""
        return Activation(self.name, tuple(float(self.attrs[name]) for name in self.attributes))


class FloatUnary(Unary):
    """A unary op defined on floating point numbers only."""

    def infer(self, x: TensorType) -> TensorType:
        return require_floats(self.name, x)


@op("relu", layouts=Layouts.SAME)
class Relu(Unary):
    """max(x, 0); NaN stays NaN."""


@op("leaky_relu", layouts=Layouts.SAME)
class LeakyRelu(FloatUnary):
    """x where x >= 0, else alpha * x."""

    alpha = Attr(FLOAT, default=0.01)


@op("elu", layouts=Layouts.SAME)
class Elu(FloatUnary):
    """x where x > 0, else alpha * (exp(x) - 1)."""

    alpha = Attr(FLOAT, default=1.0)


@op("selu", layouts=Layouts.SAME)
class Selu(FloatUnary):
    """gamma * (x where x > 0, else alpha * (exp(x) - 1))."""

    alpha = Attr(FLOAT, default=1.6732631921768188)
    gamma = Attr(FLOAT, default=1.0507010221481323)


@op("clip", layouts=Layouts.SAME)
class Clip(Unary):
    """min(max(x, lo), hi); NaN stays NaN. Integers take whole bounds only."""

    lo = Attr(FLOAT, default=float("-inf"))
    hi = Attr(FLOAT, default=float("inf"))

    def infer(self, x: TensorType) -> TensorType:
        if not x.dtype.is_float:
            for name, bound in (("lo", self.lo), ("hi", self.hi)):
                if not math.isinf(bound) and not bound.is_integer():
                    raise VerifyError(f"clip: '{name}' of {x}", expected="a whole number", got=f"{bound:g}")
        return super().infer(x)


@op("sigmoid", layouts=Layouts.SAME)
class Sigmoid(FloatUnary):
    """1 / (1 + exp(-x))."""


@op("tanh", layouts=Layouts.SAME)
class Tanh(FloatUnary):
    """Hyperbolic tangent."""


@op("swish", layouts=Layouts.SAME)
class Swish(FloatUnary):
    """x * sigmoid(x), also called SiLU."""


@op("hard_sigmoid", layouts=Layouts.SAME)
class HardSigmoid(FloatUnary):
    """max(0, min(1, alpha * x + beta))."""

    alpha = Attr(FLOAT, default=0.2)
    beta = Attr(FLOAT, default=0.5)


@op("hard_swish", layouts=Layouts.SAME)
class HardSwish(FloatUnary):
    """x * max(0, min(1, x / 6 + 1/2))."""


@op("gelu", layouts=Layouts.SAME)
class Gelu(FloatUnary):
    """x * (1 + erf(x / sqrt 2)) / 2."""


@op("gelu_tanh", layouts=Layouts.SAME)
class GeluTanh(FloatUnary):
    """x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2: the approximation that some exporters ask for."""


@op("softplus", layouts=Layouts.SAME)
class Softplus(FloatUnary):
    """log(1 + exp(x))."""


@op("softsign", layouts=Layouts.SAME)
class Softsign(FloatUnary):
    """x / (1 + |x|)."""


@op("exp", layouts=Layouts.SAME)
class Exp(FloatUnary):
    """e to the x."""


@op("log", layouts=Layouts.SAME)
class Log(FloatUnary):
    """Natural logarithm; NaN below zero, -inf at zero."""


@op("sqrt", layouts=Layouts.SAME)
class Sqrt(FloatUnary):
    """Square root; NaN below zero."""


@op("erf", layouts=Layouts.SAME)
class Erf(FloatUnary):
    """Gauss error function."""


@op("abs", layouts=Layouts.SAME)
class Abs(Unary):
    """Absolute value."""


@op("neg", layouts=Layouts.SAME)
class Neg(Unary):
    """-x."""


@op("reciprocal", layouts=Layouts.SAME)
class Reciprocal(FloatUnary):
    """1 / x."""


@op("floor", layouts=Layouts.SAME)
class Floor(FloatUnary):
    """Largest integer not above x."""


@op("ceil", layouts=Layouts.SAME)
class Ceil(FloatUnary):
    """Smallest integer not below x."""


@op("round", layouts=Layouts.SAME)
class Round(FloatUnary):
    """Nearest integer, halves to even."""


@op("sign", layouts=Layouts.SAME)
class Sign(Unary):
    """-1, 0 or 1; NaN stays NaN."""


@op("identity", layouts=Layouts.SAME)
class Identity(Unary):
    """x itself: Caffe2's Alias, Copy, StopGradient and the like."""

    is_activation = False

    def infer(self, x: TensorType) -> TensorType:
        return x

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return 0


@op("dropout", layouts=Layouts.SAME)
class Dropout(Identity):
    """x itself: dropout at inference neither drops nor scales (Caffe2's `is_test=1`)."""

    ratio = Attr(FLOAT, default=0.5)


@op("cast", layouts=Layouts.SAME)
class Cast(OpDef):
    """x in another element type; float to integer truncates toward zero, anything to bool is x != 0."""

    x = Operand()
    to = Attr(DTYPE)

    def infer(self, x: TensorType) -> TensorType:
        return x.with_dtype(self.to)


class Binary(OpDef):
    """Two numbers of one element type, numpy's broadcasting. Integers wrap around."""

    a = Operand()
    b = Operand()

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        require_same_dtype(self.name, a, b)
        require_numbers(self.name, a)
        return TensorType(a.dtype, broadcast_shapes(a.shape, b.shape))

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return outputs[0].elements


@op("add", layouts=Layouts.BROADCAST)
class Add(Binary):
    """a + b."""


@op("sub", layouts=Layouts.BROADCAST)
class Sub(Binary):
    """a - b."""


@op("mul", layouts=Layouts.BROADCAST)
class Mul(Binary):
    """a * b."""


@op("div", layouts=Layouts.BROADCAST)
class Div(Binary):
    """a / b; integers truncate toward zero, and one divided by zero is zero."""


@op("maximum", layouts=Layouts.BROADCAST)
class Maximum(Binary):
    """The larger of a and b; NaN if either is."""


@op("minimum", layouts=Layouts.BROADCAST)
class Minimum(Binary):
    """The smaller of a and b; NaN if either is."""


@op("pow")
class Pow(Binary):
    """a to the power b; floating point only."""

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        require_floats(self.name, a)
        return super().infer(a, b)


class Compare(Binary):
    """Two operands of one element type, a truth value as result."""

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        return super().infer(a, b).with_dtype(DType.BOOL)


@op("equal")
class Equal(Compare):
    """a == b, also of truth values."""

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        require_same_dtype(self.name, a, b)
        return TensorType(DType.BOOL, broadcast_shapes(a.shape, b.shape))


@op("less")
class Less(Compare):
    """a < b."""


@op("less_equal")
class LessEqual(Compare):
    """a <= b."""


@op("prelu", layouts=Layouts.IMAGE)
class Prelu(OpDef):
    """x where x >= 0, else slope * x; the slope is one number or one per channel (axis 1)."""

    x = Operand()
    slope = Operand(rank=1)

    def infer(self, x: TensorType, slope: TensorType) -> TensorType:
        require_floats(self.name, x)
        require_same_dtype(self.name, x, slope)
        channels = x.shape[1] if x.rank > 1 else 1
        if slope.elements not in (1, channels):
            raise VerifyError("prelu: slope", expected=f"1 or {channels} elements", got=str(slope))
        return x

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return 2 * outputs[0].elements


@op("where")
class Where(OpDef):
    """a where the condition holds, else b; numpy's broadcasting among all three."""

    condition = Operand(dtype=DType.BOOL)
    a = Operand()
    b = Operand()

    def infer(self, condition: TensorType, a: TensorType, b: TensorType) -> TensorType:
        require_same_dtype(self.name, a, b)
        return TensorType(a.dtype, broadcast_shapes(condition.shape, broadcast_shapes(a.shape, b.shape)))
