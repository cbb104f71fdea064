"""Where a benchmark runs, and whether it had the machine to itself."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqzc.target import native

IDLE_LOAD = 0.5
"""Above this average number of running processes, at the start, others are at work."""

IDLE_SHARE = 0.03
"""Others may use this share of all cores while a benchmark runs before its figures are suspect."""

_CPUINFO = {"model name": "cpu", "cpu family": "family", "model": "model", "stepping": "stepping"}
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_STAT = Path("/proc/stat")


def machine_facts() -> dict[str, Any]:
    """The CPU, its cores and governor, the system and the interpreter; what cannot be read is left out."""
    facts: dict[str, Any] = {"architecture": platform.machine(), "system": platform.system()}
    facts.update(_cpu_facts(_read(Path("/proc/cpuinfo"))))
    facts["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts["caches"] = _caches(Path("/sys/devices/system/cpu/cpu0/cache"))
    governor = _read(_GOVERNOR).strip()
    facts["governor"] = governor or "unknown"
    facts["target"] = native().name
    facts["python"] = platform.python_version()
    return facts


def _cpu_facts(text: str) -> dict[str, Any]:
    """Name, family, model and stepping of the first core."""
    found: dict[str, Any] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        if key.strip() in _CPUINFO:
            found[_CPUINFO[key.strip()]] = int(value) if value.strip().isdigit() else value.strip()
    return found


def _caches(folder: Path) -> dict[str, str]:
    """Sizes of the first core's caches, such as {"L1 Data": "48K"}."""
    found = {}
    for entry in sorted(folder.glob("index*")):
        level, kind, size = (_read(entry / name).strip() for name in ("level", "type", "size"))
        if size:
            found[f"L{level} {kind}"] = size
    return found


def _read(path: Path) -> str:
    """The text of one of the kernel's files; empty where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


@dataclass(frozen=True)
class _Reading:
    """`busy` and `stolen` are core seconds since the machine started."""

    at: float
    load: float | None
    busy: float | None
    stolen: float


def _now() -> _Reading:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    fields = _read(_STAT).split("\n", 1)[0].split()[1:]
    if len(fields) < 8:
        return _Reading(time.monotonic(), load, None, 0.0)
    user, nice, system, _, _, irq, softirq, steal = (int(field) / os.sysconf("SC_CLK_TCK") for field in fields[:8])
    return _Reading(time.monotonic(), load, user + nice + system + irq + softirq, steal)


class Watch:
    """Looks at the load when it is made and when asked, and tells our share of the work from others'."""

    def __init__(self) -> None:
        self._start = _now()
        self._own = _own_seconds()

    def facts(self) -> dict[str, Any]:
        """Load averages at start and now, the share of all cores that others used, the share that was stolen.

        Contenders' processes have to be ended before, so that their work counts as ours.
        """
        start, end = self._start, _now()
        facts: dict[str, Any] = {"load_at_start": start.load, "load_at_end": end.load}
        room = (end.at - start.at) * (os.cpu_count() or 1)
        if start.busy is not None and end.busy is not None and room > 0:
            others = end.busy - start.busy - (_own_seconds() - self._own)
            facts["others_share"] = round(max(0.0, others) / room, 4)
            facts["stolen_share"] = round((end.stolen - start.stolen) / room, 4)
        return facts


def _own_seconds() -> float:
    """Core seconds of this process and of those it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def busy_warning(facts: dict[str, Any]) -> str | None:
    """Why the figures are suspect, if they are."""
    signs = []
    load = facts.get("load_at_start")
    if load is not None and load > IDLE_LOAD:
        signs.append(f"the load average was {load:.2f} at the start")
    for key, words in (("others_share", "other processes used"), ("stolen_share", "other virtual machines took")):
        if facts.get(key, 0.0) > IDLE_SHARE:
            signs.append(f"{words} {facts[key]:.0%} of the CPU meanwhile")
    return f"the machine was not idle: {', '.join(signs)}" if signs else None
