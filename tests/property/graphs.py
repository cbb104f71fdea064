"""Random graphs: 3 to 30 ops, odd sizes, branches, values with many users, several outputs.

`graphs()` is the Hypothesis strategy; `seeded_graph(seed)` makes the same kind of graph without Hypothesis, for long
runs and other tools. Ops with jumps (floor, sign, argmax...) are left out, so that results are continuous in the
weights and two correct compilations differ by rounding only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from sqzc.ir import Builder, Graph, Value
from sqzc.ir.constant import Array
from sqzc.ir.opdef import OpDef, registry
from sqzc.ir.ops import elementwise, nn, shape
from sqzc.ir.ops.activation import Activation
from sqzc.ir.types import f32
from sqzc.ir.verifier import verify

T = TypeVar("T")
Pick = Callable[[int, int], int]

MAX_ELEMENTS = 4096
SMOOTH = ("relu", "sigmoid", "tanh", "leaky_relu", "clip", "elu", "abs", "neg", "hard_sigmoid", "swish", "softplus")
SAME_SHAPE = (elementwise.Add, elementwise.Sub, elementwise.Mul, elementwise.Maximum, elementwise.Minimum)


class Maker:
    """Builds one graph; every decision is a whole number from `pick(low, high)`, small ones for the plain cases."""

    def __init__(self, pick: Pick, max_ops: int = 30) -> None:
        self.pick = pick
        self.graph = Graph("random")
        self.builder = Builder(self.graph)
        self.max_ops = max_ops
        self.values: list[Value] = []
        self.count = 0

    # -- decisions ------------------------------------------------------------------------------------------------

    def choose(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.pick(0, len(items) - 1)]

    def chance(self, one_in: int) -> bool:
        """True once in so many times."""
        return self.pick(0, one_in - 1) == one_in - 1

    def use(self, rank: int = 4) -> Value | None:
        """A value of that rank, often a recent one."""
        fitting = [value for value in self.values if value.type.rank == rank]
        if not fitting:
            return None
        back = self.pick(0, len(fitting) - 1) if self.chance(4) else self.choose([0, 0, 0, 1])
        return fitting[max(-1 - back, -len(fitting))]

    def weights(self, *dims: int, low: float = -1.0, high: float = 1.0, fan: int = 1) -> Value:
        """A constant of numbers between the bounds, over the root of `fan`."""
        rng = np.random.default_rng([self.pick(0, 999), *dims])
        data: Array = (rng.uniform(low, high, dims) / np.sqrt(fan)).astype(np.float32)
        return self.builder.constant(f"k{len(self.graph.constants)}", data)

    def add(self, op: OpDef, *inputs: Value) -> Value:
        """One op, its result called after its number."""
        self.count += 1
        value = self.builder.add(op, *inputs, source=(f"{op.name}_{self.count}",), name=f"v{self.count}")
        if value.type.elements <= MAX_ELEMENTS:
            self.values.append(value)
        return value

    # -- ops ------------------------------------------------------------------------------------------------------

    def activation(self) -> Activation:
        """An activation to fuse, mostly none."""
        return registry["relu"]().activation() if self.chance(4) else Activation()  # type: ignore[attr-defined]

    def conv(self) -> None:
        """conv2d of any kind: grouped, depthwise, dilated, strided, asymmetrically padded, with residual."""
        x = self.use()
        if x is None:
            return
        c = x.type.shape[1]
        group = self.choose([1, 1, c, *(g for g in (2, 3) if c % g == 0)])
        m = c if group == c else group * self.choose([1, 2, 3, 4, 8])
        kernel = (self.choose([1, 3, 2]), self.choose([1, 3, 2]))
        attrs: dict[str, Any] = {"group": group, "act": self.activation()}
        attrs["stride"] = (self.pick(1, 2), self.pick(1, 2))
        attrs["pads"] = tuple(self.pick(0, 2) for _ in range(4)) if self.chance(2) else (0, 0, 0, 0)
        attrs["dilation"] = (1, self.pick(1, 2))
        w = self.weights(m, c // group, *kernel, fan=c // group * kernel[0] * kernel[1])
        inputs = [x, w]
        if not self.chance(3):
            inputs.append(self.weights(m))
        self.try_add(nn.Conv2d(**attrs), *inputs)

    def block(self) -> None:
        """What networks are made of: shift, convolution of one size, norm, residual sum, activation, each or not."""
        x = self.use()
        if x is None:
            return
        c, read = x.type.shape[1], x
        if self.chance(3):
            op = self.choose([elementwise.Sub, elementwise.Mul])
            read = self.add(op(), x, self.weights(self.choose([1, c]), 1, 1, low=0.5, high=2.0))
        k = self.choose([1, 3])
        y = self.add(nn.Conv2d(pads=(k // 2,) * 4), read, self.weights(c, c, k, k, fan=c * k * k))
        if self.chance(2):
            norms = [self.weights(c), self.weights(c), self.weights(c), self.weights(c, low=0.5, high=2.0)]
            y = self.add(nn.BatchNorm(), y, *norms)
        if self.chance(2):
            y = self.add(elementwise.Add(), *((x, y) if self.chance(2) else (y, x)))
        if self.chance(2):
            self.add(registry[self.choose(SMOOTH)](), y)

    def shortcut(self) -> None:
        """A convolution of single pixels with a stride, for some filters or many."""
        x = self.use()
        if x is None:
            return
        c = x.type.shape[1]
        w = self.weights(self.choose([8, 64, 1024]), c, 1, 1, fan=c)
        self.try_add(nn.Conv2d(stride=(2, self.pick(1, 3)), act=self.activation()), x, w)

    def sandwich(self) -> None:
        """Transposes around something that does not need them, as nets from channels-last frameworks have."""
        x = self.use()
        if x is None:
            return
        y = self.add(shape.Transpose(perm=(0, 2, 3, 1)), x)
        for _ in range(self.pick(0, 2)):
            y = self.add(registry[self.choose(SMOOTH)](), y)
        if self.chance(2):
            y = self.add(elementwise.Add(), y, self.weights(x.type.shape[1]))
        if self.chance(2):
            y = self.add(shape.Concat(axis=3), y, y)
        self.add(shape.Transpose(perm=(0, 3, 1, 2)), y)

    def conv_transpose(self) -> None:
        """conv_transpose2d."""
        x = self.use()
        if x is None or x.type.elements > 512:
            return
        c = x.type.shape[1]
        group = self.choose([1, *(g for g in (2, c) if c % g == 0)])
        w = self.weights(c, self.pick(1, 4), self.pick(1, 3), self.pick(1, 3), fan=c)
        inputs = [x, w, self.weights(w.type.shape[1] * group)][: self.pick(2, 3)]
        self.try_add(
            nn.ConvTranspose2d(group=group, stride=(self.pick(1, 2), 1), pads=(0, self.pick(0, 1), 0, 0)), *inputs
        )

    def pool(self) -> None:
        """max_pool2d or avg_pool2d in all their variants, or a global average."""
        x = self.use()
        if x is None:
            return
        if self.chance(5):
            self.try_add(nn.AvgPool2d(kernel=x.type.shape[2:]), x)
            return
        kernel = (self.pick(1, 3), self.pick(1, 3))
        attrs: dict[str, Any] = {"kernel": kernel, "stride": (self.pick(1, 2), self.pick(1, 3))}
        attrs["rounding"] = self.choose([nn.Rounding.FLOOR, nn.Rounding.CEIL])
        attrs["pads"] = tuple(self.pick(0, kernel[axis % 2] - 1) for axis in range(4))
        if self.chance(2):
            self.try_add(nn.MaxPool2d(**attrs), x)
        else:
            self.try_add(nn.AvgPool2d(count_include_pad=self.chance(2), count_overhang=self.chance(2), **attrs), x)

    def unary(self) -> None:
        """An activation, or an op that does nothing."""
        x = self.use(self.choose([4, 4, 4, 2]))
        if x is not None:
            name = self.choose([*SMOOTH, "dropout", "identity"])
            attrs = {"lo": -1.0, "hi": 1.0} if name == "clip" else {}
            self.add(registry[name](**attrs), x)

    def binary(self) -> None:
        """Arithmetic of two values of one shape; shapes are made to meet by chance only."""
        a = self.use()
        if a is None:
            return
        others = [value for value in self.values if value.type == a.type]
        operands = [a, others[-1 - self.pick(0, len(others) - 1)]]
        if self.chance(2):
            operands.reverse()
        self.add(self.choose(SAME_SHAPE)(), *operands)

    def with_constant(self) -> None:
        """Arithmetic with one number, one per channel, or a whole image of them."""
        x = self.use(self.choose([4, 4, 4, 2]))
        if x is None:
            return
        dims = x.type.shape
        per_channel = [(1,), (dims[1], 1, 1), (1, dims[1], 1, 1), dims] if len(dims) == 4 else [(1,), (dims[1],)]
        constant = self.weights(*self.choose(per_channel), low=0.5, high=2.0)
        if self.chance(6):
            constant = self.builder.add(elementwise.Add(), constant, self.weights(1, low=0.5, high=1.0))
        if self.chance(2):
            self.add(self.choose([elementwise.Add, elementwise.Sub, elementwise.Mul])(), constant, x)
        else:
            op = self.choose([elementwise.Add, elementwise.Sub, elementwise.Mul, elementwise.Div])
            self.add(op(), x, constant)

    def norm(self) -> None:
        """batch_norm, prelu, lrn or softmax."""
        x = self.use()
        if x is None:
            return
        c = x.type.shape[1]
        kind = self.pick(0, 4)
        if kind <= 1:
            positive = {"low": 0.5, "high": 2.0}
            self.add(nn.BatchNorm(), x, self.weights(c), self.weights(c), self.weights(c), self.weights(c, **positive))
        elif kind == 2:
            self.add(elementwise.Prelu(), x, self.weights(self.choose([1, c])))
        elif kind == 3:
            self.add(nn.Lrn(size=3), x)
        else:
            self.add(nn.Softmax(axes=(1,)), x)

    def concat(self) -> None:
        """A concat of two or three values that fit along an axis."""
        a = self.use()
        if a is None:
            return
        axis = self.choose([1, 1, 1, 2, 3])
        rest = [d for i, d in enumerate(a.type.shape) if i != axis]
        fitting = [
            v for v in self.values if v.type.rank == 4 and [d for i, d in enumerate(v.type.shape) if i != axis] == rest
        ]
        self.try_add(shape.Concat(axis=axis), a, *(self.choose(fitting) for _ in range(self.pick(0, 2))))

    def slice(self) -> None:
        """A slice along one axis, or the two halves of a split."""
        x = self.use()
        if x is None:
            return
        axis = self.choose([1, 2, 3])
        dims = x.type.shape
        start = self.pick(0, dims[axis] - 1)
        size = self.pick(1, dims[axis] - start)
        first = tuple(start if i == axis else 0 for i in range(4))
        self.add(shape.Slice(starts=first, sizes=tuple(size if i == axis else d for i, d in enumerate(dims))), x)
        if start and self.chance(2):
            self.add(
                shape.Slice(starts=(0, 0, 0, 0), sizes=tuple(start if i == axis else d for i, d in enumerate(dims))), x
            )

    def pad(self) -> None:
        """A constant border."""
        x = self.use()
        if x is None:
            return
        border = tuple(self.pick(0, 2) for _ in range(4))
        value = self.choose([0.0, 0.0, float("-inf"), 1.5])
        op = shape.Pad(pads=(0, 0, *border[:2], 0, 0, *border[2:]), value=value)
        if value == float("-inf"):
            # Infinity is for max pools: anything else would make NaN.
            y = self.builder.add(op, x)
            self.try_add(nn.MaxPool2d(kernel=(3, 3), rounding=self.choose([nn.Rounding.FLOOR, nn.Rounding.CEIL])), y)
        else:
            self.add(op, x)

    def move(self) -> None:
        """Transposes there and maybe back, reshapes, resizes."""
        x = self.use()
        if x is None:
            return
        kind = self.pick(0, 3)
        if kind == 0:
            perm = self.choose([(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2)])
            self.add(shape.Transpose(perm=perm), x)
        elif kind == 1:
            self.add(shape.Reshape(shape=(x.type.shape[0], x.type.elements // x.type.shape[0])), x)
        elif kind == 2:
            self.add(shape.ReduceMean(axes=(2, 3), keepdims=not self.chance(2)), x)
        else:
            _, _, h, w = x.type.shape
            self.try_add(shape.Resize2d(size=(h * self.pick(1, 2), w)), x)

    def linear(self) -> None:
        """A fully connected layer."""
        x = self.use(2)
        if x is not None:
            n, k = self.choose([1, 5, 10]), x.type.shape[1]
            inputs = [x, self.weights(n, k, fan=k), self.weights(n)]
            self.add(nn.Linear(act=self.activation()), *inputs[: self.pick(2, 3)])

    def try_add(self, op: OpDef, *inputs: Value) -> Value | None:
        """Adds the op unless its window does not fit or its result would be too large."""
        from sqzc.diagnostics import VerifyError

        try:
            (result,) = op.result_types([value.type for value in inputs])
        except VerifyError:
            return None
        return self.add(op, *inputs) if 0 < result.elements <= MAX_ELEMENTS else None

    # -- the whole ------------------------------------------------------------------------------------------------

    def make(self) -> Graph:
        """The finished graph."""
        dims = (self.choose([1, 1, 1, 2]), self.choose([3, 1, 4, 8, 16, 24]), self.pick(1, 9), self.pick(1, 9))
        self.values.append(self.graph.add_input("x", f32(*dims)))
        if self.chance(3):
            self.values.append(self.graph.add_input("z", f32(*dims)))
        kinds = [self.conv, self.unary, self.with_constant, self.binary, self.pool, self.norm, self.concat, self.slice]
        kinds += [self.pad, self.move, self.linear, self.conv_transpose, self.conv, self.unary, self.with_constant]
        kinds += [self.block, self.block, self.block, self.sandwich, self.shortcut]
        wanted = self.pick(3, self.max_ops)
        for _ in range(4 * wanted):
            if self.count >= wanted:
                break
            self.choose(kinds)()
        # Leaves are outputs, one in eight of them is dead code instead; now and then an inner value is an output too.
        leaves = [value for value in self.values if not value.users and not self.chance(8)]
        outputs = leaves or self.values[-1:]
        if self.chance(4):
            outputs.append(self.choose([value for value in self.values if value not in outputs] or outputs))
        for index, value in enumerate(outputs):
            self.graph.add_output(f"y{index}", value)
        verify(self.graph)
        return self.graph


@st.composite
def graphs(draw: st.DrawFn, max_ops: int = 30) -> Graph:
    """Random verified graphs with inputs `x` and maybe `z`, and outputs `y0`, `y1`..."""
    return Maker(lambda low, high: draw(st.integers(low, high)), max_ops).make()


def seeded_graph(seed: int, max_ops: int = 30) -> Graph:
    """The same kind of graph from a seed."""
    return Maker(random.Random(seed).randint, max_ops).make()


def inputs_for(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """An array per input of the graph, between -2 and 2."""
    rng = np.random.default_rng(seed)
    return {v.name: rng.uniform(-2, 2, v.type.shape).astype(v.type.dtype.numpy) for v in graph.inputs}
