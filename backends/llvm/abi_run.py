"""Generated code that runs a batch: all threads together on each image, or each thread on images of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llvmlite import ir

from sqzc.backends.llvm import abi_pool as pool
from sqzc.backends.llvm.abi_emit import I1, I32, I64, NET_TYPE, PTR, VOID, AbiBuilder, Body, Val

if TYPE_CHECKING:
    from sqzc.backends.llvm.abi import AbiSpec

IMAGES_TYPE = ir.FunctionType(VOID, [PTR, PTR, PTR, PTR, I64, I64, I32, I32, PTR])


def add_images(abi: AbiBuilder, spec: AbiSpec) -> Val:
    """Adds `abi.images(arena, inputs, outputs, prepared, first, count, thread, threads, sync)`.

    It runs the images from `first` on, all threads together on each. A barrier parts one image from the next, as the
    network itself need not end with one.
    """
    f = abi.function(
        "abi.images",
        IMAGES_TYPE,
        ("arena", "inputs", "outputs", "prepared", "first", "count", "thread", "threads", "sync"),
    )
    arena, inputs, outputs, prepared, first, count, thread, threads, sync = f.args
    b = f.b
    net = abi.declared(spec.net, NET_TYPE)
    barrier = abi.module.globals[pool.BARRIER_NAME]
    own_inputs, own_outputs = f.local(PTR, len(spec.input_bytes)), f.local(PTR, len(spec.output_bytes))
    _advance(f, own_inputs, inputs, spec.input_bytes, first)
    _advance(f, own_outputs, outputs, spec.output_bytes, first)
    together = b.icmp_signed(">", threads, f.i32(1))
    with f.counting(count) as i:
        with b.if_then(b.and_(together, b.icmp_signed(">", i, f.i64(0)))):
            f.call(barrier, sync, threads)
        f.call(net, arena, own_inputs, own_outputs, prepared, thread, threads, sync)
        _advance(f, own_inputs, own_inputs, spec.input_bytes, f.i64(1))
        _advance(f, own_outputs, own_outputs, spec.output_bytes, f.i64(1))
    b.ret_void()
    return f.function


def _advance(f: Body, to: Val, source: Val, strides: Sequence[int], images: Val) -> None:
    """Each pointer of the array `source`, moved by so many images, into the array `to`."""
    for i, stride in enumerate(strides):
        f.store(f.at(f.load(PTR, source, 8 * i), f.b.mul(images, f.i64(stride))), to, 8 * i)


def add_work(abi: AbiBuilder, spec: AbiSpec, images: Val) -> Val:
    """Adds `abi.work(handle, thread)`: one thread's share of the job in the handle.

    Where threads split the batch, each takes as many whole images as all others, on an arena of its own; the images
    left over are done together, on the first arena, when all have finished theirs.
    """
    f = abi.function("abi.work", ir.FunctionType(VOID, [PTR, I32]), ("handle", "thread"))
    handle, thread = f.args
    b = f.b
    threads = f.load(I32, handle, pool.THREADS)
    arena, inputs, outputs = (f.load(PTR, handle, field) for field in (pool.ARENA, pool.INPUTS, pool.OUTPUTS))
    batch = f.load(I64, handle, pool.BATCH)
    prepared = f.load(PTR, handle, pool.PREPARED)
    sync = f.at(handle, pool.BARRIER)
    first = f.i64(0)
    if spec.batch_split:
        wide_thread, wide_threads = b.zext(thread, I64), b.zext(threads, I64)
        share = b.udiv(batch, wide_threads)
        first = b.mul(share, wide_threads)
        with b.if_then(b.icmp_signed(">", share, f.i64(0))):
            own_arena = f.at(arena, _arena_offset(f, spec, wide_thread, wide_threads))
            begin = b.mul(wide_thread, share)
            f.call(images, own_arena, inputs, outputs, prepared, begin, share, f.i32(0), f.i32(1), f.null)
            with b.if_then(b.icmp_signed("<", first, batch)):
                f.call(abi.module.globals[pool.BARRIER_NAME], sync, threads)
    rest = b.sub(batch, first)
    f.call(images, arena, inputs, outputs, prepared, first, rest, thread, threads, sync)
    b.ret_void()
    return f.function


def _arena_offset(f: Body, spec: AbiSpec, thread: Val, threads: Val) -> Val:
    """Where a thread's own arena starts; the first one is larger, as all threads can share it."""
    others = f.b.add(
        f.b.mul(thread, f.i64(spec.arena_stride)),
        f.b.mul(f.b.sub(threads, f.i64(1)), f.i64(spec.scratch_stride)),
    )
    return f.b.select(f.b.icmp_unsigned("==", thread, f.i64(0)), f.i64(0), others)


def add_checks(abi: AbiBuilder) -> None:
    """Adds `abi.any_null(pointers, count) -> i1`."""
    f = abi.function("abi.any_null", ir.FunctionType(I1, [PTR, I64]), ("pointers", "count"))
    pointers, count = f.args
    with f.counting(count) as i:
        f.return_if(f.is_null(f.load(PTR, pointers, f.b.mul(i, f.i64(8)))), ir.Constant(I1, 1))
    f.b.ret(ir.Constant(I1, 0))
