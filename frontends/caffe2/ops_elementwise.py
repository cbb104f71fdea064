"""Operators on one blob that keep its shape: activations, elementary functions, copies, casts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sqzc.frontends.caffe2.env import NameEnv
from sqzc.frontends.caffe2.model import numpy_dtype
from sqzc.frontends.caffe2.ops_binary import lift_with_broadcast
from sqzc.frontends.caffe2.table import ANY, OpView, lift
from sqzc.ir import Builder, OpDef, Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops import extra_trigonometry as tr
from sqzc.ir.ops.nn import Softmax
from sqzc.ir.types import DType

# Operators that are one IR op, with how its attributes are read from the arguments.
_UNARY: dict[str, Callable[[OpView], OpDef]] = {
    "Abs": lambda op: ew.Abs(),
    "Atan": lambda op: tr.Atan(),
    "Ceil": lambda op: ew.Ceil(),
    "Clip": lambda op: ew.Clip(lo=op.args.real("min", float("-inf")), hi=op.args.real("max", float("inf"))),
    "Cos": lambda op: tr.Cos(),
    "Elu": lambda op: ew.Elu(alpha=op.args.real("alpha", 1.0)),
    "Erf": lambda op: ew.Erf(),
    "Exp": lambda op: ew.Exp(),
    "Floor": lambda op: ew.Floor(),
    "Gelu": lambda op: ew.GeluTanh() if op.args.flag("fast_gelu", False) else ew.Gelu(),
    "HardSigmoid": lambda op: ew.HardSigmoid(alpha=op.args.real("alpha", 0.2), beta=op.args.real("beta", 0.5)),
    "LeakyRelu": lambda op: ew.LeakyRelu(alpha=op.args.real("alpha", 0.01)),
    "Log": lambda op: ew.Log(),
    "Negative": lambda op: ew.Neg(),
    "Reciprocal": lambda op: ew.Reciprocal(),
    "Relu": lambda op: ew.Relu(),
    "ReluN": lambda op: ew.Clip(lo=0.0, hi=op.args.real("n", 6.0)),
    "Round": lambda op: ew.Round(),
    "Selu": lambda op: ew.Selu(
        alpha=op.args.real("alpha", 1.6732631921768188), gamma=op.args.real("scale", 1.0507010221481323)
    ),
    "Sigmoid": lambda op: ew.Sigmoid(),
    "Sign": lambda op: ew.Sign(),
    "Sin": lambda op: tr.Sin(),
    "Softplus": lambda op: ew.Softplus(),
    "Softsign": lambda op: ew.Softsign(),
    "Sqrt": lambda op: ew.Sqrt(),
    "Swish": lambda op: ew.Swish(),
    "Tanh": lambda op: ew.Tanh(),
    **{
        name: (lambda op: ew.Identity())
        for name in (
            *("Alias", "Copy", "CopyCPUToGPU", "CopyFromCPUInput", "CopyGPUToCPU"),
            *("CopyCPUToMKL", "CopyMKLToCPU", "EnsureCPUOutput", "EnsureDense", "ScaleGradient", "StopGradient"),
        )
    },
}


@lift(*_UNARY)
def lift_unary(op: OpView, env: NameEnv, b: Builder) -> None:
    """One IR op that works on any order of axes."""
    x = env.raw(op.inputs[0])
    env.bind(op.out, b.add(_UNARY[op.type](op), x.value, source=op.source), x.perm)


@lift("CopyOnDeviceLike", inputs=2)
def lift_copy_like(op: OpView, env: NameEnv, b: Builder) -> None:
    """The second input says where, not what."""
    x = env.raw(op.inputs[0])
    env.bind(op.out, b.add(ew.Identity(), x.value, source=op.source), x.perm)


@lift("Dropout", outputs=(1, 2))
def lift_dropout(op: OpView, env: NameEnv, b: Builder) -> None:
    """At test time neither drops nor scales, and never writes its mask."""
    if not op.args.flag("is_test", False):
        raise op.error(
            "the net is in its training form: Dropout without is_test",
            argument="is_test",
            expected="is_test: 1",
            hint="export the net for inference",
        )
    x = env.raw(op.inputs[0])
    y = b.add(ew.Dropout(ratio=op.args.real("ratio", 0.5)), x.value, source=op.source)
    env.bind(op.out, y, x.perm)
    if len(op.outputs) > 1:
        env.poison(op.outputs[1], "Dropout does not write its mask when is_test is 1")


@lift("Sqr", "Cube", "Rsqrt", "Not", "ReplaceNaN", "Scale", "ThresholdedRelu", "Logit")
def lift_composed(op: OpView, env: NameEnv, b: Builder) -> None:
    """Functions that are a few IR ops."""
    bound = env.raw(op.inputs[0])
    x, where = bound.value, op.source
    if op.type == "Sqr":
        y = b.add(ew.Mul(), x, x, source=where)
    elif op.type == "Cube":
        y = b.add(ew.Mul(), b.add(ew.Mul(), x, x, source=where), x, source=where)
    elif op.type == "Rsqrt":
        y = b.add(ew.Reciprocal(), b.add(ew.Sqrt(), x, source=where), source=where)
    elif op.type == "Not":
        y = b.add(ew.Equal(), x, env.number("false", 0, x.type), source=where)
    elif op.type == "ReplaceNaN":
        fill = env.number("fill", op.args.real("value", 0.0), x.type)
        y = b.add(ew.Where(), b.add(ew.Equal(), x, x, source=where), x, fill, source=where)
    elif op.type == "Scale":
        y = b.add(ew.Mul(), x, env.number("scale", op.args.real("scale", 1.0), x.type), source=where)
    elif op.type == "ThresholdedRelu":
        alpha = env.number("alpha", op.args.real("alpha", 1.0), x.type)
        above = b.add(ew.Less(), alpha, x, source=where)
        y = b.add(ew.Where(), above, x, env.number("zero", 0.0, x.type), source=where)
    else:
        eps = op.args.real("eps", 1e-6)
        x = b.add(ew.Clip(lo=eps, hi=1.0 - eps), x, source=where)
        rest = b.add(ew.Sub(), env.number("one", 1.0, x.type), x, source=where)
        y = b.add(ew.Log(), b.add(ew.Div(), x, rest, source=where), source=where)
    env.bind(op.out, y, bound.perm)


@lift("Tan", "Asin", "Acos", "Sinh", "Cosh")
def lift_trigonometry(op: OpView, env: NameEnv, b: Builder) -> None:
    """Functions of angles, and hyperbolic ones, that are a few IR ops."""
    bound = env.raw(op.inputs[0])
    x = bound.value

    def add(ir: OpDef, *operands: Value) -> Value:
        return b.add(ir, *operands, source=op.source)

    def number(value: float) -> Value:
        return env.number("number", value, x.type)

    if op.type == "Tan":
        y = add(ew.Div(), add(tr.Sin(), x), add(tr.Cos(), x))
    elif op.type in ("Asin", "Acos"):
        less, more = add(ew.Sub(), number(1), x), add(ew.Add(), number(1), x)
        if op.type == "Asin":
            y = add(tr.Atan(), add(ew.Div(), x, add(ew.Sqrt(), add(ew.Mul(), less, more))))
        else:
            y = add(ew.Mul(), add(tr.Atan(), add(ew.Sqrt(), add(ew.Div(), less, more))), number(2))
    else:
        # sinh x = tanh x cosh x is good near 0 too.
        y = add(ew.Mul(), add(ew.Add(), add(ew.Exp(), x), add(ew.Exp(), add(ew.Neg(), x))), number(0.5))
        y = y if op.type == "Cosh" else add(ew.Mul(), add(ew.Tanh(), x), y)
    env.bind(op.out, y, bound.perm)


@lift("Pow", inputs=(1, 2))
def lift_pow(op: OpView, env: NameEnv, b: Builder) -> None:
    """The exponent is an argument or a second blob, which follows the rules of the other binary operators."""
    if len(op.inputs) == 2:
        lift_with_broadcast(op, env, b, ew.Pow())
        return
    op.args.require("exponent")
    x = env.raw(op.inputs[0])
    exponent = env.number("exponent", op.args.real("exponent", 0.0), x.value.type)
    env.bind(op.out, b.add(ew.Pow(), x.value, exponent, source=op.source), x.perm)


@lift("HalfToFloat", "FloatToHalf")
def lift_half(op: OpView, env: NameEnv, b: Builder) -> None:
    """Between the two float types."""
    x = env.raw(op.inputs[0])
    wanted, given = (DType.F32, DType.F16) if op.type == "HalfToFloat" else (DType.F16, DType.F32)
    if x.value.type.dtype is not given:
        raise op.error(f"{op.type} of blob '{op.inputs[0]}'", expected=given.value, got=str(x.value.type))
    env.bind(op.out, b.add(ew.Cast(to=wanted), x.value, source=op.source), x.perm)


@lift("EnforceFinite", "Print", outputs=(0, 1))
def lift_observer(op: OpView, env: NameEnv, b: Builder) -> None:
    """Looks at a blob, or hands it on: a compiled net has no log and no exceptions."""
    for name in ("to_file", "limit", "every_n", "input_data"):
        op.args.has(name)
    if op.outputs:
        x = env.raw(op.inputs[0])
        env.bind(op.out, b.add(ew.Identity(), x.value, source=op.source), x.perm)


@lift("Free", inputs=(1, ANY), outputs=(0, ANY))
def lift_free(op: OpView, env: NameEnv, b: Builder) -> None:
    """Memory is planned by the compiler; a freed blob only must not be read again."""
    for name in (*op.inputs, *op.outputs):
        env.poison(name, f"{op.op.place} freed it")


@lift("Cast")
def lift_cast(op: OpView, env: NameEnv, b: Builder) -> None:
    """The target is Caffe2's number of a type or its name; floats are truncated toward zero."""
    wanted = op.args.word_or_int("to")
    op.args.word_or_int("from_type")
    dtype = None if wanted is None else numpy_dtype(wanted)
    if dtype is None:
        raise op.error(f"no data type {wanted!r} to cast to", argument="to", expected="such as 1, 10 or INT64")
    x = env.raw(op.inputs[0])
    env.bind(op.out, b.add(ew.Cast(to=DType.of(np.dtype(dtype))), x.value, source=op.source), x.perm)


@lift("Softmax")
def lift_softmax(op: OpView, env: NameEnv, b: Builder) -> None:
    """Normalises over everything from `axis` (default 1) on, all those axes together."""
    x = env.raw(op.inputs[0])
    rank = len(x.perm)
    axis = canonical_axis(op, op.args.integer("axis", 1), rank)
    axes = tuple(sorted(x.perm[axis:]))
    env.bind(op.out, b.add(Softmax(axes=axes), x.value, source=op.source), x.perm)


def canonical_axis(op: OpView, axis: int, rank: int, argument: str = "axis") -> int:
    """An axis counted from the front; FrontendError when a blob of this rank has none such."""
    if not -rank <= axis < rank:
        raise op.error(f"axis {axis} of a blob of rank {rank}", argument=argument, expected=f"{-rank} to {rank - 1}")
    return axis % rank
