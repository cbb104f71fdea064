"""Arithmetic and comparison of two blobs, and sums, means and maxima of any number.

With `broadcast=1` the second blob lines up with the axes of the first that start at `axis` (with its last ones where no
axis is given) and stretches over the rest. Without it numpy's rule holds and `axis` means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sqzc.frontends.caffe2.env import NameEnv, Perm
from sqzc.frontends.caffe2.table import ANY, OpView, lift
from sqzc.ir import Builder, OpDef, Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.types import DType

_ARITHMETIC: dict[str, Callable[[], OpDef]] = {"Add": ew.Add, "Sub": ew.Sub, "Mul": ew.Mul, "Div": ew.Div}
# (declaration, whether the operands change places, whether the answer is negated)
_COMPARISONS: dict[str, tuple[Callable[[], OpDef], bool, bool]] = {
    "EQ": (ew.Equal, False, False),
    "NE": (ew.Equal, False, True),
    "LT": (ew.Less, False, False),
    "LE": (ew.LessEqual, False, False),
    "GT": (ew.Less, True, False),
    "GE": (ew.LessEqual, True, False),
}


@lift(*_ARITHMETIC, inputs=2)
def lift_arithmetic(op: OpView, env: NameEnv, b: Builder) -> None:
    """Add, Sub, Mul, Div."""
    lift_with_broadcast(op, env, b, _ARITHMETIC[op.type]())


@lift(*_COMPARISONS, inputs=2)
def lift_comparison(op: OpView, env: NameEnv, b: Builder) -> None:
    """Comparisons give truth values."""
    left, right, perm = broadcast_operands(op, env)
    declare, swap, negate = _COMPARISONS[op.type]
    operands = (right, left) if swap else (left, right)
    y = b.add(declare(), *operands, source=op.source)
    if negate:
        y = b.add(ew.Equal(), y, env.number("false", 0, y.type), source=op.source)
    env.bind(op.out, y, perm)


@lift("And", "Or", "Xor", inputs=2)
def lift_logic(op: OpView, env: NameEnv, b: Builder) -> None:
    """Logic on truth values."""
    left, right, perm = broadcast_operands(op, env)
    if left.type.dtype is not DType.BOOL or right.type.dtype is not DType.BOOL:
        raise op.error(f"{op.type} of something other than truth values", got=f"{left.type} and {right.type}")
    if op.type == "Xor":
        same = b.add(ew.Equal(), left, right, source=op.source)
        y = b.add(ew.Equal(), same, env.number("false", 0, same.type), source=op.source)
    else:
        chosen = (right, left) if op.type == "And" else (left, right)
        y = b.add(ew.Where(), left, *chosen, source=op.source)
    env.bind(op.out, y, perm)


def lift_with_broadcast(op: OpView, env: NameEnv, b: Builder, ir: OpDef) -> None:
    """Lifts a binary operator with either broadcasting rule."""
    left, right, perm = broadcast_operands(op, env)
    env.bind(op.out, b.add(ir, left, right, source=op.source), perm)


def broadcast_operands(op: OpView, env: NameEnv) -> tuple[Value, Value, Perm]:
    """Both operands so that numpy's rule gives Caffe2's answer, and the order of the result's axes."""
    first, second = op.inputs
    a_shape, b_shape = env.shape(first), env.shape(second)
    legacy = op.args.flag("broadcast", False)
    axis, axis_letter = op.args.integer("axis", -1), op.args.text("axis_str", "")
    if legacy:
        if axis_letter:
            axis = _axis_of_letter(op, axis_letter)
        b_shape = _lined_up(op, a_shape, b_shape, axis)
    perm = _common_perm(env, first, second, max(len(a_shape), len(b_shape)))
    rank = len(perm)
    a_shape, b_shape = ((1,) * (rank - len(shape)) + shape for shape in (a_shape, b_shape))
    if perm == tuple(range(rank)) and not legacy:
        return env.use(first), env.use(second), perm
    return env.aligned(first, a_shape, perm), env.aligned(second, b_shape, perm), perm


def _axis_of_letter(op: OpView, letter: str) -> int:
    order = op.order()
    if len(letter) != 1 or letter not in order:
        raise op.error(f"axis_str '{letter}'", argument="axis_str", expected=f"a letter of {order}")
    return order.index(letter)


def _lined_up(op: OpView, a_shape: tuple[int, ...], b_shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The second blob's shape with ones so that it lines up with the first from `axis` on."""
    rank = len(a_shape)
    if math.prod(b_shape) == 1:
        return (1,) * rank
    start = rank - len(b_shape) if axis == -1 else axis
    if start < 0 or start + len(b_shape) > rank:
        raise op.error(
            f"a blob of shape {list(b_shape)} does not line up with one of shape {list(a_shape)} at axis {axis}",
            argument="axis",
        )
    wide = [i for i, dim in enumerate(b_shape) if dim != 1]
    inner = range(wide[0], wide[-1] + 1)
    if any(b_shape[i] != a_shape[start + i] for i in inner):
        raise op.error(
            f"a blob of shape {list(b_shape)} does not broadcast over one of shape {list(a_shape)}",
            expected=f"dimensions {list(a_shape[start : start + len(b_shape)])}, or ones outside them",
        )
    return (1,) * start + b_shape + (1,) * (rank - start - len(b_shape))


def _common_perm(env: NameEnv, first: str, second: str, rank: int) -> Perm:
    """The axis order of the first operand of full rank that has one of its own, else the plain one."""
    for name in (first, second):
        if len(env.shape(name)) == rank and not env.is_known(name):
            bound = env.raw(name)
            if not bound.is_plain:
                return bound.perm
    return tuple(range(rank))


@lift("Sum", "SumInt", "Mean", "Max", "Min", inputs=(1, ANY))
def lift_variadic(op: OpView, env: NameEnv, b: Builder) -> None:
    """Elementwise over any number of blobs of one shape: these never broadcast."""
    shapes = [env.shape(name) for name in op.inputs]
    if len(set(shapes)) > 1:
        raise op.error(f"{op.type} of blobs of different shapes", got=", ".join(str(list(s)) for s in shapes))
    perm = env.raw(op.inputs[0]).perm
    values = [env.aligned(name, shapes[0], perm) for name in op.inputs]
    ir: OpDef = ew.Maximum() if op.type == "Max" else ew.Minimum() if op.type == "Min" else ew.Add()
    total = values[0] if len(values) > 1 else b.add(ew.Identity(), values[0], source=op.source)
    for value in values[1:]:
        total = b.add(ir, total, value, source=op.source)
    if op.type == "Mean" and len(values) > 1:
        total = b.add(ew.Mul(), total, env.number("share", 1.0 / len(values), total.type), source=op.source)
    env.bind(op.out, total, perm)


@lift("WeightedSum", inputs=(2, ANY))
def lift_weighted_sum(op: OpView, env: NameEnv, b: Builder) -> None:
    """X0 * w0 + X1 * w1 + ..., each weight one number."""
    if len(op.inputs) % 2:
        raise op.error("WeightedSum has a blob without a weight", expected="pairs of blob and weight")
    total: Value | None = None
    for name, weight in zip(op.inputs[::2], op.inputs[1::2], strict=True):
        if math.prod(env.shape(weight)) != 1:
            raise op.error(f"weight '{weight}' is not one number", got=f"shape {list(env.shape(weight))}")
        if env.shape(name) != env.shape(op.inputs[0]):
            raise op.error("WeightedSum of blobs of different shapes")
        part = b.add(ew.Mul(), env.use(name), env.reshape(env.use(weight), ()), source=op.source)
        total = part if total is None else b.add(ew.Add(), total, part, source=op.source)
    assert total is not None
    env.bind(op.out, total)


@lift("Where", inputs=3)
def lift_where(op: OpView, env: NameEnv, b: Builder) -> None:
    """Chooses element by element."""
    if op.args.flag("broadcast_on_rows", False):
        raise op.unsupported("Where with broadcast_on_rows")
    if len({env.shape(name) for name in op.inputs}) > 1:
        raise op.error("Where of blobs of different shapes")
    env.bind(op.out, b.add(ew.Where(), *(env.use(name) for name in op.inputs), source=op.source))
