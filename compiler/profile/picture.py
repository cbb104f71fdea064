"""The roofline: how fast each step is against what its FLOPs a byte allow. Drawn by matplotlib (extra `plot`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqzc.diagnostics import FileError, UsageError
from sqzc.profile.machine import Machine
from sqzc.profile.rows import Profile, Row, heaviest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg", ".pdf")

_NAMED = 10
"""Steps that are named in the picture."""

_NAME_WIDTH, _NAME_HEIGHT = 90, 11
"""Room for a name, in pixels."""


def check_picture(path: Path) -> None:
    """UsageError unless a picture can be drawn in the form that the path's suffix asks for."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"no picture can be written as '{path.name}'", expected=f"a name with {', '.join(SUFFIXES)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(
            "the roofline is drawn by matplotlib, which is not installed", hint="pip install 'sqzc[plot]'"
        ) from None


def draw_roofline(profile: Profile, path: Path) -> None:
    """Writes the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rows = [row for row in profile.rows if row.flops and row.seconds > 0]
    intensities = [row.intensity for row in rows]
    low = min([0.25, *(value / 2 for value in intensities)])
    high = max([64.0, *(2 * value for value in intensities)])
    _draw_roofs(axes, profile.machine, low, high)
    kernels = list(dict.fromkeys(row.kernel for row in rows))
    for number, kernel in enumerate(kernels):
        own = [row for row in rows if row.kernel == kernel]
        axes.scatter(
            [row.intensity for row in own],
            [row.flops_per_second / 1e9 for row in own],
            # The area is the share of the time.
            s=[30 + 1500 * row.share for row in own],
            alpha=0.65,
            color=f"C{number % 10}",
            label=kernel + (" *" if own[0].fewer_operations else ""),
        )
    axes.set(xscale="log", yscale="log", xlim=(low, high), xlabel="FLOPs a byte", ylabel="GFLOP/s")
    _name_heaviest(axes, rows)
    threads = f"{profile.threads} thread{'s' if profile.threads > 1 else ''}"
    axes.set_title(f"{profile.model} on {profile.machine.target.name}, {threads}: {1e3 * profile.total:.2f} ms")
    axes.grid(True, which="major", alpha=0.3)
    legend = axes.legend(loc="lower right", fontsize=8, title="area: share of the time;  *: fewer FLOPs than counted")
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([40])
    try:
        # Neither date nor version: equal profiles give equal pictures.
        figure.savefig(path, metadata=_METADATA[path.suffix], dpi=120)
    except OSError as error:
        raise FileError(f"cannot write {path}", got=error.strerror) from None


def _name_heaviest(axes: Axes, rows: Sequence[Row]) -> None:
    """Names the steps that take longest, but for those whose name would cover another one."""
    taken: list[tuple[float, float]] = []
    for row in heaviest(rows, len(rows)):
        at = row.intensity, row.flops_per_second / 1e9
        x, y = axes.transData.transform(at)
        if all(abs(x - u) > _NAME_WIDTH or abs(y - v) > _NAME_HEIGHT for u, v in taken):
            taken.append((x, y))
            axes.annotate(row.layer[-28:], at, xytext=(6, 6), textcoords="offset points", fontsize=8)
        if len(taken) == _NAMED:
            return


_METADATA = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}, ".pdf": {"CreationDate": None}}


def _draw_roofs(axes: Axes, machine: Machine, low: float, high: float) -> None:
    """A slope for each level of memory, up to the peak."""
    peak = machine.peak_flops / 1e9
    axes.hlines(peak, low, high, color="black", linewidth=1.5)
    axes.annotate(f"peak {peak:.0f} GFLOP/s", (low, peak), xytext=(4, 4), textcoords="offset points")
    for level in machine.bandwidths:
        speed = level.bytes_per_second / 1e9
        axes.plot([low, peak / speed], [low * speed, peak], color="grey", linewidth=1)
        axes.annotate(
            f"{level.level} {speed:.0f} GB/s",
            (low, low * speed),
            xytext=(4, 2),
            textcoords="offset points",
            fontsize=8,
            color="dimgrey",
        )
