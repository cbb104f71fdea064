"""Fully connected layers and matrix products."""

from __future__ import annotations

import math

from sqzc.frontends.caffe2.env import NameEnv
from sqzc.frontends.caffe2.ops_elementwise import canonical_axis
from sqzc.frontends.caffe2.table import OpView, lift
from sqzc.ir import Builder, Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops.nn import Linear, MatMul


def _flat(env: NameEnv, name: str, axis: int) -> Value:
    """The blob as a matrix: dimensions before `axis` by those from it on."""
    shape = env.shape(name)
    matrix = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    return env.reshape(env.use(name), matrix)


@lift("FC", "FCTransposed", inputs=(2, 3))
def lift_fc(op: OpView, env: NameEnv, b: Builder) -> None:
    """x @ W.T + bias, x flattened to a matrix at `axis` and W at `axis_w`; FCTransposed holds W transposed."""
    op.args.flag("float16_compute", False)
    x_shape, w_shape = env.shape(op.inputs[0]), env.shape(op.inputs[1])
    axis = canonical_axis(op, op.args.integer("axis", 1), len(x_shape))
    axis_w = canonical_axis(op, op.args.integer("axis_w", 1), len(w_shape), "axis_w")
    x, weight = _flat(env, op.inputs[0], axis), _flat(env, op.inputs[1], axis_w)
    if op.type == "FCTransposed":
        weight = env.transpose(weight, (1, 0))
    if x.type.shape[1] != weight.type.shape[1]:
        raise op.error(
            "the weight does not fit the input",
            expected=f"{x.type.shape[1]} columns, as {list(x_shape)} has from axis {axis} on",
            got=f"weight {list(w_shape)}",
        )
    operands = [x, weight]
    if len(op.inputs) == 3:
        if math.prod(env.shape(op.inputs[2])) != weight.type.shape[0]:
            raise op.error(
                "the bias does not fit the weight",
                expected=f"[{weight.type.shape[0]}]",
                got=str(list(env.shape(op.inputs[2]))),
            )
        operands.append(env.reshape(env.use(op.inputs[2]), (weight.type.shape[0],)))
    y = b.add(Linear(), *operands, source=op.source)
    env.bind(op.out, env.reshape(y, (*x_shape[:axis], weight.type.shape[0]), op.source))


@lift("MatMul", inputs=2)
def lift_matmul(op: OpView, env: NameEnv, b: Builder) -> None:
    """The product of two matrices, blobs of higher rank flattened at `axis_a` and `axis_b`."""
    matrices = []
    for name, argument in zip(op.inputs, ("axis_a", "axis_b"), strict=True):
        axis = canonical_axis(op, op.args.integer(argument, 1), len(env.shape(name)), argument)
        matrices.append(_flat(env, name, axis))
    ir = MatMul(trans_a=op.args.flag("trans_a", False), trans_b=op.args.flag("trans_b", False))
    env.bind(op.out, b.add(ir, *matrices, source=op.source))


@lift("BatchMatMul", inputs=2)
def lift_batch_matmul(op: OpView, env: NameEnv, b: Builder) -> None:
    """Matrix products over leading axes, which must agree unless `broadcast` is given."""
    ir = MatMul(trans_a=op.args.flag("trans_a", False), trans_b=op.args.flag("trans_b", False))
    shapes = [env.shape(name) for name in op.inputs]
    if min(map(len, shapes)) < 2:
        raise op.unsupported("BatchMatMul of a blob of rank 1")
    if not op.args.flag("broadcast", False) and shapes[0][:-2] != shapes[1][:-2]:
        raise op.error("BatchMatMul of batches of different shapes", got=f"{list(shapes[0])} and {list(shapes[1])}")
    env.bind(op.out, b.add(ir, env.use(op.inputs[0]), env.use(op.inputs[1]), source=op.source))


@lift("ElementwiseLinear", inputs=3)
def lift_elementwise_linear(op: OpView, env: NameEnv, b: Builder) -> None:
    """x * w + b, one pair of numbers for each position from `axis` on."""
    x = env.use(op.inputs[0])
    axis = canonical_axis(op, op.args.integer("axis", 1), x.type.rank)
    shape = (*(1,) * axis, *x.type.shape[axis:])
    plain = tuple(range(x.type.rank))
    scaled = b.add(ew.Mul(), x, env.aligned(op.inputs[1], shape, plain), source=op.source)
    env.bind(op.out, b.add(ew.Add(), scaled, env.aligned(op.inputs[2], shape, plain), source=op.source))
