"""Files with the names of a network's classes, one line each, in order."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from sqzc.diagnostics import FileError, Location

LABELS_FILE = "synset_words.txt"
"""The usual name of such a file beside a model."""

MAX_LABELS_BYTES = 16 * 2**20

_WORDNET_ID = re.compile(r"n\d{8}[ \t]+", re.ASCII)


@dataclass(frozen=True)
class Labels:
    """Class names in the order of the network's output, without their WordNet ids, and the file's checksum."""

    names: tuple[str, ...]
    sha256: str


def read_labels(path: str | os.PathLike[str]) -> Labels:
    """Reads a file of labels such as `n01440764 tench, Tinca tinca`; the id may be absent.

    Raises FileError when the file is missing, too large, not UTF-8, empty, or has an empty line between others.
    """
    location = Location(str(path))
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_LABELS_BYTES + 1)
    except OSError as error:
        raise FileError(f"the labels cannot be read: {error.strerror}", location=location) from error
    if len(data) > MAX_LABELS_BYTES:
        raise FileError(
            "the file is too large for a list of labels",
            location=location,
            expected=f"at most {MAX_LABELS_BYTES} bytes",
        )
    try:
        text = data.decode("utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        raise FileError("the labels are not UTF-8 text", location=location, got=str(error)) from error
    if not text:
        raise FileError("the file holds no labels", location=location)
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise FileError(
                "an empty line stands between labels, so the classes cannot be counted",
                location=Location(str(path), f"line {number}"),
            )
    names = tuple(_WORDNET_ID.sub("", line.strip(), count=1) for line in lines)
    return Labels(names, hashlib.sha256(data).hexdigest())
