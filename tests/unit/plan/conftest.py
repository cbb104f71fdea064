"""A kernel library without code, and a machine that carries out its programs in numpy, byte for byte in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sqzc.backends import reference
from sqzc.ir import DType, Graph, OpDef, TensorType
from sqzc.ir.constant import Array
from sqzc.ir.graph import Node
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.parser import parse_graph
from sqzc.plan import Program, Role, Selection, Step
from sqzc.plan.library import Finished
from sqzc.plan.lower import lower
from sqzc.plan.program import CLEAR_BORDER, NO_BORDER
from sqzc.plan.verifier import verify_program
from sqzc.target import TARGETS

# Kernels that know about borders and slices; all others take whole tensors without gaps.
IMAGE_KERNELS = {"conv2d", "max_pool2d", "relu", "add", "relayout", "copy.image"}


class PlainLibrary:
    """One kernel per op, named like it; constants are kept raw under the number of their operand."""

    target = TARGETS["x86-64-v3"]

    def select(self, graph: Graph, node: Node) -> Selection:
        reads = tuple(value for value in node.inputs if not value.is_constant)
        constants = {f"c{i}": value.data for i, value in enumerate(node.inputs) if value.is_constant}
        borders = ()
        if isinstance(node.op, Conv2d) and node.op.pads != NO_BORDER:
            borders = (node.op.pads, *(NO_BORDER for _ in reads[1:]))
        name = node.op.name
        images = name in IMAGE_KERNELS and node.output.type.rank == 4
        return Selection(
            name, (node,), reads, tuple(node.outputs), constants, borders, {"operands": len(reads)}, images=images
        )

    def copy(self, type_: TensorType, *, images: bool) -> str:
        return "copy.image" if images else "copy.flat"

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array]) -> Finished:
        return Finished({"tile": 4, "order": "oc"} if step.ops else {}, dict(arrays), 100 * len(step.ops))


class Machine:
    """Runs a program of `PlainLibrary` with every byte where the program says; memory starts as NaN."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.arena = np.full(program.arena_bytes, 0xFF, np.uint8)
        self.own = {
            name: np.full(buffer.bytes, 0xFF, np.uint8)
            for name, buffer in program.buffers.items()
            if buffer.role in (Role.INPUT, Role.OUTPUT, Role.CONSTANT)
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        for name, buffer in self.program.buffers.items():
            if buffer.role is Role.INPUT:
                self.whole(name)[...] = inputs[name]
            elif buffer.role is Role.CONSTANT:
                self.whole(name)[...] = self.program.constants[name].data
        for step in self.program.steps:
            self.step(step)
        return {name: self.whole(buffer).copy() for name, buffer in self.program.outputs}

    def memory(self, name: str) -> npt.NDArray[np.uint8]:
        """From the first byte of a buffer to the end of the memory that it is in."""
        root, offset = self.program.root(name)
        if root.role is Role.ARENA:
            return self.arena[root.offset + offset : root.offset + root.bytes]
        return self.own[root.name][offset:]

    def whole(self, name: str) -> Array:
        """A buffer as an array of its physical shape, taking it to have neither gaps nor border."""
        type_ = self.program.buffers[name].type
        data = self.memory(name)[: type_.physical_bytes].view(type_.dtype.numpy)
        return data.reshape(type_.physical_shape)

    def image(self, name: str, border: tuple[int, int, int, int] = NO_BORDER) -> Array:
        """A buffer as [n, block, h, w, lane] by its geometry, with as much of its border as asked for."""
        type_, at = self.program.buffers[name].type, self.program.geometry(name)
        n, c, h, w = type_.shape
        block = type_.layout.block or 1
        top, left, bottom, right = border
        data = self.memory(name).view(type_.dtype.numpy)[at.origin - top * at.row - left * at.pixel :]
        shape = (n, -(-c // block), h + top + bottom, w + left + right, block)
        size = type_.dtype.item_bytes
        strides = [size * distance for distance in (at.image, at.plane, at.row, at.pixel, 1)]
        last = sum((d - 1) * s for d, s in zip(shape, strides, strict=True)) // size
        assert min(shape) == 0 or last < len(data), f"%{name} leaves its memory"
        return np.lib.stride_tricks.as_strided(data, shape, strides)

    def read(self, name: str, *, images: bool, border: tuple[int, int, int, int] = NO_BORDER) -> Array:
        """The logical array, row-major."""
        type_ = self.program.buffers[name].type
        if not images or type_.rank != 4:
            data = self.whole(name)
            if type_.layout.is_plain:
                return data.copy()
            data = data.transpose(0, 1, 4, 2, 3)
        else:
            data = self.image(name, border).transpose(0, 1, 4, 2, 3)
        n, _, _, h, w = data.shape
        return data.reshape(n, -1, h, w)[:, : type_.shape[1]].copy()

    def write(self, name: str, value: Array, *, images: bool) -> None:
        type_ = self.program.buffers[name].type
        assert value.shape == type_.shape
        if type_.rank != 4 or (not images and type_.layout.is_plain):
            self.whole(name)[...] = value
            return
        n, c, h, w = type_.shape
        block = type_.layout.block or 1
        padded = np.pad(value, [(0, 0), (0, -c % block), (0, 0), (0, 0)])
        blocked = padded.reshape(n, -1, block, h, w).transpose(0, 1, 3, 4, 2)
        if images:
            self.image(name)[...] = blocked
        else:
            self.whole(name)[...] = blocked

    def step(self, step: Step) -> None:
        images = step.kernel in IMAGE_KERNELS
        if step.kernel == CLEAR_BORDER:
            self.clear(step.writes[0])
        elif step.kernel.startswith("copy."):
            self.write(step.writes[0], self.read(step.reads[0], images=images), images=images)
        else:
            (op,) = step.ops
            images = images and self.program.buffers[step.writes[0]].type.rank == 4
            for name, result in zip(step.writes, self.apply(op, step, images), strict=True):
                self.write(name, result, images=images)

    def clear(self, name: str) -> None:
        top, left, bottom, right = border = self.program.buffers[name].border
        whole = self.image(name, border)
        height, width = whole.shape[2:4]
        whole[:, :, :top] = whole[:, :, height - bottom :] = 0
        whole[:, :, :, :left] = whole[:, :, :, width - right :] = 0

    def apply(self, op: OpDef, step: Step, images: bool) -> list[Array]:
        """What the op makes of the operands in memory; a padded convolution sees the border that is there."""
        operands: dict[int, Array] = {}
        for name in step.constants:
            operands[int(name.rsplit(".c", 1)[1][0])] = self.program.constants[name].data
        for position, name in enumerate(step.reads):
            border = NO_BORDER
            if isinstance(op, Conv2d) and position == 0:
                border, op = op.pads, op.replace(pads=NO_BORDER)
            slot = next(i for i in range(len(operands) + 1) if i not in operands)
            operands[slot] = self.read(name, images=images, border=border)
        graph = Graph("one")
        arrays = [operands[i] for i in range(len(operands))]
        values = [graph.add_input(f"x{i}", _type(array)) for i, array in enumerate(arrays)]
        return reference.evaluate_node(graph.insert(op, values), arrays)


def _type(array: Array) -> TensorType:
    return TensorType(DType.of(array.dtype), tuple(array.shape))


def _program(graph: Graph | str, weights: Mapping[str, Array] | None = None) -> Program:
    if isinstance(graph, str):
        graph = parse_graph(graph, weights)
    program = lower(graph, PlainLibrary())
    verify_program(program)
    return program


@pytest.fixture(scope="session")
def lowered() -> Callable[..., Program]:
    """(graph or its text, weights) -> its verified program by the library without code."""
    return _program


def _differences(graph: Graph, program: Program, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    inputs = {v.name: rng.uniform(-1, 1, v.type.shape).astype(v.type.dtype.numpy) for v in graph.inputs}
    wanted, got = reference.evaluate(graph, inputs), Machine(program).run(inputs)
    return {
        name: (got[name], value)
        for name, value in wanted.items()
        if not np.allclose(got[name], value, rtol=1e-5, atol=1e-5)
    }


@pytest.fixture(scope="session")
def differences() -> Callable[..., dict[str, Any]]:
    """(graph, program) -> the outputs in which the program, run in numpy, and the graph differ."""
    return _differences
