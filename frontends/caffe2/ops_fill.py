"""Fills inside a predict net: blobs that are known here and now."""

from __future__ import annotations

from sqzc.frontends.caffe2.env import NameEnv
from sqzc.frontends.caffe2.fills import FILL_TYPES, RANDOM_FILLS, fill_value
from sqzc.frontends.caffe2.table import OpView, lift
from sqzc.ir import Builder


@lift(*(type_ for type_ in FILL_TYPES if type_ not in RANDOM_FILLS), inputs=(0, 1))
def lift_fill(op: OpView, env: NameEnv, b: Builder) -> None:
    """Values or a constant; an input gives the shape, by its own shape or (`input_as_shape`) by its contents."""
    as_shape = op.args.flag("input_as_shape", False)
    given: tuple[int, ...] | None = None
    if op.inputs:
        name = op.inputs[0]
        given = tuple(env.known_ints(name, "a shape")) if as_shape else env.shape(name)
    env.bind_array(op.out, fill_value(op.op, op.args, given))
