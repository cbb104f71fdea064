"""Every wrapper of `Emitter` against its meaning in scalar terms, as machine code of every target."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llvmlite import ir
from unit.backends.llvm.emitting import TARGET_NAMES, assembly_of, call, floats, target_or_skip

from sqzc.backends.llvm.emit import F32, F64, I32, I64, PTR, Emitter, Val, f32_const
from sqzc.target import Target

NAN, INF = math.nan, math.inf
UNTOUCHED = np.float32(7.0)


@pytest.fixture(params=TARGET_NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    return target_or_skip(request.param)


def result(target: Target, count: int, body: Callable[..., None], *values: Any) -> np.ndarray[Any, Any]:
    """What a body leaves in an array of `count` floats, its first argument; untouched ones are 7."""
    out = np.full(count, UNTOUCHED, np.float32)
    call(target, body, out, *values)
    return out


def whole(target: Target, count: int, body: Callable[..., None], *values: Any) -> list[int]:
    """What a body leaves in an array of `count` 64-bit integers, its first argument; untouched ones are -7."""
    out = np.full(count, -7, np.int64)
    call(target, body, out, *values)
    return out.tolist()


def put(e: Emitter, out: Val, index: int, value: Val) -> None:
    """out[index] = value for 64-bit integers."""
    e.store(value, out, 8 * index, align=8)


def same_bits(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> None:
    """Fails unless all elements are equal; zeros of different sign are not, NaN are."""
    np.testing.assert_array_equal(got, want)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


# -- constants and types ----------------------------------------------------------------------------------------------

NUMBERS = [0.0, -0.0, 1.0, -1.5, 0.1, 1 / 3, 1e-40, 1e-45, 1e-60, 3.4028234663852886e38, 1e39, -1e39, INF, -INF, NAN]


@pytest.mark.parametrize("number", NUMBERS)
def test_constant_is_the_nearest_float32(number: float) -> None:
    target = target_or_skip("x86-64-v2")
    got = result(target, 1, lambda e, out: e.store(f32_const(number), out))
    with np.errstate(over="ignore", under="ignore"):
        same_bits(got, np.array([number], np.float32))


@pytest.mark.parametrize("number", [0.1, -0.0, INF])
def test_splat_is_the_number_in_every_lane(target: Target, number: float) -> None:
    lanes = target.vector_lanes

    def body(e: Emitter, out: Val) -> None:
        e.store(e.splat(number), out)
        e.store(e.splat(number, 2), out, 4 * lanes)
        e.store(e.splat(number, 1), out, 4 * (lanes + 2))

    same_bits(result(target, lanes + 4, body), np.array([number] * (lanes + 3) + [UNTOUCHED], np.float32))


def test_spread_is_the_scalar_in_every_lane(target: Target) -> None:
    lanes, x = target.vector_lanes, floats(2)

    def body(e: Emitter, out: Val, x: Val) -> None:
        e.store(e.spread(e.load(x, 4, 1)), out)
        e.store(e.spread(e.load(x, 0, 1), 1), out, 4 * lanes)

    np.testing.assert_array_equal(result(target, lanes + 2, body, x), [x[1]] * lanes + [x[0], UNTOUCHED])


def test_vector_types(target: Target) -> None:
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "f")
    e = Emitter(ir.IRBuilder(function.append_basic_block()), target)
    assert e.vec() == ir.VectorType(F32, target.vector_lanes)
    assert e.vec(2, F64) == ir.VectorType(F64, 2)
    assert e.vec(1) is F32
    assert e.vec(1, I32) is I32
    value = e.i64(5)
    assert e.i64(value) is value


def test_shuffle_picks_from_both_in_a_row(target: Target) -> None:
    x, picks = floats(8), [7, 0, 3, 4, 4, 1]

    def body(e: Emitter, out: Val, x: Val) -> None:
        e.store(e.shuffle(e.load(x, 0, 4), e.load(x, 16, 4), picks), out)

    np.testing.assert_array_equal(result(target, 7, body, x), [*x[picks], UNTOUCHED])


# -- memory -----------------------------------------------------------------------------------------------------------


def test_addresses_are_in_bytes_and_may_go_back(target: Target) -> None:
    x = floats(40)

    def body(e: Emitter, out: Val, x: Val, offset: Val) -> None:
        e.store(e.load(e.at(x, offset), 0, 1), out)
        e.store(e.load(e.at(x, offset), -8, 1), out, 4)
        e.store(e.load(e.at(e.at(x, 12), -12), 4, 1), out, 8)
        assert e.at(x, 0) is x

    np.testing.assert_array_equal(result(target, 4, body, x, 4 * 30), [x[30], x[28], x[1], UNTOUCHED])


def test_load_and_store_move_consecutive_elements_at_any_float(target: Target) -> None:
    lanes, x = target.vector_lanes, floats(2 * target.vector_lanes + 3)

    def body(e: Emitter, out: Val, x: Val) -> None:
        e.store(e.load(x, 4), out, 12)
        e.store(e.load(x, 0, 2), out, 4)

    want = np.concatenate([[UNTOUCHED], x[:2], x[1 : 1 + lanes], [UNTOUCHED]])
    np.testing.assert_array_equal(result(target, lanes + 4, body, x), want)


def test_elements_of_other_types(target: Target) -> None:
    def body(e: Emitter, out: Val, x: Val) -> None:
        put(e, out, 0, e.b.sext(e.load(x, 4, 1, I32), I64))
        e.store(e.load(x, 0, 2, I32), out, 8)
        put(e, out, 2, e.b.fptosi(e.load(x, 8, 1, F64, align=8), I64))

    x = np.array([3, -4, 0, 0], np.int32)
    x[2:] = np.array([-12.0]).view(np.int32)
    got = whole(target, 3, body, x)
    assert got == [-4, 3 - 4 * 2**32, -12]


def test_broadcast_reads_one_number(target: Target) -> None:
    lanes, x = target.vector_lanes, floats(3)

    def body(e: Emitter, out: Val, x: Val) -> None:
        e.store(e.broadcast(x, 8), out)
        e.store(e.broadcast(x, 4, 2), out, 4 * lanes)

    np.testing.assert_array_equal(result(target, lanes + 3, body, x), [x[2]] * lanes + [x[1]] * 2 + [UNTOUCHED])


@pytest.mark.parametrize("lanes", [None, 1, 2])
def test_first_lanes_are_those_below_the_count(target: Target, lanes: int | None) -> None:
    width = target.vector_lanes if lanes is None else lanes
    counts = [-1, 0, 1, width - 1, width, width + 1, 2**40]

    def body(e: Emitter, out: Val) -> None:
        for k, count in enumerate(counts):
            mask = e.first_lanes(e.i64(count), lanes)
            e.store(e.b.select(mask, e.splat(1.0, lanes), e.splat(0.0, lanes)), out, 4 * k * width)

    want = [float(i < count) for count in counts for i in range(width)]
    np.testing.assert_array_equal(result(target, len(want), body), want)


def test_masked_lanes_are_read_and_written_where_the_mask_holds(target: Target) -> None:
    lanes, x = target.vector_lanes, floats(target.vector_lanes)
    for count in (0, 1, lanes - 1, lanes):

        def body(e: Emitter, out: Val, x: Val, count: Val) -> None:
            mask = e.first_lanes(count)
            e.store(e.load_masked(x, mask, e.splat(-3.0)), out)
            e.store_masked(e.load(x), e.at(out, 4 * lanes), mask)

        want = np.full(2 * lanes, UNTOUCHED)
        want[:lanes] = -3.0
        want[:count] = want[lanes : lanes + count] = x[:count]
        np.testing.assert_array_equal(result(target, 2 * lanes, body, x, count), want)


def test_mask_may_have_holes(target: Target) -> None:
    lanes, x = target.vector_lanes, floats(target.vector_lanes)

    def body(e: Emitter, out: Val, x: Val) -> None:
        value = e.load(x)
        mask = e.b.fcmp_ordered(">", value, e.splat(0.0))
        e.store_masked(value, out, mask)
        e.store(e.load_masked(x, mask, e.splat(0.0)), out, 4 * lanes)

    want = np.concatenate([np.where(x > 0, x, UNTOUCHED), np.maximum(x, 0)])
    np.testing.assert_array_equal(result(target, 2 * lanes, body, x), want)


@pytest.mark.parametrize(
    ("locality", "write", "names"),
    [(3, False, {"prefetcht0"}), (2, False, {"prefetcht1"}), (3, True, {"prefetchw", "prefetcht0"})],
)
def test_prefetch_is_one_instruction(target: Target, locality: int, write: bool, names: set[str]) -> None:
    def body(e: Emitter, x: Val) -> None:
        e.prefetch(x, 64, write=write, locality=locality)

    lines = assembly_of(target, [PTR], body)
    (found,) = [line for line in lines if "prefetch" in line]
    assert found.split()[0] in names
    assert "64(%rdi)" in found
    # One that owns the line is used where the target has it.
    assert not write or found.startswith("prefetchw") or "prfchw" not in target.features


def test_prefetch_of_no_memory_does_nothing(target: Target) -> None:
    def body(e: Emitter, out: Val, nowhere: Val) -> None:
        e.prefetch(e.b.inttoptr(nowhere, PTR), write=True)
        e.store(e.splat(1.0, 1), out)

    assert result(target, 1, body, 16) == [1.0]


def test_fence_keeps_loads_apart_and_is_no_instruction(target: Target) -> None:
    def loads(fenced: bool) -> list[str]:
        def body(e: Emitter, out: Val, x: Val) -> None:
            first = e.broadcast(x)
            if fenced:
                e.fence()
            e.store(first, out)
            e.store(e.broadcast(x), out, 256)

        return assembly_of(target, [PTR, PTR], body)

    def nothing(e: Emitter) -> None:
        e.fence()

    reads = re.compile(r"\(%rsi\)")
    assert sum(bool(reads.search(line)) for line in loads(True)) == 2
    assert assembly_of(target, [], nothing) == ["retq"]


# -- arithmetic -------------------------------------------------------------------------------------------------------


def test_intrinsics_work_lane_by_lane_and_are_declared_once(target: Target) -> None:
    lanes = target.vector_lanes
    x = floats(lanes + 1)
    x[0] = -0.0

    def body(e: Emitter, out: Val, x: Val) -> None:
        e.store(e.math("sqrt", e.math("fabs", e.load(x))), out)
        e.store(e.math("sqrt", e.math("fabs", e.load(x, 4 * lanes, 1))), out, 4 * lanes)
        assert e.intrinsic("llvm.fabs.f32", F32, [F32]) is e.intrinsic("llvm.fabs.f32", F32, [F32])

    same_bits(result(target, lanes + 1, body, x), np.sqrt(np.abs(x)))


def test_fma_rounds_once_where_the_target_can(target: Target) -> None:
    # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24: the last term is lost when the product is rounded.
    a = np.full(target.vector_lanes, 1 + 2.0**-12, np.float32)
    d = np.full(target.vector_lanes, -1 - 2.0**-11, np.float32)

    def body(e: Emitter, out: Val, a: Val, d: Val) -> None:
        value = e.load(a)
        e.store(e.fma(value, value, e.load(d)), out)

    got = result(target, target.vector_lanes, body, a, d)
    np.testing.assert_array_equal(got, 2.0**-24 if target.has_fma else 0.0)


def test_fma_is_a_times_c_plus_d(target: Target) -> None:
    x = floats(3 * target.vector_lanes)
    n = target.vector_lanes

    def body(e: Emitter, out: Val, x: Val) -> None:
        a, c, d = (e.load(x, 4 * n * k) for k in range(3))
        e.store(e.fma(a, c, d), out)

    a, c, d = x.astype(np.float64).reshape(3, n)
    np.testing.assert_allclose(result(target, n, body, x), a * c + d, rtol=1e-5, atol=1e-6)


PAIRS = [
    (a, c) for a in (0.0, -0.0, 1.0, -2.0, INF, -INF, NAN) for c in (0.0, -0.0, 1.0, -2.0, INF, -INF, NAN)
]  # fmt: skip


@pytest.mark.parametrize("name", ["maximum", "minimum"])
@pytest.mark.parametrize("lanes", [1, None])
def test_larger_and_smaller_give_the_second_where_they_cannot_say(target: Target, lanes: int | None, name: str) -> None:
    width = target.vector_lanes if lanes is None else 1
    pairs = [*PAIRS, *PAIRS][: -(-len(PAIRS) // width) * width]
    a, c = np.array(pairs, np.float32).T.copy()

    def body(e: Emitter, out: Val, a: Val, c: Val) -> None:
        for at in range(0, 4 * len(pairs), 4 * width):
            e.store(getattr(e, name)(e.load(a, at, lanes), e.load(c, at, lanes)), out, at)

    want = np.where(a > c if name == "maximum" else a < c, a, c)
    same_bits(result(target, len(pairs), body, a, c), want)


@pytest.mark.parametrize(("name", "instruction"), [("maximum", "maxps"), ("minimum", "minps")])
def test_larger_and_smaller_are_one_instruction(target: Target, name: str, instruction: str) -> None:
    def body(e: Emitter, out: Val, a: Val, c: Val) -> None:
        e.store(getattr(e, name)(e.load(a), e.load(c)), out)

    lines = assembly_of(target, [PTR, PTR, PTR], body)
    assert sum(instruction in line for line in lines) == 1
    assert not any("cmp" in line or "blend" in line or "and" in line for line in lines)


# -- index arithmetic -------------------------------------------------------------------------------------------------


def test_mul_add(target: Target) -> None:
    def body(e: Emitter, out: Val, i: Val, base: Val) -> None:
        for k, value in enumerate(
            (e.mul_add(i, 12), e.mul_add(i, 1), e.mul_add(i, 12, 5), e.mul_add(i, 12, base), e.mul_add(i, 1, -9))
        ):
            put(e, out, k, value)

    i, base = 2**40 + 3, -11
    assert whole(target, 5, body, i, base) == [12 * i, i, 12 * i + 5, 12 * i + base, i - 9]


@pytest.mark.parametrize("inner", [1, 2, 7, 64])
@pytest.mark.parametrize("index", [0, 1, 6, 7, 8, 1000003])
def test_split(inner: int, index: int) -> None:
    def body(e: Emitter, out: Val, i: Val) -> None:
        for k, value in enumerate(e.split(i, inner)):
            put(e, out, k, value)

    assert whole(target_or_skip("x86-64-v2"), 2, body, index) == list(divmod(index, inner))


@pytest.mark.parametrize("sizes", [(4,), (2, 3), (5, 1, 4), (3, 2, 1, 7)])
def test_split_many_gives_row_major_coordinates(sizes: tuple[int, ...]) -> None:
    target, total = target_or_skip("x86-64-v2"), math.prod(sizes)

    def body(e: Emitter, out: Val, i: Val) -> None:
        for k, value in enumerate(e.split_many(i, sizes)):
            put(e, out, k, value)

    for index in {0, 1, total // 2, total - 1}:
        want = [int(part) for part in np.unravel_index(index, sizes)]
        assert whole(target, len(sizes), body, index) == want
    # The first coordinate is not bounded.
    assert whole(target, len(sizes), body, total)[0] == sizes[0]


@pytest.mark.parametrize(("size", "tile"), [(12, 4), (13, 4), (5, 4), (4, 4), (9, 1), (15, 8)])
def test_last_tile_is_moved_back_to_end_at_the_last_element(size: int, tile: int) -> None:
    tiles = -(-size // tile)

    def body(e: Emitter, out: Val) -> None:
        for index in range(tiles):
            put(e, out, index, e.clamp_last(e.i64(index), tile, size))

    starts = whole(target_or_skip("x86-64-v2"), tiles, body)
    assert starts == [min(index * tile, size - tile) for index in range(tiles)]
    assert {element for start in starts for element in range(start, start + tile)} == set(range(size))


# -- loops and branches -----------------------------------------------------------------------------------------------

RANGES = [(0, 0, 1), (3, 2, 1), (0, 1, 1), (0, 5, 1), (2, 9, 3), (2, 8, 3), (-4, 3, 2), (1, 2, 100), (0, 33, 16)]


@pytest.mark.parametrize(("start", "stop", "step"), RANGES)
@pytest.mark.parametrize("known", ["both", "start", "stop", "none"])
def test_loop_is_range(start: int, stop: int, step: int, known: str) -> None:
    def body(e: Emitter, out: Val, first: Val, last: Val) -> None:
        low = start if known in ("both", "start") else first
        high = stop if known in ("both", "stop") else last

        def once(i: Val, carried: list[Val]) -> list[Val]:
            count, total, _ = carried
            e.store(i, e.at(out, e.mul_add(count, 8, 24)), align=8)
            return [e.b.add(count, e.i64(1)), e.b.add(total, i), i]

        zero = e.i64(0)
        for k, value in enumerate(e.loop(low, high, step, once, [zero, zero, e.i64(-99)])):
            put(e, out, k, value)

    ran = list(range(start, stop, step))
    got = whole(target_or_skip("x86-64-v2"), 3 + len(ran) + 2, body, start, stop)
    assert got == [len(ran), sum(ran), ran[-1] if ran else -99, *ran, -7, -7]


def test_single_iteration_is_no_loop_and_none_is_nothing() -> None:
    def body(trips: int) -> Callable[..., None]:
        def emit(e: Emitter, out: Val) -> None:
            def once(i: Val, _: list[Val]) -> list[Val]:
                put(e, out, 0, i)
                return []

            assert e.loop(5, 5 + trips, 1, once) == []

        return emit

    target = target_or_skip("x86-64-v2")
    assert assembly_of(target, [PTR], body(0)) == ["retq"]
    assert not any(line.startswith("j") for line in assembly_of(target, [PTR], body(1)))
    assert sum(line.startswith("j") for line in assembly_of(target, [PTR], body(2))) == 1


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_loops_and_branches_nest(rows: int) -> None:
    # The body ends in another block than it began in, which the loop's values must come from.
    def body(e: Emitter, out: Val, stop: Val) -> None:
        def row(i: Val, carried: list[Val]) -> list[Val]:
            def column(j: Val, inner: list[Val]) -> list[Val]:
                with e.when(e.b.icmp_signed(">", j, i)):
                    at = e.at(out, 8)
                    e.store(e.b.add(e.load(at, 0, 1, I64, align=8), e.i64(1)), at, align=8)
                return [e.b.add(inner[0], e.b.mul(i, j))]

            return e.loop(0, i, 1, column, e.loop(0, 3, 1, column, carried))

        e.store(e.i64(0), out, 8, align=8)
        put(e, out, 0, e.loop(0, stop, 1, row, [e.i64(0)])[0])

    pairs = [(i, j) for i in range(rows) for j in (*range(3), *range(i))]
    want = [sum(i * j for i, j in pairs), sum(j > i for i, j in pairs)]
    assert whole(target_or_skip("x86-64-v2"), 2, body, rows) == want


def test_vectors_are_carried(target: Target) -> None:
    lanes, x = target.vector_lanes, floats(5, target.vector_lanes)

    def body(e: Emitter, out: Val, x: Val, rows: Val) -> None:
        def row(i: Val, carried: list[Val]) -> list[Val]:
            value = e.load(e.at(x, e.mul_add(i, 4 * lanes)))
            return [e.b.fadd(carried[0], value), e.maximum(carried[1], value)]

        total, top = e.loop(0, rows, 1, row, [e.splat(0.0), e.splat(-INF)])
        e.store(total, out)
        e.store(top, out, 4 * lanes)

    for rows in (0, 1, 5):
        want = [np.zeros(lanes), np.full(lanes, -INF)]
        if rows:
            want = [np.add.accumulate(x[:rows])[-1], x[:rows].max(axis=0)]
        np.testing.assert_array_equal(result(target, 2 * lanes, body, x, rows), np.concatenate(want))


@pytest.mark.parametrize("value", [-1, 0, 1])
def test_when_runs_its_block_where_the_condition_holds(value: int) -> None:
    def body(e: Emitter, out: Val, value: Val) -> None:
        with e.when(e.b.icmp_signed(">", value, e.i64(0))):
            put(e, out, 0, value)
        put(e, out, 1, e.i64(5))

    assert whole(target_or_skip("x86-64-v2"), 2, body, value) == [value if value > 0 else -7, 5]
