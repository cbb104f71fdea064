"""Matrix products."""

from __future__ import annotations

from sqzc.frontends.onnx.table import OpView, lift
from sqzc.ir import Value
from sqzc.ir.ops import elementwise as ew
from sqzc.ir.ops.elementwise import broadcast_shapes
from sqzc.ir.ops.nn import Linear, MatMul


@lift("Gemm", since=7)
def lift_gemm(op: OpView) -> Value:
    """alpha * A @ B + beta * C, either matrix transposed first; a fully connected layer where C is a row."""
    attrs = op.attrs
    a, w = op.input(0), op.input(1)
    alpha, beta = attrs.real("alpha", 1.0), attrs.real("beta", 1.0)
    trans_a, trans_b = attrs.flag("transA", False), attrs.flag("transB", False)
    for name, matrix in (("A", a), ("B", w)):
        if matrix.type.rank != 2:
            raise op.error(f"{name} is no matrix", expected="rank 2", got=str(matrix.type))
    x = op.transpose(a, (1, 0)) if trans_a else a
    # A linear layer keeps its weight as [N, K].
    w = w if trans_b else op.transpose(w, (1, 0))
    if x.type.shape[1] != w.type.shape[1]:
        raise op.error("the inner dimensions of A and B differ", got=f"{x.type.shape[1]} and {w.type.shape[1]}")
    bias = op.optional(2)
    out = (x.type.shape[0], w.type.shape[0])
    if bias is not None and broadcast_shapes(bias.type.shape, out) != out:
        raise op.error("C does not broadcast to the product", expected=str(list(out)), got=str(bias.type))
    if bias is not None and beta != 1.0:
        bias = op.add(ew.Mul(), bias, op.number(beta, bias, "beta"))
    if bias is not None and alpha == 1.0 and bias.type.elements == out[1] == bias.type.shape[-1]:
        return op.add(Linear(), x, w, op.reshape(bias, (out[1],)))
    y = op.add(Linear(), x, w)
    if alpha != 1.0:
        y = op.add(ew.Mul(), y, op.number(alpha, y, "alpha"))
    return y if bias is None else op.add(ew.Add(), y, bias)


@lift("MatMul", since=1)
def lift_matmul(op: OpView) -> Value:
    """numpy's matmul."""
    return product(op, op.input(0), op.input(1))


def product(op: OpView, a: Value, b: Value) -> Value:
    """numpy's matmul: a vector is a row before and a column after."""
    if 0 in (a.type.rank, b.type.rank):
        raise op.error("MatMul of a number", expected="rank at least 1", got=f"{a.type} and {b.type}")
    row, column = a.type.rank == 1, b.type.rank == 1
    left = op.reshape(a, (1, *a.type.shape)) if row else a
    right = op.reshape(b, (*b.type.shape, 1)) if column else b
    y = op.add(MatMul(), left, right)
    shape = list(y.type.shape)
    if column:
        del shape[-1]
    if row:
        del shape[-1 if column else -2]
    return op.reshape(y, shape)
