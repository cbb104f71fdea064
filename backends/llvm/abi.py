"""The exported functions of a compiled library, generated around the network's own function.

`sqzc.runtime.abi` names the functions and status codes, the header in `sqzc.runtime` describes them; here is their
code. Pieces: `abi_cpu` (feature tests), `abi_pool` (threads), `abi_run` (batches), `abi_emit` (builder helpers).

A single-thread handle starts no threads and uses no atomic instructions. Nothing here is mutable outside handles and
workspaces, and nothing prints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from sqzc.backends.llvm import abi_pool as pool
from sqzc.backends.llvm.abi_cpu import machine_of
from sqzc.backends.llvm.abi_emit import I32, I64, NET_TYPE, PREPARE_TYPE, PTR, VOID, AbiBuilder, Body, Val
from sqzc.backends.llvm.abi_run import add_checks, add_images, add_work
from sqzc.runtime.abi import (
    ABI_VERSION,
    FUNCTION_NAMES,
    LOADER_PREFIX,
    UNKNOWN_STATUS_TEXT,
    WORKSPACE_ALIGNMENT,
    Status,
    check_prefix,
    strerror_text,
)

MAX_THREADS = 256
"""The most threads that any library accepts."""

_MAX_BYTES = 2**48


@dataclass(frozen=True)
class AbiSpec:
    """What the ABI functions need to know of one compiled network.

    prefix: what the exported functions' names start with; with `fixed_prefix` they are also exported as `sqz_...`.
    metadata_json: what `metadata` returns, without the NUL.
    workspace_bytes: the arena for one image on one thread; `scratch_bytes` more for every further thread that works
        on the same image.
    input_bytes, output_bytes: for each input and output, the distance from one image to the next.
    cpu_features: what `create` and `run_in` test for, in LLVM's names.
    prepared_bytes: memory of a handle that `void prepare(memory)` fills once, when the handle is made; without any
        there is no such function.
    net: the symbol of the network, `void net(arena, inputs, outputs, prepared, i32 thread, i32 threads, sync)`;
        `prepared` is null in `run_in`. All threads call it for the same image; it calls `sqz_barrier(sync, threads)`
        between its steps, not necessarily at its end, and does not touch `sync` when `threads` is 1. The arena is
        aligned to 64 bytes, holds zeros before the first run of a handle, and anything at all in `run_in`.
    batch_split: whether batches of at least one image a thread are split by image, each thread with its own arena.
    """

    prefix: str
    metadata_json: bytes
    workspace_bytes: int
    input_bytes: tuple[int, ...]
    output_bytes: tuple[int, ...]
    cpu_features: tuple[str, ...] = ()
    max_threads: int = MAX_THREADS
    prepared_bytes: int = 0
    net: str = "net"
    prepare: str = "prepare"
    scratch_bytes: int = 0
    batch_split: bool = False
    fixed_prefix: bool = True

    def __post_init__(self) -> None:
        check_prefix(self.prefix)
        assert 1 <= self.max_threads <= MAX_THREADS, "max_threads is outside what the ABI allows"
        for count in (
            self.workspace_bytes,
            self.scratch_bytes,
            self.prepared_bytes,
            *self.input_bytes,
            *self.output_bytes,
        ):
            assert 0 <= count < _MAX_BYTES, f"a size of {count} bytes makes no sense"

    @property
    def arena_stride(self) -> int:
        """`workspace_bytes` rounded up to the alignment."""
        return _round_up(self.workspace_bytes)

    @property
    def scratch_stride(self) -> int:
        """`scratch_bytes` rounded up to the alignment."""
        return _round_up(self.scratch_bytes)


def _round_up(size: int) -> int:
    return -(-size // WORKSPACE_ALIGNMENT) * WORKSPACE_ALIGNMENT


def add_abi(module: ir.Module, spec: AbiSpec) -> None:
    """Adds the ABI's functions to `module`, whose triple says for which architecture.

    The network and `sqz_barrier` may be declared or defined in the module before or after; all but the exported
    functions is internal to the object file. Raises UnsupportedError for an architecture that the ABI does not know.
    """
    abi = AbiBuilder(module, machine_of(module.triple))
    pool.add_sync(abi)
    pool.add_core_count(abi)
    images = add_images(abi, spec)
    work = add_work(abi, spec, images)
    pool.add_workers(abi, work)
    add_checks(abi)
    _add_check_cpu(abi, spec)
    makers: dict[str, Callable[[AbiBuilder, AbiSpec], Val]] = {
        "abi_version": _abi_version,
        "metadata": _metadata,
        "create": _create,
        "run": _run,
        "destroy": _destroy,
        "workspace_bytes": _workspace_bytes,
        "run_in": _run_in,
        "strerror": _strerror,
    }
    assert tuple(makers) == FUNCTION_NAMES, "the ABI's list of functions has changed"
    for name, maker in makers.items():
        function = maker(abi, spec)
        prefixes = [spec.prefix]
        if spec.fixed_prefix and spec.prefix != LOADER_PREFIX:
            prefixes.append(LOADER_PREFIX)
        for prefix in prefixes:
            _export(abi, f"{prefix}_{name}", function)


def exported_names(spec: AbiSpec) -> list[str]:
    """The names that `add_abi` exports, in alphabetical order."""
    prefixes = {spec.prefix, LOADER_PREFIX} if spec.fixed_prefix else {spec.prefix}
    return sorted(f"{prefix}_{name}" for prefix in prefixes for name in FUNCTION_NAMES)


def _export(abi: AbiBuilder, name: str, target: Val) -> None:
    """An exported function that jumps to an internal one."""
    f = abi.function(name, target.ftype, exported=True)
    result = f.b.call(target, f.args, tail="tail")
    if target.ftype.return_type == VOID:
        f.b.ret_void()
    else:
        f.b.ret(result)


def _status(status: Status) -> Val:
    return ir.Constant(I32, status.value)


def _add_check_cpu(abi: AbiBuilder, spec: AbiSpec) -> None:
    """`abi.check_cpu() -> status`."""
    f = abi.function("abi.check_cpu", ir.FunctionType(I32, []))
    abi.machine.emit_check(f, spec.cpu_features, _status(Status.ERR_CPU))
    f.b.ret(_status(Status.OK))


def _abi_version(abi: AbiBuilder, spec: AbiSpec) -> Val:
    f = abi.function("abi.abi_version", ir.FunctionType(I32, []))
    f.b.ret(f.i32(ABI_VERSION))
    return f.function


def _metadata(abi: AbiBuilder, spec: AbiSpec) -> Val:
    text = abi.text("abi.metadata_text", spec.metadata_json)
    f = abi.function("abi.metadata", ir.FunctionType(PTR, []))
    f.b.ret(text)
    return f.function


def _workspace_bytes(abi: AbiBuilder, spec: AbiSpec) -> Val:
    f = abi.function("abi.workspace_bytes", ir.FunctionType(I64, []))
    f.b.ret(f.i64(spec.workspace_bytes))
    return f.function


def _strerror(abi: AbiBuilder, spec: AbiSpec) -> Val:
    f = abi.function("abi.strerror", ir.FunctionType(PTR, [I32]), ("code",))
    unknown = f.function.append_basic_block("unknown")
    choice = f.b.switch(f.args[0], unknown)
    f.b.position_at_end(unknown)
    f.b.ret(abi.text("abi.text_unknown", UNKNOWN_STATUS_TEXT.encode("ascii")))
    for status in Status:
        case = f.function.append_basic_block(status.name)
        choice.add_case(_status(status), case)
        f.b.position_at_end(case)
        words = strerror_text(status, spec.cpu_features).encode("ascii")
        f.b.ret(abi.text(f"abi.text_{status.name}", words))
    return f.function


def _create(abi: AbiBuilder, spec: AbiSpec) -> Val:
    f = abi.function("abi.create", ir.FunctionType(I32, [PTR, I32]), ("out", "threads"))
    out, asked = f.args
    b = f.b
    slot = f.local(PTR)
    f.return_if(f.is_null(out), _status(Status.ERR_NULL))
    f.store(f.null, out)
    _require_cpu(f)
    limit = f.i32(spec.max_threads)
    outside = b.or_(b.icmp_signed("<", asked, f.i32(0)), b.icmp_signed(">", asked, limit))
    f.return_if(outside, _status(Status.ERR_THREADS))
    cores = f.call(abi.module.globals["abi.cores"])
    cores = b.select(b.icmp_unsigned(">", cores, limit), limit, cores)
    threads = b.select(b.icmp_unsigned("==", asked, f.i32(0)), cores, asked)
    wide = b.zext(threads, I64)

    records = b.mul(wide, f.i64(pool.RECORD_BYTES))
    mask = ir.Constant(I64, -WORKSPACE_ALIGNMENT)
    arena_at = b.and_(b.add(records, f.i64(pool.RECORDS + WORKSPACE_ALIGNMENT - 1)), mask)
    further = b.sub(wide, f.i64(1))
    per_thread = spec.scratch_stride + (spec.arena_stride if spec.batch_split else 0)
    prepared_at = b.add(b.add(arena_at, f.i64(spec.arena_stride)), b.mul(further, f.i64(per_thread)))
    size = b.add(prepared_at, f.i64(spec.prepared_bytes))
    status = f.libc("posix_memalign", slot, f.i64(WORKSPACE_ALIGNMENT), size)
    f.return_if(b.icmp_unsigned("!=", status, f.i32(0)), _status(Status.ERR_MEMORY))
    handle = f.load(PTR, slot)
    f.libc("memset", handle, f.i32(0), prepared_at)
    f.store(threads, handle, pool.THREADS)
    f.store(f.at(handle, arena_at), handle, pool.ARENA)
    if spec.prepared_bytes:
        f.store(f.at(handle, prepared_at), handle, pool.PREPARED)
        f.call(abi.declared(spec.prepare, PREPARE_TYPE), f.at(handle, prepared_at))

    with b.if_then(b.icmp_unsigned(">", threads, f.i32(1))):
        f.store(f.libc("getpid"), handle, pool.PROCESS)
        started = f.call(abi.module.globals["abi.start"], handle)
        with b.if_then(b.not_(started), likely=False):
            f.libc("free", handle)
            b.ret(_status(Status.ERR_THREAD_START))
    f.store(handle, out)
    b.ret(_status(Status.OK))
    return f.function


def _require_cpu(f: Body) -> None:
    status = f.call(f.abi.module.globals["abi.check_cpu"])
    f.return_if(f.b.icmp_unsigned("!=", status, _status(Status.OK)), status)


def _check_arguments(f: Body, spec: AbiSpec, owner: Val, batch: Val, inputs: Val, outputs: Val) -> None:
    """Returns from `run` or `run_in` when they have nothing to do or something is wrong."""
    b = f.b
    for pointer in (owner, inputs, outputs):
        f.return_if(f.is_null(pointer), _status(Status.ERR_NULL))
    f.return_if(b.icmp_signed("<", batch, f.i64(0)), _status(Status.ERR_BATCH))
    f.return_if(b.icmp_signed("==", batch, f.i64(0)), _status(Status.OK))
    any_null = f.abi.module.globals["abi.any_null"]
    for pointers, strides in ((inputs, spec.input_bytes), (outputs, spec.output_bytes)):
        f.return_if(f.call(any_null, pointers, f.i64(len(strides))), _status(Status.ERR_NULL))


def _run(abi: AbiBuilder, spec: AbiSpec) -> Val:
    f = abi.function("abi.run", ir.FunctionType(I32, [PTR, I64, PTR, PTR]), ("model", "batch", "inputs", "outputs"))
    handle, batch, inputs, outputs = f.args
    b = f.b
    _check_arguments(f, spec, handle, batch, inputs, outputs)
    alone = f.function.append_basic_block("alone")
    several = f.function.append_basic_block("several")
    together = f.function.append_basic_block("together")
    threads = f.load(I32, handle, pool.THREADS)
    b.cbranch(b.icmp_unsigned(">", threads, f.i32(1)), several, alone)
    # In a forked child the workers are missing.
    b.position_at_end(several)
    same_process = b.icmp_unsigned("==", f.libc("getpid"), f.load(I32, handle, pool.PROCESS))
    b.cbranch(same_process, together, alone)

    b.position_at_end(alone)
    images = abi.module.globals["abi.images"]
    arena = f.load(PTR, handle, pool.ARENA)
    prepared = f.load(PTR, handle, pool.PREPARED)
    f.call(images, arena, inputs, outputs, prepared, f.i64(0), batch, f.i32(0), f.i32(1), f.null)
    b.ret(_status(Status.OK))

    b.position_at_end(together)
    done = f.at(handle, pool.DONE)
    unfinished = pool.value(f, done)
    f.store(inputs, handle, pool.INPUTS)
    f.store(outputs, handle, pool.OUTPUTS)
    f.store(batch, handle, pool.BATCH)
    pool.publish(f, f.at(handle, pool.GO))
    f.call(abi.module.globals["abi.work"], handle, f.i32(0))
    pool.wait(f, done, unfinished)
    b.ret(_status(Status.OK))
    return f.function


def _run_in(abi: AbiBuilder, spec: AbiSpec) -> Val:
    f = abi.function(
        "abi.run_in", ir.FunctionType(I32, [PTR, I64, PTR, PTR]), ("workspace", "batch", "inputs", "outputs")
    )
    workspace, batch, inputs, outputs = f.args
    b = f.b
    _check_arguments(f, spec, workspace, batch, inputs, outputs)
    low_bits = b.and_(b.ptrtoint(workspace, I64), f.i64(WORKSPACE_ALIGNMENT - 1))
    f.return_if(b.icmp_unsigned("!=", low_bits, f.i64(0)), _status(Status.ERR_ALIGN))
    # Tested on every call, a few microseconds, as there is nowhere to remember the answer.
    _require_cpu(f)
    images = abi.module.globals["abi.images"]
    f.call(images, workspace, inputs, outputs, f.null, f.i64(0), batch, f.i32(0), f.i32(1), f.null)
    b.ret(_status(Status.OK))
    return f.function


def _destroy(abi: AbiBuilder, spec: AbiSpec) -> Val:
    f = abi.function("abi.destroy", ir.FunctionType(VOID, [PTR]), ("model",))
    (handle,) = f.args
    b = f.b
    with b.if_then(f.is_null(handle)):
        b.ret_void()
    threads = f.load(I32, handle, pool.THREADS)
    with b.if_then(b.icmp_unsigned(">", threads, f.i32(1))):
        same_process = b.icmp_unsigned("==", f.libc("getpid"), f.load(I32, handle, pool.PROCESS))
        with b.if_then(same_process):
            f.call(abi.module.globals["abi.stop"], handle, b.zext(threads, I64))
    f.libc("free", handle)
    b.ret_void()
    return f.function


__all__ = ["MAX_THREADS", "NET_TYPE", "AbiSpec", "add_abi", "exported_names"]
