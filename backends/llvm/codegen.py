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

    With `probes`, `net` is for one thread and takes for `sync` an array of steps + 1 64-bit integers, where it stores
    the CPU's cycle counter before the first step and after every step.
    """
    return _Generator(program, families, target, probes).run()


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
        self.net([kernels[index] for index in range(len(self.program.steps))])
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

    def net(self, kernels: list[ir.Function]) -> None:
        """One image through all steps; every thread takes its share of each step's items."""
        function = ir.Function(self.module, NET_TYPE, NET)
        function.linkage = "internal"
        function.attributes.add("nounwind")
        arena, inputs, outputs, prepared, thread, threads, sync = function.args
        e = Emitter(ir.IRBuilder(function.append_basic_block("entry")), self.target)
        b = e.b
        wide_thread, wide_threads = b.zext(thread, I64), b.zext(threads, I64)
        ready = b.icmp_unsigned("!=", prepared, ir.Constant(PTR, None))
        several = b.icmp_unsigned(">", threads, ir.Constant(I32, 1))
        scratch_start = align(self.program.arena_bytes)
        scratch_size = align(self.program.scratch_bytes)
        scratch = e.at(arena, e.mul_add(wide_thread, scratch_size, scratch_start))
        for index, (step, kernel) in enumerate(zip(self.program.steps, kernels, strict=True)):
            if self.probes:
                self.probe(e, sync, index)
            elif index:
                with e.when(several):
                    b.call(self.barrier, [sync, threads])
            items = self.families[step.kernel].items(self.program, step)
            begin = b.udiv(b.mul(wide_thread, e.i64(items)), wide_threads)
            end = b.udiv(b.mul(b.add(wide_thread, e.i64(1)), e.i64(items)), wide_threads)
            pointers = [self.pointer(e, name, arena, inputs, outputs) for name in step.reads]
            pointers += [e.at(self.data, self.pool.offsets[name]) for name in step.constants]
            pointers += [self.pointer(e, name, arena, inputs, outputs) for name in step.writes]
            own = ir.Constant(PTR, None)
            if step.prepared:
                own = b.select(ready, e.at(prepared, self.prepared_offsets[index]), own)
            b.call(kernel, [*pointers, scratch, own, begin, end])
        if self.probes:
            self.probe(e, sync, len(kernels))
        b.ret_void()

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

    def probe(self, e: Emitter, sync: Val, index: int) -> None:
        """Stores the cycle counter."""
        counter = e.b.call(e.intrinsic("llvm.readcyclecounter", I64, []), [])
        e.store(counter, sync, 8 * index, align=8)

    def pointer(self, e: Emitter, name: str, arena: Val, inputs: Val, outputs: Val) -> Val:
        """Start of a buffer's memory."""
        root, offset = self.program.root(name)
        if root.role is Role.CONSTANT:
            return e.at(self.data, self.pool.offsets[root.name] + offset)
        if root.role is Role.ARENA:
            return e.at(arena, root.offset + offset)
        if root.role is Role.INPUT:
            slot = e.at(inputs, 8 * self.program.inputs.index(root.name))
        else:
            number = next(i for i, (_, buf) in enumerate(self.program.outputs) if self.program.root(buf)[0] is root)
            slot = e.at(outputs, 8 * number)
        return e.at(e.b.load(slot, typ=PTR, align=8), offset)
