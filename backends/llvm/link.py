"""Object files to a shared library, with whatever linker there is.

Every linker is called without start files and libraries, so that they all make the same kind of file: nothing but the
objects, with libc's functions left to the process that loads it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqzc.backends.llvm.elf import exported_functions
from sqzc.backends.llvm.objects import check_symbols
from sqzc.diagnostics import FileError, InternalError, LinkError, Location, UsageError, nearest

LINKERS = ("ld", "ld.lld", "cc", "ziglang")
"""In the order in which they are tried. A compiler driver is slower than the linker it calls, so it comes later."""

TIMEOUT_SECONDS = 60

_ADVICE = "install binutils or a C compiler (apt install binutils), or pip install 'sqzc[link]'"

_IGNORED_VARIABLES = ("LD_RUN_PATH", "LDEMULATION", "GNUTARGET", "COLLECT_GCC_OPTIONS")
"""Environment variables by which a linker would put something of this machine into its output."""


@dataclass(frozen=True)
class Linker:
    """A linker that can be called: its name in LINKERS, and the start of its command line."""

    name: str
    command: tuple[str, ...]

    @property
    def is_driver(self) -> bool:
        """Whether it is a compiler that passes options on."""
        return self.name == "cc"


def find_linker(name: str | None = None) -> Linker:
    """The first linker found of LINKERS, or the one called `name`.

    Raises UsageError for a name that is not in LINKERS, LinkError when there is none.
    """
    if name is not None and name not in LINKERS:
        raise UsageError(
            f"unknown linker '{name}'", expected=f"one of {', '.join(LINKERS)}", hint=nearest(name, LINKERS)
        )
    for candidate in LINKERS if name is None else (name,):
        command = _ziglang() if candidate == "ziglang" else _on_path(candidate)
        if command is not None:
            return Linker(candidate, command)
    raise LinkError(
        "there is no linker to make a shared library with" if name is None else f"the linker '{name}' is not installed",
        expected="ld, ld.lld or cc on the PATH, or the Python package ziglang",
        hint=_ADVICE,
    )


def _on_path(name: str) -> tuple[str, ...] | None:
    found = shutil.which(name)
    return (found,) if found else None


def _ziglang() -> tuple[str, ...] | None:
    """The zig program inside its package; calling it directly saves the start of another Python."""
    spec = importlib.util.find_spec("ziglang")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(folder) / "zig"
        if os.access(program, os.X_OK):
            return (str(program), "ld.lld")
    return None


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises FileError unless a file can be put at `path`. To be called before work whose result goes there."""
    path = Path(path)
    location = Location(str(path))
    if path.is_dir():
        raise FileError("the output path is a folder", location=location, expected="the path of a file")
    if not path.parent.is_dir():
        raise FileError("the output's folder does not exist", location=location, hint=f"mkdir -p {path.parent}")
    try:
        # Tried, not asked: permissions, read-only file systems and quotas all show themselves only so. The result is
        # moved over what is there, so only the folder has to be writable.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise FileError("the output cannot be written", location=location, got=error.strerror) from error


def link_shared(
    objects: Sequence[bytes],
    output: str | os.PathLike[str],
    *,
    exports: Sequence[str],
    soname: str | None = None,
    linker: str | None = None,
) -> None:
    """Writes the shared library made of `objects`, visible outside only by the names in `exports`.

    `linker` is one of LINKERS, by default the first that is found. Without a `soname` programs that are linked to the
    library look for it by its file's name. The library appears at `output` whole or not at all. Equal arguments and
    the same linker give equal bytes, in any folder.

    Raises FileError when `output` cannot be written, LinkError when there is no linker or it fails.
    """
    output = Path(output)
    check_writable(output)
    check_symbols(objects)
    absent = set(exports).difference(exported_functions(objects))
    if absent:
        raise InternalError(f"no object defines what the library is to export: {', '.join(sorted(absent))}")
    found = find_linker(linker)
    with tempfile.TemporaryDirectory(prefix="sqzc-link-") as folder:
        names = _write_objects(objects, Path(folder))
        script = "{\n  global:\n" + "".join(f"    {name};\n" for name in sorted(exports)) + "  local: *;\n};\n"
        Path(folder, "exports.map").write_text(script, encoding="ascii")
        options = [
            "--version-script=exports.map",
            "--build-id=none",
            "--hash-style=gnu",
            "-znoexecstack",
            "-zrelro",
            "-znow",
        ]
        if soname is not None:
            options.append(f"-soname={soname}")
        if found.is_driver:
            command = [*found.command, "-shared", "-nostdlib", *(f"-Wl,{option}" for option in options)]
        else:
            command = [*found.command, "-shared", *options]
        result = Path(folder) / "output"
        _call([*command, "-o", result.name, *names], folder)
        _move(result, output)


def link_relocatable(objects: Sequence[bytes], *, linker: str | None = None) -> bytes:
    """One object file made of several, for users who link it themselves. Raises LinkError as `link_shared` does."""
    found = find_linker(linker)
    with tempfile.TemporaryDirectory(prefix="sqzc-link-") as folder:
        names = _write_objects(objects, Path(folder))
        options = ["-r", "-nostdlib"] if found.is_driver else ["-r"]
        _call([*found.command, *options, "-o", "output", *names], folder)
        return Path(folder, "output").read_bytes()


def _write_objects(objects: Sequence[bytes], folder: Path) -> list[str]:
    """Puts the objects into files and gives their names, which do not depend on the folder."""
    names = []
    for number, contents in enumerate(objects):
        names.append(f"object{number}.o")
        (folder / names[-1]).write_bytes(contents)
    return names


def _call(command: list[str], folder: str) -> None:
    """Runs a linker in `folder`. Raises LinkError with the linker's own words when it fails."""
    environment = {key: value for key, value in os.environ.items() if key not in _IGNORED_VARIABLES}
    environment["LC_ALL"] = "C"
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise LinkError(f"the linker {command[0]} did not finish within {TIMEOUT_SECONDS} s") from error
    except OSError as error:
        raise LinkError(
            f"the linker {command[0]} cannot be run", got=error.strerror, hint=f"to use another: {_ADVICE}"
        ) from error
    if done.returncode != 0:
        words = done.stderr.strip() or f"status {done.returncode} and no message"
        raise LinkError(f"the linker {command[0]} failed", got=words, hint=f"to use another: {_ADVICE}")


def _move(result: Path, output: Path) -> None:
    """Puts a finished file at `output` in one step, across file systems, with the permissions of any new file."""
    partial: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}.", delete=False) as file:
            partial = Path(file.name)
            with result.open("rb") as source:
                shutil.copyfileobj(source, file)
        partial.chmod(result.stat().st_mode & 0o777)
        partial.replace(output)
    except OSError as error:
        raise FileError("the output cannot be written", location=Location(str(output)), got=error.strerror) from error
    finally:
        if partial is not None:
            with suppress(FileNotFoundError):
                partial.unlink()
