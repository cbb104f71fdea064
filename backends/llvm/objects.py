"""LLVM modules and constant data to object files, and object files to a static archive.

Code generation alone: no pipeline of LLVM's middle end runs, because it undoes the kernels' register tiling.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence

import llvmlite.binding as llvm

from sqzc.backends.llvm import elf
from sqzc.diagnostics import InternalError
from sqzc.target import Target

DATA_ALIGNMENT = 64
"""Bytes to which every part of the constant data is aligned: a cache line, an AVX-512 register."""

LIBC_SYMBOLS = frozenset(
    """bcmp free getpid memcmp memcpy memmove memset posix_memalign pthread_create pthread_join pthread_sigmask
    syscall sysconf""".split()
)
"""All that generated code may leave to the process it is loaded into."""


@functools.cache
def _keep_order() -> None:
    """Turns LLVM's machine scheduler off, for the whole process.

    Kernels are emitted in the order in which they should run, with every register spoken for. The scheduler hoists
    loads over that and spills accumulators: a 2 x 14 tile kept two of them on the stack and lost 10 % (LLVM 22,
    AVX-512).
    """
    llvm.set_option("sqzc", "-enable-misched=false")


def target_machine(target: Target, *, opt: int = 2, pic: bool = True) -> llvm.TargetMachine:
    """LLVM's code generator for `target`.

    `opt` is the effort of code generation from 0 to 3. Without `pic` the code must be linked to a fixed address.
    """
    assert 0 <= opt <= 3, f"no such level of code generation: {opt}"
    # All three do nothing when done before. Inline assembler is limited to the machine that compiles, as llvmlite
    # offers no other parser for it.
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    _keep_order()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu,
        features=target.feature_string,
        opt=opt,
        reloc="pic" if pic else "static",
        codemodel="default",
    )


def compile_module(module_text: str, target: Target, *, opt: int = 2, pic: bool = True) -> bytes:
    """The object file for a module in LLVM's text form. Equal arguments give equal bytes."""
    machine = target_machine(target, opt=opt, pic=pic)
    contents: bytes = machine.emit_object(_parse(module_text))
    return contents


def assembly(module_text: str, target: Target, *, opt: int = 2, pic: bool = True) -> str:
    """The assembler text of what `compile_module` makes, to read."""
    machine = target_machine(target, opt=opt, pic=pic)
    text: str = machine.emit_assembly(_parse(module_text))
    return text


def _parse(module_text: str) -> llvm.ModuleRef:
    """The module, checked by LLVM. A failure is a bug of the code generator's, never of the model's."""
    try:
        # A context of its own, so that the types and names of one module do not stay in memory for ever.
        module = llvm.parse_assembly(module_text, llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise InternalError(f"LLVM rejects the generated module: {error}") from error
    return module


def data_offsets(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where `data_object` puts parts of these sizes, in bytes from its symbol, and how many bytes all take."""
    offsets = []
    end = 0
    for size in sizes:
        start = -(-end // DATA_ALIGNMENT) * DATA_ALIGNMENT
        offsets.append(start)
        end = start + size
    return offsets, end


def data_object(symbol: str, parts: Sequence[bytes | bytearray | memoryview], target: Target) -> bytes:
    """An object file with `parts` in read-only pages, one after the other, each aligned to 64 bytes.

    `symbol` is the start of the first part, hidden outside the library; `data_offsets` gives the others. Hidden names
    still meet when several models are linked into one program, so `symbol` should contain the model's prefix. Code
    should declare it with default visibility: the address then comes through the global offset table, which a linker
    turns back into a plain address and which works at any distance in process.

    The file is written by hand, because that is the fastest and needs neither LLVM's parser nor a file. For 5 MB on a
    2-core AVX-512 server: an array written out in a module's text takes 100 to 140 ms and 90 MB, `.incbin` 5 ms but a
    temporary file and an assembler for the target, this 2 ms.
    """
    offsets, _ = data_offsets([memoryview(part).nbytes for part in parts])
    pieces: list[bytes | bytearray | memoryview] = []
    end = 0
    for offset, part in zip(offsets, parts, strict=True):
        pieces += [bytes(offset - end), part]
        end = offset + memoryview(part).nbytes
    return elf.constant_object(symbol, b"".join(pieces), DATA_ALIGNMENT, target.triple.split("-")[0])


def check_symbols(objects: Sequence[bytes]) -> None:
    """Raises InternalError when the objects need anything that is neither in them nor in libc.

    A linker would let it pass, and the library would only fail where it is loaded.
    """
    unknown = [name for name in elf.undefined_symbols(objects) if name not in LIBC_SYMBOLS]
    if unknown:
        raise InternalError(f"the generated code needs what nothing defines: {', '.join(unknown)}")


def archive(objects: Sequence[bytes], stem: str = "model") -> bytes:
    """A static library in the GNU format, with an index of its symbols and no dates or owners.

    Its members are called STEM0.o and so on; STEM has 11 characters at most.
    """
    assert 0 < len(stem) <= 11, (
        "member names of the simple form have 15 characters at most, two for a slash and a digit"
    )
    assert len(objects) <= 10, "one digit numbers the members"
    defined = [
        (number, symbol.name.encode("ascii"))
        for number, contents in enumerate(objects)
        for symbol in elf.symbols(contents)
        if symbol.defined and symbol.is_global
    ]
    names = b"".join(name + b"\0" for _, name in defined)
    index_size = 4 + 4 * len(defined) + len(names)
    members = [_member(f"{stem}{number}.o/", contents) for number, contents in enumerate(objects)]
    starts = []
    position = len(_ARCHIVE_MAGIC) + _MEMBER_HEADER_BYTES + index_size + index_size % 2
    for member in members:
        starts.append(position)
        position += len(member)
    offsets = [starts[number] for number, _ in defined]
    index = struct.pack(f">{1 + len(offsets)}I", len(offsets), *offsets) + names
    return b"".join([_ARCHIVE_MAGIC, _member("/", index), *members])


_ARCHIVE_MAGIC = b"!<arch>\n"
_MEMBER_HEADER_BYTES = 60


def _member(name: str, contents: bytes) -> bytes:
    """One file of an archive: dated 1970, owned by root, padded to an even size."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(contents):<10}`\n".encode("ascii")
    assert len(header) == _MEMBER_HEADER_BYTES, f"archive member '{name}' does not fit its header"
    return header + contents + b"\n" * (len(contents) % 2)
