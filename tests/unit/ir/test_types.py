"""Element types, layouts and tensor types."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sqzc.diagnostics import ParseError, VerifyError
from sqzc.ir.types import MAX_ELEMENTS, MAX_RANK, PLAIN, DType, Layout, TensorType, f32


@pytest.mark.parametrize("dtype", DType)
def test_dtype_is_numpys(dtype: DType) -> None:
    assert DType.of(dtype.numpy) is dtype
    assert dtype.item_bytes == np.zeros(1, dtype.numpy).nbytes
    assert dtype.is_float == (dtype.numpy.kind == "f")
    assert DType(dtype.value) is dtype


def test_dtype_of_takes_what_numpy_takes() -> None:
    assert DType.of("float32") is DType.of(np.float32) is DType.F32
    with pytest.raises(VerifyError, match="no element type for numpy's complex64"):
        DType.of(np.complex64)
    with pytest.raises(VerifyError, match="complex128"):
        DType.of(np.complex128)


@pytest.mark.parametrize("text", ["", "nchw4c", "nchw8c", "nchw16c", "nchw999c"])
def test_layout_reads_back(text: str) -> None:
    assert str(Layout.parse(text)) == text
    assert Layout.parse(text).is_plain == (text == "")


def test_plain_layout_has_a_word() -> None:
    assert Layout.parse("plain") == Layout() == PLAIN


@pytest.mark.parametrize("text", ["nchw", "nchw0c", "nchw08c", "nchw1000c", "nchw8", "NCHW8c", "nhwc", "nchw8c ", "-"])
def test_layout_refuses(text: str) -> None:
    with pytest.raises(ParseError, match="unknown layout") as caught:
        Layout.parse(text)
    assert caught.value.expected == "nchw16c, nchw8c, nchw4c or none"


def test_blocked_layout_is_the_documented_index_expression() -> None:
    n, c, h, w, k = 2, 6, 3, 5, 4
    blocked = TensorType(DType.F32, (n, c, h, w), Layout(k))
    assert blocked.physical_shape == (2, 2, 3, 5, 4)
    assert blocked.physical_bytes == 4 * 2 * 2 * 3 * 5 * 4
    numbered = np.arange(blocked.physical_bytes // 4).reshape(blocked.physical_shape)
    for i, j, y, x in itertools.product(range(n), range(c), range(h), range(w)):
        assert numbered[i, j // k, y, x, j % k] == (((i * 2 + j // k) * h + y) * w + x) * k + j % k


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (f32(), "f32[]"),
        (f32(2, 0, 3), "f32[2,0,3]"),
        (TensorType(DType.BOOL, (1,)), "bool[1]"),
        (TensorType(DType.I8, (1, 2, 3, 4), Layout(16)), "i8[1,2,3,4]:nchw16c"),
    ],
)
def test_text(type_: TensorType, text: str) -> None:
    assert str(type_) == text


def test_sizes() -> None:
    assert (f32().rank, f32().elements, f32().physical_bytes) == (0, 1, 4)
    assert (f32(2, 0).elements, f32(2, 0).physical_bytes) == (0, 0)
    half = TensorType(DType.F16, (3, 5))
    assert (half.elements, half.physical_bytes, half.physical_shape) == (15, 30, (3, 5))


def test_changes_keep_the_rest() -> None:
    blocked = TensorType(DType.F32, (1, 8, 2, 2), Layout(8))
    assert blocked.with_layout(PLAIN) == f32(1, 8, 2, 2)
    assert blocked.with_dtype(DType.I8) == TensorType(DType.I8, (1, 8, 2, 2), Layout(8))
    # Another shape has no channels to block.
    assert blocked.with_shape(32) == f32(32)
    assert hash(f32(1, 2)) == hash(f32(1, 2))


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((1,) * (MAX_RANK + 1), PLAIN, "a tensor of rank 9"),
        ((2, -1), PLAIN, r"a negative dimension in shape \[2, -1\]"),
        ((MAX_ELEMENTS, 2), PLAIN, "elements"),
        ((1 << 40,), PLAIN, "elements"),
        ((4, 4, 4), Layout(8), r"layout nchw8c on shape \[4, 4, 4\]"),
    ],
)
def test_refused(shape: tuple[int, ...], layout: Layout, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        TensorType(DType.F32, shape, layout)


def test_largest_allowed() -> None:
    assert f32(MAX_ELEMENTS).elements == MAX_ELEMENTS
    assert f32(*(1,) * MAX_RANK).rank == MAX_RANK
