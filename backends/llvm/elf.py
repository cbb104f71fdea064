"""Reading the symbols of 64-bit ELF files, and writing an object file that holds nothing but constants.

The files read are those that LLVM and the linkers have just made, so their contents are trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

MACHINES = {"x86_64": 62, "aarch64": 183}
"""The processor number in an ELF header for the architecture of a triple."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_RELOCATABLE = 1
_PROGBITS, _SYMTAB, _STRTAB, _DYNSYM = 1, 2, 3, 11
_ALLOCATED = 2
_LOCAL, _WEAK = 0, 2
_FUNCTION, _OBJECT = 2, 1
_DEFAULT, _HIDDEN = 0, 2


@dataclass(frozen=True)
class Symbol:
    """One entry of a symbol table; `defined` says whether this file has it or another must."""

    name: str
    defined: bool
    is_global: bool
    is_weak: bool
    is_function: bool
    is_hidden: bool
    size: int


def symbols(file: bytes, *, dynamic: bool = False) -> tuple[Symbol, ...]:
    """The named symbols of `file`, those for the dynamic loader when `dynamic` is set, in the order of the table."""
    headers = _sections(file)
    wanted = _DYNSYM if dynamic else _SYMTAB
    found = []
    for _, kind, _, _, offset, size, link, *_ in headers:
        if kind != wanted:
            continue
        text_start = headers[link][4]
        for name, info, other, section, _, length in _SYMBOL.iter_unpack(file[offset : offset + size]):
            start = text_start + name
            text = file[start : file.index(b"\0", start)].decode("ascii")
            if text:
                found.append(
                    Symbol(
                        name=text,
                        defined=section != 0,
                        is_global=info >> 4 != _LOCAL,
                        is_weak=info >> 4 == _WEAK,
                        is_function=info & 15 == _FUNCTION,
                        is_hidden=other & 3 != _DEFAULT,
                        size=length,
                    )
                )
    return tuple(found)


def exported_functions(objects: Sequence[bytes]) -> list[str]:
    """The functions that the object files define for everybody, in alphabetical order."""
    return sorted(
        symbol.name
        for file in objects
        for symbol in symbols(file)
        if symbol.defined and symbol.is_global and symbol.is_function and not symbol.is_hidden
    )


def undefined_symbols(objects: Sequence[bytes]) -> list[str]:
    """What the object files together need and do not define, in alphabetical order."""
    every = [symbol for file in objects for symbol in symbols(file) if symbol.is_global]
    defined = {symbol.name for symbol in every if symbol.defined}
    return sorted({symbol.name for symbol in every if not symbol.defined} - defined)


def _sections(file: bytes) -> list[tuple[int, ...]]:
    header = _HEADER.unpack_from(file)
    assert header[0][:6] == _IDENT[:6], "not a 64-bit little-endian ELF file"
    start, size, count = header[6], header[11], header[12]
    assert size == _SECTION.size, "section headers of an unknown size"
    return [_SECTION.unpack_from(file, start + i * size) for i in range(count)]


def constant_object(symbol: str, contents: bytes, alignment: int, arch: str) -> bytes:
    """An object file whose read-only section is `contents`, under the name `symbol`, hidden outside the library.

    The section starts at a multiple of `alignment` bytes, a power of two. Equal arguments give equal bytes.
    """
    assert alignment.bit_count() == 1, "alignment is not a power of two"
    section_names = b"\0.rodata\0.note.GNU-stack\0.symtab\0.strtab\0"
    names = b"\0" + symbol.encode("ascii") + b"\0"
    entry = _SYMBOL.pack(1, 1 << 4 | _OBJECT, _HIDDEN, 1, 0, len(contents))
    table = bytes(_SYMBOL.size) + entry
    data_at = _round_up(_HEADER.size, alignment)
    table_at = _round_up(data_at + len(contents), 8)
    names_at = table_at + len(table)
    headers_at = _round_up(names_at + len(names) + len(section_names), 8)

    def named(name: bytes) -> int:
        # The names of the sections follow the symbol's in one table.
        return len(names) + section_names.index(b"\0" + name + b"\0") + 1

    sections = [
        (0,) * 10,
        (named(b".rodata"), _PROGBITS, _ALLOCATED, 0, data_at, len(contents), 0, 0, alignment, 0),
        # An empty section of this name says that the code needs no executable stack.
        (named(b".note.GNU-stack"), _PROGBITS, 0, 0, table_at, 0, 0, 0, 1, 0),
        (named(b".symtab"), _SYMTAB, 0, 0, table_at, len(table), 4, 1, 8, _SYMBOL.size),
        (named(b".strtab"), _STRTAB, 0, 0, names_at, len(names) + len(section_names), 0, 0, 1, 0),
    ]
    header = _HEADER.pack(
        _IDENT,
        _RELOCATABLE,
        MACHINES[arch],
        1,
        0,
        0,
        headers_at,
        0,
        _HEADER.size,
        0,
        0,
        _SECTION.size,
        len(sections),
        4,
    )
    parts = [
        header,
        bytes(data_at - len(header)),
        contents,
        bytes(table_at - data_at - len(contents)),
        table,
        names,
        section_names,
        bytes(headers_at - names_at - len(names) - len(section_names)),
        *(_SECTION.pack(*fields) for fields in sections),
    ]
    return b"".join(parts)


def _round_up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
