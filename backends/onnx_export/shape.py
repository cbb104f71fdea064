"""ONNX forms of the ops that move, select or reduce elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sqzc.backends.onnx_export.emitter import Emitter
from sqzc.backends.onnx_export.registry import exporter
from sqzc.diagnostics import UnsupportedError
from sqzc.ir.graph import Node
from sqzc.ir.ops import shape as ops
from sqzc.ir.types import DType

_REDUCE = {
    "reduce_sum": "ReduceSum",
    "reduce_mean": "ReduceMean",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
}


@exporter("relayout")
def relayout(e: Emitter, node: Node) -> str:
    """ONNX knows one layout."""
    return e.emit("Identity", e.operands(node))


@exporter("reshape")
def reshape(e: Emitter, node: Node) -> str:
    """Reshape; a zero is a real zero, not a copied dimension."""
    assert isinstance(node.op, ops.Reshape)
    more: dict[str, Any] = {"allowzero": 1} if 0 in node.op.shape else {}
    return e.emit("Reshape", [*e.operands(node), e.integers("shape", node.op.shape)], **more)


@exporter("transpose")
def transpose(e: Emitter, node: Node) -> str:
    """Transpose."""
    assert isinstance(node.op, ops.Transpose)
    return e.emit("Transpose", e.operands(node), perm=node.op.perm)


@exporter("concat")
def concat(e: Emitter, node: Node) -> str:
    """Concat; `placed` says nothing about the value."""
    assert isinstance(node.op, ops.Concat)
    return e.emit("Concat", e.operands(node), axis=node.op.axis)


@exporter("slice")
def slice_(e: Emitter, node: Node) -> str:
    """Slice of the axes that change; going backwards, an end before the first element is said as -size - 1."""
    op, x = node.op, node.inputs[0].type
    assert isinstance(op, ops.Slice)
    axes, starts, ends, steps = [], [], [], []
    for axis, (start, size, step) in enumerate(zip(op.starts, op.sizes, op.steps or (1,) * x.rank, strict=True)):
        if (start, size, step) == (0, x.shape[axis], 1):
            continue
        end = start + (size - 1) * step + (1 if step > 0 else -1) if size else start
        axes.append(axis)
        starts.append(start)
        ends.append(end if end >= 0 else -x.shape[axis] - 1)
        steps.append(step)
    if not axes:
        return e.tensor(node.inputs[0])
    named = (("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps))
    return e.emit("Slice", [*e.operands(node), *(e.integers(name, values) for name, values in named)])


@exporter("pad")
def pad(e: Emitter, node: Node) -> str:
    """Pad has the same order of widths and the same names of modes."""
    op = node.op
    assert isinstance(op, ops.Pad)
    inputs = [*e.operands(node), e.integers("pads", op.pads)]
    if op.mode is ops.PadMode.CONSTANT:
        inputs.append(e.scalar("value", op.value, node.inputs[0].type.dtype))
    return e.emit("Pad", inputs, mode=op.mode.value)


@exporter("expand")
def expand(e: Emitter, node: Node) -> str:
    """Expand."""
    assert isinstance(node.op, ops.Expand)
    return e.emit("Expand", [*e.operands(node), e.integers("shape", node.op.shape)])


def reduce(e: Emitter, node: Node) -> str:
    """A reduction; without axes it is the identity, not a reduction of everything."""
    op = node.op
    assert isinstance(op, ops.Reduce)
    axes = e.integers("axes", op.axes)
    more: dict[str, Any] = {} if op.axes else {"noop_with_empty_axes": 1}
    return e.emit(_REDUCE[op.name], [*e.operands(node), axes], keepdims=int(op.keepdims), **more)


for _name in _REDUCE:
    exporter(_name)(reduce)


def arg_reduce(e: Emitter, node: Node) -> str:
    """ArgMax or ArgMin."""
    op = node.op
    assert isinstance(op, ops.ArgReduce)
    onnx_name = "ArgMax" if isinstance(op, ops.ArgMax) else "ArgMin"
    attributes = {"axis": op.axis, "keepdims": int(op.keepdims), "select_last_index": int(op.last)}
    return e.emit(onnx_name, e.operands(node), dtype=DType.I64, **attributes)


exporter("argmax")(arg_reduce)
exporter("argmin")(arg_reduce)


@exporter("topk")
def topk(e: Emitter, node: Node) -> tuple[str, ...]:
    """TopK along the last axis, sorted."""
    op = node.op
    assert isinstance(op, ops.TopK)
    inputs = [*e.operands(node), e.integers("k", (op.k,))]
    dtypes = (node.inputs[0].type.dtype, DType.I64)
    return e.emit_multi("TopK", inputs, dtypes, axis=-1, largest=int(op.largest), sorted=1)


@exporter("gather")
def gather(e: Emitter, node: Node) -> str:
    """Gather."""
    assert isinstance(node.op, ops.Gather)
    return e.emit("Gather", e.operands(node), axis=node.op.axis)


@exporter("resize2d")
def resize2d(e: Emitter, node: Node) -> str:
    """Resize by sizes, or by scales where those differ from the sizes' ratio."""
    op, x = node.op, node.inputs[0].type
    assert isinstance(op, ops.Resize2d)
    modes: dict[str, Any] = {
        "mode": op.mode.value,
        "coordinate_transformation_mode": op.coordinates.value,
        "nearest_mode": "floor",
    }
    (tensor,) = e.operands(node)
    if not op.scale_h and not op.scale_w:
        return e.emit("Resize", [tensor, "", "", e.integers("sizes", (*x.shape[:2], *op.size))], **modes)
    scales = [1.0, 1.0]
    for size, length, scale in zip(x.shape[2:], op.size, (op.scale_h, op.scale_w), strict=True):
        scales.append(float(np.float32(scale or length / size)))
        if math.floor(size * scales[-1]) != length:
            raise UnsupportedError(f"ONNX gives {size} * {scales[-1]:g} samples, not {length}")
    return e.emit("Resize", [tensor, "", e.constant("scales", np.array(scales, np.float32))], **modes)
