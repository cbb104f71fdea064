"""From a picture to the likeliest classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqzc.diagnostics import UsageError
from sqzc.runtime import Model, load
from sqzc.runtime.classify import Prediction, best

BuildLibrary = Callable[..., Path]
NAMES = ["ant", "bee", "cat", "dog", "elk", "fox"]


def scores(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([values], np.float32)


def test_the_best_come_first_and_ties_go_to_the_lower_class() -> None:
    got = best(scores(1, 3, np.nan, 3, 2, -np.inf), 9, NAMES)
    assert [prediction.label for prediction in got] == ["bee", "dog", "elk", "ant", "fox", "cat"]
    assert got[0] == Prediction(1, 3.0, "bee")
    assert best(scores(1, 2), 1, None) == [Prediction(1, 2.0, None)]


@pytest.mark.parametrize("top", [0, -1, True, 1.5])
def test_a_top_that_makes_no_sense(top: Any) -> None:
    with pytest.raises(UsageError):
        best(scores(1, 2), top, None)


def test_labels_must_fit() -> None:
    with pytest.raises(UsageError, match=r"6 labels(.|\n)*2 labels"):
        best(scores(1, 2, 3, 4, 5, 6), 1, ["a", "b"])


def picture() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((8, 8, 3), (1, 2, 4), np.uint8)


def total(model: Model, **options: Any) -> float:
    """The stand-in's scores are all the sum of what it was given: 20 pixels of each colour."""
    got = model.classify(picture(), **options)
    assert [prediction.index for prediction in got] == [0, 1, 2, 3, 4]
    return got[0].score / 20


def test_a_library_that_subtracts_its_mean_gets_raw_values(build_library: BuildLibrary) -> None:
    model = load(build_library())
    assert total(model) == 1 + 2 + 4
    with pytest.raises(UsageError, match="twice"):
        model.classify(picture(), mean=(0, 0, 0))
    with pytest.raises(UsageError, match="knows its channel order"):
        model.classify(picture(), channel_order="RGB")


def test_a_library_that_knows_nothing_must_be_told(build_library: BuildLibrary) -> None:
    model = load(build_library(mean=None, channel_order=None))
    with pytest.raises(UsageError, match="order"):
        model.classify(picture(), mean=(0, 0, 0))
    with pytest.raises(UsageError, match="no mean"):
        model.classify(picture(), channel_order="BGR")
    assert total(model, mean=(3, 2, 1), channel_order="BGR") == (4 - 3) + (2 - 2) + (1 - 1)


def test_labels_from_the_library_or_the_caller(build_library: BuildLibrary) -> None:
    assert load(build_library()).classify(picture())[0].label is None
    model = load(build_library(labels=NAMES))
    assert [prediction.label for prediction in model.classify(picture(), top=2)] == NAMES[:2]
    assert model.classify(picture(), labels=NAMES[::-1])[0].label == "fox"


def test_a_model_that_takes_no_pictures(build_library: BuildLibrary) -> None:
    flat = [{"name": "x", "shape": [1, 60], "dtype": "f32", "layout": ""}]
    with pytest.raises(UsageError, match="does not classify pictures"):
        load(build_library(inputs=flat)).classify(picture())
