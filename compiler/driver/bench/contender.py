"""A contender as the benchmark sees it: a process that loads a model and then waits for its turns."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sqzc.diagnostics import SqzcError
from sqzc.ir.constant import Array

WORKER = Path(__file__).with_name("worker.py")

# Nothing that is asked of a contender takes this long; it hangs, or its runtime does.
PATIENCE_SECONDS = 600.0


class ContenderError(SqzcError):
    """A contender's process that failed, or does not answer."""

    code = "BN01"


@dataclass(frozen=True)
class Spec:
    """What a contender is to run.

    `python` is its interpreter, None for this one. `inputs` are `.npy` files by input name. `bound` leaves inputs and
    outputs where they are in memory from call to call. `isa` limits what it may use of the CPU, in oneDNN's words.
    """

    contender: str
    file: Path
    inputs: Mapping[str, Path]
    threads: int = 1
    python: Path | None = None
    bound: bool = False
    isa: str | None = None

    @property
    def command(self) -> list[str]:
        """The command line of the process. Another interpreter is shielded from what this one was told to import."""
        if self.python is None:
            return [sys.executable, "-P", str(WORKER)]
        return [str(self.python), "-I", str(WORKER)]

    @property
    def request(self) -> dict[str, Any]:
        """What the process is told to open."""
        return {
            "do": "open",
            "contender": self.contender,
            "file": str(self.file),
            "inputs": {name: str(path) for name, path in self.inputs.items()},
            "threads": self.threads,
            "bound": self.bound,
            "isa": self.isa,
        }


class Contender:
    """A running process. `facts` are its version and the seconds it took to import, load and run once."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.name = spec.contender
        self._stderr = tempfile.TemporaryFile()
        self._pending = b""
        try:
            self._process = subprocess.Popen(
                spec.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
            )
        except OSError as error:
            self._stderr.close()
            raise ContenderError(f"cannot start {spec.command[0]}", got=error.strerror) from None
        try:
            self.facts = self._ask(spec.request)
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> str:
        """The version of the runtime."""
        return str(self.facts["version"])

    def turn(self, warmups: int, calls: int) -> list[float]:
        """Seconds of each of `calls` calls, after `warmups` that are not counted."""
        return [float(value) for value in self._ask({"do": "turn", "warmups": warmups, "calls": calls})["seconds"]]

    def answer(self) -> list[Array]:
        """The outputs of the latest call, in order."""
        with tempfile.TemporaryDirectory(prefix="sqzc-bench-") as folder:
            path = Path(folder, "outputs.npz")
            self._ask({"do": "answer", "file": str(path)})
            with np.load(path, allow_pickle=False) as arrays:
                return [arrays[f"arr_{index}"] for index in range(len(arrays.files))]

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()  # It ends when there is nothing more to read,
            self._process.wait(timeout=5)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()  # or else hangs.
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        reply: dict[str, Any] = json.loads(self._line())
        if "error" in reply:
            raise ContenderError(f"{self.name} failed", got=reply["error"])
        return reply

    def _line(self) -> bytes:
        """The next line that the process writes."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ContenderError(f"{self.name} does not answer", got=f"nothing in {PATIENCE_SECONDS:.0f} s")
            part = self._process.stdout.read1(1 << 20)  # type: ignore[attr-defined]
            if not part:
                raise self._ended()
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ended(self) -> ContenderError:
        """The error for a process that is gone, with the last of what it said."""
        status = self._process.wait()
        self._stderr.seek(0)
        words = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return ContenderError(f"{self.name} ended with status {status}", got="; ".join(words[-3:]) or "no message")


@contextmanager
def opened(specs: Sequence[Spec]) -> Iterator[list[Contender]]:
    """All contenders, loaded one after the other; all are ended when the block ends."""
    contenders: list[Contender] = []
    try:
        for spec in specs:
            contenders.append(Contender(spec))
        yield contenders
    finally:
        for contender in contenders:
            contender.close()
