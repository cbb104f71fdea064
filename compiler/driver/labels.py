"""Class names beside a model, and their way through dumps: in the weights file, named by the hash of their own file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from sqzc.diagnostics import FileError
from sqzc.ir.constant import Array
from sqzc.ir.files import SHARED_WEIGHTS
from sqzc.runtime.labels import LABELS_FILE, MAX_LABELS_BYTES, Labels, read_labels


def find_labels(folder: Path) -> Labels | None:
    """The labels in a model's folder, if it has any."""
    path = folder / LABELS_FILE
    return read_labels(path) if path.is_file() else None


def labels_array(labels: Labels | None) -> Mapping[str, Array]:
    """What a weights file holds of the labels: their lines as UTF-8."""
    if labels is None:
        return {}
    return {_key(labels.sha256): np.frombuffer("\n".join(labels.names).encode(), np.uint8)}


def stored_labels(path: Path, sha256: str) -> Labels | None:
    """The labels that the graph in the `.sqz` file `path` refers to, from the weights file beside it."""
    for file in (path.with_suffix(".safetensors"), path.parent / SHARED_WEIGHTS):
        if not file.is_file():
            continue
        try:
            with safe_open(str(file), framework="numpy") as handle:
                if _key(sha256) not in handle.keys():
                    continue
                if np.prod(handle.get_slice(_key(sha256)).get_shape()) > MAX_LABELS_BYTES:
                    raise FileError(f"{file}: the labels are too large", expected=f"at most {MAX_LABELS_BYTES} bytes")
                data: Array = handle.get_tensor(_key(sha256))
                names = data.tobytes().decode("utf-8").split("\n")
        except (SafetensorError, OSError, UnicodeDecodeError) as error:
            raise FileError(f"{file}: the labels cannot be read", got=str(error)) from None
        return Labels(tuple(names), sha256)
    return None


def _key(sha256: str) -> str:
    return f"labels#{sha256[:16]}"
