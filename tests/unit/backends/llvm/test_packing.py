"""Packed constants, element by element."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sqzc.backends.llvm.kernels.strassen_tile import pack_parts
from sqzc.backends.llvm.packing import pack_bias, pack_conv, pad_axis, tile_starts
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_strassen import StrassenSchedule, part_of
from sqzc.backends.llvm.strassen_math import part_indices
from sqzc.ir.ops.activation import NONE
from sqzc.plan.program import Geometry


def numbered(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Different numbers, none of them zero."""
    return np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("blocks", "tile", "starts"),
    [(1, 1, [0]), (4, 2, [0, 2]), (5, 2, [0, 2, 3]), (7, 3, [0, 3, 4]), (3, 3, [0]), (9, 4, [0, 4, 5])],
)
def test_last_tile_ends_at_the_last_block(blocks: int, tile: int, starts: list[int]) -> None:
    assert tile_starts(blocks, tile) == starts


def test_axis_is_padded_with_zeros_up_to_the_multiple() -> None:
    x = numbered(2, 3, 2)
    padded = pad_axis(x, 1, 4)
    assert padded.shape == (2, 4, 2)
    np.testing.assert_array_equal(padded[:, :3], x)
    assert not padded[:, 3:].any()
    assert pad_axis(x, 1, 3) is x
    assert pad_axis(x, 0, 1) is x


LANES = 4
# Channels and vectors in a tile, which no schedule makes larger than the image.
TILES = [(oc, vecs) for oc in (1, 4, 7, 10, 17) for vecs in (1, 2, 3) if vecs <= -(-oc // LANES)]
HALVES = [(oc, vecs) for oc in (1, 4, 5, 8, 9, 12, 15, 17, 23) for vecs in (1, 2, 3) if vecs <= -(-oc // 2 // LANES)]


@pytest.mark.parametrize("ic", [1, 3, 4, 6])
@pytest.mark.parametrize(("oc", "oc_vecs"), TILES)
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3)])
@pytest.mark.parametrize("ic_block", [1, 4])
def test_every_weight_is_where_the_kernel_reads_it(
    ic: int, oc: int, oc_vecs: int, kernel: tuple[int, int], ic_block: int
) -> None:
    w = numbered(oc, ic, *kernel)
    packed = pack_conv(w, ic_block, LANES, oc_vecs)
    starts = tile_starts(-(-oc // LANES), oc_vecs)
    ic_blocks = -(-ic // ic_block)
    assert packed.shape == (len(starts), ic_blocks, *kernel, ic_block, oc_vecs * LANES)
    assert packed.dtype == np.float32
    assert packed.flags.c_contiguous
    ranges = [range(size) for size in packed.shape]
    for tile, block, u, v, lane, place in itertools.product(*ranges):
        channel, source = starts[tile] * LANES + place, block * ic_block + lane
        want = w[channel, source, u, v] if channel < oc and source < ic else 0.0
        assert packed[tile, block, u, v, lane, place] == want


def test_weights_of_another_type_are_rounded() -> None:
    w = np.full((4, 1, 1, 1), 0.1, np.float64)
    assert pack_conv(w, 1, 4, 1).ravel()[0] == np.float32(0.1)


@pytest.mark.parametrize("oc", [1, 4, 6])
def test_bias_is_padded_to_whole_blocks(oc: int) -> None:
    bias = numbered(oc)
    packed = pack_bias(bias, oc, 4)
    assert packed.shape == (-(-oc // 4) * 4,)
    np.testing.assert_array_equal(packed[:oc], bias)
    assert not packed[oc:].any()
    none = pack_bias(None, oc, 4)
    assert none.shape == packed.shape
    assert none.dtype == np.float32
    assert not none.any()


def problem(ic: int, oc: int) -> ConvProblem:
    """A 1 x 1 convolution of a 2 x 4 image."""
    anywhere = Geometry(0, 0, 0, 4 * LANES, LANES)
    return ConvProblem(
        1, ic, oc, 2, 4, 2, 4, 1, 1, 1, 1, 1, 1, (0, 0, 0, 0), 1, NONE, LANES, LANES, anywhere, anywhere, None
    )


@pytest.mark.parametrize(("ic", "levels"), [(8, 1), (7, 1), (5, 1), (16, 1), (13, 1), (16, 2), (13, 2), (32, 2)])
@pytest.mark.parametrize(("oc", "oc_vecs"), HALVES)
def test_parts_hold_their_share_of_both_channels(ic: int, levels: int, oc: int, oc_vecs: int) -> None:
    p, parts = problem(ic, oc), 2**levels
    part = part_of(p, levels)
    oc_vecs = min(oc_vecs, part.oc_blocks)
    w = numbered(oc, ic, 1, 1)
    packed = pack_parts(w, p, StrassenSchedule(levels, oc_vecs, 1))
    starts = tile_starts(part.oc_blocks, oc_vecs)
    assert part.ic * parts == p.ic_padded
    assert packed.shape == (len(starts), parts**2, part.ic // LANES, 1, 1, LANES, oc_vecs * LANES)
    assert packed.flags.c_contiguous
    flat = packed.reshape(len(starts), parts**2, part.ic, oc_vecs * LANES)
    places = list(part_indices(levels))
    assert sorted(places) == list(itertools.product(range(parts), repeat=2))
    for tile, number, c, place in itertools.product(*map(range, flat.shape)):
        row, column = places[number]
        channel, source = row * part.oc + starts[tile] * LANES + place, column * part.ic + c
        want = w[channel, source, 0, 0] if channel < oc and source < ic else 0.0
        assert flat[tile, number, c, place] == want
