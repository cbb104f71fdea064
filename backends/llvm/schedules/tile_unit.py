"""Numbers of the units that multiply tiles of bfloat16 (AMX): sizes, registers, cycles."""

from __future__ import annotations

from collections.abc import Sequence

Term = tuple[int, int]

# Rows of a tile and bytes of a row, at most; tile registers.
TILE_ROWS = 16
ROW_BYTES = 64
TILE_REGISTERS = 8
WEIGHT_TILE = TILE_ROWS * ROW_BYTES
# Numbers that are split together, one vector; a row of a tile has parts of two.
UNIT = TILE_ROWS
# Parts of a float32, and which products of a part of the one with a part of the other are made: those whose sum is no
# further from the product of the wholes than the rounding of a float32. In this order each differs from the one before
# in one part only, whose tiles must be loaded.
PARTS = 3
TERMS: tuple[Term, ...] = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2), (0, 0))
# The same where a row has room for twice as many numbers as there are: tiles of data hold parts 0 and 1, and 0 and 2,
# beside each other, and those of weights twice part 0, twice part 1, and parts 2 and 0.
LONE_TERMS: tuple[Term, ...] = ((1, 2), (0, 1), (0, 0))
# Cycles of a product of two tiles, however few their rows, at the clock that other kernels have: products take more
# power; what a load of a tile from the first or second level of cache adds to it. (Measured, AVX-512 server core
# with AMX.)
PRODUCT_CYCLES = 17.2
LOAD_CYCLES = 4.0
# Bytes a cycle that prepared parts come from beyond the second-level cache.
FAR_BYTES_PER_CYCLE = 8


def registers_of(px_tiles: int, oc_tiles: int) -> tuple[int, int, int]:
    """Tile registers for sums, data and weights. Of the last two a side may get fewer than it has tiles."""
    sums = px_tiles * oc_tiles
    left = TILE_REGISTERS - sums
    data = max(min(px_tiles, left - 1), 0)
    return sums, data, min(oc_tiles, left - data)


def fits(px_tiles: int, oc_tiles: int) -> bool:
    """Whether a product of so many tiles has registers: those of at most one side take turns, where the other is one
    tile.
    """
    sums, data, weights = registers_of(px_tiles, oc_tiles)
    if sums + 2 > TILE_REGISTERS or min(data, weights) < 1:
        return False
    return (data == px_tiles or oc_tiles == 1) and (weights == oc_tiles or px_tiles == 1)


def loads_of(px_tiles: int, oc_tiles: int, terms: Sequence[Term] = TERMS) -> tuple[int, int]:
    """Tile loads of data and weights for the products of `terms`."""
    _, data, weights = registers_of(px_tiles, oc_tiles)
    turns = [data < px_tiles, weights < oc_tiles]
    loads = [0, 0]
    held = (-1, -1)
    for term in terms:
        for side, tiles in enumerate((px_tiles, oc_tiles)):
            loads[side] += tiles * (turns[side] or held[side] != term[side])
        held = term
    return loads[0], loads[1]


def product_cycles(px_tiles: int, oc_tiles: int, terms: Sequence[Term] = TERMS) -> float:
    """Cycles of the products of `terms` and the loads for them."""
    loads = sum(loads_of(px_tiles, oc_tiles, terms))
    return len(terms) * px_tiles * oc_tiles * PRODUCT_CYCLES + loads * LOAD_CYCLES
