"""Geometry of buffers, and which of them are parts of which."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from sqzc.ir import DType, Layout, TensorType
from sqzc.ir.types import f32
from sqzc.plan.program import Border, Buffer, Geometry, Program, Role, Step, image_geometry

BLOCK4 = Layout(4)


def image(n: int, c: int, h: int, w: int, block: int = 0, dtype: DType = DType.F32) -> TensorType:
    return TensorType(dtype, (n, c, h, w), Layout(block))


def program(*buffers: Buffer) -> Program:
    return Program("p", "x86-64-v3", {buffer.name: buffer for buffer in buffers})


@pytest.mark.parametrize("border", [(0, 0, 0, 0), (1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("block", [0, 4, 8])
def test_geometry_is_where_the_documented_index_expression_says(block: int, border: Border) -> None:
    type_ = image(2, 6, 3, 5, block)
    at, lanes = image_geometry(type_, border), block or 1
    top, left, bottom, right = border
    shape = (2, -(-6 // lanes), 3 + top + bottom, 5 + left + right, lanes)
    numbered = np.arange(np.prod(shape)).reshape(shape)
    for n, c, h, w in itertools.product(range(2), range(6), range(3), range(5)):
        place = at.origin + n * at.image + (c // lanes) * at.plane + h * at.row + w * at.pixel + c % lanes
        assert numbered[n, c // lanes, h + top, w + left, c % lanes] == place
    assert Buffer("b", type_, Role.ARENA, border).bytes == 4 * numbered.size
    assert Buffer("b", type_, Role.ARENA, border).geometry == at


def test_bytes_count_items_and_unused_lanes() -> None:
    assert Buffer("b", TensorType(DType.I64, (3, 5)), Role.ARENA).bytes == 120
    assert Buffer("b", f32(), Role.ARENA).bytes == 4
    assert Buffer("b", image(1, 5, 2, 2, 4, DType.U8), Role.ARENA).bytes == 32
    assert Buffer("b", image(1, 5, 2, 2, 4, DType.U8), Role.ARENA, (1, 1, 1, 1)).bytes == 128


ROOT = Buffer("root", image(2, 12, 4, 4, 4), Role.ARENA, (1, 1, 1, 1), offset=640)
HALF = Buffer("half", image(2, 8, 4, 4, 4), Role.VIEW, (1, 1, 1, 1), "root", 4, 4 * 4 * 36)
PART = Buffer("part", image(2, 4, 4, 4, 4), Role.VIEW, (1, 1, 1, 1), "half", 4, 4 * 4 * 36)


def test_root_and_geometry_of_a_slice_in_a_slice() -> None:
    p = program(ROOT, HALF, PART)
    assert p.root("root") == (ROOT, 0)
    assert p.root("part") == (ROOT, 2 * 4 * 4 * 36)
    assert p.geometry("part") == p.geometry("root") == Geometry(4 + 24, 3 * 144, 144, 24, 4)
    assert p.is_slice("part")
    assert not p.is_slice("root")


@pytest.mark.parametrize(
    ("parent", "view"),
    [
        (image(1, 64, 1, 1), image(2, 32, 1, 1)),
        (image(2, 32, 1, 1), image(1, 64, 1, 1)),
        (image(1, 64, 1, 1, 8), image(1, 64, 1, 1)),
        (image(1, 64, 1, 1, 8), image(1, 64, 1, 1, 4)),
        (image(1, 8, 2, 2), image(1, 8, 2, 2, dtype=DType.I32)),
        (image(1, 8, 2, 2), image(1, 8, 4, 1)),
        (image(1, 8, 2, 2), f32(8, 4)),
        (f32(8, 4), image(1, 8, 2, 2)),
    ],
    ids=lambda t: str(t),
)
def test_another_shape_or_layout_is_no_slice(parent: TensorType, view: TensorType) -> None:
    p = program(Buffer("a", parent, Role.ARENA), Buffer("b", view, Role.VIEW, parent="a"))
    assert not p.is_slice("b")
    if view.rank == 4:
        assert p.geometry("b") == image_geometry(view, (0, 0, 0, 0))


def test_images_of_a_slice_have_gaps_between_them() -> None:
    p = program(ROOT, HALF, PART, Buffer("all", ROOT.type, Role.VIEW, ROOT.border, "root"))
    assert [p.is_gapless(name) for name in p.buffers] == [True, False, False, True]
    one = program(
        replace(ROOT, type=image(1, 12, 4, 4, 4)),
        replace(HALF, type=image(1, 8, 4, 4, 4)),
    )
    assert one.is_gapless("half")


def test_shares_memory() -> None:
    p = program(
        ROOT,
        HALF,
        PART,
        Buffer("first", image(2, 4, 4, 4, 4), Role.VIEW, (1, 1, 1, 1), "root"),
        Buffer("alias", HALF.type, Role.VIEW, (1, 1, 1, 1), "half"),
        Buffer("other", f32(4), Role.ARENA),
        Buffer("low", f32(2), Role.VIEW, parent="other"),
        Buffer("high", f32(2), Role.VIEW, parent="other", offset=8),
        Buffer("middle", f32(2), Role.VIEW, parent="other", offset=4),
    )
    apart = {("first", "half"), ("first", "part"), ("first", "alias"), ("low", "high")}
    images, others = ["root", "half", "part", "first", "alias"], ["other", "low", "high", "middle"]
    for group in (images, others):
        for a, b in itertools.combinations_with_replacement(group, 2):
            shared = (a, b) not in apart and (b, a) not in apart
            assert p.shares_memory(a, b) == p.shares_memory(b, a) == shared, (a, b)
    assert not any(p.shares_memory(a, b) for a in images for b in others)


def test_a_view_of_unknown_gaps_counts_as_shared() -> None:
    p = program(
        ROOT,
        Buffer("slice", image(2, 4, 4, 4, 4), Role.VIEW, (1, 1, 1, 1), "root"),
        Buffer("bytes", f32(4), Role.VIEW, parent="root", offset=8000),
    )
    assert p.shares_memory("slice", "bytes")


def test_scratch_is_the_largest_of_any_step() -> None:
    p = program()
    assert p.scratch_bytes == 0
    p.steps += [Step("k", (), (), (), (), scratch=n) for n in (64, 4096, 0)]
    assert p.scratch_bytes == 4096


def test_prepared_memory_is_that_of_all_steps_aligned() -> None:
    p = program()
    p.steps += [Step("k", (), (), (), (), prepared=n) for n in (65, 0, 64)]
    assert p.prepared_bytes == 192
