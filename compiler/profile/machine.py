"""What this machine can do at most: its peak of multiply-adds, and how fast it reads from each level of memory.

Both are measured by code that our own generator makes for the target, so that they are what our kernels could reach.
"""

from __future__ import annotations

import ctypes
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from sqzc.backends.llvm.emit import I64, PTR, VOID, Emitter, Val
from sqzc.backends.llvm.jit import LoadedCode, load_in_process
from sqzc.backends.llvm.objects import compile_module
from sqzc.target import Target

PEAK, STREAM = "sqz_peak", "sqz_stream"

_UNROLL = 4
_STREAM_VECTORS = 8
"""Vectors read in one iteration, each into an accumulator of its own."""

_MEMORY_BYTES = 256 << 20
"""Read from memory, all threads together: larger than most caches, and filled in a tenth of a second."""

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Bandwidth:
    """Bytes read in a second, by all threads together, from `bytes` of memory; `holds` is how many the level has room
    for, all threads together, None for the memory itself.
    """

    level: str
    bytes: int
    bytes_per_second: float
    holds: int | None = None


@dataclass(frozen=True)
class Machine:
    """The limits of one target with so many threads. `bandwidths` go from the nearest memory to the farthest."""

    target: Target
    threads: int
    peak_flops: float
    bandwidths: tuple[Bandwidth, ...]
    last_cache_bytes: int | None

    @property
    def memory_bandwidth(self) -> float:
        """Bytes a second from the farthest level."""
        return self.bandwidths[-1].bytes_per_second

    @property
    def memory_in_cache(self) -> bool:
        """Whether a cache holds all that was read from memory, as on machines whose cache is larger than that."""
        return self.last_cache_bytes is not None and self.last_cache_bytes >= self.bandwidths[-1].bytes

    @property
    def clock(self) -> float:
        """Cycles a second of a core, by the peak: as many full multiply-adds begin in a cycle as the target says."""
        return clock_of(self.peak_flops / self.threads, self.target)

    def level_for(self, size: int) -> Bandwidth:
        """The nearest level with room for so many bytes."""
        return next(entry for entry in self.bandwidths if entry.holds is None or size <= entry.holds)

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        return {
            "target": self.target.name,
            "threads": self.threads,
            "peak_flops": self.peak_flops,
            "bandwidths": [asdict(entry) for entry in self.bandwidths],
            "clock": self.clock,
            "last_cache_bytes": self.last_cache_bytes,
            "memory_in_cache": self.memory_in_cache,
        }


def measure(target: Target, threads: int = 1, *, memory_bytes: int = _MEMORY_BYTES) -> Machine:
    """Measures the machine: the best of several short runs, as other processes only ever slow one down.

    `target` must run here. Takes about half a second.
    """
    code = load_in_process([compile_module(str(limits_module(target)), target)], target)
    last = last_cache_bytes()
    with ThreadPoolExecutor(threads) as pool:
        together = Together(pool, threads)
        peak = _measure_peak(code, target, together)
        bandwidths = [
            Bandwidth(level, size * threads, _measure_stream(code, target, size, together), holds)
            for level, size, holds in _levels(target, threads, last, memory_bytes)
        ]
    return Machine(target, threads, peak, tuple(bandwidths), last)


def measure_clock(target: Target) -> float:
    """Cycles a second of one core, as `Machine.clock`; takes a tenth of a second."""
    code = load_in_process([compile_module(str(limits_module(target)), target)], target)
    with ThreadPoolExecutor(1) as pool:
        return clock_of(_measure_peak(code, target, Together(pool, 1)), target)


def clock_of(peak_flops: float, target: Target) -> float:
    """Cycles a second of a core with this peak."""
    return peak_flops / (2 * target.vector_lanes * target.fma_ports)


def _levels(target: Target, threads: int, last: int | None, memory_bytes: int) -> Iterator[tuple[str, int, int | None]]:
    """Levels with the bytes that each thread reads, half of what it holds at most, and those that all have room for."""
    yield "L1", target.l1_bytes // 2, target.l1_bytes * threads
    yield "L2", target.l2_bytes // 2, target.l2_bytes * threads
    if last is not None and last >= 8 * target.l2_bytes:
        yield "L3", min(last // 4 // threads, 4 * target.l2_bytes), last
    yield "memory", max(memory_bytes // threads, 1 << 16), None


def last_cache_bytes(folder: Path = _CACHES) -> int | None:
    """Size of the largest cache that the kernel reports for the first core; None where it reports none."""
    sizes = []
    for path in folder.glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 0)
        if unit and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * unit)
    return max(sizes, default=None)


# -- running ------------------------------------------------------------------------------------------------------


class Together:
    """Runs a function on several threads at the same time. Calls of generated code let other threads run."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int) -> None:
        self.pool, self.threads = pool, threads

    def rate(self, work: Callable[[int], float]) -> float:
        """The sum over the threads of work done per second; `work(thread)` gives the amount that it did."""
        ready = threading.Barrier(self.threads)

        def one(thread: int) -> float:
            ready.wait()
            start = time.perf_counter()
            amount = work(thread)
            return amount / (time.perf_counter() - start)

        return sum(self.pool.map(one, range(self.threads)))

    def best(self, work: Callable[[int], float], runs: int) -> float:
        """The best of several rates."""
        return max(self.rate(work) for _ in range(runs))


def _measure_peak(code: LoadedCode, target: Target, together: Together) -> float:
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(code.addresses[PEAK])
    count = _accumulators(target)
    outs = [_aligned(4 * target.vector_lanes * count) for _ in range(together.threads)]
    # Half a millisecond on a core that begins two 16-lane multiply-adds in a cycle of 3 GHz.
    loops = max(1, 3_000_000 // (count * _UNROLL))

    def work(thread: int) -> float:
        function(loops, outs[thread].ctypes.data)
        return 2.0 * loops * count * _UNROLL * target.vector_lanes

    return together.best(work, 60)


def _measure_stream(code: LoadedCode, target: Target, size: int, together: Together) -> float:
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(
        code.addresses[STREAM]
    )
    block = _STREAM_VECTORS * target.vector_bytes
    blocks = max(1, size // block)
    passes = max(1, (16 << 20) // size)
    data = [_aligned(blocks * block) for _ in range(together.threads)]
    outs = [_aligned(4 * target.vector_lanes) for _ in range(together.threads)]

    def work(thread: int) -> float:
        function(data[thread].ctypes.data, blocks, passes, outs[thread].ctypes.data)
        return float(blocks * block * passes)

    together.rate(work)
    return together.best(work, 5 if passes == 1 else 20)


def _aligned(size: int) -> npt.NDArray[np.uint8]:
    """Zeros in pages of their own: memory that was never written is one page that all of it shares."""
    memory = np.empty(size + 64, np.uint8)
    memory.fill(0)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


# -- code ---------------------------------------------------------------------------------------------------------


def limits_module(target: Target) -> ir.Module:
    """`sqz_peak(loops, out)`: multiply-adds without dependences between them, loops * accumulators * 4 vectors of them.

    `sqz_stream(data, blocks, passes, out)`: reads blocks of 8 vectors, one after the other, so many times.
    """
    module = ir.Module("sqzc")
    module.triple = target.triple
    _add_peak(module, target)
    _add_stream(module, target)
    return module


def _accumulators(target: Target) -> int:
    """As many as there is room for beside the operands: more than multiply-adds are under way at a time."""
    return target.vector_registers * 3 // 4


def _begin(module: ir.Module, name: str, arguments: Sequence[Val], target: Target) -> tuple[Emitter, Sequence[Val]]:
    function = ir.Function(module, ir.FunctionType(VOID, arguments), name)
    function.attributes.add("nounwind")
    return Emitter(ir.IRBuilder(function.append_basic_block("entry")), target), function.args


def _add_peak(module: ir.Module, target: Target) -> None:
    e, (loops, out) = _begin(module, PEAK, [I64, PTR], target)
    # From memory, so that the code generator knows nothing about them.
    factor, addend = e.load(out), e.load(out, target.vector_bytes)
    start = [e.load(out, index * target.vector_bytes) for index in range(_accumulators(target))]

    def body(_: Val, sums: list[Val]) -> list[Val]:
        for _ in range(_UNROLL):
            sums = [e.fma(value, factor, addend) for value in sums]
        return sums

    sums = e.loop(e.i64(0), loops, 1, body, start)
    for index, value in enumerate(sums):
        e.store(value, out, index * target.vector_bytes)
    e.b.ret_void()


def _add_stream(module: ir.Module, target: Target) -> None:
    e, (data, blocks, passes, out) = _begin(module, STREAM, [PTR, I64, I64, PTR], target)
    block = _STREAM_VECTORS * target.vector_bytes

    def one_pass(_: Val, sums: list[Val]) -> list[Val]:
        def body(index: Val, inner: list[Val]) -> list[Val]:
            at = e.at(data, e.mul_add(index, block))
            parts = [e.load(at, k * target.vector_bytes, align=target.vector_bytes) for k in range(_STREAM_VECTORS)]
            return [e.b.fadd(value, part) for value, part in zip(inner, parts, strict=True)]

        return e.loop(e.i64(0), blocks, 1, body, sums)

    sums = e.loop(e.i64(0), passes, 1, one_pass, [e.splat(0.0)] * _STREAM_VECTORS)
    total = sums[0]
    for value in sums[1:]:
        total = e.b.fadd(total, value)
    e.store(total, out)
    e.b.ret_void()


def cycles_per_second(counters: Sequence[int], seconds: Sequence[float]) -> float:
    """The rate of the cycle counter, from its readings and those of the wall clock at the same moments.

    The median over pairs of moments that are half of the whole time apart, so that a reading that was interrupted
    does not count. At least two readings.
    """
    assert len(counters) == len(seconds) >= 2, "no rate can be told from one reading"
    half = max(1, len(counters) // 2)
    rates = [(counters[i + half] - counters[i]) / (seconds[i + half] - seconds[i]) for i in range(len(counters) - half)]
    return statistics.median(rates)
