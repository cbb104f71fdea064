"""The other runtimes: where they are installed, and what can be asked of them."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqzc.diagnostics import FileError, UsageError, nearest
from sqzc.target import native, resolve

PEERS = ("onnxruntime", "openvino")

INSTALL = "python -m venv peers && peers/bin/pip install onnxruntime openvino"
"""How to get an interpreter with all of them, for --peer-python peers/bin/python."""

# oneDNN's words for what a target may use.
_ONEDNN_ISA = {
    "x86-64-v2": "SSE41",
    "x86-64-v3": "AVX2",
    "x86-64-v4": "AVX512_CORE",
    "x86-64-v4-amx": "AVX512_CORE_AMX",
}

_ASK = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Peers:
    """The peers that were asked for, in order, with their versions. `python` is their interpreter, None for ours."""

    versions: Mapping[str, str]
    python: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        """The peers in the order asked for."""
        return tuple(self.versions)


def parse_peers(text: str) -> tuple[str, ...]:
    """Reads `onnxruntime,openvino`; UsageError for a runtime that is not known."""
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for name in names:
        if name not in PEERS:
            raise UsageError(f"unknown peer '{name}'", expected=", ".join(PEERS), hint=nearest(name, PEERS))
    return names


def find_peers(names: Sequence[str], python: Path | None) -> Peers:
    """The peers in `python`, or in this interpreter when None; UsageError naming the command to install them."""
    found = _versions_here(names) if python is None else _versions_in(python, names)
    missing = [name for name in names if name not in found]
    if missing:
        where = "this interpreter" if python is None else str(python)
        again = f"{INSTALL}, then --peer-python peers/bin/python"
        if python is not None:
            again = f"{python} -m pip install {' '.join(missing)}"
        raise UsageError(f"{' and '.join(missing)} cannot be imported by {where}", hint=again)
    return Peers({name: found[name] for name in names}, python)


def _versions_here(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _versions_in(python: Path, names: Sequence[str]) -> dict[str, str]:
    try:
        run = subprocess.run(
            [str(python), "-I", "-c", _ASK, *names], capture_output=True, text=True, check=False, timeout=60
        )
    except OSError as error:
        raise FileError(f"cannot run {python}", got=error.strerror, hint=INSTALL) from None
    if run.returncode != 0:
        raise FileError(f"{python} is not a Python interpreter", got=run.stderr.strip()[-200:], hint=INSTALL)
    found: dict[str, str] = json.loads(run.stdout)
    return found


def isa_limit(target: str) -> str | None:
    """What a peer may use of the CPU so that it has no more than `target` has; None where that is all there is."""
    if not sys.platform.startswith("linux") or resolve(target) == native():
        return None
    return _ONEDNN_ISA.get(target)


def limit_note(peer: str, isa: str | None) -> str | None:
    """What to say about a peer's limit, if there is one to keep."""
    if isa is None:
        return None
    if peer == "openvino":
        return f"openvino is limited to {isa}"
    return f"{peer} has no setting to limit it, so it uses all that this CPU has"
