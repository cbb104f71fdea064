"""Fill operators: those that make a blob from their arguments alone. Both init nets and predict nets have them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sqzc.diagnostics import FrontendError, UnsupportedError
from sqzc.frontends.caffe2.args import ArgReader
from sqzc.frontends.caffe2.loader import check_dims
from sqzc.frontends.caffe2.model import Op, numpy_dtype

Array = npt.NDArray[Any]

MAX_FILL_BYTES = 2 << 30

GIVEN_FILLS: dict[str, np.dtype[Any]] = {
    "GivenTensorFill": np.dtype(np.float32),
    "GivenTensorDoubleFill": np.dtype(np.float64),
    "GivenTensorIntFill": np.dtype(np.int32),
    "GivenTensorInt16Fill": np.dtype(np.int16),
    "GivenTensorInt64Fill": np.dtype(np.int64),
    "GivenTensorBoolFill": np.dtype(np.bool_),
}
RANDOM_FILLS = ("GaussianFill", "MSRAFill", "UniformFill", "XavierFill")
FILL_TYPES = (*GIVEN_FILLS, "ConstantFill", *RANDOM_FILLS)


def fill_shape(op: Op, args: ArgReader, given: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Shape of what a fill makes: its `shape`, or `given` (the shape that its input stands for) with `extra_shape`."""
    if given is None and op.inputs:
        raise FrontendError("a fill in an init net takes no input", location=args.location())
    shape = args.ints("shape")
    extra = args.ints("extra_shape") or ()
    if given is not None:
        if shape:
            raise FrontendError(
                "a fill takes its shape from an argument or an input, not both", location=args.location()
            )
        shape = (*given, *extra)
    elif extra:
        raise FrontendError("'extra_shape' needs an input", location=args.location("extra_shape"))
    return check_dims(shape or (), "argument 'shape'", args.location("shape"))


def fill_value(op: Op, args: ArgReader, given: tuple[int, ...] | None = None) -> Array:
    """What a GivenTensor*Fill or ConstantFill makes; FrontendError when values and shape do not fit.

    A ConstantFill's result is a read-only broadcast view: it takes no memory until somebody needs it dense.
    """
    if op.type == "ConstantFill":
        return _constant(op, args, given)
    if op.type in RANDOM_FILLS:
        raise FrontendError(
            f"operator {op.type} draws random numbers",
            location=args.location(),
            hint="give the trained init net, or ask for random weights with --weights random:SEED",
        )
    dtype = GIVEN_FILLS[op.type]
    shape = fill_shape(op, args, given)
    args.require("values")
    values: Array | None = args.float_array("values") if dtype.kind == "f" else args.int_array("values")
    assert values is not None
    if dtype.kind == "f" and values.size == 0:
        # Hand-written nets spell whole floats as integers.
        values = args.int_array("values")
        assert values is not None
    if values.size != math.prod(shape):
        raise FrontendError(
            "the number of values does not fit the shape",
            location=args.location("values"),
            expected=f"{math.prod(shape)} values for shape {list(shape)}",
            got=str(values.size),
        )
    if dtype.kind in "iu" and values.size:
        limits = np.iinfo(dtype)
        if values.min() < limits.min or values.max() > limits.max:
            raise FrontendError(f"a value does not fit {dtype.name}", location=args.location("values"))
    return values.astype(dtype, copy=False).reshape(shape)


def _constant(op: Op, args: ArgReader, given: tuple[int, ...] | None) -> Array:
    shape = fill_shape(op, args, given)
    value = args.number("value")
    wanted = args.integer("dtype", 0)
    if wanted:
        dtype = numpy_dtype(wanted)
        if dtype is None:
            raise UnsupportedError(f"ConstantFill of data type {wanted}", location=args.location("dtype"))
    else:
        # Without a dtype the kind of the value decides, and Caffe2's int arguments are 64 bits wide.
        dtype = np.dtype("int64" if isinstance(value, int) else "float32")
    if math.prod(shape) * dtype.itemsize > MAX_FILL_BYTES:
        raise FrontendError(
            f"a constant of shape {list(shape)} has over {MAX_FILL_BYTES} bytes", location=args.location("shape")
        )
    if dtype.kind != "f" and isinstance(value, float):
        raise FrontendError(
            f"{dtype.name} filled with {value}", location=args.location("value"), expected="a whole number"
        )
    if dtype.kind in "iu" and value is not None and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise FrontendError(f"the value {value} does not fit {dtype.name}", location=args.location("value"))
    with np.errstate(over="ignore"):
        number = np.asarray(0 if value is None else value).astype(dtype)
    return np.broadcast_to(number, shape)
