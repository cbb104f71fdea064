"""Typed access to an operator's arguments that remembers which were looked at.

After an operator is lifted every argument must have been read, or be known to have no effect on the result: one that is
neither is an error, never ignored, because a misread argument gives silently worse answers.
"""

from __future__ import annotations

from typing import Any

from sqzc.diagnostics import FrontendError, Location
from sqzc.frontends.caffe2.model import Arg, FloatArray, IntArray, Net, Op

# What Caffe2 documents as tuning, device or training details, and what only some operators read: order and is_test are
# read here by every operator whose result depends on them in Caffe2.
WITHOUT_EFFECT = frozenset(
    {
        "allow_broadcast_fastpath",
        "algo",
        "convolution_transform_strategy",
        "deterministic",
        "enable_tensor_core",
        "engine",
        "exhaustive_search",
        "float16_compute",
        "force_algo_dgrad",
        "force_algo_fwd",
        "force_algo_wgrad",
        "is_test",
        "net_pos",
        "order",
        "shared_buffer",
        "training_mode",
        "use_cudnn",
        "ws_nbytes_limit",
    }
)
_PREFIXES = ("cudnn_", "mkl_", "nnpack_")


def has_no_effect(name: str) -> bool:
    """Whether an argument of this name never changes a result, whatever operator it stands on."""
    return name in WITHOUT_EFFECT or name.startswith(_PREFIXES)


class ArgReader:
    """The arguments of one operator. Every getter marks what it is asked for as read, set or not."""

    def __init__(self, net: Net, op: Op) -> None:
        self._net, self._op = net, op
        self._read: set[str] = set()

    def location(self, name: str = "") -> Location:
        """Where an argument is, for messages."""
        return self._net.location(self._op, name)

    def has(self, name: str) -> bool:
        """Whether the file sets the argument; marks it as read."""
        return self._get(name) is not None

    def integer(self, name: str, default: int) -> int:
        """A whole number."""
        arg = self._get(name)
        if arg is None:
            return default
        if arg.i is None:
            raise self._wrong(arg, "a whole number")
        return arg.i

    def flag(self, name: str, default: bool) -> bool:
        """A truth value, stored as a number; anything but zero is true."""
        return self.integer(name, int(default)) != 0

    def real(self, name: str, default: float) -> float:
        """A number; exporters also write whole ones as integers. Infinity and NaN are let through."""
        arg = self._get(name)
        if arg is None:
            return default
        if arg.f is not None:
            return arg.f
        if arg.i is not None:
            return float(arg.i)
        raise self._wrong(arg, "a number")

    def text(self, name: str, default: str) -> str:
        """A string."""
        arg = self._get(name)
        if arg is None:
            return default
        if arg.s is None:
            raise self._wrong(arg, "a string")
        try:
            return arg.s.decode("utf-8")
        except UnicodeDecodeError:
            raise self._wrong(arg, "UTF-8 text") from None

    def ints(self, name: str, *, limit: int = 1 << 10) -> tuple[int, ...] | None:
        """A list of whole numbers, or None where the argument is absent."""
        arg = self._get(name)
        if arg is None:
            return None
        if arg.i is not None or arg.f is not None or arg.s is not None or arg.floats.size:
            raise self._wrong(arg, "a list of whole numbers")
        if arg.ints.size > limit:
            raise FrontendError(
                f"argument '{name}' has {arg.ints.size} numbers",
                location=self.location(name),
                expected=f"at most {limit}",
            )
        return tuple(arg.ints.tolist())

    def int_array(self, name: str) -> IntArray | None:
        """A list of whole numbers of any length as an array, or None."""
        arg = self._get(name)
        return None if arg is None else arg.ints

    def float_array(self, name: str) -> FloatArray | None:
        """A list of numbers of any length as an array, or None."""
        arg = self._get(name)
        return None if arg is None else arg.floats

    def number(self, name: str) -> Any:
        """A Python int or float as the file has it, or None: for arguments whose kind decides a type."""
        arg = self._get(name)
        if arg is None:
            return None
        if arg.i is None and arg.f is None:
            raise self._wrong(arg, "a number")
        return arg.f if arg.i is None else arg.i

    def word_or_int(self, name: str) -> str | int | None:
        """A string or a whole number as the file has it, or None."""
        arg = self._get(name)
        if arg is None:
            return None
        return arg.i if arg.i is not None else self.text(name, "")

    def positive(self, name: str, default: int) -> int:
        """A whole number of at least 1."""
        value = self.integer(name, default)
        if value < 1:
            raise FrontendError(f"'{name}' must be at least 1, got {value}", location=self.location(name))
        return value

    def require(self, name: str) -> None:
        """FrontendError when the argument is absent."""
        if not self.has(name):
            raise FrontendError(f"argument '{name}' is missing", location=self.location())

    def finish(self) -> None:
        """FrontendError when an argument is neither read nor known to have no effect."""
        for name in self._op.args:
            if name not in self._read and not has_no_effect(name):
                raise FrontendError(
                    f"sqzc does not know what argument '{name}' of operator {self._op.type} means",
                    location=self.location(name),
                    hint="an argument that might change the result is never ignored; remove it if it has no effect",
                )

    def _get(self, name: str) -> Arg | None:
        self._read.add(name)
        return self._op.args.get(name)

    def _wrong(self, arg: Arg, expected: str) -> FrontendError:
        return FrontendError(
            f"argument '{arg.name}' has the wrong kind of value",
            location=self.location(arg.name),
            expected=expected,
            got=_show(arg),
        )


def _show(arg: Arg) -> str:
    parts: list[str] = []
    if arg.i is not None:
        parts.append(f"i: {arg.i}")
    if arg.f is not None:
        parts.append(f"f: {arg.f:g}")
    if arg.s is not None:
        parts.append(f"s: {arg.s[:40]!r}")
    for label, values in (("ints", arg.ints), ("floats", arg.floats)):
        if values.size:
            parts.append(f"{label}: {values[:4].tolist()}")
    if arg.strings:
        parts.append(f"{len(arg.strings)} strings")
    return ", ".join(parts) or "nothing"
