"""The JSON by which a library describes itself: canonical when written, checked when read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from sqzc.diagnostics import LibraryError
from sqzc.runtime.metadata import Metadata, dumps, loads

MakeMetadata = Callable[..., Metadata]


def test_it_reads_back_what_it_wrote(make_metadata: MakeMetadata) -> None:
    metadata = make_metadata(labels=["tench", "ä"], mean=[103.96, 116.78, 123.68])
    text = dumps(metadata)
    assert loads(text) == metadata
    assert loads(text.encode()) == metadata
    assert text.isascii()
    assert "\n" not in text


def test_the_order_of_fields_does_not_show(make_metadata: MakeMetadata) -> None:
    metadata = make_metadata()
    backwards = dict(reversed(list(metadata.items())))
    assert dumps(backwards) == dumps(metadata)  # type: ignore[arg-type]


def test_unknown_fields_are_kept(make_metadata: MakeMetadata) -> None:
    extended = {**make_metadata(), "colour": "blue"}
    assert loads(json.dumps(extended))["colour"] == "blue"  # type: ignore[typeddict-item]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nonsense", b"\xff\xfe", "1" * 10_000])
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(LibraryError):
        loads(text, "libx.so")


def test_every_field_must_be_there(make_metadata: MakeMetadata) -> None:
    for name in make_metadata():
        less = {key: value for key, value in make_metadata().items() if key != name}
        with pytest.raises(LibraryError) as caught:
            loads(json.dumps(less), "libx.so")
        assert f"metadata.{name}" in str(caught.value)
        assert "libx.so" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["abi"], 2),
        (["abi"], True),
        (["name"], 3),
        (["name"], "a\0b"),
        (["prefix"], "a-b"),
        (["inputs"], []),
        (["inputs"], {}),
        (["inputs", 0], "data"),
        (["inputs", 0, "shape"], [1, 0]),
        (["inputs", 0, "shape"], [1.0]),
        (["inputs", 0, "shape"], [1] * 9),
        (["inputs", 0, "shape"], [2**21, 2**21]),
        (["inputs", 0, "dtype"], "float32"),
        (["inputs", 0, "dtype"], ["f32"]),
        (["outputs", 0, "layout"], None),
        (["mean"], []),
        (["mean"], [float("nan")]),
        (["mean"], ["1"]),
        (["channel_order"], "GRB"),
        (["labels"], "tench"),
        (["labels_sha256"], "abc"),
        (["sources", 0, "sha256"], "Z" * 64),
        (["sources", 0, "verified"], 1),
        (["opt_level"], 4),
        (["target", "features"], [1]),
        (["versions", "llvm"], 20),
        (["weights"], "random"),
        (["flops"], -1),
        (["tolerance"], float("inf")),
    ],
)
def test_a_wrong_value_is_refused_by_name(make_metadata: MakeMetadata, path: list[Any], value: object) -> None:
    metadata: Any = copy.deepcopy(make_metadata())
    place = metadata
    for step in path[:-1]:
        place = place[step]
    assert place[path[-1]] != value or type(place[path[-1]]) is not type(value)
    place[path[-1]] = value
    with pytest.raises(LibraryError) as caught:
        loads(json.dumps(metadata))
    words = "metadata" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    assert words in str(caught.value)


def test_two_tensors_of_one_name_are_refused(make_metadata: MakeMetadata) -> None:
    metadata = make_metadata()
    metadata["inputs"] = metadata["inputs"] * 2
    with pytest.raises(LibraryError, match="a name of its own"):
        dumps(metadata)
