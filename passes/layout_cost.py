"""What a memory layout costs an op: the numbers behind the pass `assign-layout`.

The unit is one element loaded or stored by vector code. A multiply-accumulate costs half of it, since two issue per
cycle beside one store. The numbers rank layouts; they predict no times.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sqzc.ir.graph import Node
from sqzc.ir.opdef import Layouts
from sqzc.ir.ops import nn, shape
from sqzc.ir.types import DType, TensorType


class Freedom(enum.Enum):
    """Which choice of layouts an op leaves.

    PLAIN: none. TIED: all images, operands and results alike, share one. FREE: the first operand has its own; results
    and residual share another.
    """

    PLAIN = "plain"
    TIED = "tied"
    FREE = "free"


@dataclass(frozen=True)
class Preference:
    """Cost of each layout of an image of an op, beyond what the op costs anyway."""

    plain: int = 0
    blocked: int = 0


def is_image(type: TensorType) -> bool:
    """Whether a value may be channel-blocked at all."""
    return type.rank == 4 and type.dtype is DType.F32 and type.elements > 0


def blocked_elements(type: TensorType, lanes: int) -> int:
    """Elements of an image in memory when channel-blocked, unused lanes included."""
    n, c, h, w = type.shape
    return n * -(-c // lanes) * lanes * h * w


def relayout_cost(type: TensorType, lanes: int) -> int:
    """One load and one store per element, and the shuffles in between."""
    return 4 * blocked_elements(type, lanes)


def freedom(node: Node, lanes: int) -> Freedom:
    """The choice that `node` leaves for blocks of `lanes` channels."""
    op = node.op
    if any(not is_image(value.type) for value in node.outputs) or not node.outputs:
        return Freedom.PLAIN
    if op.layouts is Layouts.IMAGE:
        if not is_image(node.inputs[0].type):
            return Freedom.PLAIN
        return Freedom.FREE if isinstance(op, nn.Conv2d) and not is_depthwise(node) else Freedom.TIED
    if op.layouts is Layouts.BROADCAST:
        fits = all(
            value.type.elements == 1 or (is_image(value.type) and value.type.shape[1] == node.output.type.shape[1])
            for value in node.inputs
        )
        return Freedom.TIED if fits else Freedom.PLAIN
    if op.layouts is not Layouts.SAME or not all(is_image(value.type) for value in node.inputs):
        return Freedom.PLAIN
    if isinstance(op, shape.Concat) and op.axis == 1:
        aligned = all(value.type.shape[1] % lanes == 0 for value in node.inputs[:-1])
        return Freedom.TIED if aligned else Freedom.PLAIN
    return Freedom.TIED


def is_depthwise(node: Node) -> bool:
    """Whether a conv2d has one input and one output channel per group."""
    op = node.op
    return isinstance(op, nn.Conv2d) and op.group > 1 and op.group == node.inputs[1].type.shape[0]


def tied_preference(node: Node, lanes: int) -> Preference:
    """For the one layout of a TIED op: windows want channels in lanes; unused lanes cost in every op."""
    result = node.output.type
    waste = 2 * (blocked_elements(result, lanes) - result.elements)
    if isinstance(node.op, nn.ConvTranspose2d):
        return Preference(blocked=node.macs)
    if isinstance(node.op, nn.Pool2d):
        taps = node.op.kernel[0] * node.op.kernel[1]
        return Preference(
            plain=result.elements * taps // 2 if _fills_lanes(result.shape[1], lanes) else 0, blocked=waste
        )
    if isinstance(node.op, nn.Conv2d):
        return _conv_preference(node, result.shape[1], lanes)
    return Preference(blocked=waste)


def input_preference(node: Node, lanes: int) -> Preference:
    """For the first operand of a FREE conv2d."""
    return _conv_preference(node, node.inputs[0].type.shape[1], lanes)


def output_preference(node: Node, lanes: int) -> Preference:
    """For the result of a FREE conv2d."""
    return _conv_preference(node, node.output.type.shape[1], lanes)


def _conv_preference(node: Node, channels: int, lanes: int) -> Preference:
    """The wrong layout on one side of a convolution about doubles its time."""
    assert isinstance(node.op, nn.Conv2d)
    cost = max(1, node.macs // 2)
    if node.op.group > 1 and not is_depthwise(node):
        m, per_group = node.inputs[1].type.shape[:2]
        if per_group % lanes or (m // node.op.group) % lanes:
            # A block of channels would straddle groups.
            return Preference(blocked=cost)
    return Preference(plain=cost) if _fills_lanes(channels, lanes) else Preference(blocked=cost)


def _fills_lanes(channels: int, lanes: int) -> bool:
    # Grey and colour images come row-major, and their few channels are read as fast from there on any target.
    return channels > 3 and 2 * channels >= lanes
