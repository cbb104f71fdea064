"""The generated C ABI around a small network of the test's own, linked and in process, on every number of threads."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from sqzc.backends.llvm.abi import NET_TYPE, AbiSpec, add_abi, exported_names
from sqzc.backends.llvm.abi_cpu import _X86_BITS, machine_of
from sqzc.backends.llvm.abi_emit import I32, I64, PTR, AbiBuilder, Body
from sqzc.backends.llvm.abi_pool import BARRIER_NAME, BARRIER_TYPE
from sqzc.backends.llvm.jit import load_in_process
from sqzc.backends.llvm.link import link_shared
from sqzc.backends.llvm.objects import assembly, compile_module
from sqzc.diagnostics import InternalError, UnsupportedError, UsageError
from sqzc.runtime.abi import ABI_VERSION, FUNCTION_NAMES, UNKNOWN_STATUS_TEXT, Status, strerror_text
from sqzc.runtime.library import Functions, open_library
from sqzc.target import TARGETS, host_flags

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the generated code is for x86-64")

TARGET = TARGETS["x86-64-v2"]
ROWS, COLUMNS = 24, 16
ELEMENTS = ROWS * COLUMNS
SCRATCH_BYTES = 192
SPEC = AbiSpec(
    prefix="little",
    metadata_json=b'{"name":"little"}',
    workspace_bytes=4 * ELEMENTS + SCRATCH_BYTES,
    scratch_bytes=SCRATCH_BYTES,
    input_bytes=(4 * ELEMENTS, 4),
    output_bytes=(4 * ELEMENTS,),
    cpu_features=TARGET.features,
)


def expected(data: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the network below computes, for a batch."""
    rows: np.ndarray[Any, Any] = data.reshape(-1, ROWS, COLUMNS) * 2
    return rows + rows[:, ::-1] + bias.reshape(-1, 1, 1)


def define_net(module: ir.Module) -> None:
    """Doubles into the arena, then adds each row to its mirror image, which another thread has written.

    The arena is read last, so a thread that begins the next image too early spoils the answer of the others. Each
    thread fills its scratch, which follows the arena, with what would spoil it too.
    """
    f = AbiBuilder(module, machine_of(module.triple)).function("net", NET_TYPE)
    arena, inputs, outputs, _, thread, threads, sync = f.args
    b = f.b
    wide, count = b.zext(thread, I64), b.zext(threads, I64)
    first = b.udiv(b.mul(wide, f.i64(ROWS)), count)
    last = b.udiv(b.mul(b.add(wide, f.i64(1)), f.i64(ROWS)), count)
    f32 = ir.FloatType()
    bias = f.load(f32, f.load(PTR, inputs, 8))
    scratch = f.at(f.at(arena, 4 * ELEMENTS), b.mul(wide, f.i64(SCRATCH_BYTES)))
    with f.counting(f.i64(SCRATCH_BYTES // 4)) as i:
        f.store(ir.Constant(f32, 1e9), scratch, b.mul(i, f.i64(4)))

    def each(body: Callable[[Any, Any], None]) -> None:
        with f.counting(b.sub(last, first)) as i, f.counting(f.i64(COLUMNS)) as column:
            row = b.add(i, first)
            mirror = b.sub(f.i64(ROWS - 1), row)
            body(*(b.mul(b.add(b.mul(r, f.i64(COLUMNS)), column), f.i64(4)) for r in (row, mirror)))

    def double(here: Any, _: Any) -> None:
        value = f.load(f32, f.load(PTR, inputs), here)
        f.store(b.fadd(value, value), arena, here)

    def mirror(here: Any, there: Any) -> None:
        total = b.fadd(b.fadd(f.load(f32, arena, here), f.load(f32, arena, there)), bias)
        f.store(total, f.load(PTR, outputs), here)

    each(double)
    with b.if_then(b.icmp_unsigned(">", threads, f.i32(1))):
        f.call(f.abi.declared(BARRIER_NAME, BARRIER_TYPE), sync, threads)
    each(mirror)
    b.ret_void()


def build(spec: AbiSpec, *, net_first: bool = True) -> bytes:
    module = ir.Module("little")
    module.triple = TARGET.triple
    for step in (define_net, lambda m: add_abi(m, spec))[:: 1 if net_first else -1]:
        step(module)
    return compile_module(str(module), TARGET)


def bind(spec: AbiSpec, contents: bytes, prefix: str = "sqz") -> Functions:
    code = load_in_process([contents], TARGET)
    addresses = {name: code.addresses[f"{prefix}_{name}"] for name in FUNCTION_NAMES}
    return Functions.from_addresses(addresses, code, "in process")


@cache
def in_process(spec: AbiSpec = SPEC) -> Functions:
    return bind(spec, build(spec))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("abi") / "little.so"
    link_shared([build(SPEC)], path, exports=exported_names(SPEC), soname="little.so")
    return path


@pytest.fixture(params=["linked", "in process"])
def functions(request: pytest.FixtureRequest) -> Functions:
    if request.param == "in process":
        return in_process()
    return open_library(request.getfixturevalue("library"))


@dataclass
class Handle:
    """A created model, its arrays and the way to run it."""

    functions: Functions
    threads: int = 1

    def __enter__(self) -> Handle:
        self.pointer = ctypes.c_void_p()
        assert self.functions.create(ctypes.byref(self.pointer), self.threads) == Status.OK
        return self

    def __exit__(self, *_: object) -> None:
        self.functions.destroy(self.pointer)

    def check(self, batch: int, seed: int = 0) -> None:
        check_run(lambda *rest: self.functions.run(self.pointer, *rest), batch, seed)


def check_run(run: Callable[..., int], batch: int, seed: int = 0) -> None:
    """Runs random data of a batch and compares; nothing around the output may be touched."""
    rng = np.random.default_rng(seed)
    data = rng.integers(-100, 100, (batch, ROWS, COLUMNS)).astype(np.float32)
    bias = rng.integers(-100, 100, batch).astype(np.float32)
    output = np.full((batch + 2, ROWS, COLUMNS), 7, np.float32)
    assert run(batch, pointers(data, bias), pointers(output[1:])) == Status.OK
    np.testing.assert_array_equal(output[1:-1], expected(data, bias))
    assert (output[0] == 7).all()
    assert (output[-1] == 7).all()


def pointers(*arrays: np.ndarray[Any, Any] | None) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(None if array is None else array.ctypes.data for array in arrays))


def buffers() -> tuple[Any, Any]:
    data = np.ones((1, ROWS, COLUMNS), np.float32)
    return pointers(data, data), pointers(np.ones_like(data))


def in_threads(*bodies: Callable[[], None]) -> None:
    """Runs each in a Python thread of its own and fails, rather than hangs, when one does not end."""
    problems: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as problem:
            problems.append(problem)

    workers = [threading.Thread(target=guarded, args=(body,), daemon=True) for body in bodies]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive(), "deadlock"
    assert not problems


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def test_facts(functions: Functions) -> None:
    assert functions.abi_version() == ABI_VERSION
    assert functions.metadata() == SPEC.metadata_json
    assert functions.workspace_bytes() == SPEC.workspace_bytes


def test_every_status_has_its_text(functions: Functions) -> None:
    for status in Status:
        assert functions.strerror(status).decode() == strerror_text(status, SPEC.cpu_features)
    for code in (-1, len(Status), 2**31 - 1, -(2**31)):
        assert functions.strerror(code).decode() == UNKNOWN_STATUS_TEXT


def test_both_prefixes_and_no_other_names(library: Path) -> None:
    loaded = ctypes.CDLL(str(library))
    for prefix in ("little", "sqz"):
        for name in FUNCTION_NAMES:
            assert getattr(loaded, f"{prefix}_{name}")
    with pytest.raises(AttributeError):
        _ = loaded.sqz_barrier


def test_fixed_prefix_can_be_left_out_or_be_the_own_one() -> None:
    assert exported_names(replace(SPEC, fixed_prefix=False)) == sorted(f"little_{name}" for name in FUNCTION_NAMES)
    same = replace(SPEC, prefix="sqz")
    assert exported_names(same) == sorted(f"sqz_{name}" for name in FUNCTION_NAMES)
    assert bind(same, build(same)).abi_version() == ABI_VERSION


def test_net_may_come_after_the_abi() -> None:
    functions = bind(SPEC, build(SPEC, net_first=False), "little")
    with Handle(functions, 2) as handle:
        handle.check(3)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8, 32])
@pytest.mark.parametrize("batch", [1, 2, 5, 17])
def test_any_batch_on_any_number_of_threads(functions: Functions, threads: int, batch: int) -> None:
    with Handle(functions, threads) as handle:
        for seed in range(3):
            handle.check(batch, seed)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 7, 16])
def test_threads_may_split_the_batch(threads: int, batch: int) -> None:
    with Handle(in_process(replace(SPEC, batch_split=True)), threads) as handle:
        for seed in range(20):
            handle.check(batch, seed)


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_two_thousand_runs_do_not_deadlock(functions: Functions, threads: int) -> None:
    chooser = random.Random(threads)

    def loop() -> None:
        with Handle(functions, threads) as handle:
            for seed in range(2000):
                handle.check(1 + seed % 3, seed)
                # Now and then long enough for the workers to fall asleep, or to be about to.
                if chooser.random() < 0.02:
                    time.sleep(chooser.random() * 1e-3)

    in_threads(loop)


def settled_thread_count() -> int:
    """The number of threads when those of earlier tests are gone: the kernel lists a joined thread for a moment."""
    count = thread_count()
    for _ in range(100):
        time.sleep(0.01)
        if thread_count() == count:
            break
        count = thread_count()
    return count


def test_zero_threads_means_one_for_each_core(functions: Functions) -> None:
    before = settled_thread_count()
    with Handle(functions, 0) as handle:
        assert thread_count() - before == len(os.sched_getaffinity(0)) - 1
        handle.check(4)
    assert settled_thread_count() == before


def test_one_thread_starts_none(functions: Functions) -> None:
    before = thread_count()
    with Handle(functions, 1) as handle:
        handle.check(1)
        assert thread_count() == before


def test_handles_run_at_once_from_python_threads(functions: Functions) -> None:
    def loop(threads: int) -> None:
        with Handle(functions, threads) as handle:
            for seed in range(500):
                handle.check(2, seed)

    in_threads(*(lambda threads=threads: loop(threads) for threads in (2, 2, 3)))


def test_an_idle_handle_uses_no_cpu(functions: Functions) -> None:
    with Handle(functions, 4) as handle:
        handle.check(1)
        time.sleep(0.02)
        before = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - before < 0.05


def test_creating_and_destroying_leaks_nothing(functions: Functions) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cycle(count: int) -> None:
        for number in range(count):
            with Handle(functions, 1 + number % 4) as handle:
                handle.check(1)

    threads = thread_count()
    cycle(50)
    gc.collect()
    before = resident()
    cycle(500)
    gc.collect()
    assert thread_count() == threads
    assert resident() - before < 1 << 20


def test_create_refuses(functions: Functions) -> None:
    pointer = ctypes.c_void_p(1)
    assert functions.create(None, 1) == Status.ERR_NULL
    for threads in (-1, 257, -(2**31), 2**31 - 1):
        pointer.value = 1
        assert functions.create(ctypes.byref(pointer), threads) == Status.ERR_THREADS
        assert pointer.value is None


def test_the_most_threads_can_be_lowered() -> None:
    functions = in_process(replace(SPEC, max_threads=1))
    pointer = ctypes.c_void_p()
    assert functions.create(ctypes.byref(pointer), 2) == Status.ERR_THREADS
    before = thread_count()
    with Handle(functions, 0):
        assert thread_count() == before


def test_run_refuses(functions: Functions) -> None:
    inputs, outputs = buffers()
    with Handle(functions, 2) as handle:
        check_refusals(functions.run, handle.pointer)
        assert functions.run(handle.pointer, 0, inputs, outputs) == Status.OK
    assert functions.run(None, 1, inputs, outputs) == Status.ERR_NULL
    functions.destroy(None)


def check_refusals(run: Callable[..., int], owner: Any) -> None:
    inputs, outputs = buffers()
    assert run(owner, 1, None, outputs) == Status.ERR_NULL
    assert run(owner, 1, inputs, None) == Status.ERR_NULL
    for i in range(2):
        holed = (ctypes.c_void_p * 2)(*inputs)
        holed[i] = None
        assert run(owner, 1, holed, outputs) == Status.ERR_NULL
    assert run(owner, 1, inputs, pointers(None)) == Status.ERR_NULL
    for batch in (-1, -(2**63)):
        assert run(owner, batch, inputs, outputs) == Status.ERR_BATCH


def workspace(functions: Functions) -> tuple[Any, int]:
    """Memory of random bytes with more of them around, and the aligned address within."""
    size = functions.workspace_bytes()
    memory = np.random.default_rng(0).integers(0, 256, size + 192, dtype=np.uint8)
    return memory, (memory.ctypes.data + 64 + 63) & -64


def test_run_in_the_callers_memory(functions: Functions) -> None:
    memory, address = workspace(functions)
    before = memory.copy()
    start = address - memory.ctypes.data
    threads = thread_count()
    for batch in (1, 4):
        check_run(lambda *rest: functions.run_in(address, *rest), batch)
    assert thread_count() == threads
    end = start + functions.workspace_bytes()
    np.testing.assert_array_equal(memory[:start], before[:start])
    np.testing.assert_array_equal(memory[end:], before[end:])


def test_run_in_refuses(functions: Functions) -> None:
    _memory, address = workspace(functions)
    inputs, outputs = buffers()
    check_refusals(functions.run_in, address)
    assert functions.run_in(None, 1, inputs, outputs) == Status.ERR_NULL
    for offset in (1, 16, 32, 63):
        assert functions.run_in(address + offset, 1, inputs, outputs) == Status.ERR_ALIGN
    assert functions.run_in(address, 0, inputs, outputs) == Status.OK


def test_a_missing_feature_is_a_status_not_a_crash() -> None:
    # No CPU has both: one is AMD's until 2017, the other came to AMD in 2022.
    features = ("sse2", "fma4", "avx512f")
    functions = in_process(replace(SPEC, cpu_features=features))
    pointer = ctypes.c_void_p(1)
    assert functions.create(ctypes.byref(pointer), 1) == Status.ERR_CPU
    assert pointer.value is None
    _memory, address = workspace(functions)
    inputs, outputs = buffers()
    assert functions.run_in(address, 1, inputs, outputs) == Status.ERR_CPU
    assert b"fma4, avx512f" in functions.strerror(Status.ERR_CPU)
    assert functions.metadata() == SPEC.metadata_json


def test_feature_tests_agree_with_the_kernel() -> None:
    renamed = {
        "sse3": "pni", "pclmul": "pclmulqdq", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "crc32": "sse4_2", "bmi": "bmi1",
        "sha": "sha_ni", "lzcnt": "abm", "sahf": "lahf_lm", "prfchw": "3dnowprefetch", "avxvnni": "avx_vnni",
        "avxifma": "avx_ifma", "avx512bf16": "avx512_bf16", "avx512vbmi2": "avx512_vbmi2",
        "avx512vnni": "avx512_vnni", "avx512bitalg": "avx512_bitalg", "avx512vpopcntdq": "avx512_vpopcntdq",
        "avx512fp16": "avx512_fp16", "amx-bf16": "amx_bf16", "amx-tile": "amx_tile", "amx-int8": "amx_int8",
    }  # fmt: skip
    module = ir.Module("features")
    module.triple = TARGET.triple
    abi = AbiBuilder(module, machine_of(module.triple))
    names = {name: "has_" + "".join(c if c.isalnum() else "_" for c in name) for name in _X86_BITS}
    for feature, symbol in names.items():
        f: Body = abi.function(symbol, ir.FunctionType(I32, []), exported=True)
        abi.machine.emit_check(f, [feature], f.i32(0))
        f.b.ret(f.i32(1))
    code = load_in_process([compile_module(str(module), TARGET)], TARGET)
    found = {name for name, symbol in names.items() if ctypes.CFUNCTYPE(ctypes.c_int32)(code.addresses[symbol])() == 1}
    flags = host_flags()
    assert found == {name for name in _X86_BITS if renamed.get(name, name) in flags}


def test_every_target_can_be_tested_for() -> None:
    for target in TARGETS.values():
        assert set(target.features) <= set(_X86_BITS)
    with pytest.raises(InternalError, match="telepathy"):
        build(replace(SPEC, cpu_features=("sse2", "telepathy")))


def test_no_memory_is_a_status() -> None:
    functions = in_process(replace(SPEC, workspace_bytes=2**47, scratch_bytes=2**47))
    pointer = ctypes.c_void_p(1)
    assert functions.create(ctypes.byref(pointer), 4) == Status.ERR_MEMORY
    assert pointer.value is None


def run_script(library: Path, script: str) -> None:
    """Runs a script in a Python of its own with the library loaded as `lib`."""
    start = f"""
        import ctypes, os, resource, sys, time
        lib = ctypes.CDLL({str(library)!r})
        handle = ctypes.c_void_p()
        floats = ctypes.c_float * {ELEMENTS}
        data, bias, result = floats(*range({ELEMENTS})), floats(0.5), floats()
        inputs = (ctypes.c_void_p * 2)(*map(ctypes.addressof, (data, bias)))
        outputs = (ctypes.c_void_p * 1)(ctypes.addressof(result))
        lib.sqz_run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
        lib.sqz_destroy.argtypes = [ctypes.c_void_p]
        def right():
            result[:] = [0.0] * {ELEMENTS}
            assert lib.sqz_run(handle, 1, inputs, outputs) == 0
            return result[0] == 2 * {(ROWS - 1) * COLUMNS} + 0.5 and result[{ELEMENTS - 1}] != 0
    """
    source = textwrap.dedent(start) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_that_cannot_be_started_are_a_status(library: Path) -> None:
    run_script(
        library,
        f"""
        def used(): return int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_AS, (used() + (200 << 20),) * 2)
        for _ in range(20):
            handle.value = 1
            assert lib.sqz_create(ctypes.byref(handle), 256) == {Status.ERR_THREAD_START.value}
            assert handle.value is None
            assert len(os.listdir("/proc/self/task")) == 1
        assert lib.sqz_create(ctypes.byref(handle), 3) == 0
        assert right()
        lib.sqz_destroy(handle)
        """,
    )


def test_a_forked_child_can_run_and_destroy(library: Path) -> None:
    run_script(
        library,
        """
        import warnings
        warnings.simplefilter("ignore")  # newer Pythons warn of any fork with threads
        assert lib.sqz_create(ctypes.byref(handle), 3) == 0
        assert right()
        child = os.fork()
        if child == 0:
            fine = right()
            lib.sqz_destroy(handle)
            os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert right()
        lib.sqz_destroy(handle)
        """,
    )


def test_workers_leave_signals_to_the_program(library: Path) -> None:
    run_script(
        library,
        """
        import signal
        assert lib.sqz_create(ctypes.byref(handle), 3) == 0
        assert right()
        for task in os.listdir("/proc/self/task"):
            lines = open(f"/proc/self/task/{task}/status").read().splitlines()
            blocked = int(next(line for line in lines if line.startswith("SigBlk")).split()[1], 16)
            worker = int(task) != os.getpid()
            assert bool(blocked >> (signal.SIGINT - 1) & 1) == worker
            assert not blocked >> (signal.SIGSEGV - 1) & 1
        lib.sqz_destroy(handle)
        """,
    )


@pytest.mark.parametrize(
    "change",
    [{"max_threads": 0}, {"max_threads": 257}, {"workspace_bytes": -1}, {"input_bytes": (2**60,)}],
)
def test_senseless_sizes_are_bugs(change: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        replace(SPEC, **change)


def test_prefix_and_architecture_are_checked() -> None:
    with pytest.raises(UsageError):
        replace(SPEC, prefix="7up")
    module = ir.Module("other")
    module.triple = "riscv64-unknown-linux-gnu"
    with pytest.raises(UnsupportedError, match="riscv64"):
        add_abi(module, SPEC)


def test_nothing_wide_before_the_check() -> None:
    """However the module is compiled, the ABI's own functions keep to the baseline."""
    module = ir.Module("wide")
    module.triple = TARGET.triple
    add_abi(module, replace(SPEC, input_bytes=(4,) * 16, batch_split=True))
    text = assembly(str(module), TARGETS["x86-64-v4"], opt=3)
    wide = [word for word in ("%ymm", "%zmm", "\tv", "\tpopcnt", "\tshlx", "\tandn", "\tmovbe") if word in text]
    assert not wide
