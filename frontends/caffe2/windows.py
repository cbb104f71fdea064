"""The window arguments of convolutions, pools and padding: every spelling of kernel, stride, dilation and pad."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from sqzc.frontends.caffe2.table import OpView

MAX_EXTENT = 1 << 20


class LegacyPad(IntEnum):
    """How paddings follow from the image size, as the `legacy_pad` argument numbers it."""

    NOTSET = 0
    VALID = 1
    SAME = 2
    CAFFE = 3


@dataclass(frozen=True)
class Window:
    """Per spatial axis: kernel, stride, dilation; `pads` has all heads, then all tails. Kernel is 0 where unset."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[int, ...]
    legacy: LegacyPad
    global_pooling: bool

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    def heads(self) -> tuple[int, ...]:
        """Explicit padding before each axis."""
        return self.pads[: self.axes]


def _spelled(op: OpView, plural: str, single: str, parts: tuple[str, ...]) -> list[int]:
    """A list argument, a single one that stands for all axes, or one per axis that count only when all are given.

    The single form pads the list out to its length and never overrides it; it goes before the per-axis form.
    """
    values = list(op.args.ints(plural) or ())
    whole = op.args.integer(single, 0) if op.args.has(single) else None
    given = [op.args.integer(part, 0) if op.args.has(part) else None for part in parts]
    if whole is not None:
        values = (values + [whole] * len(parts))[: len(parts)]
    elif None not in given:
        values += [part for part in given if part is not None]
    if any(abs(value) > MAX_EXTENT for value in values):
        raise op.error(f"'{plural}' of {max(map(abs, values))}", argument=plural, expected=f"at most {MAX_EXTENT}")
    return values


def read_window(op: OpView) -> Window:
    """Reads all window arguments; FrontendError for combinations that Caffe2 refuses."""
    kernel = _spelled(op, "kernels", "kernel", ("kernel_h", "kernel_w")) or [0, 0]
    axes = len(kernel)
    stride = _spelled(op, "strides", "stride", ("stride_h", "stride_w")) or [1] * axes
    dilation = _spelled(op, "dilations", "dilation", ("dilation_h", "dilation_w")) or [1] * axes
    pads = _spelled(op, "pads", "pad", ("pad_t", "pad_l", "pad_b", "pad_r"))
    code = op.args.integer("legacy_pad", 0)
    if code not in list(LegacyPad):
        raise op.error(f"legacy_pad {code}", argument="legacy_pad", expected="0 to 3")
    legacy = LegacyPad(code)
    if legacy in (LegacyPad.VALID, LegacyPad.SAME) and pads:
        raise op.error(f"legacy_pad {code} together with explicit pads", argument="legacy_pad")
    pads = pads or [0] * (2 * axes)
    for name, values, count in (("strides", stride, axes), ("dilations", dilation, axes), ("pads", pads, 2 * axes)):
        if len(values) != count:
            raise op.error(
                f"'{name}' does not fit a kernel of {axes} axes", expected=f"{count} numbers", got=str(len(values))
            )
    for name, values in (("stride", stride), ("dilation", dilation)):
        if min(values) < 1:
            raise op.error(f"'{name}' must be at least 1, got {min(values)}")
    if min(kernel) < 0:
        raise op.error(f"'kernel' must be at least 1, got {min(kernel)}")
    window = Window(
        tuple(kernel), tuple(stride), tuple(dilation), tuple(pads), legacy, op.args.flag("global_pooling", False)
    )
    if window.global_pooling and not (set(pads) == {0} and set(stride) == {1} and set(dilation) == {1}):
        raise op.error("global_pooling together with a pad, stride or dilation", argument="global_pooling")
    return window


def require_kernel(op: OpView, window: Window) -> None:
    """FrontendError unless every kernel size is given."""
    if 0 in window.kernel:
        raise op.error("the kernel size is missing", expected="'kernel', 'kernels', or 'kernel_h' and 'kernel_w'")


def require_no_negative_pad(op: OpView, window: Window) -> None:
    """FrontendError for a negative padding."""
    if min(window.pads) < 0:
        raise op.error(f"'pad' must be at least 0, got {min(window.pads)}")


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Head and tail so that ceil(size / stride) windows fit; the odd pixel goes to the tail.

    Negative where the stride skips more than the kernel covers: the number of windows is the same with none.
    """
    needed = (-(-size // stride) - 1) * stride + kernel - size
    if needed < 0:
        return (0, 0) if needed == -1 else (needed, needed)
    return needed // 2, needed - needed // 2


def caffe_windows(size: int, kernel: int, stride: int, head: int) -> int:
    """Number of windows by Caffe's rule: round up, but with padding drop a last one that starts in the padding."""
    count = -(-(size + 2 * head - kernel) // stride) + 1
    if head > 0 and (count - 1) * stride >= size + head:
        count -= 1
    return count


def resolved_pads(op: OpView, window: Window, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Explicit pads (all heads, then all tails) that give Caffe2's windows with plain rounding down."""
    if window.legacy is LegacyPad.NOTSET:
        return window.pads
    if window.legacy is LegacyPad.VALID:
        return (0,) * (2 * window.axes)
    heads, tails = [], []
    for axis, size in enumerate(sizes):
        kernel, stride = window.kernel[axis], window.stride[axis]
        if window.legacy is LegacyPad.SAME:
            if window.dilation[axis] != 1:
                raise op.error("legacy_pad 2 together with a dilation", argument="legacy_pad")
            head, tail = same_pads(size, kernel, stride)
            if head < 0:
                raise op.unsupported(
                    f"legacy_pad 2 with stride {stride} and kernel {kernel}, whose padding is negative"
                )
        else:
            if window.dilation[axis] != 1:
                raise op.unsupported("legacy_pad 3 with a dilation, which Caffe2 counts as if there were none")
            head = window.pads[axis]
            tail = head + stride * (
                caffe_windows(size, kernel, stride, head) - ((size + 2 * head - kernel) // stride + 1)
            )
        heads.append(head)
        tails.append(tail)
    return (*heads, *tails)
