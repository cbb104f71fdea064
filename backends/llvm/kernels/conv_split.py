"""1 x 1 convolutions in float32 on units that multiply tiles of bfloat16 (AMX).

Each number is split into three parts of eight bits, x = x0 + x1 + x2, which is exact, and of the nine products of parts
the six are made that matter: what is left out is below the rounding of a float32 (G. Henry, P. T. P. Tang and A.
Heinecke, Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations, 2019). The units
add in float32. Six of their products take less time than one of the vector units.

As with Strassen's form, an infinity becomes NaN on the way, because its parts are infinity minus itself; numbers below
2^-110 lose their last parts, because the units take denormal ones for zero.

A tile of data is pixels x 32 channels: the channels of two blocks beside each other in pairs, so that packing takes no
shuffle. A tile of sums is pixels x one block of output channels, as images have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
from llvmlite import ir

from sqzc.backends.llvm.emit import I8, I32, I64, PTR, VOID, Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.family import Args, given
from sqzc.backends.llvm.kernels.conv_direct import ConvDirect
from sqzc.backends.llvm.kernels.conv_pool import ConvGlobalAverage, sum_of_pixels
from sqzc.backends.llvm.packing import pack_bias
from sqzc.backends.llvm.problems import ConvProblem, PoolProblem, conv_problem, fused_pool_problem
from sqzc.backends.llvm.schedules.conv_direct import choose as choose_direct
from sqzc.backends.llvm.schedules.conv_direct import predict as predict_direct
from sqzc.backends.llvm.schedules.conv_split import (
    PARTS,
    ROW_BYTES,
    TERMS,
    TILE_ROWS,
    WEIGHT_TILE,
    SplitSchedule,
    applies,
    choose,
    chunks_of,
    data_tile,
    far_weights,
    groups_of,
    predict,
    prepared_bytes,
    scratch_layout,
    segments_of,
    tiles_of,
)
from sqzc.backends.llvm.selecting import expected_problem
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target

I16 = ir.IntType(16)


def pays(p: ConvProblem, target: Target, *, whole: bool = False) -> bool:
    """Whether it is predicted to be faster than vectors; with `whole` for all pixels of an image at once."""
    s = choose(p, target, whole=whole)
    return s is not None and predict(p, s, target) < predict_direct(p, choose_direct(p, target), target)


@dataclass(frozen=True)
class ConvSplit:
    """y = act(w x + b + r) for every pixel, stored. `always` takes all that it can compute."""

    always: bool = False

    name: ClassVar[str] = "conv2d.split"
    shares_code: ClassVar[bool] = True
    whole: ClassVar[bool] = False

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not target.tile_products:
            return None
        selection = ConvDirect().select(graph, node, target)
        if selection is None or not self.takes(expected_problem(node, target), target):
            return None
        return replace(selection, kernel=self.name)

    def takes(self, p: ConvProblem, target: Target) -> bool:
        """Whether it can run a problem, and should."""
        return applies(p, target) and (self.always or pays(p, target, whole=self.whole))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        p = conv_problem(program, step)
        s = given(step, SplitSchedule) or choose(p, target, whole=self.whole)
        assert s is not None
        packed = {
            "w": pack_pairs(arrays["w"], p),
            "b": pack_bias(arrays.get("b"), p.oc, p.y_block),
            "tiles": tile_shapes(s),
        }
        return Finished(s.to_fields(), packed, scratch_layout(p, s).total, prepared_bytes(p))

    def items(self, program: Program, step: Step) -> int:
        p, s = conv_problem(program, step), SplitSchedule.from_fields(step.schedule)
        return p.n * segments_of(p, s) * groups_of(p, s)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        _Store(e, conv_problem(program, step), SplitSchedule.from_fields(step.schedule), args).emit()

    def prepare(self, e: Emitter, program: Program, step: Step, constants: tuple[Val, ...], prepared: Val) -> None:
        """The parts of all weights."""
        p = conv_problem(program, step)
        split_weights(e, e.i64(p.oc_blocks * chunks_of(p)), constants[0], prepared)


@dataclass(frozen=True)
class ConvSplitAverage(ConvSplit):
    """A 1 x 1 convolution of which only the average over all pixels is wanted."""

    name: ClassVar[str] = "conv2d.split+avg_pool2d"
    shares_code: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not target.tile_products:
            return None
        selection = ConvGlobalAverage().select(graph, node, target)
        if selection is None or not self.takes(expected_problem(node, target), target):
            return None
        return replace(selection, kernel=self.name)

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        p = conv_problem(program, step)
        pool = fused_pool_problem(program, step, p)
        _Average(e, p, SplitSchedule.from_fields(step.schedule), args, pool).emit()


def pack_pairs(w: Array, p: ConvProblem) -> Array:
    """[oc block][chunk][ic lane][which of two blocks][oc lane] from [oc, ic, 1, 1], zeros past the channels."""
    lanes, chunks = p.lanes, chunks_of(p)
    padded = np.zeros((p.oc_blocks * p.y_block, chunks * 2 * lanes), np.float32)
    padded[: w.shape[0], : w.shape[1]] = np.asarray(w, np.float32)[:, :, 0, 0]
    blocks = padded.reshape(p.oc_blocks, p.y_block, chunks, 2, lanes)
    return np.ascontiguousarray(blocks.transpose(0, 2, 4, 3, 1))


class TileShape(Protocol):
    """What schedules say of their sums in tile registers."""

    @property
    def px_tiles(self) -> int:
        """Tiles of pixels."""
        ...

    @property
    def oc_tiles(self) -> int:
        """Channel blocks."""
        ...

    @property
    def rows(self) -> int:
        """Rows of a tile of pixels."""
        ...


def tile_shapes(s: TileShape) -> Array:
    """The operand of LDTILECFG: palette 1, bytes of a row and rows of each tile register."""
    shapes = np.zeros(64, np.uint8)
    shapes[0] = 1
    for register in range(s.px_tiles * s.oc_tiles + s.px_tiles + s.oc_tiles):
        weights = register >= s.px_tiles * s.oc_tiles + s.px_tiles
        shapes[16 + 2 * register] = ROW_BYTES
        shapes[48 + register] = TILE_ROWS if weights else s.rows
    return shapes


# -- parts ------------------------------------------------------------------------------------------------------------


def parts_of(e: Emitter, x: Val, *, nearest: bool) -> list[Val]:
    """The bits of three float32 whose lower halves are zero and whose sum is x.

    Each is the nearest number of eight bits to what is left, or else the next one towards zero, which takes two
    instructions less; then all have the sign of x.
    """
    integers = ir.VectorType(I32, e.lanes)
    found = []
    for _ in range(PARTS - 1):
        bits = e.b.bitcast(x, integers)
        if nearest:
            bits = e.b.add(bits, _integers(e, 0x8000))
        bits = e.b.and_(bits, _integers(e, -0x10000))
        found.append(bits)
        x = e.b.fsub(x, e.b.bitcast(bits, x.type))
    return [*found, e.b.bitcast(x, integers)]


def _integers(e: Emitter, value: int) -> Val:
    return ir.Constant(ir.VectorType(I32, e.lanes), [ir.Constant(I32, value)] * e.lanes)


def store_pairs(e: Emitter, first: Val, second: Val, target: Val, step: int, *, nearest: bool) -> None:
    """The parts of two vectors, in pairs of lanes, `step` bytes from one part to the next."""
    halves = ir.VectorType(I16, 2 * e.lanes)
    # The upper half of each lane of both.
    picks = [place for lane in range(e.lanes) for place in (2 * lane + 1, 2 * (e.lanes + lane) + 1)]
    both = zip(parts_of(e, first, nearest=nearest), parts_of(e, second, nearest=nearest), strict=True)
    for k, pair in enumerate(both):
        low, high = (e.b.bitcast(bits, halves) for bits in pair)
        e.store(e.shuffle(low, high, picks), target, k * step)


def split_weights(e: Emitter, tiles: Val, weights: Val, target: Val) -> None:
    """The parts of so many [channel block][chunk] tiles of weights."""

    def row(index: Val, _: list[Val]) -> list[Val]:
        tile, lane = e.split(index, TILE_ROWS)
        source = e.at(weights, e.mul_add(index, 2 * ROW_BYTES))
        out = e.at(target, e.mul_add(tile, PARTS * WEIGHT_TILE, e.mul_add(lane, ROW_BYTES)))
        store_pairs(e, e.load(source), e.load(source, ROW_BYTES), out, WEIGHT_TILE, nearest=True)
        return []

    e.loop(0, e.b.mul(tiles, e.i64(TILE_ROWS)), 1, row)


# -- tile registers ---------------------------------------------------------------------------------------------------


class TileUnit:
    """Instructions of AMX; registers are numbers."""

    def __init__(self, e: Emitter) -> None:
        self.e = e

    def configure(self, shapes: Val) -> None:
        """Sets the shapes of all registers."""
        self._call("ldtilecfg", [PTR], [shapes])

    def release(self) -> None:
        """Back to no registers, so that the system need not save them."""
        self._call("tilerelease", [], [])

    def zero(self, register: int) -> None:
        """All elements zero."""
        self._call("tilezero", [I8], [self._number(register)])

    def load(self, register: int, source: Val, stride: int = ROW_BYTES) -> None:
        """The rows from memory."""
        self._call("tileloadd64", [I8, PTR, I64], [self._number(register), source, self.e.i64(stride)])

    def store(self, register: int, target: Val, stride: int = ROW_BYTES) -> None:
        """The rows to memory."""
        self._call("tilestored64", [I8, PTR, I64], [self._number(register), target, self.e.i64(stride)])

    def multiply(self, sums: int, data: int, weights: int) -> None:
        """sums += data x weights."""
        self._call("tdpbf16ps", [I8] * 3, [self._number(number) for number in (sums, data, weights)])

    def _number(self, register: int) -> Val:
        return ir.Constant(I8, register)

    def _call(self, name: str, types: Sequence[Val], values: Sequence[Val]) -> None:
        self.e.b.call(self.e.intrinsic(f"llvm.x86.{name}", VOID, types), values)


class _Split:
    """What storing and averaging share: the walk over segments and groups, and the products."""

    def __init__(self, e: Emitter, p: ConvProblem, s: SplitSchedule, args: Args) -> None:
        self.e, self.p, self.s, self.args = e, p, s, args
        self.unit = TileUnit(e)
        self.layout = scratch_layout(p, s)
        self.chunks, self.tiles = chunks_of(p), tiles_of(p, s.rows)
        self.group_bytes = self.chunks * PARTS * WEIGHT_TILE
        self.tile_bytes = self.chunks * PARTS * data_tile(s)
        self.plane = s.span * data_tile(s)

    def emit(self) -> None:
        self.unit.configure(self.args.constants[2])
        self.e.loop(self.args.begin, self.args.end, 1, self.item)
        self.unit.release()

    def item(self, index: Val, _: list[Val]) -> list[Val]:
        """One group of channel blocks over one segment."""
        e, p, s, args = self.e, self.p, self.s, self.args
        image, segment, group = e.split_many(index, (p.n, segments_of(p, s), groups_of(p, s)))
        first = e.mul_add(segment, s.span)
        count = e.b.sub(e.i64(self.tiles), first)
        count = e.b.select(e.b.icmp_signed("<", count, e.i64(s.span)), count, e.i64(s.span))
        fresh = e.b.or_(e.b.icmp_signed("==", group, e.i64(0)), e.b.icmp_signed("==", index, args.begin))
        with e.when(fresh):
            x = e.at(args.reads[0], e.mul_add(image, 4 * p.x.image, 4 * p.x.origin))
            self.split_data(x, first, count)
        oc = e.clamp_last(group, s.oc_tiles, p.oc_blocks)
        weights = self.weights(oc)
        start: int = 0
        while start < self.chunks:
            self.products(weights, count, start, min(start + s.chunks, self.chunks))
            start += s.chunks
        self.take(image, e.mul_add(first, s.rows), oc, count)
        return []

    def take(self, image: Val, first: Val, oc: Val, count: Val) -> None:
        """Sums of `count` tiles are done, whose first pixel is `first`."""
        raise NotImplementedError

    def split_data(self, x: Val, first: Val, count: Val) -> None:
        """The parts of `count` tiles of pixels from tile `first`; pixels past the last one repeat it."""
        e, p, s = self.e, self.p, self.s
        blocks = p.ic_padded // p.lanes

        def chunk(c: int | Val, pair: bool) -> None:
            source = e.at(x, e.mul_add(e.i64(c), 8 * p.x.plane))
            target = e.at(self.args.scratch, e.mul_add(e.i64(c), PARTS * data_tile(s)))

            def tile(t: Val, _: list[Val]) -> list[Val]:
                out = e.at(target, e.mul_add(t, self.tile_bytes))
                start = e.mul_add(e.b.add(first, t), s.rows)

                def row(r: Val, _: list[Val]) -> list[Val]:
                    number, last = e.b.add(start, r), e.i64(p.oh * p.ow - 1)
                    number = e.b.select(e.b.icmp_signed("<", number, last), number, last)
                    h, w = e.split(number, p.ow)
                    at = e.at(source, e.mul_add(h, 4 * p.x.row, e.mul_add(w, 4 * p.x.pixel)))
                    second = e.load(at, 4 * p.x.plane) if pair else e.splat(0.0)
                    to = e.at(out, e.mul_add(r, ROW_BYTES))
                    # Weights are split to the nearest, so that what is left out of products has either sign.
                    store_pairs(e, e.load(at), second, to, data_tile(s), nearest=False)
                    return []

                e.loop(0, s.rows, 1, row)
                return []

            e.loop(0, count, 1, tile)

        def pairs(c: Val, _: list[Val]) -> list[Val]:
            chunk(c, True)
            return []

        e.loop(0, blocks // 2, 1, pairs)
        if blocks % 2:
            chunk(blocks // 2, False)

    def weights(self, oc: Val) -> Val:
        """The parts of the weights of a group: prepared ones, else made now in scratch."""
        e, args = self.e, self.args
        made = e.at(args.scratch, self.layout.weights)
        missing = e.b.icmp_unsigned("==", args.prepared, ir.Constant(PTR, None))
        with e.when(missing):
            raw = e.at(args.constants[0], e.mul_add(oc, self.chunks * 2 * WEIGHT_TILE))
            split_weights(e, e.i64(self.s.oc_tiles * self.chunks), raw, made)
        return e.b.select(missing, made, e.at(args.prepared, e.mul_add(oc, self.group_bytes)))

    def products(self, weights: Val, count: Val, start: int, stop: int) -> None:
        """Adds the chunks start .. stop - 1 to the sums of `count` tiles."""
        e, s = self.e, self.s
        whole = e.b.mul(e.b.udiv(count, e.i64(s.px_tiles)), e.i64(s.px_tiles))

        def block(px_tiles: int) -> Callable[[Val, list[Val]], list[Val]]:
            def at(t: Val, _: list[Val]) -> list[Val]:
                self.block(weights, t, px_tiles, start, stop)
                return []

            return at

        e.loop(e.i64(0), whole, s.px_tiles, block(s.px_tiles))
        if s.px_tiles > 1:
            e.loop(whole, count, 1, block(1))

    def block(self, weights: Val, t: Val, px_tiles: int, start: int, stop: int) -> None:
        """`px_tiles` tiles of pixels from tile t of the segment x all channel blocks of the group."""
        e, s, unit = self.e, self.s, self.unit
        ahead, lines = self.following(weights, t, px_tiles, start, stop)
        places = [(i, j) for i in range(px_tiles) for j in range(s.oc_tiles)]
        # Registers: sums, data, weights.
        data, filters = s.px_tiles * s.oc_tiles, s.px_tiles * s.oc_tiles + s.px_tiles
        sums = e.at(self.args.scratch, e.mul_add(t, data_tile(s), self.layout.sums))
        for i, j in places:
            if start == 0:
                unit.zero(i * s.oc_tiles + j)
            else:
                unit.load(i * s.oc_tiles + j, e.at(sums, j * self.plane + i * data_tile(s)))
        pixels = e.at(self.args.scratch, e.mul_add(t, self.tile_bytes))

        def chunk(c: Val, _: list[Val]) -> list[Val]:
            x = e.at(pixels, e.mul_add(c, PARTS * data_tile(s)))
            w = e.at(weights, e.mul_add(c, PARTS * WEIGHT_TILE))
            near = e.at(ahead, e.mul_add(e.b.sub(c, e.i64(start)), lines * 64))
            for line in range(lines):
                for j in range(s.oc_tiles):
                    e.prefetch(near, j * self.group_bytes + line * 64, locality=2)
            held = (-1, -1)
            for term in TERMS:
                if term[0] != held[0]:
                    for i in range(px_tiles):
                        unit.load(data + i, e.at(x, i * self.tile_bytes + term[0] * data_tile(s)))
                if term[1] != held[1]:
                    for j in range(s.oc_tiles):
                        unit.load(filters + j, e.at(w, j * self.group_bytes + term[1] * WEIGHT_TILE))
                held = term
                for i, j in places:
                    unit.multiply(i * s.oc_tiles + j, data + i, filters + j)
            return []

        e.loop(start, stop, 1, chunk)
        for i, j in places:
            unit.store(i * s.oc_tiles + j, e.at(sums, j * self.plane + i * data_tile(s)))

    def following(self, weights: Val, t: Val, px_tiles: int, start: int, stop: int) -> tuple[Val, int]:
        """This block's share of the weights that come next, and lines of it for each chunk and channel block."""
        e, s = self.e, self.s
        if not far_weights(self.p, e.target):
            return weights, 0
        after = stop * PARTS * WEIGHT_TILE if stop < self.chunks else s.oc_tiles * self.group_bytes
        size = min(s.chunks, self.chunks - stop if stop < self.chunks else self.chunks) * PARTS * WEIGHT_TILE
        shares = -(-s.span // s.px_tiles) * (stop - start)
        lines = -(-size // 64 // shares)
        share = e.mul_add(e.b.udiv(t, e.i64(s.px_tiles)), (stop - start) * lines * 64, after)
        return e.at(weights, share), lines

    def sums_of(self, k: int) -> Val:
        """The sums of channel block k of the group, pixel after pixel."""
        return self.e.at(self.args.scratch, self.layout.sums + k * self.plane)


class _Store(_Split):
    def take(self, image: Val, first: Val, oc: Val, count: Val) -> None:
        e, p, s, args = self.e, self.p, self.s, self.args
        vector = 4 * e.lanes
        left = e.b.sub(e.i64(p.oh * p.ow), first)
        pixels = e.b.mul(count, e.i64(s.rows))
        pixels = e.b.select(e.b.icmp_signed("<", left, pixels), left, pixels)
        y = e.at(args.writes[0], e.mul_add(image, 4 * p.y.image, 4 * p.y.origin))
        r = None if p.r is None else e.at(args.reads[1], e.mul_add(image, 4 * p.r.image, 4 * p.r.origin))
        for k in range(s.oc_tiles):
            number = e.b.add(oc, e.i64(k))
            bias = e.load(e.at(args.constants[1], e.mul_add(number, vector)))
            sums, plane = self.sums_of(k), e.at(y, e.mul_add(number, 4 * p.y.plane))
            extra = None if r is None or p.r is None else e.at(r, e.mul_add(number, 4 * p.r.plane))

            def pixel(
                j: Val,
                _: list[Val],
                number: Val = number,
                bias: Val = bias,
                sums: Val = sums,
                plane: Val = plane,
                extra: Val | None = extra,
            ) -> list[Val]:
                h, w = e.split(e.b.add(first, j), p.ow)
                value = e.b.fadd(e.load(e.at(sums, e.mul_add(j, vector))), bias)
                if extra is not None and p.r is not None:
                    more = e.at(extra, e.mul_add(h, 4 * p.r.row, e.mul_add(w, 4 * p.r.pixel)))
                    value = e.b.fadd(value, e.load(more))
                value = finish_vector(e, value, p.act, p.oc, number)
                e.store(value, e.at(plane, e.mul_add(h, 4 * p.y.row, e.mul_add(w, 4 * p.y.pixel))))
                return []

            e.loop(0, pixels, 1, pixel)


class _Average(_Split):
    def __init__(self, e: Emitter, p: ConvProblem, s: SplitSchedule, args: Args, pool: PoolProblem) -> None:
        super().__init__(e, p, s, args)
        self.pool = pool

    def take(self, image: Val, first: Val, oc: Val, count: Val) -> None:
        e, p, pool, vector = self.e, self.p, self.pool, 4 * self.e.lanes
        y = e.at(self.args.writes[0], e.mul_add(image, 4 * pool.y.image, 4 * pool.y.origin))
        pixels = p.oh * p.ow
        for k in range(self.s.oc_tiles):
            number = e.b.add(oc, e.i64(k))
            bias = e.load(e.at(self.args.constants[1], e.mul_add(number, vector)))

            def finish(value: Val, number: Val = number, bias: Val = bias) -> Val:
                return finish_vector(e, e.b.fadd(value, bias), p.act, p.oc, number)

            mean = e.b.fmul(sum_of_pixels(e, self.sums_of(k), pixels, finish), e.splat(1.0 / pixels))
            e.store(mean, e.at(y, e.mul_add(number, 4 * pool.y.plane)))
