"""What the generated code may assume of the CPU: vector length, registers, caches.

Every choice of layout, tile and algorithm reads this record and nothing else about the machine.
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass, replace
from pathlib import Path

from sqzc.diagnostics import UsageError, nearest


@dataclass(frozen=True)
class Target:
    """One instruction set with the sizes that schedules depend on.

    `vector_lanes` counts float32 lanes of the widest vector used; `vector_registers` are the architectural ones;
    `fma_ports` is the number of full-width multiply-adds begun per cycle; cache sizes are bytes per core.
    `tile_products`: there are units that multiply tiles of bfloat16 and add in float32.
    """

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    vector_lanes: int
    vector_registers: int
    has_fma: bool
    fma_ports: int = 2
    l1_bytes: int = 32 << 10
    l2_bytes: int = 1 << 20
    memory_operands: bool = True
    broadcast_operands: bool = False
    tile_products: bool = False

    @property
    def vector_bytes(self) -> int:
        """Bytes of the widest vector used."""
        return 4 * self.vector_lanes

    @property
    def feature_string(self) -> str:
        """LLVM's spelling of the feature set."""
        return ",".join(f"+{feature}" for feature in self.features)


_V2 = ("cx16", "popcnt", "sahf", "sse3", "ssse3", "sse4.1", "sse4.2")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "prfchw")
_AMX = (*_V4, "amx-tile", "amx-bf16")
_LINUX = "x86_64-unknown-linux-gnu"

TARGETS = {
    "x86-64-v2": Target("x86-64-v2", _LINUX, "x86-64-v2", _V2, 4, 16, has_fma=False, fma_ports=1),
    "x86-64-v3": Target("x86-64-v3", _LINUX, "x86-64-v3", _V3, 8, 16, has_fma=True),
    "x86-64-v4": Target(
        "x86-64-v4",
        _LINUX,
        "x86-64-v4",
        _V4,
        16,
        32,
        has_fma=True,
        broadcast_operands=True,
        l1_bytes=48 << 10,
        l2_bytes=2 << 20,
    ),
}
TARGETS["x86-64-v4-amx"] = replace(TARGETS["x86-64-v4"], name="x86-64-v4-amx", features=_AMX, tile_products=True)

# /proc/cpuinfo spells two of LLVM's feature names differently.
_CPUINFO = {
    "sse3": "pni",
    "lzcnt": "abm",
    "sahf": "lahf_lm",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "bmi": "bmi1",
    "prfchw": "3dnowprefetch",
    "amx-tile": "amx_tile",
    "amx-bf16": "amx_bf16",
}
# Linux gives a process the state of tile registers when it asks: arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA).
ASK_FOR_TILES = (158, 0x1023, 18)
"""The arguments of `syscall` on x86-64."""


_NUMBERS = {"cpu family": "family", "model": "model", "stepping": "stepping"}


def host_flags() -> frozenset[str]:
    """The CPU flags that the kernel reports for the first core; empty where it reports none."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def host_cpu() -> str:
    """Name, family, model and stepping of the first core, in words; the architecture where the kernel reports none."""
    found = {}
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        found[key.strip()] = value.strip()
    numbers = ", ".join(f"{name} {found[key]}" for key, name in _NUMBERS.items() if key in found)
    return " ".join(filter(None, (found.get("model name", platform.machine()), f"({numbers})" if numbers else "")))


def runs_here(target: Target) -> bool:
    """Whether this machine has every feature of `target`, and this process may use it."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    flags = host_flags()
    if not all(_CPUINFO.get(feature, feature) in flags for feature in target.features):
        return False
    return not target.tile_products or tile_state()


def tile_state() -> bool:
    """Asks the system for the state of tile registers in this process; whether it gives it."""
    return bool(ctypes.CDLL(None).syscall(*ASK_FOR_TILES) == 0)


def native() -> Target:
    """The widest known target that this machine runs."""
    for target in reversed(TARGETS.values()):
        if runs_here(target):
            return target
    raise UsageError(
        f"no target of sqzc fits this machine ({platform.machine()})",
        expected=f"one of {', '.join(TARGETS)}",
        hint="name the target to compile for with --target",
    )


def resolve(name: str) -> Target:
    """The target called `name`; `native` is the widest one this machine runs."""
    if name == "native":
        return native()
    if name not in TARGETS:
        raise UsageError(
            f"unknown target '{name}'", expected=f"native, {', '.join(TARGETS)}", hint=nearest(name, TARGETS)
        )
    return TARGETS[name]
