"""Every lifting function, registered by importing its module."""

from __future__ import annotations

from sqzc.frontends.onnx import (  # noqa: F401
    ops_binary,
    ops_constant,
    ops_conv,
    ops_elementwise,
    ops_gather,
    ops_matrix,
    ops_norm,
    ops_pool,
    ops_quantize,
    ops_reduce,
    ops_resize,
    ops_shape,
    ops_trigonometry,
)
from sqzc.frontends.onnx.table import table

__all__ = ["table"]
