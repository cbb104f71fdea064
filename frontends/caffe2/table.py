"""The table of lifting functions, and what each of them is given about its operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqzc.diagnostics import FrontendError, Location, UnsupportedError
from sqzc.frontends.caffe2.args import ArgReader
from sqzc.frontends.caffe2.model import Op
from sqzc.frontends.common import LiftTable
from sqzc.ir import Builder

if TYPE_CHECKING:
    from sqzc.frontends.caffe2.env import NameEnv

ANY = 1 << 30


@dataclass(frozen=True)
class OpView:
    """One operator as a lifting function sees it."""

    op: Op
    args: ArgReader

    @property
    def type(self) -> str:
        """The operator's type."""
        return self.op.type

    @property
    def inputs(self) -> tuple[str, ...]:
        """Blob names read."""
        return self.op.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Blob names written; the first names the result."""
        return self.op.outputs

    @property
    def out(self) -> str:
        """The first output's name."""
        return self.op.outputs[0]

    @property
    def source(self) -> tuple[str, ...]:
        """Source names of the first result."""
        return (self.op.outputs[0],)

    @property
    def location(self) -> Location:
        """Where the operator stands."""
        return self.args.location()

    def order(self) -> str:
        """The `order` argument, NCHW or NHWC."""
        order = self.args.text("order", "NCHW").upper()
        if order not in ("NCHW", "NHWC"):
            raise self.error(f"order '{order}'", argument="order", expected="NCHW or NHWC")
        return order

    def error(
        self,
        message: str,
        *,
        argument: str = "",
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
    ) -> FrontendError:
        """A FrontendError at this operator, to be raised."""
        return FrontendError(message, location=self.args.location(argument), expected=expected, got=got, hint=hint)

    def unsupported(self, words: str) -> UnsupportedError:
        """An UnsupportedError at this operator, to be raised; the driver lists all of a net at once."""
        return UnsupportedError(words, location=self.location)


LiftFunction = Callable[[OpView, "NameEnv", Builder], None]


@dataclass(frozen=True)
class Lifter:
    """A lifting function with the number of blobs its operators read and write."""

    run: LiftFunction
    inputs: tuple[int, int]
    outputs: tuple[int, int]

    def check_arity(self, op: OpView) -> None:
        """FrontendError unless the operator reads and writes as many blobs as its type may."""
        for what, names, (least, most) in (
            ("inputs", op.inputs, self.inputs),
            ("outputs", op.outputs, self.outputs),
        ):
            if not least <= len(names) <= most:
                span = str(least) if least == most else f"at least {least}" if most == ANY else f"{least} to {most}"
                raise op.error(f"{op.type} has {len(names)} {what}", expected=span)


table: LiftTable[Lifter] = LiftTable("Caffe2")


def lift(
    *types: str, inputs: int | tuple[int, int] = 1, outputs: int | tuple[int, int] = 1
) -> Callable[[LiftFunction], LiftFunction]:
    """Registers a lifting function for operator types, with the number (or least and most) of their blobs."""
    ins = (inputs, inputs) if isinstance(inputs, int) else inputs
    outs = (outputs, outputs) if isinstance(outputs, int) else outputs

    def register(function: LiftFunction) -> LiftFunction:
        entry = Lifter(function, ins, outs)
        for type_ in types:
            table.add(type_, entry)
        return function

    return register
