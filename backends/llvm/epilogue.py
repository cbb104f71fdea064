"""What happens to a finished vector before it is stored: the activation, and zeros in lanes past the channels."""

from __future__ import annotations

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.vector_math import apply_activation, keeps_zero
from sqzc.ir.ops.activation import Activation


def finish_vector(e: Emitter, value: Val, act: Activation, channels: int, block: Val) -> Val:
    """act(value); `block` is the channel block of the vector.

    A channel-blocked image holds zeros in the lanes past its channels. Weights packed with zeros keep that by
    themselves unless the activation moves zero, in which case the last block is masked.
    """
    value = apply_activation(e, value, act)
    lanes = value.type.count
    if channels % lanes == 0 or keeps_zero(act):
        return value
    left = e.b.sub(e.i64(channels), e.b.mul(block, e.i64(lanes)))
    return e.b.select(e.first_lanes(left, lanes), value, e.splat(0.0, lanes))
