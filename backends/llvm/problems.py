"""Problems: the facts of a step that its kernel depends on, read from the ops and the placed buffers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.nn import Conv2d, Pool2d
from sqzc.ir.types import Layout, TensorType
from sqzc.plan.program import NO_BORDER, Geometry, Program, Step, image_geometry


@dataclass(frozen=True)
class ConvProblem:
    """A convolution of `n` images. `x_block`, `y_block`: channels per vector, 0 for row-major.

    `x`, `y`, `r` are the distances within input, output and residual.
    """

    n: int
    ic: int
    oc: int
    ih: int
    iw: int
    oh: int
    ow: int
    kh: int
    kw: int
    sh: int
    sw: int
    dh: int
    dw: int
    pads: tuple[int, int, int, int]
    group: int
    act: Activation
    x_block: int
    y_block: int
    x: Geometry
    y: Geometry
    r: Geometry | None

    @property
    def lanes(self) -> int:
        """Input channels that lie beside each other: the block, or 1 for a row-major input."""
        return self.x_block or 1

    @property
    def ic_padded(self) -> int:
        """Input channels with the unused lanes of the last block."""
        return -(-self.ic // self.lanes) * self.lanes

    @property
    def oc_blocks(self) -> int:
        """Vectors of output channels."""
        return -(-self.oc // (self.y_block or 1))


def conv_problem_of(
    op: Conv2d,
    x: TensorType,
    oc: int,
    kernel: tuple[int, int],
    y_block: int,
    x_geometry: Geometry,
    y_geometry: Geometry,
    r_geometry: Geometry | None,
) -> ConvProblem:
    """The convolution of an image of type `x` into `oc` channels."""
    n, ic, ih, iw = x.shape
    plain = x.with_layout(Layout())
    oh, ow = op.infer(plain, plain.with_shape(oc, ic // op.group, *kernel)).shape[2:]
    return ConvProblem(
        n, ic, oc, ih, iw, oh, ow, *kernel, *op.stride, *op.dilation, op.pads, op.group, op.act,
        x.layout.block, y_block, x_geometry, y_geometry, r_geometry,
    )  # fmt: skip


def conv_problem(program: Program, step: Step) -> ConvProblem:
    """The convolution that a step computes (its first op).

    Where a pool is fused behind it, `y` is a stand-in for the image that is never stored.
    """
    op = step.ops[0]
    assert isinstance(op, Conv2d)
    x, y = program.buffers[step.reads[0]], program.buffers[step.writes[0]]
    kernel = int(step.facts["kh"]), int(step.facts["kw"])
    residual = program.geometry(step.reads[1]) if len(step.reads) > 1 else None
    oc, block = y.type.shape[1], y.type.layout.block
    fixed = op, x.type, oc, kernel, block, program.geometry(x.name)
    if len(step.ops) == 1:
        return conv_problem_of(*fixed, program.geometry(y.name), residual)
    p = conv_problem_of(*fixed, program.geometry(x.name), residual)
    whole = TensorType(y.type.dtype, (p.n, oc, p.oh, p.ow), y.type.layout)
    return replace(p, y=image_geometry(whole, NO_BORDER))


@dataclass(frozen=True)
class PoolProblem:
    """A pool over `n` images of `c` channels."""

    n: int
    c: int
    ih: int
    iw: int
    oh: int
    ow: int
    op: Pool2d
    block: int
    x: Geometry
    y: Geometry

    @property
    def blocks(self) -> int:
        """Channel blocks, or channels of a row-major image."""
        return -(-self.c // (self.block or 1))


def fused_pool_problem(program: Program, step: Step, conv: ConvProblem) -> PoolProblem:
    """The pool behind a convolution, reading the convolution's image."""
    op = step.ops[1]
    assert isinstance(op, Pool2d)
    y = program.buffers[step.writes[0]]
    oh, ow = y.type.shape[2:]
    geometry = conv.y, program.geometry(y.name)
    return PoolProblem(conv.n, conv.oc, conv.oh, conv.ow, oh, ow, op, conv.y_block, *geometry)


def pool_problem(program: Program, step: Step) -> PoolProblem:
    """The pool that a step computes (its first op)."""
    op = step.ops[0]
    assert isinstance(op, Pool2d)
    x, y = program.buffers[step.reads[0]], program.buffers[step.writes[0]]
    n, c, ih, iw = x.type.shape
    _, _, oh, ow = y.type.shape
    geometry = program.geometry(x.name), program.geometry(y.name)
    return PoolProblem(n, c, ih, iw, oh, ow, op, x.type.layout.block, *geometry)
