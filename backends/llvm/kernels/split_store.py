"""The code of convolutions in parts that stores its results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqzc.backends.llvm.emit import I64, PTR, Emitter, Val
from sqzc.backends.llvm.epilogue import finish_vector
from sqzc.backends.llvm.family import Args
from sqzc.backends.llvm.kernels.split_code import Block, Rows, SplitCode, Task, Walk
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_split import SplitSchedule
from sqzc.backends.llvm.schedules.tile_unit import ROW_BYTES


class StoreCode(SplitCode):
    """Stores the sums of a block while the products of the next one are made."""

    def __init__(self, e: Emitter, p: ConvProblem, s: SplitSchedule, args: Args) -> None:
        super().__init__(e, p, s, args)
        images = [p.y] if p.r is None else [p.y, p.r]
        self.walks = [Walk.over(g, p, (1, 1)) for g in images]
        self.images, self.planes = images, [4 * g.plane for g in images]
        self.buffers = [args.writes[0], *args.reads[1:]]
        self.total = s.oc_tiles * self.pixels
        self.act = p.act

    def enter(self) -> None:
        """There is nothing to do yet: zeros are stored where the first block's results will be."""
        s = self.s
        for k in range(s.px_tiles * s.oc_tiles):
            self.unit.zero(k)
        self.keep(self.at(self.begin), 0)

    def leave(self) -> None:
        """The last block's sums."""
        finish = self.finishing()

        def row(number: Val, _: list[Val]) -> list[Val]:
            finish(number)
            return []

        self.e.loop(0, self.total, 1, row)

    def keep(self, block: Block, spare: int) -> None:
        """Sums go to memory; what is to be done with them is noted."""
        e, s = self.e, self.s
        sums = e.at(self.args.scratch, self.layout.sums)
        for i in range(spare, s.px_tiles):
            for j in range(s.oc_tiles):
                at = (j * self.pixels + i * s.rows) * ROW_BYTES
                self.unit.store(i * s.oc_tiles + j, e.at(sums, at))
        pending = e.at(self.args.scratch, self.layout.pending)
        e.store(block.oc, pending, 0, align=8)
        if self.spare:
            short = e.b.icmp_signed(">=", block.place, e.i64(self.blocks - 1))
            e.store(e.b.select(short, e.i64(self.spare * s.rows), e.i64(0)), pending, 8, align=8)
        for k in range(len(self.walks)):
            rows = self.results(k, block)
            self.note(rows, block.first)
            e.store(rows.origin, pending, 16 + 8 * k, align=8)

    def results(self, k: int, block: Block) -> Rows:
        """The pixels of a block in the result (0) or the residual, in the group's first channel block."""
        e, g = self.e, self.images[k]
        place = e.mul_add(block.image, 4 * g.image, e.mul_add(block.oc, 4 * g.plane, 4 * g.origin))
        return self.rows(self.walks[k], e.at(self.buffers[k], place), block.first, 2 + k)

    def finishing(self) -> Callable[[Val | int], None]:
        """What finishes and stores one vector of sums of the block before."""
        e, p = self.e, self.p
        pending = e.at(self.args.scratch, self.layout.pending)
        oc, start = (e.load(pending, at, lanes=1, element=I64, align=8) for at in (0, 8))
        bias = e.at(self.args.constants[1], e.mul_add(oc, ROW_BYTES))
        rows = [
            self.rows(walk, e.b.load(e.at(pending, 16 + 8 * k), typ=PTR, align=8), e.i64(0), 2 + k)
            for k, walk in enumerate(self.walks)
        ]
        sums = e.at(self.args.scratch, self.layout.sums)

        def finish(number: Val | int) -> None:
            number = e.i64(number)
            block, pixel = e.split(number, self.pixels)
            if self.spare:
                # In the place of pixels that a short block leaves out, its first one is stored again.
                pixel = e.b.select(e.b.icmp_signed("<", pixel, start), start, pixel)
                number = e.mul_add(block, self.pixels, pixel)
            value = e.b.fadd(
                e.load(e.at(sums, e.mul_add(number, ROW_BYTES))), e.load(e.at(bias, e.mul_add(block, ROW_BYTES)))
            )
            y, *others = (
                e.at(image.origin, e.b.add(e.i64(image.offset(e, pixel)), e.mul_add(block, plane)))
                for image, plane in zip(rows, self.planes, strict=True)
            )
            for other in others:
                value = e.b.fadd(value, e.load(other))
            e.store(finish_vector(e, value, self.act, p.oc, e.b.add(oc, block)), y)

        return finish

    def background(self) -> Callable[[Val | int], list[Task]]:
        """An equal share of the vectors for each chunk; the last ones may be stored twice."""
        e, finish = self.e, self.finishing()
        share = -(-self.total // self.chunks)

        def tasks(chunk: Val | int) -> list[Task]:
            if isinstance(chunk, int):
                return [partial(finish, k) for k in range(chunk * share, min(self.total, (chunk + 1) * share))]
            last = e.i64(self.total - 1)

            def task(k: int) -> None:
                number = e.mul_add(chunk, share, k)
                if share * self.chunks > self.total:
                    number = e.b.select(e.b.icmp_signed("<", number, last), number, last)
                finish(number)

            return [partial(task, k) for k in range(share)]

        return tasks
