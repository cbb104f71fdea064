"""ONNX forms of convolutions, pools, normalisations and matrix products."""

from __future__ import annotations

from typing import Any

from sqzc.backends.onnx_export.elementwise import activate
from sqzc.backends.onnx_export.emitter import Emitter
from sqzc.backends.onnx_export.registry import exporter
from sqzc.ir.graph import Node
from sqzc.ir.ops import nn as ops
from sqzc.ir.types import TensorType


@exporter("conv2d")
def conv2d(e: Emitter, node: Node) -> str:
    """Conv, then Add for a residual, then the activation."""
    op = node.op
    assert isinstance(op, ops.Conv2d)
    x, w, *rest = e.operands(node)
    y = e.emit(
        "Conv",
        [x, w, *rest[:1]],
        kernel_shape=list(node.inputs[1].type.shape[2:]),
        strides=op.stride,
        pads=op.pads,
        dilations=op.dilation,
        group=op.group,
    )
    for residual in rest[1:]:
        y = e.emit("Add", [y, residual])
    return activate(e, op.act, y, node.output.type.dtype)


@exporter("conv_transpose2d")
def conv_transpose2d(e: Emitter, node: Node) -> str:
    """ConvTranspose, then the activation."""
    op = node.op
    assert isinstance(op, ops.ConvTranspose2d)
    y = e.emit(
        "ConvTranspose",
        e.operands(node),
        kernel_shape=list(node.inputs[1].type.shape[2:]),
        strides=op.stride,
        pads=op.pads,
        output_padding=op.output_pads,
        dilations=op.dilation,
        group=op.group,
    )
    return activate(e, op.act, y, node.output.type.dtype)


def overhang(op: ops.Pool2d, x: TensorType) -> tuple[int, int]:
    """Rows and columns by which the last windows reach past the padding (ceil rounding only)."""
    out = op.infer(x).shape[2:]
    past = []
    for axis in (0, 1):
        reach = (out[axis] - 1) * op.stride[axis] + (op.kernel[axis] - 1) * op.dilation[axis] + 1
        past.append(max(0, reach - (x.shape[2 + axis] + op.pads[axis] + op.pads[axis + 2])))
    return past[0], past[1]


def is_global(op: ops.Pool2d, x: TensorType) -> bool:
    """Whether one undilated window covers each channel exactly."""
    return op.kernel == x.shape[2:] and not any(op.pads) and op.dilation == (1, 1)


@exporter("max_pool2d")
def max_pool2d(e: Emitter, node: Node) -> str:
    """A ceil window becomes padding at the end: the same taps, and runtimes do not agree on ceil_mode's sizes."""
    op, x = node.op, node.inputs[0].type
    assert isinstance(op, ops.MaxPool2d)
    if is_global(op, x):
        return e.emit("GlobalMaxPool", e.operands(node))
    top, left, bottom, right = op.pads
    more = overhang(op, x)
    return e.emit(
        "MaxPool",
        e.operands(node),
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=(top, left, bottom + more[0], right + more[1]),
        dilations=op.dilation,
    )


@exporter("avg_pool2d")
def avg_pool2d(e: Emitter, node: Node) -> str:
    """Like max_pool2d, but padding that counts beside a ceil window that does not, or both, is made of real zeros."""
    op, x = node.op, node.inputs[0].type
    assert isinstance(op, ops.AvgPool2d)
    (tensor,) = e.operands(node)
    if is_global(op, x):
        return e.emit("GlobalAveragePool", [tensor])
    top, left, bottom, right = op.pads
    more = overhang(op, x)
    whole = (top, left, bottom + more[0], right + more[1])
    common: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.stride, "dilations": op.dilation}
    if not any(more) or not op.count_include_pad:
        return e.emit("AveragePool", [tensor], pads=whole, count_include_pad=int(op.count_include_pad), **common)
    zeros, rest = (whole, (0, 0, 0, 0)) if op.count_overhang else (op.pads, (0, 0, *more))
    if any(zeros):
        tensor = e.emit("Pad", [tensor, e.integers("pads", (0, 0, *zeros[:2], 0, 0, *zeros[2:]))])
    return e.emit("AveragePool", [tensor], pads=rest, **common)


@exporter("batch_norm")
def batch_norm(e: Emitter, node: Node) -> str:
    """BatchNormalization has the same operands in the same order."""
    assert isinstance(node.op, ops.BatchNorm)
    return e.emit("BatchNormalization", e.operands(node), epsilon=node.op.eps)


@exporter("instance_norm")
def instance_norm(e: Emitter, node: Node) -> str:
    """InstanceNormalization."""
    assert isinstance(node.op, ops.InstanceNorm)
    return e.emit("InstanceNormalization", e.operands(node), epsilon=node.op.eps)


@exporter("lrn")
def lrn(e: Emitter, node: Node) -> str:
    """LRN has the same attributes and, for an even size, the same neighbours."""
    return e.emit("LRN", e.operands(node), **node.op.attrs)


@exporter("softmax")
def softmax(e: Emitter, node: Node) -> str:
    """Softmax where one axis is longer than 1; the joint form of several is spelled out."""
    op, x = node.op, node.inputs[0].type
    assert isinstance(op, ops.Softmax)
    (tensor,) = e.operands(node)
    long_axes = [axis for axis in op.axes if x.shape[axis] != 1]
    if len(long_axes) <= 1:
        return e.emit("Softmax", [tensor], axis=(long_axes or op.axes)[0])
    axes = e.integers("axes", sorted(op.axes))
    powers = e.emit("Exp", [e.emit("Sub", [tensor, e.emit("ReduceMax", [tensor, axes])])])
    return e.emit("Div", [powers, e.emit("ReduceSum", [powers, axes])])


@exporter("linear")
def linear(e: Emitter, node: Node) -> str:
    """Gemm with the weight transposed, then the activation."""
    assert isinstance(node.op, ops.Linear)
    y = e.emit("Gemm", e.operands(node), transB=1)
    return activate(e, node.op.act, y, node.output.type.dtype)


@exporter("matmul")
def matmul(e: Emitter, node: Node) -> str:
    """MatMul after Transpose nodes."""
    op = node.op
    assert isinstance(op, ops.MatMul)
    operands = []
    for value, transposed in zip(node.inputs, (op.trans_a, op.trans_b), strict=True):
        rank, tensor = value.type.rank, e.tensor(value)
        perm = [*range(rank - 2), rank - 1, rank - 2]
        operands.append(e.emit("Transpose", [tensor], perm=perm) if transposed else tensor)
    return e.emit("MatMul", operands)
