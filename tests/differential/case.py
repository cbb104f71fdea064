"""What a differential case is: ops over seeded random operands, and the kernel family that should run them."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sqzc.backends.reference import evaluate
from sqzc.ir import DType, Graph, TensorType
from sqzc.ir.constant import Constant
from sqzc.ir.graph import Node, Value
from sqzc.ir.opdef import Layouts, OpDef
from sqzc.ir.ops.shape import Relayout
from sqzc.ir.types import PLAIN, Layout
from sqzc.target import Target

Array = npt.NDArray[np.generic]
Maker = Callable[[np.random.Generator, TensorType], Array]

CONSTANT_OPERANDS = ("w", "bias", "scale", "mean", "var", "slope")
"""Operands that are constants in real models, and here unless a case says otherwise."""


@dataclass(frozen=True)
class Case:
    """One or more ops in a row: the first takes operands of `types`, every other one the result before it.

    kernel: the family that must run it; one that ends in `*` stands for all that begin so. layout: `plain`; `blocked`
    for images in the target's blocks on both sides; `in` or `out` for one side. length: how many numbers each result is
    summed of, 0 where results must be exact. constant: operands given at compile time, all usual ones if None. makers:
    how operands are drawn, by index.
    """

    kernel: str
    ops: tuple[OpDef, ...]
    types: tuple[TensorType, ...]
    layout: str = "plain"
    length: int = 1
    constant: frozenset[int] | None = None
    makers: Mapping[int, Maker] = field(default_factory=dict, hash=False, compare=False)
    note: str = ""

    @property
    def name(self) -> str:
        """All that distinguishes the case, for people and as its seed."""
        ops = "+".join(repr(op) for op in self.ops)
        types = "_".join(map(str, self.types))
        words = [ops, types, self.layout, "" if self.constant is None else f"const{sorted(self.constant)}", self.note]
        return " ".join(word for word in words if word and word != "plain")

    def is_constant(self, index: int) -> bool:
        """Whether an operand is given at compile time."""
        if self.constant is not None:
            return index in self.constant
        return self.ops[0].operand_name(index) in CONSTANT_OPERANDS


def case(kernel: str, op: OpDef, *types: TensorType, **rest: object) -> Case:
    """A case of one op."""
    return Case(kernel, (op,), types, **rest)  # type: ignore[arg-type]


def variants(base: Case, *changes: Mapping[str, object]) -> list[Case]:
    """The case, and it with each set of changes."""
    return [base, *(replace(base, **change) for change in changes)]  # type: ignore[arg-type]


# -- operands ---------------------------------------------------------------------------------------------------------


def normal(rng: np.random.Generator, type: TensorType) -> Array:
    """Normally distributed numbers; small whole ones, truth values or bytes for other types."""
    if type.dtype.is_float:
        return rng.standard_normal(type.shape).astype(type.dtype.numpy)
    if type.dtype is DType.BOOL:
        return rng.random(type.shape) < 0.5
    low, high = (0, 256) if type.dtype is DType.U8 else (-100, 100)
    return rng.integers(low, high, type.shape).astype(type.dtype.numpy)


def positive(rng: np.random.Generator, type: TensorType) -> Array:
    """Numbers between 0.1 and 3."""
    return rng.uniform(0.1, 3.0, type.shape).astype(type.dtype.numpy)


def few(rng: np.random.Generator, type: TensorType) -> Array:
    """Many equal numbers: 0 to 3."""
    return rng.integers(0, 4, type.shape).astype(type.dtype.numpy)


def hundreds(rng: np.random.Generator, type: TensorType) -> Array:
    """Numbers up to 100 with fractions where the type has them, negative where it can be."""
    low = 0.0 if type.dtype in (DType.U8, DType.BOOL) else -100.0
    return rng.uniform(low, 100.0, type.shape).astype(type.dtype.numpy)


def specials(rng: np.random.Generator, type: TensorType) -> Array:
    """Normal numbers, every fourth of which is a zero of either sign, an infinity, NaN, or very large or small."""
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, -3e38, 1.0, -1.0], type.dtype.numpy)
    drawn = rng.standard_normal(type.shape).astype(type.dtype.numpy)
    return np.where(rng.random(type.shape) < 0.25, rng.choice(odd, type.shape), drawn)


def one_nan(rng: np.random.Generator, type: TensorType) -> Array:
    """Normal numbers with one NaN in the middle."""
    drawn = np.array(normal(rng, type))
    drawn.reshape(-1)[drawn.size // 2] = np.nan
    return drawn


def indices(size: int) -> Maker:
    """Positions on an axis of `size` elements, counted from either end."""
    return lambda rng, type: rng.integers(-size, size, type.shape).astype(np.int64)


# -- graphs -----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def operands(item: Case) -> tuple[Array, ...]:
    """The operands of a case; the same in every run."""
    rng = np.random.default_rng(zlib.crc32(item.name.encode()))
    drawn = []
    for index, type_ in enumerate(item.types):
        make = item.makers.get(index, normal)
        drawn.append(np.asarray(make(rng, type_), type_.dtype.numpy, order="C").reshape(type_.shape))
    return tuple(drawn)


def build(item: Case, target: Target | None) -> Graph:
    """The graph of a case; without a target everything is row-major."""
    graph = Graph("case")
    blocks = PLAIN if target is None or item.layout == "plain" else Layout(target.vector_lanes)
    reads, makes = item.layout in ("blocked", "in"), item.layout in ("blocked", "out")
    values: list[Value] = []
    for index, (type_, data) in enumerate(zip(item.types, operands(item), strict=True)):
        if item.is_constant(index):
            value = graph.add_constant(Constant(f"c{index}", data))
        else:
            value = graph.add_input(f"x{index}", type_)
        values.append(value)
    for number, op in enumerate(item.ops):
        first = number == 0
        wanted = [blocks if (makes if i or not first else reads) else PLAIN for i in range(len(values))]
        values = [
            _in_layout(graph, value, layout) if _may_block(op, i, value) else value
            for i, (value, layout) in enumerate(zip(values, wanted, strict=True))
        ]
        types = op.result_types([value.type for value in values])
        node = graph.insert(
            op, values, types=[t.with_layout(blocks if makes and t.rank == 4 else PLAIN) for t in types]
        )
        values = list(node.outputs)
    for number, value in enumerate(values):
        graph.add_output(f"y{number}", _in_layout(graph, value, PLAIN))
    return graph


def _may_block(op: OpDef, index: int, value: Value) -> bool:
    """Whether an operand is an image that the op takes in blocks."""
    if value.type.rank != 4:
        return False
    if op.layouts is Layouts.IMAGE:
        return op.operand_name(index) in op.image_operands
    return op.layouts is Layouts.SAME or (op.layouts is Layouts.BROADCAST and value.type.elements > 1)


def _in_layout(graph: Graph, value: Value, layout: Layout) -> Value:
    if value.type.layout == layout:
        return value
    node: Node = graph.insert(Relayout(), [value], types=[value.type.with_layout(layout)])
    return node.output


def feeds(item: Case) -> dict[str, Array]:
    """The inputs of the graph by name."""
    return {f"x{i}": data for i, data in enumerate(operands(item)) if not item.is_constant(i)}


@functools.lru_cache(maxsize=4)
def expected(item: Case) -> Mapping[str, Array]:
    """The answers of the reference in double precision."""
    return evaluate(build(item, None), feeds(item), dtype="float64")
