"""What all parts of the generated ABI share: types, libc's functions, the handle's fields, and a few builder idioms.

Functions made here never use an instruction beyond the baseline of their architecture, whatever the module is compiled
for, so that they can run, and refuse to go on, on any CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from sqzc.backends.llvm.abi_cpu import Machine

Val = Any
"""A value, block or function of llvmlite's."""

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
PTR, VOID = ir.PointerType(), ir.VoidType()

LIBC = {
    "free": ir.FunctionType(VOID, [PTR]),
    "getpid": ir.FunctionType(I32, []),
    "memset": ir.FunctionType(PTR, [PTR, I32, I64]),
    "posix_memalign": ir.FunctionType(I32, [PTR, I64, I64]),
    "pthread_create": ir.FunctionType(I32, [PTR, PTR, PTR, PTR]),
    "pthread_join": ir.FunctionType(I32, [I64, PTR]),
    "pthread_sigmask": ir.FunctionType(I32, [I32, PTR, PTR]),
    "syscall": ir.FunctionType(I64, [I64], var_arg=True),
    "sysconf": ir.FunctionType(I64, [I32]),
}
"""The functions taken from the process. All is as on 64-bit Linux, where a pthread_t fills 8 bytes."""

NET_TYPE = ir.FunctionType(VOID, [PTR, PTR, PTR, PTR, I32, I32, PTR])
PREPARE_TYPE = ir.FunctionType(VOID, [PTR])
"""arena, inputs, outputs, thread, threads, sync."""


class AbiBuilder:
    """Adds functions to one module, for one architecture."""

    def __init__(self, module: ir.Module, machine: Machine) -> None:
        self.module = module
        self.machine = machine

    def declared(self, name: str, type_: Val) -> Val:
        """The function `name` of the module, declared when it is not there yet."""
        found = self.module.globals.get(name)
        if found is None:
            return ir.Function(self.module, type_, name)
        assert found.ftype == type_, f"the module has another kind of function called {name}"
        return found

    def libc(self, name: str) -> Val:
        """A function of the C library."""
        return self.declared(name, LIBC[name])

    def function(self, name: str, type_: Val, arguments: Sequence[str] = (), *, exported: bool = False) -> Body:
        """A new function, or the body of a declared one, visible outside the library only when `exported`."""
        function = self.declared(name, type_)
        assert function.is_declaration, f"the module already has a function called {name}"
        function.linkage = "" if exported else "internal"
        function.attributes.add("nounwind")
        for text in self.machine.baseline_attributes:
            # llvmlite's own `add` knows no attributes that are pairs of strings; LLVM does.
            set.add(function.attributes, text)
        for argument, name_ in zip(function.args, arguments, strict=False):
            argument.name = name_
        return Body(self, function)

    def text(self, name: str, contents: bytes) -> Val:
        """A constant C string; `contents` has no NUL."""
        assert b"\0" not in contents, f"the text of {name} contains NUL"
        return self.constant(name, contents + b"\0")

    def constant(self, name: str, contents: bytes, alignment: int = 1) -> Val:
        """Read-only bytes."""
        value = ir.Constant(ir.ArrayType(I8, len(contents)), bytearray(contents))
        variable = ir.GlobalVariable(self.module, value.type, name)
        variable.initializer, variable.global_constant, variable.linkage = value, True, "internal"
        variable.align = alignment
        return variable


class Body:
    """A function under construction, with a builder at its end."""

    def __init__(self, abi: AbiBuilder, function: Val) -> None:
        self.abi = abi
        self.function = function
        self.args: tuple[Val, ...] = function.args
        self.b = ir.IRBuilder(function.append_basic_block("entry"))

    def i32(self, value: int) -> Val:
        """A 32-bit constant."""
        return ir.Constant(I32, value)

    def i64(self, value: int) -> Val:
        """A 64-bit constant."""
        return ir.Constant(I64, value)

    @property
    def null(self) -> Val:
        """The null pointer."""
        return ir.Constant(PTR, None)

    def at(self, pointer: Val, offset: Val | int) -> Val:
        """`pointer` moved by `offset` bytes."""
        amount = self.i64(offset) if isinstance(offset, int) else offset
        return self.b.gep(pointer, [amount], source_etype=I8)

    def load(self, type_: Val, pointer: Val, offset: Val | int = 0) -> Val:
        """The value at `pointer` plus `offset` bytes."""
        return self.b.load(self.at(pointer, offset), typ=type_)

    def store(self, value: Val, pointer: Val, offset: Val | int = 0) -> None:
        """Puts `value` at `pointer` plus `offset` bytes."""
        self.b.store(value, self.at(pointer, offset))

    def local(self, type_: Val, count: int = 1, alignment: int = 8) -> Val:
        """Memory on the stack; only before the first branch."""
        slot = self.b.alloca(type_, size=count)
        slot.align = alignment
        return slot

    def call(self, function: Val, *arguments: Val) -> Val:
        """The result of a call."""
        return self.b.call(function, arguments)

    def libc(self, name: str, *arguments: Val) -> Val:
        """The result of a call of a libc function."""
        return self.b.call(self.abi.libc(name), arguments)

    def is_null(self, pointer: Val) -> Val:
        """Whether `pointer` is NULL."""
        return self.b.icmp_unsigned("==", pointer, self.null)

    def return_if(self, condition: Val, value: Val) -> None:
        """Leaves the function with `value` when `condition` holds."""
        with self.b.if_then(condition):
            self.b.ret(value)

    @contextmanager
    def counting(self, count: Val, start: int = 0) -> Iterator[Val]:
        """A loop of `i` from `start` up to, not including, the 64-bit `count`; may run zero times."""
        b = self.b
        before = b.block
        head, body, after = (self.function.append_basic_block(name) for name in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        i.add_incoming(self.i64(start), before)
        b.cbranch(b.icmp_signed("<", i, count), body, after)
        b.position_at_end(body)
        yield i
        i.add_incoming(b.add(i, self.i64(1)), b.block)
        b.branch(head)
        b.position_at_end(after)

    @contextmanager
    def forever(self) -> Iterator[None]:
        """A loop that only a return inside it ends; nothing can follow it."""
        b = self.b
        body = self.function.append_basic_block("body")
        b.branch(body)
        b.position_at_end(body)
        yield
        b.branch(body)
