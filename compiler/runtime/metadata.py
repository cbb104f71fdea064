"""What a compiled library says about itself: the schema of its JSON, how it is written, and how it is read and checked.

The compiler writes these facts into the library and `PREFIX_metadata()` returns them. The text is canonical (sorted
keys, no spaces, ASCII), so equal facts give equal bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, TypedDict, cast

from sqzc.diagnostics import LibraryError, Location
from sqzc.runtime.abi import ABI_VERSION, DTYPES

MAX_TENSORS = 1024
MAX_RANK = 8
MAX_ELEMENTS = 2**40
CHANNEL_ORDERS = ("BGR", "RGB")


class TensorMeta(TypedDict):
    """One input or output, for a batch of 1."""

    name: str
    shape: list[int]
    """Every dimension at least 1; the first is multiplied by the batch."""
    dtype: str
    """A name from `sqzc.runtime.abi.DTYPES`."""
    layout: str
    """What the dimensions mean, as in the IR (`nchw`, `nhwc`, `oihw`, ...); empty when nothing is known."""


class SourceMeta(TypedDict):
    """One file that the model was compiled from."""

    name: str
    sha256: str
    verified: bool
    """Whether it is, byte for byte, the file that the zoo's manifest publishes."""


class TargetMeta(TypedDict):
    """The CPU the code was generated for."""

    name: str
    features: list[str]
    """What `create` and `run_in` check for before the first instruction that needs it."""


class VersionsMeta(TypedDict):
    """What the library was made with."""

    sqzc: str
    llvm: str


class Metadata(TypedDict):
    """Everything a library says about itself."""

    abi: int
    name: str
    """The model's name, such as a zoo name or the stem of a file."""
    prefix: str
    """The library's functions are called PREFIX_run and so on."""
    inputs: list[TensorMeta]
    """In the order in which `run` takes their pointers."""
    outputs: list[TensorMeta]
    mean: list[float] | None
    """The value, per channel, that the library subtracts from its input; None when it subtracts nothing."""
    channel_order: str | None
    """BGR or RGB; None when nothing is known."""
    labels: list[str] | None
    """The names of the classes in order, when they were given at compile time."""
    labels_sha256: str | None
    """The checksum of the file that the labels were read from."""
    sources: list[SourceMeta]
    licence: str | None
    """Of the model (an SPDX name), where known."""
    passes: list[str]
    """The pipeline, one pass with its options each."""
    opt_level: int
    target: TargetMeta
    versions: VersionsMeta
    weights: str
    """`pretrained`, `file`, or `random:SEED`."""
    flops: int
    """Of one batch unit, by the rule in `sqzc info`."""
    params: int
    """Trained values in the model."""
    workspace_bytes: int
    """What `PREFIX_workspace_bytes()` returns."""
    tolerance: float | None
    """The largest difference from the reference backend seen when the library was built; None when not measured."""


def dumps(metadata: Metadata) -> str:
    """The canonical JSON text of `metadata`, after checking it. It is what goes into the library, NUL-terminated."""
    checked = validate(metadata)
    return json.dumps(checked, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def loads(text: str | bytes, origin: str = "") -> Metadata:
    """The facts in a library's JSON text; `origin` is the library's path, for messages.

    Raises LibraryError, naming the field, when the text is not JSON or a field is missing or makes no sense. Fields
    that this version does not know are kept: a newer compiler may say more.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LibraryError(
            f"the library's description of itself is not JSON: {error}", location=Location(origin)
        ) from error
    return validate(found, origin)


def validate(found: object, origin: str = "") -> Metadata:
    """`found` itself when it follows the schema; raises LibraryError, naming the field, otherwise."""
    _record(_METADATA_FIELDS)(found, _Place(origin, "metadata"))
    return cast(Metadata, found)


class _Place:
    """Where in the JSON a value stands, for messages."""

    def __init__(self, origin: str, path: str) -> None:
        self.origin = origin
        self.path = path

    def at(self, step: str) -> _Place:
        return _Place(self.origin, self.path + step)

    def fail(self, expected: str, got: object) -> LibraryError:
        text = repr(got)
        return LibraryError(
            "the library's description of itself is malformed",
            location=Location(self.origin, self.path),
            expected=expected,
            got=text if len(text) <= 80 else f"{text[:80]}...",
        )


_Check = Callable[[Any, _Place], None]


def _string(value: Any, place: _Place) -> None:
    if not isinstance(value, str) or "\0" in value:
        raise place.fail("a string without NUL", value)


def _pattern(regex: str, words: str) -> _Check:
    def check(value: Any, place: _Place) -> None:
        if not isinstance(value, str) or not re.fullmatch(regex, value, re.ASCII):
            raise place.fail(words, value)

    return check


def _integer(least: int, most: int | None = None) -> _Check:
    words = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"

    def check(value: Any, place: _Place) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise place.fail(words, value)
        if most is not None and value > most:
            raise place.fail(words, value)

    return check


def _boolean(value: Any, place: _Place) -> None:
    if not isinstance(value, bool):
        raise place.fail("true or false", value)


def _number(value: Any, place: _Place) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise place.fail("a finite number", value)


def _one_of(*words: str) -> _Check:
    def check(value: Any, place: _Place) -> None:
        if value not in words:
            raise place.fail(f"one of {', '.join(words)}", value)

    return check


def _or_null(check: _Check) -> _Check:
    def nullable(value: Any, place: _Place) -> None:
        if value is not None:
            check(value, place)

    return nullable


def _list(check: _Check, least: int = 0, most: int | None = None) -> _Check:
    def checked(value: Any, place: _Place) -> None:
        if not isinstance(value, list) or len(value) < least:
            raise place.fail(f"a list of at least {least}", value)
        if most is not None and len(value) > most:
            raise place.fail(f"a list of at most {most}", f"{len(value)} entries")
        for i, entry in enumerate(value):
            check(entry, place.at(f"[{i}]"))

    return checked


def _record(fields: dict[str, _Check]) -> _Check:
    def check(value: Any, place: _Place) -> None:
        if not isinstance(value, dict):
            raise place.fail("an object", value)
        for name, field in fields.items():
            if name not in value:
                raise place.at(f".{name}").fail("this field", "nothing")
            field(value[name], place.at(f".{name}"))

    return check


def _tensors(value: Any, place: _Place) -> None:
    """At least one tensor, no two of the same name, none too large to count."""
    _list(_record(_TENSOR_FIELDS), least=1, most=MAX_TENSORS)(value, place)
    names = [tensor["name"] for tensor in value]
    for i, tensor in enumerate(value):
        if tensor["name"] in names[:i]:
            raise place.at(f"[{i}].name").fail("a name of its own", tensor["name"])
        if math.prod(tensor["shape"]) > MAX_ELEMENTS:
            raise place.at(f"[{i}].shape").fail(f"at most {MAX_ELEMENTS} elements", tensor["shape"])


_SHA256 = _pattern(r"[0-9a-f]{64}", "64 hexadecimal digits in lower case")

_TENSOR_FIELDS: dict[str, _Check] = {
    "name": _string,
    "shape": _list(_integer(1), most=MAX_RANK),
    "dtype": _one_of(*DTYPES),
    "layout": _string,
}

_METADATA_FIELDS: dict[str, _Check] = {
    "abi": _integer(ABI_VERSION, ABI_VERSION),
    "name": _string,
    "prefix": _pattern(r"[A-Za-z][A-Za-z0-9_]*", "a C identifier"),
    "inputs": _tensors,
    "outputs": _tensors,
    "mean": _or_null(_list(_number, least=1)),
    "channel_order": _or_null(_one_of(*CHANNEL_ORDERS)),
    "labels": _or_null(_list(_string)),
    "labels_sha256": _or_null(_SHA256),
    "sources": _list(_record({"name": _string, "sha256": _SHA256, "verified": _boolean})),
    "licence": _or_null(_string),
    "passes": _list(_string),
    "opt_level": _integer(0, 3),
    "target": _record({"name": _string, "features": _list(_string)}),
    "versions": _record({"sqzc": _string, "llvm": _string}),
    "weights": _pattern(r"pretrained|file|random:[0-9]+", "pretrained, file or random:SEED"),
    "flops": _integer(0),
    "params": _integer(0),
    "workspace_bytes": _integer(0),
    "tolerance": _or_null(_number),
}
