"""Errors that a person reads: what is wrong, where, what was expected and what to do about it.

Two kinds never mix. A `SqzcError` is a mistake in what sqzc was given; the command line prints it without a traceback
and exits with 1. Anything else that escapes (`InternalError`, `AssertionError`, ...) is a bug in sqzc and keeps its
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Location:
    """Where in the user's material something is, from the outside in: file, then place within it."""

    file: str = ""
    place: str = ""

    def __str__(self) -> str:
        return ", ".join(part for part in (self.file, self.place) if part)


class SqzcError(Exception):
    """A mistake of the user's.

    `code` is stable and documented; `message` is one sentence; `expected`/`got` and `hint` are optional and printed on
    lines of their own.
    """

    code = "SQ00"

    def __init__(
        self,
        message: str,
        *,
        location: Location | None = None,
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.expected = expected
        self.got = got
        self.hint = hint

    def render(self) -> str:
        """The whole message as the command line shows it."""
        lines = [f"error[{self.code}]: {self.message}"]
        if self.location is not None and str(self.location):
            lines.append(f"  --> {self.location}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.got is not None:
            lines.append(f"  got:      {self.got}")
        if self.hint is not None:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class UsageError(SqzcError):
    """An option or argument whose value makes no sense."""

    code = "US01"


class FileError(SqzcError):
    """A file or folder that is missing, unreadable, unwritable or not what its name says."""

    code = "FI01"


class FrontendError(SqzcError):
    """A model file whose contents are malformed or contradict themselves."""

    code = "FE01"


class UnsupportedError(SqzcError):
    """A well-formed model that uses something sqzc does not implement."""

    code = "UN01"


class ParseError(SqzcError):
    """Text IR or plan text that does not follow the grammar."""

    code = "PA01"


class VerifyError(SqzcError):
    """A graph or plan that breaks a rule of the IR."""

    code = "VE01"


class PassError(SqzcError):
    """An unknown pass, a bad pass option, or a pass asked to do what it cannot."""

    code = "PS01"


class ScheduleError(SqzcError):
    """A schedule that would break a limit of the target, such as its number of registers."""

    code = "SC01"


class LinkError(SqzcError):
    """No usable linker, or the linker failed."""

    code = "LI01"


class ZooError(SqzcError):
    """A zoo model that is unknown, cannot be found or fetched, or fails its checksum."""

    code = "ZO01"


class LibraryError(SqzcError):
    """A compiled library that cannot be loaded or does not fit this process, CPU or call."""

    code = "LB01"


class InternalError(Exception):
    """A broken promise inside sqzc; never the user's fault."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """A hint naming the known word closest to `word`, or None when nothing is close."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean '{match[0]}'?" if match else None
