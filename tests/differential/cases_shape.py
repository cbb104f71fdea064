"""Cases of the ops that move, select or reduce elements."""

from __future__ import annotations

import random
from collections.abc import Iterator

from differential.case import Case, case, few, indices, normal, one_nan

from sqzc.ir import DType, TensorType
from sqzc.ir.opdef import registry
from sqzc.ir.ops import shape as ops
from sqzc.ir.types import f32

F32, F16, I64, I32, U8, BOOL = DType.F32, DType.F16, DType.I64, DType.I32, DType.U8, DType.BOOL
MOVED = (F32, F16, I64, U8, BOOL)


def moves() -> Iterator[Case]:
    """Transpositions, slices, broadcasts, paddings and concats of every size of element."""
    for dtype in MOVED:

        def of(*shape: int, dtype: DType = dtype) -> TensorType:
            return TensorType(dtype, shape)

        yield case("transpose", ops.Transpose(perm=(0, 2, 3, 1)), of(2, 5, 7, 9), length=0)
        yield case("transpose", ops.Transpose(perm=(1, 0)), of(33, 40), length=0)
        backwards = ops.Slice(starts=(5, 0, 8), sizes=(3, 2, 5), steps=(-2, 1, -1))
        yield case("slice", backwards, of(6, 2, 9), length=0)
        yield case("slice", ops.Slice(starts=(1, 0, 1), sizes=(3, 2, 35)), of(6, 2, 39), length=0)
        yield case("expand", ops.Expand(shape=(3, 4, 33)), of(4, 1), length=0)
        yield case("pad.constant", ops.Pad(pads=(1, 0, 2, 0, 3, 1), value=1.0), of(3, 4, 20), length=0)
        for mode in (ops.PadMode.EDGE, ops.PadMode.REFLECT, ops.PadMode.WRAP):
            yield case("take.table", ops.Pad(pads=(1, 0, 2, 0, 2, 1), mode=mode), of(3, 4, 5), length=0)
        for axis in range(3):
            sizes = [[3, 4, 5] for _ in range(3)]
            for i, size in enumerate((3, 20, 1)):
                sizes[i][axis] = size
            yield case("concat", ops.Concat(axis=axis), *(of(*s) for s in sizes), length=0)
        gathered = (TensorType(I64, (2, 2)), {1: indices(6)})
        yield case("gather", ops.Gather(axis=1), of(3, 6, 5), gathered[0], makers=gathered[1], length=0)
        yield case("gather", ops.Gather(axis=0), of(9, 40), TensorType(I64, (7,)), makers={1: indices(9)}, length=0)
    yield case("transpose", ops.Transpose(perm=()), f32(), length=0)
    yield case("transpose", ops.Transpose(perm=(1, 0)), f32(0, 3), length=0)
    yield case("slice", ops.Slice(starts=(0,), sizes=(0,)), f32(5), length=0)
    yield case("take.table", ops.Pad(pads=(7, 9, 8, 4), mode=ops.PadMode.WRAP), f32(3, 5), length=0)
    yield case("take.table", ops.Pad(pads=(2, 0, 0, 3), mode=ops.PadMode.EDGE), f32(1, 5), length=0)
    for channels in ((16, 32), (20, 13, 5), (3, 3, 3, 40), (16, 5)):
        images = [f32(2, c, 3, 4) for c in channels]
        yield case("concat", ops.Concat(axis=1), *images, layout="blocked", length=0)
        yield case("concat", ops.Concat(axis=1), *images, length=0)
    for axis in (0, 2, 3):
        yield case("concat", ops.Concat(axis=axis), *[f32(2, 20, 3, 4)] * 2, layout="blocked", length=0)
    for c in (1, 3, 16, 21):
        yield case("copy.image", ops.Relayout(), f32(2, c, 5, 7), layout="out", length=0, note="to blocks")
        for dtype in (U8, F16, I64):
            yield case("relayout", ops.Relayout(), TensorType(dtype, (2, c, 5, 7)), layout="out", length=0)
    draw = random.Random(11)
    for _ in range(10):
        shape = [draw.choice((1, 2, 3, 8, 17)) for _ in range(draw.randint(2, 4))]
        perm = draw.sample(range(len(shape)), len(shape))
        yield case("transpose", ops.Transpose(perm=tuple(perm)), f32(*shape), length=0, note="random")
        starts = [draw.randint(0, size - 1) for size in shape]
        steps = [draw.choice((1, 1, 2, -1)) for _ in shape]
        counts = [
            draw.randint(1, (s // -t if t < 0 else (n - 1 - s) // t) + 1)
            for n, s, t in zip(shape, starts, steps, strict=True)
        ]
        op = ops.Slice(starts=tuple(starts), sizes=tuple(counts), steps=tuple(steps))
        yield case("slice", op, f32(*shape), length=0, note="random")


def resizes() -> Iterator[Case]:
    """Up and down, by both modes and every rule of coordinates."""
    for rule in ops.Coordinates:
        for size in ((7, 9), (20, 37), (1, 1), (3, 5)):
            for mode, kernel in ((ops.ResizeMode.NEAREST, "take.table"), (ops.ResizeMode.LINEAR, "resize2d.linear")):
                op = ops.Resize2d(size=size, mode=mode, coordinates=rule)
                yield case(kernel, op, f32(2, 3, 5, 6), length=4)
    yield case("take.table", ops.Resize2d(size=(17, 10), scale_h=1.7, scale_w=1.7), f32(1, 2, 10, 6), length=0)
    yield case("take.table", ops.Resize2d(size=(6, 6)), TensorType(U8, (1, 2, 3, 3)), length=0)


REDUCTIONS = ((5, 7), (0,)), ((5, 70), (1,)), ((2, 3, 7, 9), (2, 3)), ((3, 40, 5), (0, 2)), ((3, 4, 5), (0, 1, 2)), \
    ((3, 4), ()), ((2, 9, 50), (1,)), ((4, 1, 33), (1,)), ((2, 300, 17), (1,)), ((3, 1000), (1,))  # fmt: skip


def reductions() -> Iterator[Case]:
    """Every reduction along inner, outer and scattered axes, on every kind of number."""
    for name in ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod"):
        for shape, axes in REDUCTIONS:
            count = 1
            for axis in axes:
                count *= shape[axis]
            exact = 0 if name in ("reduce_max", "reduce_min") else max(count, 1)
            if name == "reduce_prod" and count > 100:
                continue
            yield case("reduce", registry[name](axes=axes, keepdims=len(axes) != 1), f32(*shape), length=exact)
        for dtype in (I32, I64, U8, DType.F64):
            op = registry[name](axes=(1,))
            yield case("reduce", op, TensorType(dtype, (3, 21, 18)), length=21 if dtype.is_float else 0)
            yield case("reduce", op, TensorType(dtype, (3, 37)), length=37 if dtype.is_float else 0)
    for name in ("reduce_sum", "reduce_max", "reduce_min"):
        yield case("reduce", registry[name](axes=(1,)), f32(5, 70), makers={0: one_nan}, length=70, note="NaN")
    for name in ("reduce_sum", "reduce_mean", "reduce_prod"):
        yield case("reduce", registry[name](axes=(1,)), f32(5, 0))


def selections() -> Iterator[Case]:
    """argmax, argmin and topk: ties, NaN, every kind of number."""
    for name in ("argmax", "argmin"):
        for last in (False, True):
            for axis, shape in ((0, (7, 40)), (1, (7, 40)), (1, (2, 5, 3, 4)), (0, (9,))):
                op = registry[name](axis=axis, last=last, keepdims=axis == 0)
                yield case("arg_extreme", op, f32(*shape), makers={0: few}, length=0)
        for dtype in (I32, I64, U8):
            yield case("arg_extreme", registry[name](axis=1), TensorType(dtype, (3, 50)), length=0)
        yield case("arg_extreme", registry[name](axis=1), f32(1, 9), makers={0: one_nan}, length=0, note="NaN")
    for largest in (True, False):
        for k in (1, 3, 9):
            for dtype in (F32, I32, U8):
                op = ops.TopK(k=k, largest=largest)
                yield case("topk", op, TensorType(dtype, (5, 9)), makers={0: few}, length=0)
        yield case("topk", ops.TopK(k=5, largest=largest), f32(4, 9), makers={0: one_nan}, length=0, note="NaN")
        yield case("topk", ops.TopK(k=5, largest=largest), f32(1000), makers={0: normal}, length=0)


CASES = [*moves(), *resizes(), *reductions(), *selections()]
