"""Writing what was made: each form whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from sqzc.diagnostics import FileError, Location, UsageError, nearest
from sqzc.driver.build import Code, Optimised, continued, stage
from sqzc.driver.labels import labels_array
from sqzc.ir.files import replacing, save_weights, weights_of, write_text
from sqzc.ir.printer import print_graph

SUFFIXES: Mapping[str, str] = {
    "so": ".so",
    "obj": ".o",
    "archive": ".a",
    "llvm-ir": ".ll",
    "asm": ".s",
    "ir": ".sqz",
    "onnx": ".onnx",
    "header": ".h",
}
"""What can be emitted, with the suffix by which an output path asks for it."""

TEXT_KINDS = ("llvm-ir", "asm", "ir", "header")
"""What can go to standard output."""

STATIC_KINDS = ("obj", "archive")
"""What is linked into a program, perhaps beside other models."""


def kind_for(output: Path, kind: str | None = None) -> str:
    """The kind asked for, else the one that the suffix says, else a shared library."""
    if kind is not None:
        if kind not in SUFFIXES:
            raise UsageError(
                f"unknown kind of output '{kind}'", expected=", ".join(SUFFIXES), hint=nearest(kind, SUFFIXES)
            )
        return kind
    return next((name for name, suffix in SUFFIXES.items() if output.suffix == suffix), "so")


def check_output(path: Path) -> None:
    """FileError unless a file can be put at `path`. To be called before the work whose result goes there."""
    from sqzc.backends.llvm.link import check_writable

    if path.exists() and not path.is_file() and not path.is_dir():
        raise FileError("the output path is not a regular file", location=Location(str(path)))
    check_writable(path)


def check_linker(name: str | None) -> None:
    """LinkError unless there is a linker to make a shared library with; UsageError for a name that is none."""
    from sqzc.backends.llvm.link import find_linker

    find_linker(name)


def needs_code(kind: str) -> bool:
    """Whether a kind is made from generated code rather than from the graph."""
    return kind not in ("ir", "onnx")


def write_graph(optimised: Optimised, kind: str, output: Path) -> None:
    """Writes the graph as IR, with its weights beside it, or as ONNX."""
    if kind == "onnx":
        from sqzc.backends.onnx_export import to_bytes

        _write_bytes(output, to_bytes(optimised.graph))
        return
    graph = continued(optimised)
    arrays = {**weights_of(graph), **labels_array(optimised.source.labels)}
    save_weights(output.with_suffix(".safetensors"), arrays)
    write_text(output, print_graph(graph))


def write_code(code: Code, kind: str, output: Path, linker: str | None = None) -> None:
    """Writes a library, object, archive, header, or the code as text."""
    _WRITERS[kind](code, output, linker)


def graph_text(optimised: Optimised) -> str:
    """The graph as text that goes on where this compilation stopped, given its weights."""
    return print_graph(continued(optimised))


def code_text(code: Code, kind: str) -> str:
    """The code in one of the TEXT_KINDS."""
    if kind == "header":
        return header_text(code)
    return code.module_text if kind == "llvm-ir" else code.assembly


def header_text(code: Code) -> str:
    """The C header of the library."""
    from sqzc.runtime.abi import header

    return header(code.settings.prefix, code.metadata)


def _write_bytes(output: Path, data: bytes) -> None:
    with replacing(output) as handle:
        handle.write(data)


def _write_shared(code: Code, output: Path, linker: str | None) -> None:
    from sqzc.backends.llvm.link import link_shared

    objects = code.objects
    with stage("linking", code.graph):
        link_shared(objects, output, exports=code.exports, linker=linker)


def _write_object(code: Code, output: Path, linker: str | None) -> None:
    from sqzc.backends.llvm.objects import compile_module

    with stage("generating machine code", code.graph):
        _write_bytes(output, compile_module(_with_constants(code), code.settings.target, opt=code.effort))


def _with_constants(code: Code) -> str:
    """The module with its constants inside: slow for LLVM to read, but it makes one object file without a linker."""
    declaration = re.compile(rf'^@"{code.constants_symbol}" = external constant \[(\d+) x i8\]', re.MULTILINE)
    escaped = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in code.constants)
    definition = f'@"{code.constants_symbol}" = internal constant [{len(code.constants)} x i8] c"{escaped}"'
    text, count = declaration.subn(lambda match: definition, code.module_text)
    assert count == 1, "the module declares its constants in another way"
    return text


def _write_archive(code: Code, output: Path, linker: str | None) -> None:
    from sqzc.backends.llvm.objects import archive

    _write_bytes(output, archive(code.objects))


def _write_text(kind: str) -> Callable[[Code, Path, str | None], None]:
    return lambda code, output, linker: write_text(output, code_text(code, kind))


_WRITERS: Mapping[str, Callable[[Code, Path, str | None], None]] = {
    "so": _write_shared,
    "obj": _write_object,
    "archive": _write_archive,
    "llvm-ir": _write_text("llvm-ir"),
    "asm": _write_text("asm"),
    "header": _write_text("header"),
}
