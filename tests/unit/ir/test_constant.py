"""Constants: shared, read-only, known by their data."""

from __future__ import annotations

import numpy as np
import pytest

from sqzc.diagnostics import VerifyError
from sqzc.ir.constant import INLINE_ELEMENTS, Constant
from sqzc.ir.types import DType, TensorType, f32


def test_array_is_shared_and_read_only() -> None:
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    constant = Constant("w", data)
    assert np.shares_memory(constant.data, data)
    assert constant.type == f32(2, 3)
    with pytest.raises(ValueError, match="read-only"):
        constant.data[0, 0] = 1
    data[0, 0] = 5  # The owner of the array keeps its rights.


def test_any_order_becomes_row_major_native() -> None:
    data = np.arange(6, dtype=">i4").reshape(2, 3).T
    constant = Constant("w", data)
    assert constant.data.flags.c_contiguous
    assert constant.data.dtype.isnative
    assert constant.type == TensorType(DType.I32, (3, 2))
    np.testing.assert_array_equal(constant.data, data)


def test_sha_depends_on_type_and_bytes() -> None:
    zeros = np.zeros(4, np.float32)
    base = Constant("a", zeros).sha
    assert len(base) == 16
    assert int(base, 16) >= 0
    assert Constant("b", zeros.copy()).sha == base
    others = [zeros.astype(np.int32), zeros.reshape(2, 2), -zeros, np.zeros(5, np.float32)]
    assert len({Constant("a", other).sha for other in others} | {base}) == 5


def test_sha_is_stable() -> None:
    # Files written by one version are read by the next.
    assert Constant("x", np.array([1.0, 2.0], np.float32)).sha == "5867bc14a224f5b1"


def test_key_tells_equal_symbols_apart() -> None:
    a, b = Constant("w", np.zeros(2, np.float32)), Constant("w", np.ones(2, np.float32))
    assert a.key.startswith("w#")
    assert a.key != b.key


def test_only_few_elements_are_inline() -> None:
    assert Constant("a", np.zeros(INLINE_ELEMENTS, np.float32)).is_inline
    assert not Constant("a", np.zeros(INLINE_ELEMENTS + 1, np.float32)).is_inline
    assert Constant("a", np.float32(3)).type == f32()


def test_unknown_element_type() -> None:
    with pytest.raises(VerifyError, match="no element type for numpy's <U1"):
        _ = Constant("a", np.array(["a"])).type
