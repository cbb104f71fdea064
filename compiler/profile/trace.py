"""One run as a trace for the viewers of browsers (chrome://tracing, Perfetto): a bar for each step."""

from __future__ import annotations

from typing import Any

from sqzc.profile.rows import Profile

_PROCESS, _THREAD = 1, 1


def chrome_trace(profile: Profile) -> dict[str, Any]:
    """The fastest run in the trace event format; times are in microseconds from its first step."""
    names = {"process_name": f"{profile.model}, {profile.threads} threads", "thread_name": "steps"}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": key, "pid": _PROCESS, "tid": _THREAD, "args": {"name": text}} for key, text in names.items()
    ]
    for row, start, end in zip(profile.rows, profile.timeline, profile.timeline[1:], strict=False):
        events.append(
            {
                "ph": "X",
                "name": row.layer,
                "cat": row.kernel,
                "pid": _PROCESS,
                "tid": _THREAD,
                "ts": 1e6 * start,
                "dur": 1e6 * (end - start),
                "args": {
                    "step": row.index,
                    "kernel": row.kernel,
                    "schedule": row.schedule,
                    "sources": list(row.sources),
                    "MFLOP": row.flops / 1e6,
                    "kB": row.bytes / 1e3,
                    "GFLOP/s": row.flops / (end - start) / 1e9 if end > start else 0.0,
                },
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ns"}
