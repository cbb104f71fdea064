"""Sliding windows: kernel, strides, dilations and every way of saying the padding."""

from __future__ import annotations

from dataclasses import dataclass

from sqzc.frontends.onnx.table import OpView
from sqzc.ir import Value

MAX_EXTENT = 1 << 20

Pair = tuple[int, int]
Quad = tuple[int, int, int, int]


@dataclass(frozen=True)
class Window:
    """Per spatial axis: kernel, stride, dilation, padding before and after."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def reach(self) -> tuple[int, ...]:
        """Elements from the first to the last tap."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def only(self, first: int, last: int) -> Window:
        """The window over some of its axes."""
        parts = (self.kernel, self.stride, self.dilation, self.before, self.after)
        return Window(*(part[first:last] for part in parts))

    # The forms that two-dimensional ops take; a window over one axis runs along the width.

    @property
    def kernel2(self) -> Pair:
        """Height and width."""
        return _pair(self.kernel, 1)

    @property
    def stride2(self) -> Pair:
        """Height and width."""
        return _pair(self.stride, 1)

    @property
    def dilation2(self) -> Pair:
        """Height and width."""
        return _pair(self.dilation, 1)

    @property
    def pads2(self) -> Quad:
        """Top, left, bottom, right."""
        return (*_pair(self.before, 0), *_pair(self.after, 0))


def _pair(values: tuple[int, ...], fill: int) -> Pair:
    assert 1 <= len(values) <= 2, f"{len(values)} axes are not two-dimensional"
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


def read_axes(op: OpView, name: str, axes: int, default: int, least: int) -> tuple[int, ...]:
    """An attribute with one number per spatial axis."""
    values = op.attrs.ints(name)
    if values is None:
        return (default,) * axes
    if len(values) != axes:
        raise op.error(f"'{name}' of {op.type}", expected=f"{axes} numbers", got=str(len(values)))
    for value in values:
        if not least <= value <= MAX_EXTENT:
            raise op.error(f"'{name}' must be at least {least}, got {value}", expected=f"{least} to {MAX_EXTENT}")
    return values


def auto_pad(op: OpView) -> str:
    """How the padding follows from the sizes; NOTSET where it is given."""
    return op.attrs.text("auto_pad", "NOTSET", ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"))


def halves(total: int, mode: str) -> Pair:
    """A padding shared out to both ends; the odd element goes to the end that `mode` names."""
    small, large = total // 2, total - total // 2
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def read_window(op: OpView, sizes: tuple[int, ...], kernel: tuple[int, ...] | None = None) -> Window:
    """The window over an image of these spatial sizes; `kernel` is the weight's, which the attribute must repeat."""
    axes = len(sizes)
    if kernel is None and not op.attrs.has("kernel_shape"):
        raise op.error(f"{op.type} without kernel_shape")
    given = read_axes(op, "kernel_shape", axes, 0, 1) if op.attrs.has("kernel_shape") else kernel
    assert given is not None
    if kernel is not None and given != kernel:
        raise op.error("kernel_shape is not that of the weight", expected=str(list(kernel)), got=str(list(given)))
    stride = read_axes(op, "strides", axes, 1, 1)
    dilation = read_axes(op, "dilations", axes, 1, 1)
    before, after = _padding(op, sizes, given, stride, dilation)
    return Window(given, stride, dilation, before, after)


def _padding(
    op: OpView, sizes: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    mode, axes = auto_pad(op), len(sizes)
    pads = op.attrs.ints("pads")
    if mode == "NOTSET":
        pads = pads or (0,) * (2 * axes)
        if len(pads) != 2 * axes:
            raise op.error(f"'pads' of {op.type}", expected=f"{2 * axes} numbers", got=str(len(pads)))
        if min(pads) < 0:
            raise op.unsupported(f"{op.type} with a negative padding")
        if max(pads) > MAX_EXTENT:
            raise op.error(f"'pads' of {max(pads)}", expected=f"at most {MAX_EXTENT}")
        return pads[:axes], pads[axes:]
    if pads is not None and any(pads):
        raise op.error(f"auto_pad {mode} together with pads")
    if mode == "VALID":
        return (0,) * axes, (0,) * axes
    ends = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        needed = (-(-size // s) - 1) * s + (k - 1) * d + 1 - size
        ends.append(halves(max(needed, 0), mode))
    return tuple(a for a, _ in ends), tuple(b for _, b in ends)


def spatial(op: OpView, x: Value) -> tuple[int, ...]:
    """Sizes of the spatial axes of an image [N, C, ...]."""
    if x.type.rank < 3:
        raise op.error(f"{op.type} of a tensor of rank {x.type.rank}", expected="an image [N, C, ...]", got=str(x.type))
    return x.type.shape[2:]


def as_image(op: OpView, x: Value) -> Value:
    """[N, C, L] as [N, C, 1, L]; rank 4 as it is."""
    if x.type.rank != 3:
        return x
    n, c, length = x.type.shape
    return op.reshape(x, (n, c, 1, length))


def from_image(op: OpView, y: Value, rank: int) -> Value:
    """Undoes `as_image` for a result of this rank."""
    if rank != 3:
        return y
    n, c, _, length = y.type.shape
    return op.reshape(y, (n, c, length))


def frames(op: OpView, x: Value) -> Value:
    """[N, C, D, H, W] as images [N * D, C, H, W]."""
    n, c, d, h, w = x.type.shape
    return op.reshape(op.transpose(x, (0, 2, 1, 3, 4)), (n * d, c, h, w))


def from_frames(op: OpView, y: Value, n: int) -> Value:
    """Undoes `frames` for `n` volumes."""
    total, c, h, w = y.type.shape
    return op.transpose(op.reshape(y, (n, total // n, c, h, w)), (0, 2, 1, 3, 4))
