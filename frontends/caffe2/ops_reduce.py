"""Reductions and searches along axes."""

from __future__ import annotations

import math

from sqzc.frontends.caffe2.env import NameEnv, inverse
from sqzc.frontends.caffe2.ops_elementwise import canonical_axis
from sqzc.frontends.caffe2.table import OpView, lift
from sqzc.ir import Builder, Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops import shape as sh

_REDUCTIONS: dict[str, type[sh.Reduce]] = {
    "Sum": sh.ReduceSum,
    "Mean": sh.ReduceMean,
    "Max": sh.ReduceMax,
    "Min": sh.ReduceMin,
}


@lift("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
def lift_reduce(op: OpView, env: NameEnv, b: Builder) -> None:
    """Over `axes`, all of them by default; reduced axes stay as ones unless keepdims is 0."""
    bound = env.raw(op.inputs[0])
    rank = len(bound.perm)
    given = op.args.ints("axes")
    axes = range(rank) if not given else [canonical_axis(op, axis, rank, "axes") for axis in given]
    if len(set(axes)) != len(axes):
        raise op.error(f"axes {list(axes)} name one twice", argument="axes")
    keepdims = op.args.flag("keepdims", True)
    if not keepdims:
        # The axes that are left would have to be numbered anew; a blob in its own axes needs no care.
        value = env.use(op.inputs[0])
        env.bind(op.out, _reduced(op, b, value, tuple(sorted(axes)), False))
        return
    in_value = tuple(sorted(bound.perm[axis] for axis in axes))
    env.bind(op.out, _reduced(op, b, bound.value, in_value, True), bound.perm)


def _reduced(op: OpView, b: Builder, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    kind = op.type.removeprefix("Reduce")
    if kind == "L1":
        x = b.add(ew.Abs(), x, source=op.source)
    elif kind == "L2":
        x = b.add(ew.Mul(), x, x, source=op.source)
    y = b.add(_REDUCTIONS.get(kind, sh.ReduceSum)(axes=axes, keepdims=keepdims), x, source=op.source)
    return b.add(ew.Sqrt(), y, source=op.source) if kind == "L2" else y


@lift(*(f"Reduce{end}{kind}" for end in ("Back", "Front") for kind in ("Sum", "Mean", "Max")), inputs=(1, 2))
def lift_reduce_end(op: OpView, env: NameEnv, b: Builder) -> None:
    """Over the last or first `num_reduce_dim` axes, which disappear."""
    if len(op.inputs) == 2:
        raise op.unsupported(f"{op.type} with lengths")
    x = env.use(op.inputs[0])
    count = op.args.integer("num_reduce_dim", 1)
    if not 0 <= count <= x.type.rank:
        raise op.error(f"num_reduce_dim {count} of a blob of rank {x.type.rank}", argument="num_reduce_dim")
    axes = tuple(range(count)) if op.type.startswith("ReduceFront") else tuple(range(x.type.rank - count, x.type.rank))
    kind = op.type.removeprefix("ReduceFront").removeprefix("ReduceBack")
    env.bind(op.out, b.add(_REDUCTIONS[kind](axes=axes, keepdims=False), x, source=op.source))


@lift("SumElements", "SumSqrElements", "AveragedLoss")
def lift_sum_elements(op: OpView, env: NameEnv, b: Builder) -> None:
    """All elements to one number: their sum or mean, or that of their squares."""
    x = env.use(op.inputs[0])
    mean = op.type == "AveragedLoss" or op.args.flag("average", False)
    if op.type == "SumSqrElements":
        x = b.add(ew.Mul(), x, x, source=op.source)
    ir = (sh.ReduceMean if mean else sh.ReduceSum)(axes=tuple(range(x.type.rank)), keepdims=False)
    env.bind(op.out, b.add(ir, x, source=op.source))


@lift("ArgMax", "ArgMin")
def lift_arg_reduce(op: OpView, env: NameEnv, b: Builder) -> None:
    """The position along one axis, the last by default, as int64; the axis stays unless keepdims is 0."""
    x = env.use(op.inputs[0])
    axis = canonical_axis(op, op.args.integer("axis", -1), x.type.rank)
    kind = sh.ArgMax if op.type == "ArgMax" else sh.ArgMin
    env.bind(op.out, b.add(kind(axis=axis, keepdims=op.args.flag("keepdims", True)), x, source=op.source))


@lift("TopK", outputs=(2, 3))
def lift_topk(op: OpView, env: NameEnv, b: Builder) -> None:
    """The k largest along one axis, the last by default, and their positions as int64."""
    x = env.use(op.inputs[0])
    rank = x.type.rank
    axis = canonical_axis(op, op.args.integer("axis", -1), rank)
    op.args.require("k")
    k = op.args.positive("k", 0)
    to_last = (*(i for i in range(rank) if i != axis), axis)
    values, indices = b.add_multi(sh.TopK(k=k), env.transpose(x, to_last), sources=((op.outputs[0],), (op.outputs[1],)))
    env.bind(op.outputs[0], values, inverse(to_last))
    env.bind(op.outputs[1], indices, inverse(to_last))
    if len(op.outputs) > 2:
        env.poison(op.outputs[2], "TopK's flattened indices are not supported")


@lift("DotProduct", inputs=2)
def lift_dot_product(op: OpView, env: NameEnv, b: Builder) -> None:
    """The dot product of each pair of rows."""
    x, y = env.use(op.inputs[0]), env.use(op.inputs[1])
    if x.type != y.type or x.type.rank < 1:
        raise op.error("DotProduct of blobs of different shapes", got=f"{x.type} and {y.type}")
    rows = (x.type.shape[0], math.prod(x.type.shape[1:]))
    product = env.reshape(b.add(ew.Mul(), x, y, source=op.source), rows, op.source)
    env.bind(op.out, b.add(sh.ReduceSum(axes=(1,), keepdims=False), product, source=op.source))
