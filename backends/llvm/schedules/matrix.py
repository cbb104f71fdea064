"""Schedule of matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqzc.backends.llvm.family import Schedule
from sqzc.diagnostics import ScheduleError
from sqzc.target import Target

# Sums that must run at once to keep the multipliers busy: latency times ports.
CHAINS = 8


@dataclass(frozen=True)
class MatrixSchedule(Schedule):
    """Register tile of `rows` x `vecs` vectors of `width` columns, each summed in `chains` parts along K.

    Columns are cut into panels of one tile's width; the last panel is moved back to end with the matrix.
    """

    rows: int
    vecs: int
    width: int
    chains: int

    @property
    def panel(self) -> int:
        """Columns of a panel."""
        return self.vecs * self.width

    def panels(self, columns: int) -> int:
        """Number of panels."""
        return -(-columns // self.panel)

    def check(self, target: Target) -> None:
        """ScheduleError when the tile does not fit the registers."""
        wanted = self.rows * self.vecs * self.chains + self.vecs + 1
        if wanted > target.vector_registers:
            raise ScheduleError(
                f"a tile of {self.rows} x {self.vecs} x {self.chains} vectors would spill",
                expected=f"at most {target.vector_registers} registers",
                got=str(wanted),
            )


def vector_width(n: int, target: Target) -> int:
    """Fewer columns than a vector are padded to a shorter vector."""
    width = target.vector_lanes
    while width // 2 >= n:
        width //= 2
    return width


def candidates(m: int, n: int, target: Target) -> Iterator[MatrixSchedule]:
    """Every tile that fits the registers and the matrix."""
    width = vector_width(n, target)
    for rows in range(1, min(m, 8) + 1):
        for vecs in range(1, max(1, min(4, n // width)) + 1):
            for chains in (1, 2, 4):
                if rows * vecs * chains + vecs + 1 <= target.vector_registers:
                    yield MatrixSchedule(rows, vecs, width, chains)


def choose(m: int, n: int, target: Target) -> MatrixSchedule:
    """A tile of few rows is wide, as it waits for memory; one of many is square, as every load is then used often."""
    width = vector_width(n, target)
    room = target.vector_registers - 2
    rows = min(m, 6 if target.vector_registers > 16 else 4)
    rows = -(-m // -(-m // rows))
    most = max(1, min(4, n // width, room // (rows + 1)))
    vecs = min(range(1, most + 1), key=lambda v: (-(-n // (v * width)) * (rows * v + 1.5), -v))
    chains = 1
    while (
        chains < 4 and rows * vecs * chains < CHAINS and (2 * rows * chains + 1) * vecs + 1 <= target.vector_registers
    ):
        chains *= 2
    best = MatrixSchedule(rows, vecs, width, chains)
    best.check(target)
    return best
