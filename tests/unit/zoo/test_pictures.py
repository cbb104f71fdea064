"""The pictures drawn by code."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqzc.backends.reference import evaluate
from sqzc.frontends.caffe2 import lift
from sqzc.runtime.labels import read_labels
from sqzc.runtime.preprocess import PRESETS, preprocess
from sqzc.zoo import published
from sqzc.zoo.pictures import PICTURES, SIDE


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_always_the_same(name: str) -> None:
    first, second = PICTURES[name].draw(), PICTURES[name].draw()
    assert first.mode == "RGB"
    assert first.size == (SIDE, SIDE)
    assert first.tobytes() == second.tobytes()
    assert len(first.getcolors(SIDE * SIDE) or ()) > 1


def test_no_two_pictures_are_meant_to_be_the_same() -> None:
    assert len({picture.meant for picture in PICTURES.values()}) == len(PICTURES)


@pytest.mark.weights
def test_the_trained_network_recognises_them(squeezenet_dir: Path) -> None:
    graph = lift(squeezenet_dir)
    names = read_labels(squeezenet_dir / "synset_words.txt").names
    given = published()["squeezenet1.1"].input
    for preset in PRESETS:
        for name, picture in PICTURES.items():
            values = preprocess(picture.draw(), *given.shape[2:], preset=preset, mean=given.mean)
            (scores,) = evaluate(graph, {given.name: values}).values()
            assert names[scores.argmax()] == picture.meant, f"{name} by {preset}"
            assert scores.max() > 0.8
