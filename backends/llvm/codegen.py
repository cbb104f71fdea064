"""Buffer program to LLVM module: one function a step, and `net`, which calls them in order."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from llvmlite import ir

from sqzc.backends.llvm.abi_emit import NET_TYPE, PREPARE_TYPE
from sqzc.backends.llvm.emit import I8, I32, I64, PTR, VOID, Emitter, Val
from sqzc.backends.llvm.family import Args, Family, PreparingFamily
from sqzc.backends.llvm.probes import Probes
from sqzc.plan.memory import align
from sqzc.plan.program import Program, Role, Step
from sqzc.target import Target

CONSTANTS = "sqzc_constants"
BARRIER = "sqz_barrier"
NET = "net"
PREPARE = "prepare"


@dataclass(frozen=True)
class ConstantPool:
    """All constants of a program as one read-only block; `offsets` are bytes from its 64-byte aligned start."""

    parts: tuple[tuple[int, bytes], ...]
    offsets: dict[str, int]
    bytes: int


def constant_pool(program: Program) -> ConstantPool:
    """Lays out the constants in program order; equal arrays are stored once."""
    offsets: dict[str, int] = {}
    known: dict[str, int] = {}
    parts: list[tuple[int, bytes]] = []
    at = 0
    for name, constant in program.constants.items():
        if constant.sha not in known:
            data = np.ascontiguousarray(constant.data).tobytes()
            known[constant.sha] = at
            parts.append((at, data))
            at = align(at + max(len(data), 1))
        offsets[name] = known[constant.sha]
    return ConstantPool(tuple(parts), offsets, at)


def step_symbol(index: int, step: Step, others: Sequence[Step] = ()) -> str:
    """Symbol of a step's kernel: its number, kernel and source names, so that profilers map code to layers.

    `others` are further steps that run the same code; their last source names follow.
    """
    names = [*(step.sources[-2:] or step.writes), *(name for other in others for name in other.sources[-1:])]
    words = "_".join((step.kernel, *names))
    return f"k{index:03d}_{re.sub('[^A-Za-z0-9]+', '_', words)}"[:120]


def generate(program: Program, families: Mapping[str, Family], target: Target, *, probes: bool = False) -> ir.Module:
    """The module of kernels and `net`; constants are an external symbol.

    With `probes`, the first thread of a run stores the CPU's cycle counter before the first step and after every step
    (with several threads: when all have finished it), into an array of steps + 1 64-bit integers: the one that
    `probes.COUNT_INTO` was told of, else what `net` takes for `sync`, which then is for one thread only.
    """
    return _Generator(program, families, target, probes).run()


def generate_kernels(program: Program, families: Mapping[str, Family], target: Target) -> tuple[ir.Module, list[str]]:
    """The same module with its kernels and `prepare` visible outside, and the kernel of each step by symbol.

    For debuggers, which call the very same kernels one by one. Arguments are those of `_Generator.kernel`: pointers to
    reads, constants, writes, scratch and prepared memory (or null), then the first and past the last work item.
    """
    generator = _Generator(program, families, target, False)
    module = generator.run()
    for function in [*generator.kernels, *([module.globals[PREPARE]] if program.prepared_bytes else [])]:
        function.linkage = "external"
    return module, [kernel.name for kernel in generator.kernels]


class _Generator:
    def __init__(self, program: Program, families: Mapping[str, Family], target: Target, probes: bool) -> None:
        self.program, self.families, self.target, self.probes = program, families, target, probes
        self.module = ir.Module("sqzc")
        self.module.triple = target.triple
        self.pool = constant_pool(program)
        sizes = [align(step.prepared) for step in program.steps]
        self.prepared_offsets = [sum(sizes[:index]) for index in range(len(sizes))]

    def run(self) -> ir.Module:
        module = self.module
        data = ir.GlobalVariable(module, ir.ArrayType(I8, max(self.pool.bytes, 1)), CONSTANTS)
        data.linkage, data.global_constant, data.align = "external", True, 64
        data.storage_class = ""
        self.data = data
        self.barrier = ir.Function(module, ir.FunctionType(VOID, [PTR, I32]), BARRIER)
        groups: dict[Hashable, list[int]] = {}
        for index, step in enumerate(self.program.steps):
            groups.setdefault(self.code_key(index, step), []).append(index)
        kernels: dict[int, ir.Function] = {}
        for members in groups.values():
            kernels.update(dict.fromkeys(members, self.kernel(members)))
        self.kernels = [kernels[index] for index in range(len(self.program.steps))]
        NetCode(self, self.kernels).emit()
        if self.program.prepared_bytes:
            self.prepare()
        return module

    def code_key(self, index: int, step: Step) -> Hashable:
        """Steps with equal keys run the same code on other memory."""
        if not getattr(self.families[step.kernel], "shares_code", False):
            return index
        shapes = tuple(self.shape_of(name) for name in (*step.reads, *step.writes))
        constants = tuple(self.program.constants[name].type for name in step.constants)
        schedule = tuple(step.schedule.items())
        return step.kernel, step.ops, tuple(step.facts.items()), schedule, shapes, constants, bool(step.prepared)

    def shape_of(self, name: str) -> Hashable:
        """All that code may know of a buffer."""
        buffer = self.program.buffers[name]
        return buffer.type, buffer.border, self.program.geometry(name) if buffer.type.rank == 4 else None

    def kernel(self, indices: Sequence[int]) -> ir.Function:
        """One function over a range of work items, for steps that share their code."""
        index, step = indices[0], self.program.steps[indices[0]]
        pointers = len(step.reads) + len(step.constants) + len(step.writes) + 2
        symbol = step_symbol(index, step, [self.program.steps[other] for other in indices[1:]])
        function = ir.Function(self.module, ir.FunctionType(VOID, [PTR] * pointers + [I64, I64]), symbol)
        function.linkage = "internal"
        function.attributes.add("noinline")
        function.attributes.add("nounwind")
        for argument in function.args[:pointers]:
            argument.add_attribute("noalias")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        emitter = Emitter(builder, self.target)
        first, second = len(step.reads), len(step.reads) + len(step.constants)
        args = Args(
            tuple(function.args[:first]),
            tuple(function.args[first:second]),
            tuple(function.args[second : pointers - 2]),
            function.args[pointers - 2],
            function.args[pointers - 1],
            function.args[pointers],
            function.args[pointers + 1],
        )
        self.families[step.kernel].emit(emitter, self.program, step, args)
        emitter.b.ret_void()
        return function

    def prepare(self) -> None:
        """Fills the prepared memory of all steps."""
        function = ir.Function(self.module, PREPARE_TYPE, PREPARE)
        function.linkage = "internal"
        function.attributes.add("nounwind")
        e = Emitter(ir.IRBuilder(function.append_basic_block("entry")), self.target)
        for index, step in enumerate(self.program.steps):
            if step.prepared:
                family = cast(PreparingFamily, self.families[step.kernel])
                constants = tuple(e.at(self.data, self.pool.offsets[name]) for name in step.constants)
                prepared = e.at(function.args[0], self.prepared_offsets[index])
                family.prepare(e, self.program, step, constants, prepared)
        e.b.ret_void()


class NetCode:
    """The function that runs one image through all steps."""

    def __init__(self, owner: _Generator, kernels: Sequence[ir.Function]) -> None:
        self.owner, self.kernels = owner, kernels
        self.program = owner.program
        function = ir.Function(owner.module, NET_TYPE, NET)
        function.linkage = "internal"
        function.attributes.add("nounwind")
        self.arena, self.inputs, self.outputs, self.prepared, thread, self.threads, self.sync = function.args
        self.e = Emitter(ir.IRBuilder(function.append_basic_block("entry")), owner.target)
        b = self.e.b
        self.thread, self.wide_threads = b.zext(thread, I64), b.zext(self.threads, I64)
        self.several = b.icmp_unsigned(">", self.threads, ir.Constant(I32, 1))
        self.ready = b.icmp_unsigned("!=", self.prepared, ir.Constant(PTR, None))
        start, size = align(self.program.arena_bytes), align(self.program.scratch_bytes)
        self.scratch = self.e.at(self.arena, self.e.mul_add(self.thread, size, start))
        self.probes = Probes(self.e, self.sync, thread) if owner.probes else None
        # Steps that some threads may still be at.
        self.under_way: list[Step] = []

    def emit(self) -> None:
        """All steps in order."""
        for index in range(len(self.kernels)):
            self.step(index)
        if self.probes is not None:
            self.wait_for_all()
            self.probes.store(len(self.kernels))
        self.e.b.ret_void()

    def items(self, index: int) -> int:
        """Work items of a step."""
        step = self.program.steps[index]
        return self.owner.families[step.kernel].items(self.program, step)

    def step(self, index: int) -> None:
        """Every thread takes its share of the items, when all have finished the steps that this one must follow."""
        b, step = self.e.b, self.program.steps[index]
        # Probes time each step for itself.
        apart = self.probes is not None and index > 0
        if apart or any(self.program.must_follow(earlier, step) for earlier in self.under_way):
            self.wait_for_all()
            self.under_way = []
        self.under_way.append(step)
        if self.probes is not None:
            self.probes.store(index)
        items = self.e.i64(self.items(index))
        begin = b.udiv(b.mul(self.thread, items), self.wide_threads)
        end = b.udiv(b.mul(b.add(self.thread, self.e.i64(1)), items), self.wide_threads)
        self.call(index, begin, end)

    def call(self, index: int, begin: Val, end: Val) -> None:
        """Runs items `begin` to `end` of a step."""
        e, owner, step = self.e, self.owner, self.program.steps[index]
        pointers = [self.pointer(name) for name in step.reads]
        pointers += [e.at(owner.data, owner.pool.offsets[name]) for name in step.constants]
        pointers += [self.pointer(name) for name in step.writes]
        own = ir.Constant(PTR, None)
        if step.prepared:
            own = e.b.select(self.ready, e.at(self.prepared, owner.prepared_offsets[index]), own)
        e.b.call(self.kernels[index], [*pointers, self.scratch, own, begin, end])

    def wait_for_all(self) -> None:
        """Lets the threads of a run go on together."""
        with self.e.when(self.several):
            self.e.b.call(self.owner.barrier, [self.sync, self.threads])

    def pointer(self, name: str) -> Val:
        """Start of a buffer's memory."""
        e = self.e
        root, offset = self.program.root(name)
        if root.role is Role.CONSTANT:
            return e.at(self.owner.data, self.owner.pool.offsets[root.name] + offset)
        if root.role is Role.ARENA:
            return e.at(self.arena, root.offset + offset)
        if root.role is Role.INPUT:
            slot = e.at(self.inputs, 8 * self.program.inputs.index(root.name))
        else:
            number = next(i for i, (_, buf) in enumerate(self.program.outputs) if self.program.root(buf)[0] is root)
            slot = e.at(self.outputs, 8 * number)
        return e.at(e.b.load(slot, typ=PTR, align=8), offset)
