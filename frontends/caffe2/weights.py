"""Parameters: the blobs that an init net fills, or random ones of the same shapes.

Random parameters are for testing and timing without the trained file. Each blob is drawn from its own generator, seeded
by its name and the seed, so adding or removing a blob leaves the others as they are.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sqzc.diagnostics import FrontendError, Location, UsageError
from sqzc.frontends.caffe2.args import ArgReader
from sqzc.frontends.caffe2.fills import FILL_TYPES, MAX_FILL_BYTES, RANDOM_FILLS, fill_shape, fill_value
from sqzc.frontends.caffe2.loader import check_dims
from sqzc.frontends.caffe2.model import Net, Op
from sqzc.frontends.common import unsupported_error

Array = npt.NDArray[Any]

MAX_PARAMETER_BYTES = 4 << 30
_COPIES = ("Copy", "Alias", "EnsureCPUOutput", "StopGradient")


@dataclass(frozen=True)
class WeightsSpec:
    """Where parameters come from: the init net, or a generator with this seed."""

    seed: int | None = None

    @property
    def is_random(self) -> bool:
        """Whether parameters are drawn instead of read."""
        return self.seed is not None

    def __str__(self) -> str:
        return f"random:{self.seed}" if self.is_random else "pretrained"

    @staticmethod
    def parse(text: str) -> WeightsSpec:
        """Reads `pretrained`, `random` or `random:SEED`; UsageError for anything else."""
        if text == "pretrained":
            return WeightsSpec()
        match = re.fullmatch(r"random(?::([0-9]{1,18}))?", text)
        if match is None:
            raise UsageError(f"weights '{text}'", expected="pretrained, random or random:SEED")
        return WeightsSpec(int(match.group(1) or 0))


def load_parameters(init: Net | None) -> dict[str, Array]:
    """Every blob that an init net leaves behind; FrontendError for operators other than fills and copies."""
    values: dict[str, Array] = {}
    if init is None:
        return values
    _check_types(init)
    total_bytes = 0
    for op in init.ops:
        args = ArgReader(init, op)
        value = _source(init, op, values) if op.type in _COPIES else fill_value(op, args)
        args.finish()
        total_bytes += value.nbytes
        if total_bytes > MAX_PARAMETER_BYTES:
            raise FrontendError(f"the parameters have over {MAX_PARAMETER_BYTES} bytes", location=init.location(op))
        values[_sole_output(init, op)] = value
    return values


def load_shapes(init: Net | None) -> tuple[dict[str, tuple[int, ...]], dict[str, Array]]:
    """Shapes of an init net's floating point blobs, and the values of all others: what random weights start from."""
    shapes: dict[str, tuple[int, ...]] = {}
    others: dict[str, Array] = {}
    if init is None:
        return shapes, others
    _check_types(init)
    for op in init.ops:
        output = _sole_output(init, op)
        args = ArgReader(init, op)
        if op.type in RANDOM_FILLS:
            shapes[output] = fill_shape(op, args)
        elif op.type in _COPIES:
            source = op.inputs[0] if op.inputs else ""
            if source not in shapes and source not in others:
                raise _nobody_makes(init, op, source)
            if source in shapes:
                shapes[output] = shapes[source]
            else:
                others[output] = others[source]
        else:
            value = fill_value(op, args)
            if value.dtype.kind == "f":
                shapes[output] = value.shape
            else:
                others[output] = value
    return shapes, others


def _check_types(init: Net) -> None:
    known = (*FILL_TYPES, *_COPIES)
    strange = [(op.place, op.type) for op in init.ops if op.type not in known]
    if strange:
        raise unsupported_error("Caffe2 init", init.file, strange, known)


def _sole_output(init: Net, op: Op) -> str:
    if len(op.outputs) != 1:
        raise FrontendError(f"{op.type} makes one blob, not {len(op.outputs)}", location=init.location(op))
    return op.outputs[0]


def _source(init: Net, op: Op, values: dict[str, Array]) -> Array:
    if len(op.inputs) != 1 or op.inputs[0] not in values:
        raise _nobody_makes(init, op, op.inputs[0] if op.inputs else "")
    return values[op.inputs[0]]


def _nobody_makes(init: Net, op: Op, blob: str) -> FrontendError:
    return FrontendError(f"blob '{blob}' is read, but no operator before makes it", location=init.location(op))


# What a drawn parameter stands for, by the operator that reads it and the operand's position; anything else is a weight
# when it has two dimensions that are not 1, else a bias.
_ROLES: dict[str, tuple[str, ...]] = {
    "SpatialBN": ("", "one", "bias", "bias", "one"),
    "InstanceNorm": ("", "one", "bias"),
    "GroupNorm": ("", "one", "bias"),
    "LayerNorm": ("", "one", "bias"),
    "AffineChannel": ("", "one", "bias"),
    "Mul": ("one", "one"),
    "Div": ("one", "one"),
    "PRelu": ("", "slope"),
    "FCTransposed": ("", "columns"),
    "ConvTranspose": ("", "columns"),
}
_BIAS_DEVIATION = 0.05
_PRELU_SLOPE = 0.25


def random_parameters(
    predict: Net, shapes: Mapping[str, Sequence[int]], seed: int, others: Mapping[str, Array]
) -> dict[str, Array]:
    """He-normal weights for `shapes`, with `others` taken over as they are.

    Weights have deviation sqrt(2 / fan-in), biases 0.05; scales and variances of normalisations are 1.
    """
    values = dict(others)
    total_bytes = 0
    for name in shapes:
        where = Location(predict.file, f"parameter '{name}'")
        dims = check_dims(list(shapes[name]), f"the shape of parameter '{name}'", where)
        total_bytes += 4 * math.prod(dims)
        if total_bytes > MAX_FILL_BYTES:
            raise FrontendError(f"random parameters of over {MAX_FILL_BYTES} bytes", location=where)
    roles = _roles(predict)
    for name in sorted(shapes):
        values[name] = draw(name, tuple(shapes[name]), roles.get(name, ""), seed)
    return values


def _roles(predict: Net) -> dict[str, str]:
    roles: dict[str, str] = {}
    for op in predict.ops:
        for position, blob in enumerate(op.inputs):
            row = _ROLES.get(op.type, ())
            if position < len(row):
                roles.setdefault(blob, row[position])
    return roles


def draw(name: str, shape: tuple[int, ...], role: str, seed: int) -> Array:
    """One random float32 parameter."""
    if role in ("one", "slope"):
        return np.full(shape, 1.0 if role == "one" else _PRELU_SLOPE, np.float32)
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "little")
    normal = np.random.Generator(np.random.PCG64(key)).standard_normal(shape, np.float32)
    wide = [dim for dim in shape if dim != 1]
    if role == "bias" or len(wide) < 2:
        return np.asarray(normal * np.float32(_BIAS_DEVIATION), np.float32)
    outputs = shape[1] if role == "columns" else wide[0]
    fan_in = max(1, math.prod(shape) // max(1, outputs))
    return np.asarray(normal * np.float32(math.sqrt(2.0 / fan_in)), np.float32)
