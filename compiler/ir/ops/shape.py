"""Ops that move, select or reduce elements."""

from __future__ import annotations

import enum
import math

from sqzc.diagnostics import VerifyError
from sqzc.ir.opdef import BOOL, FLOAT, INT, INTS, Attr, Layouts, OpDef, Operand, enum_kind, op
from sqzc.ir.ops.rules import require_numbers
from sqzc.ir.types import DType, TensorType


def _axes_of(op_name: str, axes: tuple[int, ...], x: TensorType) -> None:
    if len(set(axes)) != len(axes) or any(not 0 <= axis < x.rank for axis in axes):
        raise VerifyError(f"{op_name}: axes", expected=f"different axes of {x}", got=str(list(axes)))


@op("relayout", layouts=Layouts.CONVERT)
class Relayout(OpDef):
    """x itself, in the memory layout of the result type."""

    x = Operand(rank=4)

    def infer(self, x: TensorType) -> TensorType:
        return x


@op("reshape")
class Reshape(OpDef):
    """The same elements in row-major order under another shape."""

    x = Operand()
    shape = Attr(INTS, at_least=0)

    def infer(self, x: TensorType) -> TensorType:
        if math.prod(self.shape) != x.elements:
            raise VerifyError("reshape: element count", expected=str(x.elements), got=f"shape {list(self.shape)}")
        return x.with_shape(*self.shape)


@op("transpose")
class Transpose(OpDef):
    """Axis i of the result is axis perm[i] of x."""

    x = Operand()
    perm = Attr(INTS)

    def infer(self, x: TensorType) -> TensorType:
        if sorted(self.perm) != list(range(x.rank)):
            raise VerifyError("transpose: perm", expected=f"a permutation of {x.rank} axes", got=str(list(self.perm)))
        return x.with_shape(*(x.shape[axis] for axis in self.perm))


@op("concat", layouts=Layouts.SAME)
class Concat(OpDef):
    """The operands one after the other along an axis.

    `placed`: a promise kept by the plan that every operand is made inside its slice of the result, so that nothing is
    copied. It does not change the value.
    """

    xs = Operand(variadic=True)
    axis = Attr(INT, at_least=0)
    placed = Attr(BOOL, default=False)

    def infer(self, *xs: TensorType) -> TensorType:
        if not xs:
            raise VerifyError("concat: no operands", expected="at least one")
        first = xs[0]
        if self.axis >= first.rank:
            raise VerifyError("concat: axis", expected=f"below {first.rank}", got=str(self.axis))
        for other in xs[1:]:
            alike = other.dtype == first.dtype and other.rank == first.rank
            if not alike or any(
                a != b for i, (a, b) in enumerate(zip(first.shape, other.shape, strict=True)) if i != self.axis
            ):
                raise VerifyError(f"concat along axis {self.axis}: shapes do not fit", got=f"{first} and {other}")
        total = sum(x.shape[self.axis] for x in xs)
        return first.with_shape(*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])


@op("slice")
class Slice(OpDef):
    """Along axis i: elements starts[i], starts[i] + steps[i], ... up to sizes[i] of them. Steps may be negative."""

    x = Operand()
    starts = Attr(INTS)
    sizes = Attr(INTS, at_least=0)
    steps = Attr(INTS, default=(), doc="ones when empty")

    def infer(self, x: TensorType) -> TensorType:
        steps = self.steps or (1,) * x.rank
        if not len(self.starts) == len(self.sizes) == len(steps) == x.rank or 0 in steps:
            raise VerifyError("slice: starts, sizes and steps", expected=f"{x.rank} numbers each, no zero step")
        for dim, start, size, step in zip(x.shape, self.starts, self.sizes, steps, strict=True):
            last = start + (size - 1) * step
            if size and not (0 <= start < dim and 0 <= last < dim):
                raise VerifyError(f"slice: {start}..{last} leaves {x}")
        return x.with_shape(*self.sizes)


class PadMode(enum.Enum):
    """What stands in the padding: a constant, the edge element, a mirror image without or with wrapping around."""

    CONSTANT = "constant"
    EDGE = "edge"
    REFLECT = "reflect"
    WRAP = "wrap"


@op("pad")
class Pad(OpDef):
    """x with elements added before and after along every axis (`pads`: all befores, then all afters)."""

    x = Operand()
    pads = Attr(INTS, at_least=0)
    mode = Attr(enum_kind(PadMode), default=PadMode.CONSTANT)
    value = Attr(FLOAT, default=0.0)

    def infer(self, x: TensorType) -> TensorType:
        if len(self.pads) != 2 * x.rank:
            raise VerifyError("pad: pads", expected=f"{2 * x.rank} numbers", got=str(len(self.pads)))
        for dim, before, after in zip(x.shape, self.pads, self.pads[x.rank :], strict=False):
            if self.mode is PadMode.REFLECT and max(before, after) >= max(dim, 1):
                raise VerifyError(f"pad: a mirror image of {max(before, after)} elements", got=str(x))
            if self.mode is not PadMode.CONSTANT and dim == 0 and before + after:
                raise VerifyError(f"pad: mode {self.mode.value} has nothing to repeat", got=str(x))
        if not x.dtype.is_float and not float(self.value).is_integer():
            raise VerifyError(f"pad: 'value' of {x}", expected="a whole number", got=f"{self.value:g}")
        return x.with_shape(*(d + a + b for d, a, b in zip(x.shape, self.pads, self.pads[x.rank :], strict=False)))


@op("expand")
class Expand(OpDef):
    """x broadcast to a shape, by numpy's rule."""

    x = Operand()
    shape = Attr(INTS, at_least=0)

    def infer(self, x: TensorType) -> TensorType:
        from sqzc.ir.ops.elementwise import broadcast_shapes

        if broadcast_shapes(x.shape, self.shape) != self.shape:
            raise VerifyError(f"expand: {x} does not broadcast to {list(self.shape)}")
        return x.with_shape(*self.shape)


class Reduce(OpDef):
    """One number from all elements along `axes`."""

    x = Operand()
    axes = Attr(INTS)
    keepdims = Attr(BOOL, default=True)

    def infer(self, x: TensorType) -> TensorType:
        _axes_of(self.name, self.axes, require_numbers(self.name, x))
        dims = [1 if i in self.axes else d for i, d in enumerate(x.shape) if self.keepdims or i not in self.axes]
        return x.with_shape(*dims)


@op("reduce_sum")
class ReduceSum(Reduce):
    """Sum; zero for nothing."""


@op("reduce_mean")
class ReduceMean(Reduce):
    """Mean; NaN for nothing. Integers truncate toward zero."""


class Extreme(Reduce):
    """A reduction that nothing has no result for."""

    def infer(self, x: TensorType) -> TensorType:
        result = super().infer(x)
        if any(x.shape[axis] == 0 for axis in self.axes) and result.elements:
            raise VerifyError(f"{self.name}: nothing to choose from", got=str(x))
        return result


@op("reduce_max")
class ReduceMax(Extreme):
    """Maximum; NaN wins."""


@op("reduce_min")
class ReduceMin(Extreme):
    """Minimum; NaN wins."""


@op("reduce_prod")
class ReduceProd(Reduce):
    """Product; one for nothing."""


class ArgReduce(OpDef):
    """Position along one axis, i64. As in Caffe2, a NaN is chosen only where it comes first."""

    x = Operand()
    axis = Attr(INT, at_least=0)
    keepdims = Attr(BOOL, default=True)
    last = Attr(BOOL, default=False, doc="of equals the last, not the first")

    def infer(self, x: TensorType) -> TensorType:
        _axes_of(self.name, (self.axis,), require_numbers(self.name, x))
        if x.shape[self.axis] == 0:
            raise VerifyError(f"{self.name}: nothing to choose from", got=str(x))
        dims = [1 if i == self.axis else d for i, d in enumerate(x.shape) if self.keepdims or i != self.axis]
        return TensorType(DType.I64, tuple(dims))


@op("argmax")
class ArgMax(ArgReduce):
    """Position of the largest element; of equals the first."""


@op("argmin")
class ArgMin(ArgReduce):
    """Position of the smallest element; of equals the first."""


@op("topk")
class TopK(OpDef):
    """The k largest (or smallest) elements along the last axis in order, and their positions; of equals the first.

    NaN counts as larger than every number.
    """

    x = Operand()
    k = Attr(INT, at_least=1)
    largest = Attr(BOOL, default=True)

    def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
        if x.rank < 1 or self.k > x.shape[-1]:
            raise VerifyError("topk: k", expected=f"at most the last dimension of {x}", got=str(self.k))
        shape = (*x.shape[:-1], self.k)
        return TensorType(x.dtype, shape), TensorType(DType.I64, shape)


@op("gather")
class Gather(OpDef):
    """Slices of x along an axis, chosen by index; a negative index counts from the end."""

    x = Operand()
    indices = Operand(dtype=DType.I64)
    axis = Attr(INT, at_least=0, default=0)

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        _axes_of(self.name, (self.axis,), x)
        return x.with_shape(*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :])


class ResizeMode(enum.Enum):
    """How a resized sample is made from its neighbours."""

    NEAREST = "nearest"
    LINEAR = "linear"


class Coordinates(enum.Enum):
    """Where output sample i of n reads an input axis of m samples.

    ASYMMETRIC: i / scale. ALIGN_CORNERS: i * (m - 1) / (n - 1). HALF_PIXEL: (i + 1/2) / scale - 1/2. NEAREST takes the
    floor of the position.
    """

    ASYMMETRIC = "asymmetric"
    ALIGN_CORNERS = "align_corners"
    HALF_PIXEL = "half_pixel"


@op("resize2d")
class Resize2d(OpDef):
    """x at another height and width; positions outside are clamped to the edge.

    Scales and positions are f32 numbers, as in the runtimes: whether 17 / 1.7 is below 10 decides what NEAREST reads.
    """

    x = Operand(rank=4)
    size = Attr(INTS, at_least=1, doc="height, width")
    mode = Attr(enum_kind(ResizeMode), default=ResizeMode.NEAREST)
    coordinates = Attr(enum_kind(Coordinates), default=Coordinates.ASYMMETRIC)
    scale_h = Attr(FLOAT, default=0.0, doc="output over input height where it differs from the sizes' ratio; else 0")
    scale_w = Attr(FLOAT, default=0.0, doc="the same for the width")

    def infer(self, x: TensorType) -> TensorType:
        if len(self.size) != 2:
            raise VerifyError("resize2d: size", expected="height, width", got=str(list(self.size)))
        return x.with_shape(x.shape[0], x.shape[1], *self.size)
