"""Moving images between layouts and into bordered buffers, and clearing borders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.family import Args
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops.shape import Relayout
from sqzc.plan.library import Finished, Selection
from sqzc.plan.program import Program, Step
from sqzc.target import Target


class CopyImage:
    """y = x for float32 images of any two layouts and borders."""

    name: ClassVar[str] = "copy.image"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        if not isinstance(node.op, Relayout) or node.output.type.dtype.item_bytes != 4:
            return None
        return Selection(self.name, (node,), (node.inputs[0],), (node.output,))

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished()

    def items(self, program: Program, step: Step) -> int:
        y = program.buffers[step.writes[0]].type
        n, c, h, _ = y.shape
        return n * -(-c // (y.layout.block or 1)) * h

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        source, target = program.buffers[step.reads[0]], program.buffers[step.writes[0]]
        x, y = program.geometry(source.name), program.geometry(target.name)
        n, c, h, w = target.type.shape
        x_block, block = source.type.layout.block or 1, target.type.layout.block or 1

        def item(index: Val, _: list[Val]) -> list[Val]:
            image, group, i = e.split_many(index, (n, -(-c // block), h))
            out = e.mul_add(image, 4 * y.image, e.mul_add(group, 4 * y.plane, e.mul_add(i, 4 * y.row, 4 * y.origin)))
            to = e.at(args.writes[0], out)
            line = e.at(args.reads[0], e.mul_add(image, 4 * x.image, e.mul_add(i, 4 * x.row, 4 * x.origin)))

            def lane(k: Val, _: list[Val]) -> list[Val]:
                channel = e.mul_add(group, block, k)
                outer, inner = e.split(channel, x_block)
                inside = e.b.icmp_signed("<", channel, e.i64(c))
                # Lanes past the channels read channel 0 and store zero.
                start = e.b.select(inside, e.mul_add(outer, x.plane, inner), e.i64(0))
                row = e.at(line, e.mul_add(start, 4))

                def pixel(j: Val, _: list[Val]) -> list[Val]:
                    value = e.load(e.at(row, e.mul_add(j, 4 * x.pixel)), 0, 1)
                    kept = e.b.select(inside, value, e.splat(0.0, 1))
                    e.store(kept, e.at(to, e.mul_add(j, 4 * y.pixel, e.mul_add(k, 4))))
                    return []

                if x.pixel == 1 and y.pixel == 1 and w >= e.lanes:
                    _copy_row(e, row, e.at(to, e.mul_add(k, 4)), w)
                else:
                    e.loop(0, w, 1, pixel)
                return []

            if x_block == block and block == e.lanes:
                _copy_row(e, e.at(line, e.mul_add(group, 4 * x.plane)), to, w * block)
            else:
                e.loop(0, block, 1, lane)
            return []

        e.loop(args.begin, args.end, 1, item)


def _copy_row(e: Emitter, source: Val, to: Val, count: int) -> None:
    """`count` consecutive floats, at least one vector of them."""

    def chunk(index: Val, _: list[Val]) -> list[Val]:
        at = e.b.mul(e.clamp_last(index, e.lanes, count), e.i64(4))
        e.store(e.load(e.at(source, at)), e.at(to, at))
        return []

    e.loop(0, -(-count // e.lanes), 1, chunk)


class ClearBorder:
    """Zeros into the border of an image; the inside is left alone."""

    name: ClassVar[str] = "border.clear"
    shares_code: ClassVar[bool] = True

    def select(self, graph: Graph, node: Node, target: Target) -> Selection | None:
        return None

    def finish(self, program: Program, step: Step, arrays: Mapping[str, Array], target: Target) -> Finished:
        return Finished()

    def items(self, program: Program, step: Step) -> int:
        y = program.buffers[step.writes[0]].type
        return y.shape[0] * -(-y.shape[1] // (y.layout.block or 1))

    def emit(self, e: Emitter, program: Program, step: Step, args: Args) -> None:
        buffer = program.buffers[step.writes[0]]
        y = program.geometry(buffer.name)
        top, left, bottom, right = buffer.border
        _, _, h, w = buffer.type.shape
        width = y.row

        def item(plane: Val, _: list[Val]) -> list[Val]:
            # Images follow each other without a gap, so planes are numbered through.
            base = e.at(args.writes[0], e.mul_add(plane, 4 * y.plane))
            _zero(e, base, top * width + left * y.pixel)

            def row(i: Val, _: list[Val]) -> list[Val]:
                at = e.at(base, e.mul_add(i, 4 * width, 4 * (top * width + (left + w) * y.pixel)))
                _zero(e, at, (right + left) * y.pixel)
                return []

            e.loop(0, h - 1, 1, row)
            end = (top + h) * width - right * y.pixel
            _zero(e, e.at(base, 4 * end), bottom * width + right * y.pixel)
            return []

        e.loop(args.begin, args.end, 1, item)


def _zero(e: Emitter, pointer: Val, count: int) -> None:
    if count >= e.lanes:
        zero = e.splat(0.0)

        def chunk(index: Val, _: list[Val]) -> list[Val]:
            e.store(zero, e.at(pointer, e.b.mul(e.clamp_last(index, e.lanes, count), e.i64(4))))
            return []

        e.loop(0, -(-count // e.lanes), 1, chunk)
        return
    for index in range(count):
        e.store(e.splat(0.0, 1), pointer, 4 * index)
