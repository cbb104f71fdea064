"""Schedule of the 1 x 1 convolution by Strassen's algorithm in Winograd's form."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sqzc.backends.llvm.family import Schedule
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_direct import (
    FAR_BYTES_PER_CYCLE,
    DirectSchedule,
    channel_cycles,
    registers,
)
from sqzc.backends.llvm.strassen_math import PRODUCTS, Sum, products_of, recombination
from sqzc.diagnostics import ScheduleError
from sqzc.plan.program import Geometry
from sqzc.target import Target

# Each level adds to the error, and the sums of a third one would take more than it saves on images of any usual size.
MOST_LEVELS = 2
# Cycles per vector: of a right operand, summed from and stored to the second-level cache; of a sum of slots; of a
# finished result (measured, AVX-512 server core).
STORE_CYCLES = 6.0
SUM_CYCLES = 2.0
FINISH_CYCLES = 1.5
# Cycles a run that a byte of prepared operands must save to be kept.
MEMORY_PRICE = 1 / 128


@dataclass(frozen=True)
class StrassenSchedule(Schedule):
    """`levels` of halves inside each other; products in register tiles of `oc_vecs` channel blocks x `cols` pixels."""

    levels: int
    oc_vecs: int
    cols: int

    def check(self, problem: ConvProblem, target: Target) -> None:
        """ScheduleError when the tile does not fit the registers or the parts."""
        wanted = registers(self.oc_vecs, self.cols, target)
        if wanted > target.vector_registers:
            raise ScheduleError(
                f"a tile of {self.oc_vecs} x {self.cols} vectors would spill",
                expected=f"at most {target.vector_registers} registers",
                got=str(wanted),
            )
        if not 1 <= self.levels <= MOST_LEVELS or not applies(problem, self.levels):
            raise ScheduleError(
                f"{self.levels} levels of halves",
                expected=f"1 to {MOST_LEVELS} that divide input channels and {problem.oh} x {problem.ow} pixels",
            )
        part = part_of(problem, self.levels)
        if self.oc_vecs > part.oc_blocks or self.cols > part.ow:
            raise ScheduleError(
                f"a tile of {self.oc_vecs} x {self.cols}", expected=f"within a part of {part.oc_blocks} x {part.ow}"
            )


def applies(p: ConvProblem, levels: int = 1) -> bool:
    """Whether it is a plain 1 x 1 convolution whose input channels and pixels divide into halves so many times."""
    plain = (p.kh, p.kw, p.sh, p.sw) == (1, 1, 1, 1) and p.pads == (0, 0, 0, 0) and p.lanes > 1 and p.r is None
    parts = 2**levels
    return plain and (p.ic_padded // p.lanes) % parts == 0 and (p.oh * p.ow) % parts == 0


def part_of(p: ConvProblem, levels: int) -> ConvProblem:
    """One of the products as a convolution of one row of pixels, the operands packed without gaps."""
    parts = 2**levels
    pixels, channels = p.oh * p.ow // parts, p.ic_padded // parts
    line = pixels * p.lanes
    x = Geometry(0, channels // p.lanes * line, line, line, p.lanes)
    blocks = -(-p.oc_blocks // parts)
    return replace(
        p, n=1, ic=channels, oc=blocks * p.y_block, oh=1, ow=pixels, ih=1, iw=pixels, x=x, y=replace(x, image=0)
    )


def schedule_of_part(s: StrassenSchedule, cols: int) -> DirectSchedule:
    """The register tile of the products."""
    return DirectSchedule(s.oc_vecs, 1, cols, 1, "oc", 1)


def widths(p: ConvProblem, s: StrassenSchedule) -> list[tuple[int, int]]:
    """(pixels of a register tile, how many there are): the whole tiles of a part, and one for what they leave over."""
    whole, rest = divmod(part_of(p, s.levels).ow, s.cols)
    return [(width, count) for width, count in ((s.cols, whole), (rest, 1)) if width and count]


def operand_bytes(p: ConvProblem, s: StrassenSchedule) -> int:
    """Bytes of one left operand of one channel tile."""
    return 4 * part_of(p, s.levels).ic_padded * s.oc_vecs * p.y_block


def oc_tiles(p: ConvProblem, s: StrassenSchedule) -> int:
    """Channel tiles of a part."""
    return -(-part_of(p, s.levels).oc_blocks // s.oc_vecs)


def prepared_bytes(p: ConvProblem, s: StrassenSchedule) -> int:
    """All left operands of all channel tiles, which a handle keeps."""
    return oc_tiles(p, s) * products_of(s.levels) * operand_bytes(p, s)


@dataclass(frozen=True)
class Scratch:
    """Where things lie in a thread's scratch; all numbers are bytes.

    At the start the right operands of one product of the outermost level, then a left operand for where none was
    prepared, then [slot][channel tile] of `slot` bytes each, and [row of parts][channel tile] of `sum` bytes each.
    """

    left: int
    slots: int
    slot: int
    sums: int
    sum: int
    total: int


def scratch_layout(p: ConvProblem, s: StrassenSchedule) -> Scratch:
    """The scratch of a schedule."""
    part = part_of(p, s.levels)
    left = 4 * part.x.image * PRODUCTS ** (s.levels - 1)
    slots = left + operand_bytes(p, s)
    slot = 4 * s.oc_vecs * part.ow * p.y_block
    sums = slots + recombination_facts(s.levels)[0] * oc_tiles(p, s) * slot
    size = 4 * s.oc_vecs * p.y_block
    return Scratch(left, slots, slot, sums, size, sums + (1 << s.levels) * oc_tiles(p, s) * size)


@functools.cache
def recombination_facts(levels: int) -> tuple[int, int]:
    """Slots, and operands of sums of slots."""
    actions, slots = recombination(levels)
    return slots, sum(len(action.sources) for action in actions if isinstance(action, Sum))


def candidates(p: ConvProblem, target: Target) -> Iterator[StrassenSchedule]:
    """Every number of levels and register tile that fits."""
    for levels in range(1, MOST_LEVELS + 1):
        if not applies(p, levels):
            return
        part = part_of(p, levels)
        # One channel block alone is bound by loads, which takes more than the seventh product gives.
        for oc_vecs in range(2, min(6, part.oc_blocks) + 1):
            for cols in range(4, min(28, part.ow) + 1):
                if registers(oc_vecs, cols, target) <= target.vector_registers:
                    yield StrassenSchedule(levels, oc_vecs, cols)


def cost(p: ConvProblem, s: StrassenSchedule, target: Target) -> float:
    """Cycles of the whole convolution on one core."""
    part = part_of(p, s.levels)
    products, tiles = products_of(s.levels), oc_tiles(p, s)
    vectors = part.ic_padded // p.lanes * part.ow
    product = 0.0
    for width, count in widths(p, s):
        edge = 2.5 * s.oc_vecs * width + 12 + 2.0 * (part.ic_padded // p.lanes)
        product += count * (part.ic_padded * channel_cycles(s.oc_vecs, width, target) + edge)
    # The right operand and both slots come from the second-level cache, mostly while the multipliers run.
    product += 0.6 * (4 * part.x.image + 8 * s.oc_vecs * part.ow * p.y_block) / 48
    # Left operands are read once, from beyond the core's caches.
    product = max(product, operand_bytes(p, s) / FAR_BYTES_PER_CYCLE)
    sums = products * vectors * STORE_CYCLES
    accumulators = s.oc_vecs * part.ow
    moves = tiles * accumulators * (recombination_facts(s.levels)[1] * SUM_CYCLES + (1 << 2 * s.levels) * FINISH_CYCLES)
    return p.n * (sums + moves + tiles * products * product)


@functools.cache
def choose(p: ConvProblem, target: Target) -> tuple[StrassenSchedule, float] | None:
    """The candidate with the lowest prediction, and that; None where the algorithm does not apply."""
    found = [(s, cost(p, s, target)) for s in candidates(p, target)]
    return min(found, key=lambda pair: pair[1] + MEMORY_PRICE * prepared_bytes(p, pair[0]), default=None)
