"""A picture in, the likeliest classes out, for any compiled model with one image input and one output of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sqzc.diagnostics import UsageError
from sqzc.runtime.preprocess import Picture, preprocess

if TYPE_CHECKING:
    from sqzc.runtime.metadata import Metadata
    from sqzc.runtime.model import Model
    from sqzc.runtime.tensor import Array, TensorInfo


@dataclass(frozen=True)
class Prediction:
    """One class: its number, the network's score for it, and its name when labels are known."""

    index: int
    score: float
    label: str | None


def classify(
    model: Model,
    picture: Picture,
    top: int,
    preset: str,
    labels: Sequence[str] | None,
    mean: Sequence[float] | None,
    channel_order: str | None,
) -> list[Prediction]:
    """The `top` classes with the highest scores; see `Model.classify`."""
    info = _image_input(model)
    mean, order = _colours(model.metadata, mean, channel_order)
    values = preprocess(picture, *info.shape[2:], preset=preset, channel_order=order, mean=mean)
    scores = model.run({info.name: values})[model.outputs[0].name]
    return best(scores, top, labels if labels is not None else model.metadata["labels"])


def best(scores: Array, top: int, labels: Sequence[str] | None) -> list[Prediction]:
    """The `top` highest of `scores` (for one picture, any shape), highest first.

    Among equals the lower class comes first; NaN comes last.
    """
    flat = scores.ravel()
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise UsageError("the number of classes to show makes no sense", expected="at least 1", got=repr(top))
    if labels is not None and len(labels) != flat.size:
        raise UsageError("the labels do not fit the model", expected=f"{flat.size} labels", got=f"{len(labels)} labels")
    order = np.argsort(-flat, kind="stable")[:top]
    return [Prediction(int(i), float(flat[i]), None if labels is None else labels[i]) for i in order]


def _image_input(model: Model) -> TensorInfo:
    if len(model.inputs) == 1 and len(model.outputs) == 1:
        info = model.inputs[0]
        if len(info.shape) == 4 and info.shape[:2] == (1, 3) and info.dtype == np.float32:
            return info
    raise UsageError(
        "this model does not classify pictures",
        expected="one input float32[1, 3, height, width] and one output",
        got=f"{', '.join(str(info) for info in model.inputs)} -> {', '.join(str(info) for info in model.outputs)}",
        hint="model.run({name: array})",
    )


def _colours(
    metadata: Metadata, mean: Sequence[float] | None, channel_order: str | None
) -> tuple[Sequence[float] | None, str]:
    """The mean to subtract here, and the order of the channels.

    What the library knows holds. What it does not know the caller must say: a guess would give wrong answers that
    look right.
    """
    own_order = metadata["channel_order"]
    if own_order is not None and channel_order not in (None, own_order):
        raise UsageError("the library knows its channel order", expected=own_order, got=repr(channel_order))
    order = own_order or channel_order
    if order is None:
        raise UsageError(
            "the library does not say in which order it takes the colours", hint="channel_order='BGR' or 'RGB'"
        )
    if metadata["mean"] is not None:
        if mean is not None:
            raise UsageError("the library subtracts its mean itself; a second one would be subtracted twice")
        return None, order
    if mean is None:
        raise UsageError(
            "the library subtracts no mean itself, and none was given",
            hint="mean=(103.96, 116.78, 123.68) for many Caffe2 networks, mean=(0, 0, 0) for none",
        )
    return mean, order
