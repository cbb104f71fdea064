"""Weights as kernels read them; plain numpy at compile time."""

from __future__ import annotations

import numpy as np

from sqzc.ir.constant import Array


def tile_starts(blocks: int, tile: int) -> list[int]:
    """First block of each tile; the last tile is moved back to end at the last block."""
    return [min(start, blocks - tile) for start in range(0, blocks, tile)]


def pad_axis(array: Array, axis: int, multiple: int) -> Array:
    """`array` with zeros appended along an axis up to a multiple."""
    extra = -array.shape[axis] % multiple
    if not extra:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, extra)
    return np.pad(array, widths)


def pack_conv(w: Array, ic_block: int, oc_block: int, oc_vecs: int) -> Array:
    """[oc tile][ic block][kh][kw][ic lane][oc in tile] from [oc, ic, kh, kw]; zeros for lanes past the channels."""
    w = pad_axis(pad_axis(np.asarray(w, np.float32), 0, oc_block), 1, ic_block)
    oc, ic, kh, kw = w.shape
    # [oc block, oc lane, ic block, ic lane, kh, kw] -> [oc block, ic block, kh, kw, ic lane, oc lane]
    blocked = w.reshape(oc // oc_block, oc_block, ic // ic_block, ic_block, kh, kw).transpose(0, 2, 4, 5, 3, 1)
    tiles = [
        np.concatenate([blocked[start + i] for i in range(oc_vecs)], axis=-1)
        for start in tile_starts(oc // oc_block, oc_vecs)
    ]
    return np.ascontiguousarray(np.stack(tiles))


def pack_bias(bias: Array | None, oc: int, oc_block: int) -> Array:
    """The bias padded with zeros to whole blocks; zeros when there is none."""
    values = np.zeros(oc, np.float32) if bias is None else np.asarray(bias, np.float32)
    return np.ascontiguousarray(pad_axis(values, 0, oc_block))
