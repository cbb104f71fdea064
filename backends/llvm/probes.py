"""Counters between the steps of a network, for profiles. Only code generated with `probes` has any of this."""

from __future__ import annotations

from llvmlite import ir

from sqzc.backends.llvm.emit import I64, PTR, VOID, Emitter, Val

COUNT_INTO = "sqz_count_into"
"""`void sqz_count_into(i64 *counters)`: where all later runs of this code store their counters; NULL: into `sync`."""

_COUNTERS = "sqz_counters"


class Probes:
    """Stores the CPU's cycle counter; the first thread of a run stores, and the others pass by.

    A memory write that no later instruction waits for, and some 25 cycles for the counter: a step of 30 us takes 0.1 %
    longer.
    """

    def __init__(self, e: Emitter, sync: Val, thread: Val) -> None:
        self.e = e
        pointer = ir.GlobalVariable(e.module, PTR, _COUNTERS)
        pointer.linkage, pointer.initializer = "internal", ir.Constant(PTR, None)
        _add_setter(e.module, pointer)
        given = e.b.load(pointer, typ=PTR, align=8)
        self.counters = e.b.select(e.b.icmp_unsigned("!=", given, ir.Constant(PTR, None)), given, sync)
        self.first = e.b.icmp_unsigned("==", thread, ir.Constant(thread.type, 0))

    def store(self, index: int) -> None:
        """Stores the counter as the entry `index`."""
        with self.e.when(self.first):
            counter = self.e.b.call(self.e.intrinsic("llvm.readcyclecounter", I64, []), [])
            self.e.store(counter, self.counters, 8 * index, align=8)


def _add_setter(module: ir.Module, pointer: Val) -> None:
    function = ir.Function(module, ir.FunctionType(VOID, [PTR]), COUNT_INTO)
    function.attributes.add("nounwind")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    b.store(function.args[0], pointer, align=8)
    b.ret_void()
