"""Generated code by which the threads of one handle wait for each other, and the life of its worker threads.

A wait spins for a bounded time, then sleeps in the kernel (a futex), so that nothing collapses when other processes
run, and an idle handle uses no CPU. When a handle has more threads than the process may use cores, it never spins.

A handle's memory, offsets in bytes:

    0       facts and the job of the run under way (the constants below); only the owner of a run writes them
    128     GO: changes when a job is ready, or when the workers shall end
    256     DONE: changes when all workers have finished their share
    384     BARRIER: between the steps of one image
    512     one record of 32 bytes for each thread: handle, pthread_t, thread number
    ...     the arenas, aligned to 64

GO, DONE and BARRIER are events of 128 bytes, so that no two share a pair of cache lines. An event's `value` is a
counter that is only ever compared for being different: whoever read it before cannot miss the change. `sleepers`
saves the waker the system call. It is raised before the kernel compares `value`, and `value` is raised before
`sleepers` is read, both in the single order of all sequentially consistent operations, so either the waker sees the
sleeper or the kernel sees the new value.

After a fork the child has the memory but not the threads. A handle knows the process that made it: elsewhere it
computes on the calling thread alone and ends no threads.
"""

from __future__ import annotations

from llvmlite import ir

from sqzc.backends.llvm.abi_emit import I1, I32, I64, PTR, VOID, AbiBuilder, Body, Val

BARRIER_NAME = "sqz_barrier"
BARRIER_TYPE = ir.FunctionType(VOID, [PTR, I32])

THREADS, PROCESS, ARENA, INPUTS, OUTPUTS, BATCH, PREPARED = 0, 4, 8, 16, 24, 32, 40
GO, DONE, BARRIER, RECORDS = 128, 256, 384, 512
RECORD_BYTES = 32
RECORD_HANDLE, RECORD_THREAD, RECORD_NUMBER = 0, 8, 16

_VALUE, _SLEEPERS, _SPINS, _LEAST_SPINS, _ARRIVED = 0, 4, 8, 12, 64

SPINS = 8000
"""Pauses before a waiting thread sleeps: some 400 us where a pause takes 140 cycles, 120 us where it takes 40.

That covers the imbalance between threads within a step and the gap between two runs in a loop, and is short against
the milliseconds for which another process takes a core.
"""

LEAST_SPINS = 2000
"""To what the pauses of a run's own waits go down by halves while they are in vain, as another process has the core
of the thread waited for. They double again when they are not. Workers without a job always begin with SPINS.

Any lower, and one late thread sends both to sleep at every step after it: with 250, SqueezeNet on two threads took 3.3
ms in place of 1.9 (x86-64-v4, Sapphire Rapids class)."""

_FUTEX_WAIT, _FUTEX_WAKE = 0 | 128, 1 | 128  # 128: the word is private to the process
_SIG_BLOCK = 0
_SYNCHRONOUS_SIGNALS = (4, 5, 6, 7, 8, 11, 31)  # ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS
_SIGSET_BYTES = 128


def add_sync(abi: AbiBuilder) -> None:
    """Adds `sqz_barrier` and what it is made of."""
    _add_wait(abi)
    _add_publish(abi)
    _add_arrive(abi)
    _add_barrier(abi)


def wait(body: Body, event: Val, old: Val) -> None:
    """Returns when the event's value is no longer `old`, and what was written before it changed can be read."""
    body.call(body.abi.module.globals["abi.wait"], event, old)


def publish(body: Body, event: Val) -> None:
    """Changes the event's value and wakes all who wait for that."""
    body.call(body.abi.module.globals["abi.publish"], event)


def arrive(body: Body, event: Val, expected: Val) -> None:
    """Counts the caller in; the last of `expected` callers changes the value."""
    body.call(body.abi.module.globals["abi.arrive"], event, expected)


def value(body: Body, event: Val) -> Val:
    """The event's value now."""
    return body.b.load_atomic(event, "acquire", 4, typ=I32)


def _add_wait(abi: AbiBuilder) -> None:
    f = abi.function("abi.wait", ir.FunctionType(VOID, [PTR, I32]), ("event", "old"))
    event, old = f.args
    b = f.b
    limit_at, sleepers = f.at(event, _SPINS), f.at(event, _SLEEPERS)
    with b.if_then(b.icmp_unsigned("!=", value(f, event), old)):
        b.ret_void()
    limit = b.load_atomic(limit_at, "monotonic", 4, typ=I32)
    with f.counting(b.zext(limit, I64)):
        abi.machine.emit_pause(f)
        with b.if_then(b.icmp_unsigned("!=", value(f, event), old)):
            with b.if_then(b.icmp_unsigned("<", limit, f.i32(SPINS)), likely=False):
                doubled = b.shl(limit, f.i32(1))
                doubled = b.select(b.icmp_unsigned(">", doubled, f.i32(SPINS)), f.i32(SPINS), doubled)
                b.atomic_rmw("xchg", limit_at, doubled, "monotonic")
            b.ret_void()
    least, halved = f.load(I32, event, _LEAST_SPINS), b.lshr(limit, f.i32(1))
    halved = b.select(b.icmp_unsigned("<", halved, least), least, halved)
    b.atomic_rmw("xchg", limit_at, halved, "monotonic")
    b.atomic_rmw("add", sleepers, f.i32(1), "seq_cst")
    with f.forever():
        with b.if_then(b.icmp_unsigned("!=", value(f, event), old)):
            b.atomic_rmw("sub", sleepers, f.i32(1), "seq_cst")
            b.ret_void()
        # Returns at once when the value has changed; signals and spurious wake-ups go round the loop.
        f.libc(
            "syscall",
            f.i64(abi.machine.futex),
            event,
            f.i64(_FUTEX_WAIT),
            b.zext(old, I64),
            f.null,
            f.null,
            f.i64(0),
        )


def _add_publish(abi: AbiBuilder) -> None:
    f = abi.function("abi.publish", ir.FunctionType(VOID, [PTR]), ("event",))
    (event,) = f.args
    b = f.b
    b.atomic_rmw("add", event, f.i32(1), "seq_cst")
    sleepers = b.load_atomic(f.at(event, _SLEEPERS), "seq_cst", 4, typ=I32)
    with b.if_then(b.icmp_unsigned("!=", sleepers, f.i32(0)), likely=False):
        everybody = f.i64(2**31 - 1)
        f.libc(
            "syscall",
            f.i64(abi.machine.futex),
            event,
            f.i64(_FUTEX_WAKE),
            everybody,
            f.null,
            f.null,
            f.i64(0),
        )
    b.ret_void()


def _add_arrive(abi: AbiBuilder) -> None:
    f = abi.function("abi.arrive", ir.FunctionType(VOID, [PTR, I32]), ("event", "expected"))
    event, expected = f.args
    b = f.b
    counter = f.at(event, _ARRIVED)
    before = b.atomic_rmw("add", counter, f.i32(1), "acq_rel")
    with b.if_then(b.icmp_unsigned("==", b.add(before, f.i32(1)), expected)):
        # Nobody arrives again before the value changes, so the counter can be set back first.
        b.atomic_rmw("xchg", counter, f.i32(0), "monotonic")
        publish(f, event)
    b.ret_void()


def _add_barrier(abi: AbiBuilder) -> None:
    f = abi.function(BARRIER_NAME, BARRIER_TYPE, ("sync", "threads"))
    sync, threads = f.args
    old = value(f, sync)
    arrive(f, sync, threads)
    wait(f, sync, old)
    f.b.ret_void()


def add_core_count(abi: AbiBuilder) -> None:
    """Adds `abi.cores() -> i32`: how many cores the process may use, at least 1."""
    f = abi.function("abi.cores", ir.FunctionType(I32, []))
    b = f.b
    words = 128
    mask = f.local(I64, words)
    total = f.local(I64)
    f.libc("memset", mask, f.i32(0), f.i64(8 * words))
    f.store(f.i64(0), total)
    filled = f.libc("syscall", f.i64(abi.machine.sched_getaffinity), f.i64(0), f.i64(8 * words), mask)
    with b.if_else(b.icmp_signed(">", filled, f.i64(0))) as (known, unknown):
        with known:
            ctpop = abi.module.declare_intrinsic("llvm.ctpop", [I64])
            with f.counting(f.i64(words)) as i:
                ones = f.call(ctpop, f.load(I64, mask, b.mul(i, f.i64(8))))
                f.store(b.add(f.load(I64, total), ones), total)
        with unknown:
            # More than 8192 processors, or a sandbox that forbids the question.
            processors_online = 84
            f.store(f.libc("sysconf", f.i32(processors_online)), total)
    found = f.load(I64, total)
    found = b.select(b.icmp_signed("<", found, f.i64(1)), f.i64(1), found)
    b.ret(b.trunc(found, I32))


def add_workers(abi: AbiBuilder, work: Val) -> None:
    """Adds starting and stopping of a handle's threads; `work(handle, thread)` does one thread's share of a job."""
    _add_worker(abi, work)
    _add_stop(abi)
    _add_start(abi)


def _add_worker(abi: AbiBuilder, work: Val) -> None:
    blocked = bytearray(b"\xff" * _SIGSET_BYTES)
    for number in _SYNCHRONOUS_SIGNALS:
        blocked[(number - 1) // 8] &= ~(1 << (number - 1) % 8)
    mask = abi.constant("abi.blocked_signals", bytes(blocked), alignment=8)
    f = abi.function("abi.worker", ir.FunctionType(PTR, [PTR]), ("record",))
    (record,) = f.args
    b = f.b
    seen = f.local(I32)
    # The program's signal handlers run on the program's threads. Faults stay deliverable, for crash reports.
    f.libc("pthread_sigmask", f.i32(_SIG_BLOCK), mask, f.null)
    handle = f.load(PTR, record, RECORD_HANDLE)
    number = f.load(I32, record, RECORD_NUMBER)
    threads = f.load(I32, handle, THREADS)
    go = f.at(handle, GO)
    f.store(f.i32(0), seen)
    with f.forever():
        wait(f, go, f.load(I32, seen))
        f.store(b.add(f.load(I32, seen), f.i32(1)), seen)
        f.return_if(b.icmp_signed("<", f.load(I64, handle, BATCH), f.i64(0)), f.null)
        f.call(work, handle, number)
        arrive(f, f.at(handle, DONE), b.sub(threads, f.i32(1)))


def _record(f: Body, handle: Val, number: Val) -> Val:
    """The record of a thread by its 64-bit number."""
    return f.at(f.at(handle, RECORDS), f.b.mul(number, f.i64(RECORD_BYTES)))


def _add_start(abi: AbiBuilder) -> None:
    """`abi.start(handle) -> i1`: whether all workers run; when not, none does."""
    f = abi.function("abi.start", ir.FunctionType(I1, [PTR]), ("handle",))
    (handle,) = f.args
    b = f.b
    worker = abi.module.globals["abi.worker"]
    cores = f.call(abi.module.globals["abi.cores"])
    threads = f.load(I32, handle, THREADS)
    enough = b.icmp_unsigned("<=", threads, cores)
    for event, least in ((GO, SPINS), (DONE, LEAST_SPINS), (BARRIER, LEAST_SPINS)):
        f.store(b.select(enough, f.i32(SPINS), f.i32(0)), handle, event + _SPINS)
        f.store(b.select(enough, f.i32(least), f.i32(0)), handle, event + _LEAST_SPINS)
    with f.counting(b.zext(threads, I64), start=1) as i:
        record = _record(f, handle, i)
        f.store(handle, record, RECORD_HANDLE)
        f.store(b.trunc(i, I32), record, RECORD_NUMBER)
        status = f.libc("pthread_create", f.at(record, RECORD_THREAD), f.null, worker, record)
        with b.if_then(b.icmp_unsigned("!=", status, f.i32(0)), likely=False):
            f.call(abi.module.globals["abi.stop"], handle, i)
            b.ret(ir.Constant(I1, 0))
    b.ret(ir.Constant(I1, 1))


def _add_stop(abi: AbiBuilder) -> None:
    """`abi.stop(handle, end)`: ends the workers with numbers below `end` and waits for them."""
    f = abi.function("abi.stop", ir.FunctionType(VOID, [PTR, I64]), ("handle", "end"))
    handle, end = f.args
    f.store(f.i64(-1), handle, BATCH)
    publish(f, f.at(handle, GO))
    with f.counting(end, start=1) as i:
        f.libc("pthread_join", f.load(I64, _record(f, handle, i), RECORD_THREAD), f.null)
    f.b.ret_void()
