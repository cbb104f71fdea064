"""Convolutions, pools, normalisations and matrix products."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

from sqzc.diagnostics import VerifyError
from sqzc.ir.opdef import BOOL, FLOAT, INT, INTS, PADS, PAIR, Attr, Layouts, OpDef, Operand, enum_kind, op
from sqzc.ir.ops.activation import ACT, NONE, Activation
from sqzc.ir.ops.rules import require_floats, require_numbers, require_same_dtype
from sqzc.ir.types import TensorType


class Rounding(enum.Enum):
    """How a window that does not fit a whole number of times is counted."""

    FLOOR = "floor"
    CEIL = "ceil"


ROUNDING = enum_kind(Rounding)


def window_size(size: int, kernel: int, stride: int, before: int, after: int, rounding: Rounding, what: str) -> int:
    """Output positions of a sliding window along one axis.

    CEIL counts a last window that hangs over the edge, unless it would start at or past the end of the input and its
    leading padding (Caffe2's legacy_pad 3, also ONNX's ceil_mode).
    """
    room = size + before + after - kernel
    if room < 0:
        raise VerifyError(
            f"{what}: the window is larger than the padded input",
            expected=f"at most {size + before + after}",
            got=str(kernel),
        )
    if rounding is Rounding.FLOOR:
        return room // stride + 1
    count = -(-room // stride) + 1
    if (count - 1) * stride >= size + before:
        count -= 1
    return count


def check_activation(act: Activation) -> None:
    """VerifyError unless `act` is none or a unary op with all its parameters."""
    if act:
        act.as_op()


@op("conv2d", layouts=Layouts.IMAGE)
class Conv2d(OpDef):
    """Cross-correlation plus bias, plus an optional residual, through an optional activation.

    y[n,m,i,j] = act(bias[m] + residual[n,m,i,j] + sum over c,u,v of
    w[m,c,u,v] * x[n, g*C/group + c, i*sh - top + u*dh, j*sw - left + v*dw]), zero outside x. A residual needs a bias.
    """

    x = Operand(rank=4)
    w = Operand(rank=4, doc="[M, C / group, kh, kw]")
    bias = Operand(rank=1, optional=True)
    residual = Operand(rank=4, optional=True)
    stride = Attr(PAIR, at_least=1, default=(1, 1))
    pads = Attr(PADS, at_least=0, default=(0, 0, 0, 0), doc="top, left, bottom, right")
    dilation = Attr(PAIR, at_least=1, default=(1, 1))
    group = Attr(INT, at_least=1, default=1)
    act = Attr(ACT, default=NONE)

    def check(self) -> None:
        check_activation(self.act)

    def infer(
        self, x: TensorType, w: TensorType, bias: TensorType | None = None, residual: TensorType | None = None
    ) -> TensorType:
        require_same_dtype(self.name, require_numbers(self.name, x), w, bias)
        n, c, h, width = x.shape
        m, per_group, kh, kw = w.shape
        if c != per_group * self.group or m % self.group:
            raise VerifyError(
                "conv2d: channels of input and weight do not fit",
                expected=f"weight [M,{c // self.group},kh,kw] with M a multiple of group {self.group}",
                got=f"input {x}, weight {w}",
            )
        if bias is not None and bias.shape != (m,):
            raise VerifyError("conv2d: bias", expected=f"f32[{m}]", got=str(bias))
        top, left, bottom, right = self.pads
        eff_h, eff_w = (kh - 1) * self.dilation[0] + 1, (kw - 1) * self.dilation[1] + 1
        out = TensorType(
            x.dtype,
            (
                n,
                m,
                window_size(h, eff_h, self.stride[0], top, bottom, Rounding.FLOOR, "conv2d"),
                window_size(width, eff_w, self.stride[1], left, right, Rounding.FLOOR, "conv2d"),
            ),
        )
        if residual is not None and residual != out:
            raise VerifyError("conv2d: residual", expected=str(out), got=str(residual))
        return out

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return outputs[0].elements * math.prod(inputs[1].shape[1:])

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        extras = (len(inputs) - 2) + bool(self.act)
        return 2 * self.macs(inputs, outputs) + extras * outputs[0].elements


@op("conv_transpose2d", layouts=Layouts.IMAGE)
class ConvTranspose2d(OpDef):
    """The gradient of conv2d with respect to its input, plus bias.

    Every x[n,c,i,j] adds w[c,m,u,v] * x to y[n, g*M/group + m, i*sh + u*dh - top, j*sw + v*dw - left]. `output_pads`
    (bottom, right) enlarge the result.
    """

    x = Operand(rank=4)
    w = Operand(rank=4, doc="[C, M / group, kh, kw]")
    bias = Operand(rank=1, optional=True)
    stride = Attr(PAIR, at_least=1, default=(1, 1))
    pads = Attr(PADS, at_least=0, default=(0, 0, 0, 0), doc="top, left, bottom, right")
    output_pads = Attr(PAIR, at_least=0, default=(0, 0))
    dilation = Attr(PAIR, at_least=1, default=(1, 1))
    group = Attr(INT, at_least=1, default=1)
    act = Attr(ACT, default=NONE)

    def check(self) -> None:
        check_activation(self.act)

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        require_same_dtype(self.name, require_numbers(self.name, x), w, bias)
        n, c, h, width = x.shape
        wc, per_group, kh, kw = w.shape
        if wc != c or c % self.group:
            raise VerifyError("conv_transpose2d: channels of input and weight do not fit", got=f"input {x}, weight {w}")
        m = per_group * self.group
        if bias is not None and bias.shape != (m,):
            raise VerifyError("conv_transpose2d: bias", expected=f"f32[{m}]", got=str(bias))
        top, left, bottom, right = self.pads
        out_h = (h - 1) * self.stride[0] + (kh - 1) * self.dilation[0] + 1 - top - bottom + self.output_pads[0]
        out_w = (width - 1) * self.stride[1] + (kw - 1) * self.dilation[1] + 1 - left - right + self.output_pads[1]
        if out_h < 1 or out_w < 1:
            raise VerifyError("conv_transpose2d: the padding leaves nothing", got=f"{out_h} x {out_w}")
        return TensorType(x.dtype, (n, m, out_h, out_w))

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return inputs[0].elements * math.prod(inputs[1].shape[1:])

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        extras = (len(inputs) - 2) + bool(self.act)
        return 2 * self.macs(inputs, outputs) + extras * outputs[0].elements


class Pool2d(OpDef):
    """A window that slides over each channel."""

    x = Operand(rank=4)
    kernel = Attr(PAIR, at_least=1)
    stride = Attr(PAIR, at_least=1, default=(1, 1))
    pads = Attr(PADS, at_least=0, default=(0, 0, 0, 0), doc="top, left, bottom, right")
    dilation = Attr(PAIR, at_least=1, default=(1, 1))
    rounding = Attr(ROUNDING, default=Rounding.FLOOR)

    def infer(self, x: TensorType) -> TensorType:
        require_numbers(self.name, x)
        n, c, h, w = x.shape
        top, left, bottom, right = self.pads
        kh = (self.kernel[0] - 1) * self.dilation[0] + 1
        kw = (self.kernel[1] - 1) * self.dilation[1] + 1
        out_h = window_size(h, kh, self.stride[0], top, bottom, self.rounding, self.name)
        out_w = window_size(w, kw, self.stride[1], left, right, self.rounding, self.name)
        return TensorType(x.dtype, (n, c, out_h, out_w))


@op("max_pool2d", layouts=Layouts.IMAGE)
class MaxPool2d(Pool2d):
    """Largest value under the window. Taps outside x are skipped, never read as zero; NaN wins.

    A window without a tap inside x gives the lowest value of the type (-inf).
    """

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return outputs[0].elements * self.kernel[0] * self.kernel[1]


@op("avg_pool2d", layouts=Layouts.IMAGE)
class AvgPool2d(Pool2d):
    """Mean of the window over the taps inside x; NaN where there are none.

    With `count_include_pad` the sum is divided by the number of taps inside x and its padding; a tap past the padding
    (a ceil window) counts too when `count_overhang`, as Caffe2 does and ONNX does not.
    """

    count_include_pad = Attr(BOOL, default=False)
    count_overhang = Attr(BOOL, default=False)

    def infer(self, x: TensorType) -> TensorType:
        return super().infer(require_floats(self.name, x))


@op("batch_norm", layouts=Layouts.IMAGE)
class BatchNorm(OpDef):
    """scale * (x - mean) / sqrt(var + eps) + bias, each vector per channel (axis 1)."""

    x = Operand()
    scale = Operand(rank=1)
    bias = Operand(rank=1)
    mean = Operand(rank=1)
    var = Operand(rank=1)
    eps = Attr(FLOAT, default=1e-5)

    def infer(
        self, x: TensorType, scale: TensorType, bias: TensorType, mean: TensorType, var: TensorType
    ) -> TensorType:
        require_same_dtype(self.name, require_floats(self.name, x), scale, bias, mean, var)
        if x.rank < 2:
            raise VerifyError("batch_norm: operand 'x'", expected="rank at least 2", got=str(x))
        for name, vector in (("scale", scale), ("bias", bias), ("mean", mean), ("var", var)):
            if vector.shape != (x.shape[1],):
                raise VerifyError(f"batch_norm: {name}", expected=f"[{x.shape[1]}]", got=str(vector))
        return x

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return 2 * outputs[0].elements


@op("instance_norm")
class InstanceNorm(OpDef):
    """scale * (x - mean) / sqrt(var + eps) + bias; mean and variance over all axes past 1, per image and channel."""

    x = Operand()
    scale = Operand(rank=1)
    bias = Operand(rank=1)
    eps = Attr(FLOAT, default=1e-5)

    def infer(self, x: TensorType, scale: TensorType, bias: TensorType) -> TensorType:
        require_same_dtype(self.name, require_floats(self.name, x), scale, bias)
        for name, vector in (("scale", scale), ("bias", bias)):
            if x.rank < 3 or vector.shape != (x.shape[1],):
                raise VerifyError(f"instance_norm: {name}", expected="one number per channel", got=f"{vector} for {x}")
        return x


@op("lrn", layouts=Layouts.PLAIN)
class Lrn(OpDef):
    """x / (bias + alpha / size * sum of x^2 over `size` neighbouring channels)^beta.

    The neighbours of channel c are c - (size - 1) // 2 to c + size // 2, as far as they exist.
    """

    x = Operand(rank=4)
    size = Attr(INT, at_least=1)
    alpha = Attr(FLOAT, default=1e-4)
    beta = Attr(FLOAT, default=0.75)
    bias = Attr(FLOAT, default=1.0)

    def infer(self, x: TensorType) -> TensorType:
        return require_floats(self.name, x)


@op("softmax")
class Softmax(OpDef):
    """exp(x) over its sum, jointly over all `axes`; the maximum is taken off first."""

    x = Operand()
    axes = Attr(INTS)

    def infer(self, x: TensorType) -> TensorType:
        require_floats(self.name, x)
        distinct = len(set(self.axes)) == len(self.axes)
        if not self.axes or not distinct or any(not 0 <= axis < x.rank for axis in self.axes):
            raise VerifyError("softmax: axes", expected=f"different axes of {x}", got=str(list(self.axes)))
        return x


@op("linear")
class Linear(OpDef):
    """act(x @ w.T + bias): a fully connected layer."""

    x = Operand(rank=2, doc="[rows, K]")
    w = Operand(rank=2, doc="[N, K]")
    bias = Operand(rank=1, optional=True)
    act = Attr(ACT, default=NONE)

    def check(self) -> None:
        check_activation(self.act)

    def infer(self, x: TensorType, w: TensorType, bias: TensorType | None = None) -> TensorType:
        require_same_dtype(self.name, require_numbers(self.name, x), w, bias)
        if x.shape[1] != w.shape[1]:
            raise VerifyError("linear: inner dimensions differ", got=f"{x} and {w}")
        if bias is not None and bias.shape != (w.shape[0],):
            raise VerifyError("linear: bias", expected=f"f32[{w.shape[0]}]", got=str(bias))
        return TensorType(x.dtype, (x.shape[0], w.shape[0]))

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return outputs[0].elements * inputs[1].shape[1]

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        extras = (len(inputs) - 2) + bool(self.act)
        return 2 * self.macs(inputs, outputs) + extras * outputs[0].elements


@op("matmul")
class MatMul(OpDef):
    """Matrix product of the last two axes, leading axes broadcast; `trans_a`/`trans_b` swap the last two first."""

    a = Operand()
    b = Operand()
    trans_a = Attr(BOOL, default=False)
    trans_b = Attr(BOOL, default=False)

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        from sqzc.ir.ops.elementwise import broadcast_shapes

        require_same_dtype(self.name, require_numbers(self.name, a), b)
        if a.rank < 2 or b.rank < 2:
            raise VerifyError("matmul: operands", expected="rank at least 2", got=f"{a} and {b}")
        rows, inner = (a.shape[-1], a.shape[-2]) if self.trans_a else (a.shape[-2], a.shape[-1])
        other, columns = (b.shape[-1], b.shape[-2]) if self.trans_b else (b.shape[-2], b.shape[-1])
        if inner != other:
            raise VerifyError("matmul: inner dimensions differ", got=f"{a} and {b}")
        return TensorType(a.dtype, (*broadcast_shapes(a.shape[:-2], b.shape[:-2]), rows, columns))

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return outputs[0].elements * inputs[0].shape[-2 if self.trans_a else -1]

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        return 2 * self.macs(inputs, outputs)
