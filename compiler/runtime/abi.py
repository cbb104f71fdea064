"""The C ABI of a compiled library: its version, functions, status codes and header text.

One place for what the code generator emits, the loader calls and the header says. Only the standard library is needed,
so that every layer can use it. The prose of the ABI stands in `sqzc.template.h`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from math import prod
from typing import TYPE_CHECKING

from sqzc.diagnostics import UsageError

if TYPE_CHECKING:
    from sqzc.runtime.metadata import Metadata, TensorMeta

ABI_VERSION = 1
"""Changes whenever an old loader could misuse a new library or the other way round."""

LOADER_PREFIX = "sqz"
"""A shared library exports its functions under this prefix too, whatever its model is called."""

WORKSPACE_ALIGNMENT = 64
"""Alignment in bytes of the workspace given to `run_in`: one cache line, one AVX-512 register."""

FUNCTION_NAMES = (
    "abi_version",
    "metadata",
    "create",
    "run",
    "destroy",
    "workspace_bytes",
    "run_in",
    "strerror",
)
"""Every exported function, without its prefix and underscore."""

MAX_PREFIX_LENGTH = 64


class Status(enum.IntEnum):
    """What `create`, `run` and `run_in` return."""

    OK = 0
    ERR_NULL = 1
    ERR_BATCH = 2
    ERR_THREADS = 3
    ERR_MEMORY = 4
    ERR_CPU = 5
    ERR_THREAD_START = 6
    ERR_ALIGN = 7


UNKNOWN_STATUS_TEXT = "unknown status code"
"""What `strerror` returns for a number that is no status."""

_TEXTS = {
    Status.OK: "success",
    Status.ERR_NULL: "a required pointer is NULL",
    Status.ERR_BATCH: "the batch is negative",
    Status.ERR_THREADS: "the number of threads is negative or above the limit set at compile time",
    Status.ERR_MEMORY: "out of memory",
    Status.ERR_CPU: "this CPU lacks a feature that the library was compiled for",
    Status.ERR_THREAD_START: "a worker thread could not be started",
    Status.ERR_ALIGN: f"the workspace is not aligned to {WORKSPACE_ALIGNMENT} bytes",
}

_C_TYPES = {
    "f16": "uint16_t",
    "f32": "float",
    "f64": "double",
    "i8": "int8_t",
    "i16": "int16_t",
    "i32": "int32_t",
    "i64": "int64_t",
    "u64": "uint64_t",
    "u32": "uint32_t",
    "u16": "uint16_t",
    "u8": "uint8_t",
    "bool": "uint8_t",
}
"""How an element of each dtype is declared in C; the keys are the dtypes that metadata may name."""

DTYPES = tuple(_C_TYPES)


def strerror_text(status: Status, features: Sequence[str] = ()) -> str:
    """What the library's `strerror` returns for `status`; `features` are the CPU features it was compiled for."""
    text = _TEXTS[status]
    if status is Status.ERR_CPU and features:
        return f"{text}; it needs {', '.join(features)}"
    return text


def identifier(model_name: str) -> str:
    """The default function prefix for a model: its name with everything that C does not allow turned into `_`."""
    word = re.sub(r"[^A-Za-z0-9]", "_", model_name)[:MAX_PREFIX_LENGTH].strip("_")
    if not word:
        return "model"
    return word if word[0].isalpha() else f"m_{word}"[:MAX_PREFIX_LENGTH]


def check_prefix(prefix: str) -> str:
    """`prefix` itself when it can start the name of a C function; raises UsageError otherwise."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", prefix, re.ASCII) or len(prefix) > MAX_PREFIX_LENGTH:
        raise UsageError(
            f"'{prefix}' cannot be used as the prefix of the library's functions",
            expected=f"a letter, then letters, digits or underscores, {MAX_PREFIX_LENGTH} characters at most",
            hint=f"for example --prefix {identifier(prefix)}",
        )
    return prefix


def header(prefix: str, metadata: Metadata) -> str:
    """The C and C++ header for one compiled model.

    Names in `metadata` come from model files: they appear in comments alone, with everything that could end the
    comment or is not printable ASCII made harmless.
    """
    check_prefix(prefix)
    template = resources.files("sqzc.runtime").joinpath("sqzc.template.h").read_text(encoding="ascii")
    fills = {
        "PREFIX": prefix,
        "ABI_VERSION": str(ABI_VERSION),
        "ALIGNMENT": str(WORKSPACE_ALIGNMENT),
        "MODEL": _comment_text(metadata["name"]),
        "SUMMARY": _lines(_summary(metadata)),
        "STATUSES": "\n".join(_statuses()),
        "SIZES": "\n".join(_sizes(prefix, metadata)),
    }
    return re.sub(r"@([A-Z_]+)@", lambda match: fills[match.group(1)], template)


def _comment_text(text: str) -> str:
    """`text` as printable ASCII that can neither close nor open a C comment, nor form a trigraph."""
    plain = text.encode("ascii", "backslashreplace").decode("ascii")
    plain = "".join(char if char.isprintable() else "?" for char in plain)
    for left, right in ("*/", "/*", "??"):
        while left + right in plain:
            plain = plain.replace(left + right, f"{left} {right}")
    return plain


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f" * {line}".rstrip() for line in lines)


def _tensor_text(tensor: TensorMeta) -> str:
    dims = ",".join(str(dim) for dim in tensor["shape"])
    layout = f" {tensor['layout'].upper()}" if tensor["layout"] else ""
    return f"{_comment_text(tensor['name'])}: {tensor['dtype']}[{dims}]{_comment_text(layout)}"


def _summary(metadata: Metadata) -> list[str]:
    """The model's interface in words, line by line."""
    lines = [f"inputs[{i}]   {_tensor_text(tensor)}" for i, tensor in enumerate(metadata["inputs"])]
    lines += [f"outputs[{i}]  {_tensor_text(tensor)}" for i, tensor in enumerate(metadata["outputs"])]
    order = metadata["channel_order"]
    if order:
        lines.append(f"Channels are in the order {order}.")
    if metadata["mean"] is None:
        lines.append("No mean is subtracted: give the values that the network itself expects.")
    else:
        mean = ", ".join(f"{value:g}" for value in metadata["mean"])
        lines.append(f"Give raw pixel values from 0 to 255: the library subtracts the mean ({mean}) itself.")
    if metadata["weights"].startswith("random"):
        lines.append(f"The weights are not trained ({_comment_text(metadata['weights'])}): the answers mean nothing.")
    licence = metadata["licence"]
    if licence:
        lines.append(f"Licence of the model: {_comment_text(licence)}.")
    return lines


def _statuses() -> list[str]:
    """The entries of the status enumeration; C89 allows no comma after the last."""
    last = list(Status)[-1]
    return [
        f"    SQZC_{status.name} = {status.value}{'' if status is last else ','} /* {_TEXTS[status]} */"
        for status in Status
    ]


def _sizes(prefix: str, metadata: Metadata) -> list[str]:
    """Macros with the number of tensors and each one's elements in one unit of the batch."""
    lines = []
    for kind, tensors in (("INPUT", metadata["inputs"]), ("OUTPUT", metadata["outputs"])):
        lines.append(f"#define {prefix}_{kind}_COUNT {len(tensors)}")
        for i, tensor in enumerate(tensors):
            lines.append(
                f"#define {prefix}_{kind}_{i}_ELEMENTS {prod(tensor['shape'])} /* each a {_C_TYPES[tensor['dtype']]} */"
            )
    return lines
