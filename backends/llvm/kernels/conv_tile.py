"""The register tile of direct convolutions: a block of channels x pixels summed over channels and taps."""

from __future__ import annotations

from sqzc.backends.llvm.emit import Emitter, Val
from sqzc.backends.llvm.problems import ConvProblem
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule

# Taps of a row-major input unrolled in one loop body; more only grows the code.
MAX_UNROLLED_TAPS = 16


class ConvTile:
    """Emits y[k][pixel] = bias[k] + sum of w[ic, u, v, k] * x[ic, i * sh + u, j * sw + v].

    `weights` walks [ic block][kh][kw][ic lane][oc in tile] once from start to end.
    """

    def __init__(self, e: Emitter, p: ConvProblem, s: DirectSchedule) -> None:
        self.e, self.p, self.s = e, p, s
        self.vector = 4 * e.lanes
        self.bytes = p.ic_padded * p.kh * p.kw * s.oc_vecs * self.vector

    def source(self, images: Val, image: Val) -> Val:
        """Where the window of output pixel (0, 0) starts, in the border if there is padding."""
        p = self.p
        top, left, _, _ = p.pads
        origin = p.x.origin - top * p.x.row - left * p.x.pixel
        return self.e.at(images, self.e.mul_add(image, 4 * p.x.image, 4 * origin))

    def window(self, x: Val, top: Val, left: Val) -> Val:
        """`x` moved to the window of output pixel (top, left)."""
        e, p = self.e, self.p
        return e.at(x, e.b.add(e.mul_add(top, 4 * p.sh * p.x.row), e.mul_add(left, 4 * p.sw * p.x.pixel)))

    def sums(self, x: Val, weights: Val, bias: Val, rows: int, cols: int) -> list[list[Val]]:
        """The accumulators, [channel block][pixel], pixels in row-major order."""
        e, s, count = self.e, self.s, rows * cols
        starts = [e.load(bias, k * self.vector) for k in range(s.oc_vecs)]
        flat = self.accumulate(x, weights, [starts[k] for k in range(s.oc_vecs) for _ in range(count)], rows, cols)
        return [flat[k * count : (k + 1) * count] for k in range(s.oc_vecs)]

    def accumulate(
        self,
        x: Val,
        weights: Val,
        sums: list[Val],
        rows: int,
        cols: int,
        plane: Val | None = None,
        far: tuple[Val, int] | None = None,
    ) -> list[Val]:
        """`sums` (channel block by channel block) plus the products of the tile.

        `plane` is the distance between channel blocks in bytes where it is not that of the problem. `far` is memory to
        bring into the second-level cache meanwhile: where it starts, and cache lines for each channel block.
        """
        e, p, s = self.e, self.p, self.s
        pixels = [(i, j) for i in range(rows) for j in range(cols)]
        unroll_taps = p.lanes == 1 and p.kh * p.kw <= MAX_UNROLLED_TAPS
        step = p.lanes * s.oc_vecs * self.vector

        def channel(index: Val, carried: list[Val]) -> list[Val]:
            w, *inner = carried
            start = e.at(x, e.mul_add(index, 4 * p.x.plane) if plane is None else e.b.mul(index, plane))
            lines = None if far is None else (e.at(far[0], e.mul_add(index, 64 * far[1])), far[1])
            ahead = e.at(start, e.i64(4 * p.x.plane) if plane is None else plane) if s.ahead else None
            if unroll_taps:
                for u in range(p.kh):
                    for v in range(p.kw):
                        shift = 4 * (u * p.dh * p.x.row + v * p.dw * p.x.pixel)
                        inner = self._multiply(start, shift, w, (u * p.kw + v) * step, inner, pixels, ahead, lines)
                return [e.at(w, p.kh * p.kw * step), *inner]

            def row(u: Val, state: list[Val]) -> list[Val]:
                line = e.at(start, e.mul_add(u, 4 * p.dh * p.x.row))

                def column(v: Val, state: list[Val]) -> list[Val]:
                    at = e.at(line, e.mul_add(v, 4 * p.dw * p.x.pixel))
                    return [e.at(state[0], step), *self._multiply(at, 0, state[0], 0, state[1:], pixels, ahead, lines)]

                return e.loop(0, p.kw, 1, column, state)

            return e.loop(0, p.kh, 1, row, [w, *inner])

        return e.loop(0, p.ic_padded // p.lanes, 1, channel, [weights, *sums])[1:]

    def _multiply(
        self,
        x: Val,
        shift: int,
        w: Val,
        w_shift: int,
        sums: list[Val],
        pixels: list[tuple[int, int]],
        ahead: Val | None,
        far: tuple[Val, int] | None,
    ) -> list[Val]:
        """One tap: every input lane times its row of weights, into all accumulators."""
        e, p, s = self.e, self.p, self.s
        sums = list(sums)
        beyond, far_lines = far or (None, 0)
        offsets = [4 * (i * p.sh * p.x.row + j * p.sw * p.x.pixel) for i, j in pixels]
        # Neighbouring windows share pixels: without a barrier the code generator would load each once, keep it for the
        # later tap, and spill accumulators to make room.
        e.fence()
        for lane in range(p.lanes):
            if ahead is not None:
                e.fence()
                # The same pixels of the next channel block, a few lines at a time: a burst would hold up the sums.
                for offset in offsets[lane :: p.lanes]:
                    e.prefetch(ahead, offset)
            base = w_shift + lane * s.oc_vecs * self.vector
            for line in range(lane, far_lines, p.lanes):
                e.prefetch(beyond, 64 * line, locality=2)
            rows = [e.load(w, base + k * self.vector, align=self.vector) for k in range(s.oc_vecs)]
            for index, offset in enumerate(offsets):
                pixel = e.broadcast(x, shift + offset + 4 * lane)
                for k in range(s.oc_vecs):
                    at = k * len(pixels) + index
                    sums[at] = e.fma(rows[k], pixel, sums[at])
        return sums
