"""What this machine can do at most: its peaks of multiply-adds, and how fast it reads from each level of memory.

All are measured by code that our own generator makes for the target, so that they are what our kernels could reach.
"""

from __future__ import annotations

import ctypes
import itertools
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

from sqzc.backends.llvm.emit import I64, PTR, VOID, Emitter, Val, f32_const
from sqzc.backends.llvm.jit import LoadedCode, load_in_process
from sqzc.backends.llvm.kernels.tile_unit import TileUnit, tile_shapes
from sqzc.backends.llvm.objects import compile_module
from sqzc.backends.llvm.schedules.conv_direct import registers
from sqzc.backends.llvm.schedules.conv_split import SplitSchedule
from sqzc.target import Target

PEAK, FED, TILES, STREAM = "sqz_peak", "sqz_fed", "sqz_tiles", "sqz_stream"

FED_TILES = ((2, 14), (3, 9), (4, 6), (2, 6), (3, 4), (2, 4), (1, 8))
"""Register tiles, vectors x pixels, to feed multiply-adds from memory; those that fit a target are tried."""

_FED_CHANNELS = 64
"""Input channels of such a tile: weights and pixels together stay in the first-level cache."""

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
    """The limits of one target with so many threads. `bandwidths` go from the nearest memory to the farthest.

    `peak_flops` is of multiply-adds between registers in short runs. `fed_flops` is of those whose operands come from
    the first-level cache as a convolution's do, over many milliseconds: less where loads share ports or power with
    them; None where it was not measured. `tile_flops` is of bfloat16 products of tile registers, where there are any.
    """

    target: Target
    threads: int
    peak_flops: float
    bandwidths: tuple[Bandwidth, ...]
    last_cache_bytes: int | None
    fed_flops: float | None = None
    tile_flops: float | None = None

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
            "fed_flops": self.fed_flops,
            "tile_flops": self.tile_flops,
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
        fed = max(_measure_fed(code, target, tile, together) for tile in fed_tiles(target))
        tiles = _measure_tiles(code, together) if target.tile_products else None
        bandwidths = [
            Bandwidth(level, size * threads, _measure_stream(code, target, size, together), holds)
            for level, size, holds in _levels(target, threads, last, memory_bytes)
        ]
    return Machine(target, threads, peak, tuple(bandwidths), last, fed, tiles)


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


def fed_tiles(target: Target) -> list[tuple[int, int]]:
    """Those of FED_TILES that fit the registers."""
    return [tile for tile in FED_TILES if registers(*tile, target) <= target.vector_registers]


def _measure_fed(code: LoadedCode, target: Target, tile: tuple[int, int], together: Together) -> float:
    """The median of runs of some milliseconds: what lasts, after power and clock have settled."""
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(code.addresses[_fed_name(tile)])
    vectors, pixels = tile
    data = [_aligned(fed_bytes(tile, target)) for _ in range(together.threads)]
    for memory in data:
        # Ordinary numbers: those of zeros would take less power.
        memory.view(np.float32)[:] = np.random.default_rng(0).uniform(-1.0, 1.0, memory.size // 4)
    loops = max(1, 8_000_000 // (vectors * pixels * _FED_CHANNELS))

    def work(thread: int) -> float:
        function(loops, data[thread].ctypes.data)
        return 2.0 * loops * _FED_CHANNELS * vectors * pixels * target.vector_lanes

    return statistics.median(together.rate(work) for _ in range(12))


def _measure_tiles(code: LoadedCode, together: Together) -> float:
    """The median of runs of some milliseconds, as for `_measure_fed`."""
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(code.addresses[TILES])
    data = [_aligned(_TILE_BYTES) for _ in range(together.threads)]
    for memory in data:
        # Ordinary numbers here too; the upper halves of float32 are bfloat16.
        numbers = np.random.default_rng(0).uniform(-1.0, 1.0, (memory.size - 64) // 2).astype(np.float32)
        memory[64:] = (numbers.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        memory[:64] = tile_shapes(_TILES).view(np.uint8)
    loops = 200_000

    def work(thread: int) -> float:
        function(loops, data[thread].ctypes.data)
        return 2.0 * loops * _TILES.px_tiles * _TILES.oc_tiles * 16 * 16 * 32

    return statistics.median(together.rate(work) for _ in range(12))


_TILES = SplitSchedule(2, 2, 16, 1)
"""Registers as the kernels use them: four tiles of sums, two of each operand."""

_TILE_BYTES = 64 + 4 * 1024


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

    `sqz_fed_VxP(loops, data)`: a register tile of V vectors x P pixels over 64 input channels, so many times; data are
    the weights, [channel][vector], and the pixels, [pixel][channel].

    `sqz_tiles(loops, data)`: four bfloat16 products of tile registers, so many times; data are the registers' shapes
    and room for four tiles.

    `sqz_stream(data, blocks, passes, out)`: reads blocks of 8 vectors, one after the other, so many times.
    """
    module = ir.Module("sqzc")
    module.triple = target.triple
    _add_peak(module, target)
    for tile in fed_tiles(target):
        _add_fed(module, target, tile)
    if target.tile_products:
        _add_tiles(module, target)
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


def _fed_name(tile: tuple[int, int]) -> str:
    return f"{FED}_{tile[0]}x{tile[1]}"


def fed_bytes(tile: tuple[int, int], target: Target) -> int:
    """The weights and pixels of a tile."""
    return _FED_CHANNELS * (tile[0] * target.vector_bytes + tile[1] * 4)


def _add_fed(module: ir.Module, target: Target, tile: tuple[int, int]) -> None:
    e, (loops, data) = _begin(module, _fed_name(tile), [I64, PTR], target)
    vectors, pixels = tile
    width, unrolled = vectors * target.vector_bytes, 16
    image = e.at(data, _FED_CHANNELS * width)

    def body(_: Val, sums: list[Val]) -> list[Val]:
        def channels(c: Val, inner: list[Val]) -> list[Val]:
            inner = list(inner)
            w, x = e.at(data, e.mul_add(c, width)), e.at(image, e.mul_add(c, 4))
            e.fence()
            for lane in range(unrolled):
                weights = [e.load(w, lane * width + k * target.vector_bytes) for k in range(vectors)]
                for j in range(pixels):
                    pixel = e.broadcast(x, 4 * (j * _FED_CHANNELS + lane))
                    for k in range(vectors):
                        at = j * vectors + k
                        inner[at] = e.fma(weights[k], pixel, inner[at])
            return inner

        return e.loop(0, _FED_CHANNELS, unrolled, channels, sums)

    sums = e.loop(e.i64(0), loops, 1, body, [e.splat(0.0)] * (vectors * pixels))
    total = sums[0]
    for value in sums[1:]:
        total = e.b.fadd(total, value)
    # Never true, as the numbers stay small: but the code generator does not know.
    with e.when(e.b.fcmp_ordered("==", e.b.extract_element(total, ir.Constant(ir.IntType(32), 0)), f32_const(1e38))):
        e.store(total, data)
    e.b.ret_void()


def _add_tiles(module: ir.Module, target: Target) -> None:
    e, (loops, data) = _begin(module, TILES, [I64, PTR], target)
    unit = TileUnit(e, _TILES)
    unit.configure(data)
    for register in range(4):
        unit.zero(register)
        unit.load(4 + register, e.at(data, 64 + 1024 * register))

    def body(_: Val, nothing: list[Val]) -> list[Val]:
        for i, j in itertools.product(range(2), range(2)):
            unit.multiply(2 * i + j, 4 + i, 6 + j)
        return nothing

    e.loop(e.i64(0), loops, 1, body)
    unit.release()
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
