"""The pass `fold-pad`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sqzc.diagnostics import VerifyError
from sqzc.ir.graph import Graph, Node, Value
from sqzc.ir.opdef import OpDef
from sqzc.ir.ops import elementwise, nn, shape
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.rewriting import erase_unused, label, replace_node

Pads = tuple[int, int, int, int]


@dataclass(frozen=True)
class FoldPad(RewritePass):
    """Folds an explicit constant border around an image into the padding of the convolution or pool that reads it.

    - conv2d: a border of zeros.
    - avg_pool2d: a border of zeros, counted in the mean, where the pool has no padding of its own that is not.
    - max_pool2d: a border that never wins: -inf, or at most every possible value (0 after a relu), when no window lies
      in the border as a whole.

    Before:
        graph @g(%x: f32[1,1,4,4]) {
          const %w = [1.0, 2.0, 3.0, 4.0] : f32[1,1,2,2]
          %p = pad(%x) {pads=[0,0,1,0,0,0,0,1]} : f32[1,1,5,5] @"p"
          %c = conv2d(%p, %w) : f32[1,1,4,4] @"c"
          yield %c as "y"
        }
    After:
        graph @g(%x: f32[1,1,4,4]) {
          const %w = [1.0, 2.0, 3.0, 4.0] : f32[1,1,2,2]
          %c = conv2d(%x, %w) {pads=[1,0,0,1]} : f32[1,1,4,4] @"p" @"c"
          yield %c as "y"
        }
    """

    name: ClassVar[str] = "fold-pad"

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        pad = node.inputs[0].producer if node.inputs else None
        if not isinstance(node.op, nn.Conv2d | nn.Pool2d) or pad is None or not isinstance(pad.op, shape.Pad):
            return False
        x = pad.inputs[0]
        border = _image_border(pad.op)
        folded = None if border is None else _folded(node, pad.op.value, border, x)
        if folded is None:
            ctx.note(f"declined {label(pad.output)} into {node.op.name} {label(node.output)}: it would not be exact")
            return False
        if not ctx.take(f"folded pad {label(pad.output)} into {node.op.name} {label(node.output)}"):
            return False
        absorbed = [] if graph.sole_user(pad.output) is None else [pad.output]
        replace_node(graph, node, folded, [x, *node.inputs[1:]], absorbed=absorbed)
        erase_unused(graph, pad.output)
        return True


def _image_border(pad: shape.Pad) -> Pads | None:
    """(top, left, bottom, right) of a constant border around height and width, else None."""
    if pad.mode is not shape.PadMode.CONSTANT or len(pad.pads) != 8:
        return None
    if any(pad.pads[:2]) or any(pad.pads[4:6]):
        return None
    return (pad.pads[2], pad.pads[3], pad.pads[6], pad.pads[7])


def _folded(node: Node, value: float, border: Pads, x: Value) -> OpDef | None:
    """The op of `node` with `border` of `value` in its own padding; None where that is not the same function."""
    op = node.op
    assert isinstance(op, nn.Conv2d | nn.Pool2d)
    pads = tuple(a + b for a, b in zip(op.pads, border, strict=True))
    if isinstance(op, nn.MaxPool2d):
        if not value <= _lower_bound(x) or not _windows_touch_image(op, pads):
            return None
        changed: OpDef = op.replace(pads=pads)
    elif value != 0:
        return None
    elif isinstance(op, nn.AvgPool2d):
        if any(op.pads) and not op.count_include_pad:
            return None
        overhang = op.count_include_pad and op.count_overhang
        changed = op.replace(pads=pads, count_include_pad=True, count_overhang=overhang)
    else:
        changed = op.replace(pads=pads)
    # With ceil rounding the number of windows depends on what counts as padding.
    try:
        same = changed.result_types([x.type, *(v.type for v in node.inputs[1:])])[0]
    except VerifyError:
        return None
    return changed if same == node.output.type.with_layout(same.layout) else None


def _windows_touch_image(op: nn.MaxPool2d, pads: tuple[int, ...]) -> bool:
    top, left, bottom, right = pads
    return op.dilation == (1, 1) and max(top, bottom) < op.kernel[0] and max(left, right) < op.kernel[1]


def _lower_bound(value: Value) -> float:
    """A number that no element of `value` is below, as far as its producer tells."""
    producer = value.producer
    if producer is None:
        return float("-inf")
    op = producer.op
    if isinstance(op, nn.Conv2d | nn.ConvTranspose2d) and op.act:
        op = op.act.as_op()
    if isinstance(op, nn.MaxPool2d):
        return _lower_bound(producer.inputs[0])
    if isinstance(op, elementwise.Clip):
        return float(op.lo)
    zero_at_least = (elementwise.Relu, elementwise.Sigmoid, elementwise.HardSigmoid, elementwise.Exp, elementwise.Abs)
    return 0.0 if isinstance(op, zero_at_least) else float("-inf")
