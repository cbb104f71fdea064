"""How an op is declared: operands, attributes, traits; printing, parsing and docs derive from it.

    @op("max_pool2d", layouts=Layouts.IMAGE)
    class MaxPool2d(OpDef):
        '''Largest value under a sliding window, per channel.'''
        x = Operand(rank=4)
        kernel = Attr(PAIR, at_least=1)

        def infer(self, x: TensorType) -> TensorType: ...

An instance holds attribute values and is immutable; a `Node` binds it to operands. Numbers live in the backends.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

import numpy as np

from sqzc.diagnostics import ParseError, VerifyError
from sqzc.ir.types import DType, TensorType

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)


class Kind(Generic[T]):
    """A type of attribute values with its text form."""

    def __init__(
        self,
        name: str,
        check: Callable[[object], T | None],
        show: Callable[[T], str],
        read: Callable[[str], T],
    ) -> None:
        self.name, self.check, self.show, self.read = name, check, show, read


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_ints(length: int | None) -> Callable[[object], tuple[int, ...] | None]:
    def check(value: object) -> tuple[int, ...] | None:
        if not isinstance(value, tuple | list) or not all(_is_int(item) for item in value):
            return None
        if length is not None and len(value) != length:
            return None
        return tuple(int(item) for item in value)

    return check


def show_float(value: float) -> str:
    """The shortest text that reads back as the same double; always distinguishable from an integer."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(float(value))


def _show_pair(value: tuple[int, ...]) -> str:
    return "x".join(map(str, value))


def _show_ints(value: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, value)) + "]"


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ParseError(f"'{text}' is not an integer") from None


def _read_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ParseError(f"'{text}' is not a number") from None


def _read_pair(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError:
        raise ParseError(f"'{text}' is not a pair of integers", expected="2x3") from None


def _read_list(text: str) -> list[str]:
    if not (text.startswith("[") and text.endswith("]")):
        raise ParseError(f"'{text}' is not a list", expected="[1,2,3]")
    inner = text[1:-1].strip()
    return [part.strip() for part in inner.split(",")] if inner else []


def _read_ints(text: str) -> tuple[int, ...]:
    return tuple(_read_int(part) for part in _read_list(text))


def _read_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ParseError(f"'{text}' is not a truth value", expected="true or false")
    return text == "true"


def _check_float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    return float(value)


def _check_int(value: object) -> int | None:
    return int(cast(int, value)) if _is_int(value) else None


INT: Kind[int] = Kind("int", _check_int, str, _read_int)
FLOAT: Kind[float] = Kind("float", _check_float, show_float, _read_float)
BOOL: Kind[bool] = Kind("bool", lambda v: v if isinstance(v, bool) else None, lambda v: str(v).lower(), _read_bool)
INTS: Kind[tuple[int, ...]] = Kind("ints", _check_ints(None), _show_ints, _read_ints)
PAIR: Kind[tuple[int, int]] = Kind(
    "pair", cast(Any, _check_ints(2)), _show_pair, cast(Callable[[str], tuple[int, int]], _read_pair)
)
PADS: Kind[tuple[int, int, int, int]] = Kind("pads", cast(Any, _check_ints(4)), _show_ints, cast(Any, _read_ints))
FLOATS: Kind[tuple[float, ...]] = Kind(
    "floats",
    lambda v: tuple(float(x) for x in v) if isinstance(v, tuple | list) else None,
    lambda v: "[" + ",".join(show_float(x) for x in v) + "]",
    lambda text: tuple(_read_float(part) for part in _read_list(text)),
)


def enum_kind(cls: type[E]) -> Kind[E]:
    """Attribute values are members of `cls`, spelled by their lower-case values."""

    def read(text: str) -> E:
        try:
            return cls(text)
        except ValueError:
            known = ", ".join(str(member.value) for member in cls)
            raise ParseError(f"unknown {cls.__name__.lower()} '{text}'", expected=f"one of {known}") from None

    return Kind(cls.__name__.lower(), lambda v: v if isinstance(v, cls) else None, lambda v: str(v.value), read)


DTYPE: Kind[DType] = enum_kind(DType)

_MISSING: Any = object()


class Attr(Generic[T]):
    """One attribute of an op; `default` makes it optional and unprinted when equal."""

    def __init__(self, kind: Kind[T], *, default: T = _MISSING, at_least: float | None = None, doc: str = "") -> None:
        self.kind, self.default, self.at_least, self.doc = kind, default, at_least, doc
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @property
    def required(self) -> bool:
        """Whether the attribute must be given."""
        return self.default is _MISSING

    @overload
    def __get__(self, instance: None, owner: type) -> Attr[T]: ...
    @overload
    def __get__(self, instance: OpDef, owner: type) -> T: ...
    def __get__(self, instance: OpDef | None, owner: type) -> Attr[T] | T:
        if instance is None:
            return self
        return cast(T, instance.attrs[self.name])

    def accept(self, value: object, op_name: str) -> T:
        """`value` in canonical form; VerifyError when it is of another kind or below the bound."""
        good = self.kind.check(value)
        if good is None:
            raise VerifyError(
                f"{op_name}: attribute '{self.name}' is {value!r}",
                expected=f"a value of kind {self.kind.name}",
            )
        if self.at_least is not None:
            parts: Sequence[Any] = good if isinstance(good, tuple) else (good,)
            if any(part < self.at_least for part in parts):
                raise VerifyError(
                    f"{op_name}: '{self.name}' must be at least {self.at_least:g}, got {self.kind.show(good)}"
                )
        return good


class Operand:
    """One operand of an op. `optional` ones come last; `variadic` is the last and takes any number."""

    def __init__(
        self,
        *,
        rank: int | None = None,
        dtype: DType | None = None,
        optional: bool = False,
        variadic: bool = False,
        doc: str = "",
    ) -> None:
        self.rank, self.dtype, self.optional, self.variadic, self.doc = rank, dtype, optional, variadic, doc
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def check(self, actual: TensorType, op_name: str) -> None:
        """VerifyError unless `actual` fits."""
        if self.rank is not None and actual.rank != self.rank:
            raise VerifyError(f"{op_name}: operand '{self.name}'", expected=f"rank {self.rank}", got=str(actual))
        if self.dtype is not None and actual.dtype != self.dtype:
            raise VerifyError(
                f"{op_name}: operand '{self.name}'",
                expected=f"element type {self.dtype.value}",
                got=str(actual),
            )


class Layouts(enum.Enum):
    """Which memory layouts an op takes.

    PLAIN: row-major everywhere. SAME: operands and results share one layout, whichever. IMAGE: the first operand, a
    residual operand and the result are images that may be channel-blocked, each for itself; all others are row-major.
    BROADCAST: row-major everywhere; or the result is channel-blocked and every operand too, with the result's number of
    channels, but for operands of one element, which stay row-major. So numpy's broadcasting also holds between the
    physical arrays. CONVERT: any layout to any layout.
    """

    PLAIN = "plain"
    SAME = "same"
    IMAGE = "image"
    BROADCAST = "broadcast"
    CONVERT = "convert"


Inferred = TensorType | tuple[TensorType, ...]


class OpDef:
    """Base of every op declaration."""

    name: ClassVar[str] = ""
    layouts: ClassVar[Layouts] = Layouts.PLAIN
    operands: ClassVar[tuple[Operand, ...]] = ()
    attributes: ClassVar[dict[str, Attr[Any]]] = {}
    image_operands: ClassVar[tuple[str, ...]] = ("x", "residual")

    infer: Callable[..., Inferred]

    def __init__(self, **given: object) -> None:
        values: dict[str, object] = {}
        for name, attr in self.attributes.items():
            if name in given:
                values[name] = attr.accept(given.pop(name), self.name)
            elif attr.required:
                raise VerifyError(f"{self.name}: attribute '{name}' is missing")
            else:
                values[name] = attr.default
        if given:
            raise VerifyError(
                f"{self.name} has no attribute '{next(iter(given))}'",
                expected=", ".join(self.attributes) or "none",
            )
        self.attrs: dict[str, Any] = values
        self.check()

    def check(self) -> None:
        """Rules between attributes; raises VerifyError."""

    def flops(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        """Floating point operations of one evaluation; 2 per multiply-accumulate."""
        return 0

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> int:
        """Multiply-accumulates of one evaluation."""
        return 0

    def replace(self, **changes: object) -> OpDef:
        """The same op with some attributes changed."""
        return type(self)(**{**self.attrs, **changes})

    def result_types(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Logical result types (row-major) for operands of these types; VerifyError when they do not fit."""
        self.check_operands(inputs)
        plain = [t.with_layout(type(t.layout)()) for t in inputs]
        got = self.infer(*plain)
        return got if isinstance(got, tuple) else (got,)

    def check_operands(self, inputs: Sequence[TensorType]) -> None:
        """VerifyError unless the number, ranks and element types of the operands fit."""
        least = sum(not (o.optional or o.variadic) for o in self.operands)
        variadic = bool(self.operands) and self.operands[-1].variadic
        if len(inputs) < least or (not variadic and len(inputs) > len(self.operands)):
            words = f"at least {least}" if variadic else f"{least} to {len(self.operands)}"
            raise VerifyError(f"{self.name}: {len(inputs)} operands", expected=words)
        for index, actual in enumerate(inputs):
            self.operands[min(index, len(self.operands) - 1)].check(actual, self.name)

    def operand_name(self, index: int) -> str:
        """Declared name of the operand at `index`."""
        return self.operands[min(index, len(self.operands) - 1)].name

    def shown_attrs(self) -> list[tuple[str, str]]:
        """(name, text) of every attribute that differs from its default, in declaration order."""
        shown = []
        for name, attr in self.attributes.items():
            text = attr.kind.show(self.attrs[name])
            if attr.required or text != attr.kind.show(attr.default):
                shown.append((name, text))
        return shown

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        # By text, so that ops are equal exactly when they print equal: nan is itself, and -0.0 is not 0.0.
        return self.shown_attrs() == other.shown_attrs()

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.shown_attrs())))

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}={v}" for k, v in self.shown_attrs())
        return f"{self.name}{{{inner}}}"


registry: dict[str, type[OpDef]] = {}

O = TypeVar("O", bound=type[OpDef])  # noqa: E741


def op(name: str, *, layouts: Layouts = Layouts.PLAIN) -> Callable[[O], O]:
    """Registers an op declaration under its name in text IR."""

    def register(cls: O) -> O:
        assert name not in registry, f"op {name} is declared twice"
        operands: dict[str, Operand] = {}
        attributes: dict[str, Attr[Any]] = {}
        for base in reversed(cls.__mro__):
            for key, member in vars(base).items():
                if isinstance(member, Operand):
                    operands[key] = member
                elif isinstance(member, Attr):
                    attributes[key] = member
        cls.name, cls.layouts = name, layouts
        cls.operands, cls.attributes = tuple(operands.values()), attributes
        registry[name] = cls
        return cls

    return register
