"""What the ABI needs to know of an architecture: how to test a CPU's features, how to pause, Linux's call numbers.

The tests run before the first wide instruction and use none themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llvmlite import ir

from sqzc.diagnostics import InternalError, UnsupportedError
from sqzc.target import ASK_FOR_TILES

if TYPE_CHECKING:
    from sqzc.backends.llvm.abi_emit import Body

_I32 = ir.IntType(32)


@dataclass(frozen=True)
class Machine:
    """One architecture under Linux.

    `baseline_attributes` are the function attributes, in LLVM's spelling, that limit code to what every CPU of the
    architecture has. `emit_pause` tells the CPU that it waits in a loop. `emit_check` appends code that returns
    `missing` when the CPU lacks one of some features, named as LLVM names them, and falls through otherwise.
    """

    baseline_attributes: tuple[str, ...]
    futex: int
    sched_getaffinity: int
    emit_pause: Callable[[Body], None]
    emit_check: Callable[[Body, Sequence[str], Any], None]


@dataclass(frozen=True, order=True)
class _Bit:
    """Where `cpuid` reports a feature: a leaf and subleaf, a register (0 to 3 for eax, ebx, ecx, edx), a bit."""

    leaf: int
    subleaf: int
    register: int
    bit: int
    needs_state: int = 0
    """Registers that the system must keep across task switches for the feature to be usable, as bits of XCR0."""


_EAX, _EBX, _ECX, _EDX = range(4)
_EXTENDED = 0x80000001
_AVX_STATE = 0b110
_AVX512_STATE = 0b11100110
_AMX_STATE = 0x60000

_X86_BITS = {
    "cmov": _Bit(1, 0, _EDX, 15),
    "cx8": _Bit(1, 0, _EDX, 8),
    "fxsr": _Bit(1, 0, _EDX, 24),
    "mmx": _Bit(1, 0, _EDX, 23),
    "sse": _Bit(1, 0, _EDX, 25),
    "sse2": _Bit(1, 0, _EDX, 26),
    "sse3": _Bit(1, 0, _ECX, 0),
    "pclmul": _Bit(1, 0, _ECX, 1),
    "ssse3": _Bit(1, 0, _ECX, 9),
    "fma": _Bit(1, 0, _ECX, 12, _AVX_STATE),
    "cx16": _Bit(1, 0, _ECX, 13),
    "sse4.1": _Bit(1, 0, _ECX, 19),
    "sse4.2": _Bit(1, 0, _ECX, 20),
    "crc32": _Bit(1, 0, _ECX, 20),
    "movbe": _Bit(1, 0, _ECX, 22),
    "popcnt": _Bit(1, 0, _ECX, 23),
    "aes": _Bit(1, 0, _ECX, 25),
    "xsave": _Bit(1, 0, _ECX, 26),
    "avx": _Bit(1, 0, _ECX, 28, _AVX_STATE),
    "f16c": _Bit(1, 0, _ECX, 29, _AVX_STATE),
    "bmi": _Bit(7, 0, _EBX, 3),
    "avx2": _Bit(7, 0, _EBX, 5, _AVX_STATE),
    "bmi2": _Bit(7, 0, _EBX, 8),
    "avx512f": _Bit(7, 0, _EBX, 16, _AVX512_STATE),
    "avx512dq": _Bit(7, 0, _EBX, 17, _AVX512_STATE),
    "adx": _Bit(7, 0, _EBX, 19),
    "avx512ifma": _Bit(7, 0, _EBX, 21, _AVX512_STATE),
    "avx512cd": _Bit(7, 0, _EBX, 28, _AVX512_STATE),
    "sha": _Bit(7, 0, _EBX, 29),
    "avx512bw": _Bit(7, 0, _EBX, 30, _AVX512_STATE),
    "avx512vl": _Bit(7, 0, _EBX, 31, _AVX512_STATE),
    "avx512vbmi": _Bit(7, 0, _ECX, 1, _AVX512_STATE),
    "avx512vbmi2": _Bit(7, 0, _ECX, 6, _AVX512_STATE),
    "gfni": _Bit(7, 0, _ECX, 8),
    "vaes": _Bit(7, 0, _ECX, 9, _AVX_STATE),
    "vpclmulqdq": _Bit(7, 0, _ECX, 10, _AVX_STATE),
    "avx512vnni": _Bit(7, 0, _ECX, 11, _AVX512_STATE),
    "avx512bitalg": _Bit(7, 0, _ECX, 12, _AVX512_STATE),
    "avx512vpopcntdq": _Bit(7, 0, _ECX, 14, _AVX512_STATE),
    "amx-bf16": _Bit(7, 0, _EDX, 22, _AMX_STATE),
    "avx512fp16": _Bit(7, 0, _EDX, 23, _AVX512_STATE),
    "amx-tile": _Bit(7, 0, _EDX, 24, _AMX_STATE),
    "amx-int8": _Bit(7, 0, _EDX, 25, _AMX_STATE),
    "avxvnni": _Bit(7, 1, _EAX, 4, _AVX_STATE),
    "avx512bf16": _Bit(7, 1, _EAX, 5, _AVX512_STATE),
    "avxifma": _Bit(7, 1, _EAX, 23, _AVX_STATE),
    "sahf": _Bit(_EXTENDED, 0, _ECX, 0),
    "lzcnt": _Bit(_EXTENDED, 0, _ECX, 5),
    "sse4a": _Bit(_EXTENDED, 0, _ECX, 6),
    "prfchw": _Bit(_EXTENDED, 0, _ECX, 8),
    "xop": _Bit(_EXTENDED, 0, _ECX, 11, _AVX_STATE),
    "fma4": _Bit(_EXTENDED, 0, _ECX, 16, _AVX_STATE),
    "tbm": _Bit(_EXTENDED, 0, _ECX, 21),
}

_OSXSAVE = _Bit(1, 0, _ECX, 27)
"""Whether the system lets programs read XCR0."""


def machine_of(triple: str) -> Machine:
    """The architecture that `triple` starts with. Raises UnsupportedError when the ABI does not know it."""
    arch = triple.split("-")[0]
    if arch not in MACHINES:
        raise UnsupportedError(
            f"libraries cannot be made for '{triple}' yet", expected=f"one of {', '.join(sorted(MACHINES))}", got=arch
        )
    return MACHINES[arch]


def _x86_pause(body: Body) -> None:
    module = body.abi.module
    name = "llvm.x86.sse2.pause"
    pause = module.globals.get(name) or ir.Function(module, ir.FunctionType(ir.VoidType(), []), name)
    body.call(pause)


def _x86_check(body: Body, features: Sequence[str], missing: Any) -> None:
    unknown = [name for name in features if name not in _X86_BITS]
    if unknown:
        raise InternalError(f"no test is known for the CPU features {', '.join(unknown)}")
    bits = {_X86_BITS[name] for name in features}
    state = 0
    for bit in bits:
        state |= bit.needs_state
    if state:
        bits.add(_OSXSAVE)
    leaves = sorted({(bit.leaf, bit.subleaf) for bit in bits})
    if (7, 0) in leaves or (7, 1) in leaves:
        _return_unless_at_least(body, _cpuid(body, 0, 0)[_EAX], 7, missing)
    if (7, 1) in leaves:
        _return_unless_at_least(body, _cpuid(body, 7, 0)[_EAX], 1, missing)
    for leaf, subleaf in leaves:
        registers = _cpuid(body, leaf, subleaf)
        for number in range(4):
            mask = 0
            for bit in bits:
                if (bit.leaf, bit.subleaf, bit.register) == (leaf, subleaf, number):
                    mask |= 1 << bit.bit
            if mask:
                _return_unless_all(body, registers[number], mask, missing)
        if leaf == 1 and state:
            _return_unless_all(body, _xcr0(body), state, missing)
    if state & _AMX_STATE:
        # Linux gives a process the state of tile registers only when it asks.
        given = body.libc("syscall", *(body.i64(number) for number in ASK_FOR_TILES))
        body.return_if(body.b.icmp_signed("!=", given, body.i64(0)), missing)


def _return_unless_at_least(body: Body, value: Any, least: int, missing: Any) -> None:
    body.return_if(body.b.icmp_unsigned("<", value, body.i32(least)), missing)


def _return_unless_all(body: Body, value: Any, mask: int, missing: Any) -> None:
    constant = body.i32(mask)
    body.return_if(body.b.icmp_unsigned("!=", body.b.and_(value, constant), constant), missing)


def _cpuid(body: Body, leaf: int, subleaf: int) -> list[Any]:
    """eax, ebx, ecx, edx. The CPU must have the leaf: every 64-bit one has 0, 1 and the extended one used here."""
    result = ir.LiteralStructType([_I32] * 4)
    answer = body.b.asm(
        ir.FunctionType(result, [_I32, _I32]),
        "cpuid",
        "={ax},={bx},={cx},={dx},{ax},{cx},~{dirflag},~{fpsr},~{flags}",
        [body.i32(leaf), body.i32(subleaf)],
        side_effect=True,
    )
    return [body.b.extract_value(answer, number) for number in range(4)]


def _xcr0(body: Body) -> Any:
    """The low half of XCR0. The instruction is spelled in bytes, as an assembler for the baseline does not know it."""
    result = ir.LiteralStructType([_I32] * 2)
    answer = body.b.asm(
        ir.FunctionType(result, [_I32]),
        ".byte 0x0f, 0x01, 0xd0",
        "={ax},={dx},{cx},~{dirflag},~{fpsr},~{flags}",
        [body.i32(0)],
        side_effect=True,
    )
    return body.b.extract_value(answer, 0)


MACHINES = {
    "x86_64": Machine(
        baseline_attributes=('"target-cpu"="x86-64"', '"target-features"="+cx8,+fxsr,+mmx,+sse,+sse2,+x87"'),
        futex=202,
        sched_getaffinity=204,
        emit_pause=_x86_pause,
        emit_check=_x86_check,
    ),
}
