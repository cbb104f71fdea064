"""No accumulator leaves its register in the loops where convolutions spend their time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from differential.case import build
from differential.cases_conv import RELU, SAME, conv
from differential.forcing import always_strassen, force, prefer

from sqzc.backends.llvm import codegen, objects
from sqzc.backends.llvm.family import Family, Schedule
from sqzc.backends.llvm.kernels.conv_direct import ConvDirect
from sqzc.backends.llvm.kernels.conv_pool import ConvGlobalAverage, ConvMaxPool
from sqzc.backends.llvm.kernels.conv_strassen import ConvStrassen, ConvStrassenAverage
from sqzc.backends.llvm.kernels.conv_winograd import ConvWinograd
from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.schedules.conv_direct import DirectSchedule, registers
from sqzc.backends.llvm.schedules.conv_winograd import WinogradSchedule
from sqzc.ir.ops.nn import AvgPool2d, MaxPool2d, Rounding
from sqzc.plan.lower import lower
from sqzc.target import TARGETS, Target

WIDE = ("x86-64-v3", "x86-64-v4")
POOL = MaxPool2d(kernel=(3, 3), stride=(2, 2), rounding=Rounding.CEIL)


@dataclass(frozen=True)
class Loop:
    """The instructions of a loop that has no loop inside."""

    function: str
    body: tuple[str, ...]
    frame_pointer: bool

    @property
    def products(self) -> int:
        """Fused multiply-adds of vectors."""
        return sum(bool(re.match(r"vf(n?)m(add|sub)\d+ps\s.*%[yz]mm", line)) for line in self.body)

    @property
    def spills(self) -> list[str]:
        """Instructions that read or write a vector on the stack."""
        frame = r"\(%r[sb]p" if self.frame_pointer else r"\(%rsp"
        return [line for line in self.body if re.search(r"%[xyz]mm", line) and re.search(frame, line)]


def innermost_loops(text: str) -> Iterator[Loop]:
    """The loops of an assembler text: from a label to a later jump back to it, with no other such pair inside."""
    for function, lines in functions(text):
        labels: dict[str, int] = {}
        spans: list[tuple[int, int]] = []
        body: list[str] = []
        for line in lines:
            if line.endswith(":"):
                labels[line[:-1]] = len(body)
                continue
            body.append(line)
            jump = re.match(r"j\w+\s+(\S+)$", line)
            if jump and jump[1] in labels:
                spans.append((labels[jump[1]], len(body)))
        frame_pointer = any(re.match(r"movq\s+%rsp, %rbp", line) for line in body)
        for start, stop in spans:
            if not any(start <= a and b <= stop and (a, b) != (start, stop) for a, b in spans):
                yield Loop(function, tuple(body[start:stop]), frame_pointer)


def functions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each function's name and lines: labels with their colon, and instructions."""
    name, lines = "", list[str]()
    for raw in text.splitlines():
        line = raw.split("#")[0].strip()
        label = re.fullmatch(r'"?([^\s"]+)"?:', line)
        if label and not label[1].startswith(".L"):
            yield name, lines
            name, lines = label[1], []
        elif label or (line and not line.startswith(".")):
            lines.append(line)
    yield name, lines


def test_loops_are_found_and_their_stack_accesses_counted() -> None:
    text = """
    f:
        movq %rsp, %rax
    .LBB0_1:                # outer
        vmovups 64(%rsp), %zmm0
    .LBB0_2:
        vfmadd231ps (%rdi){1to16}, %zmm1, %zmm2
        vfmadd213ps -64(%rsp), %zmm1, %zmm3     # 64-byte Folded Reload
        vmovups %zmm4, 8(%rsp)
        vmovups %zmm4, 8(%rbp)
        movq 8(%rsp), %rcx
        jl .LBB0_2
        jl .LBB0_1
        jmp .LBB0_3
    .LBB0_3:
        retq
    """
    (loop,) = innermost_loops(text)
    assert loop.function == "f"
    assert loop.products == 2
    assert [line.split()[0] for line in loop.spills] == ["vfmadd213ps", "vmovups"]
    framed = text.replace("movq %rsp, %rax", "movq %rsp, %rbp")
    assert [len(loop.spills) for loop in innermost_loops(framed)] == [3]


def product_loops(item: Any, target: Target, products: int) -> list[Loop]:
    """The loops of a case's code with as many products as its schedule makes in one turn."""
    library = Library(target)
    program = lower(build(item, target), library)
    (step,) = [step for step in program.steps if step.kernel.startswith("conv2d.")]
    assert step.kernel == item.kernel
    module, _ = codegen.generate_kernels(program, library.families, target)
    loops = list(innermost_loops(objects.assembly(str(module), target)))
    found = [loop for loop in loops if loop.products == products and "conv2d" in loop.function]
    assert found, sorted({loop.products for loop in loops})
    return found


def schedule_of(item: Any, target: Target) -> dict[str, Any]:
    """The schedule that a case's convolution gets."""
    program = lower(build(item, target), Library(target))
    (step,) = [step for step in program.steps if step.kernel.startswith("conv2d.")]
    return dict(step.schedule)


def check(item: Any, target: Target, products: int, allowed: int = 0) -> None:
    for loop in product_loops(item, target, products):
        spills = loop.spills
        assert len(spills) <= allowed, f"{item.kernel} [{target.name}] {schedule_of(item, target)}: {spills}"


@pytest.fixture(params=WIDE)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


# -- schedules that are chosen ----------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[Family, Any]] = {
    "squeeze": (ConvDirect(), conv("conv2d.direct", (1, 128, 28, 28), (32, 128, 1, 1), layout="blocked", act=RELU)),
    "expand": (ConvDirect(), conv("conv2d.direct", (1, 32, 28, 28), (128, 32, 1, 1), layout="blocked", act=RELU)),
    "late expand": (ConvDirect(), conv("conv2d.direct", (1, 64, 14, 14), (256, 64, 1, 1), layout="blocked", act=RELU)),
    "last": (
        ConvGlobalAverage(),
        conv(
            "conv2d.direct+avg_pool2d", (1, 512, 14, 14), (1000, 512, 1, 1), layout="blocked", act=RELU,
            then=(AvgPool2d(kernel=(14, 14)),),
        ),
    ),
    "pool": (
        ConvMaxPool(),
        conv("conv2d.direct+max_pool2d", (1, 64, 28, 28), (64, 64, 1, 1), layout="blocked", act=RELU, then=(POOL,)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_chosen_tiles_of_single_pixels(name: str, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    family, item = LAYERS[name]
    prefer(monkeypatch, family)
    s = schedule_of(item, target)
    check(item, target, target.vector_lanes * s["oc_vecs"] * s["rows"] * s["cols"])


def test_first_layer_with_its_pool(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = (1, 3, 63, 63), (64, 3, 3, 3)
    item = conv("conv2d.direct+max_pool2d", x, w, layout="out", stride=(2, 2), act=RELU, then=(POOL,))
    prefer(monkeypatch, ConvMaxPool())
    s = schedule_of(item, target)
    # All nine taps of a channel are in one turn.
    check(item, target, 9 * s["oc_vecs"] * s["cols"])


@pytest.mark.parametrize("order", ["tile", "position"])
@pytest.mark.parametrize("size", [14, 28])
def test_winograd_products(size: int, order: str, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    item = conv("conv2d.winograd", (1, 64, size, size), (64, 64, 3, 3), layout="blocked", pads=SAME, act=RELU)
    prefer(monkeypatch, ConvWinograd(always=True))
    s = WinogradSchedule(**{**schedule_of(item, target), "order": order})
    force(monkeypatch, s)
    check(item, target, target.vector_lanes * s.oc_vecs * s.tiles)


@pytest.mark.parametrize("average", [False, True], ids=["stored", "averaged"])
def test_strassen_product(average: bool, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch, ConvStrassenAverage(), ConvStrassen())
    always_strassen(monkeypatch)
    then = (AvgPool2d(kernel=(14, 12)),) if average else ()
    name = "conv2d.strassen+avg_pool2d" if average else "conv2d.strassen"
    item = conv(name, (1, 256, 14, 12), (256, 256, 1, 1), layout="blocked", act=RELU, then=then)
    s = schedule_of(item, target)
    loops = product_loops(item, target, target.vector_lanes * s["oc_vecs"] * s["cols"])
    # Two functions make all products: one starts from zero, the other adds to sums that are there.
    assert sorted(loop.function.rpartition(".")[2] for loop in loops) == ["product", "product_to"]
    assert not any(loop.spills for loop in loops)


@pytest.mark.parametrize(("size", "k", "stride"), [(14, 3, 1), (28, 3, 2), (28, 5, 1), (7, 7, 1), (30, 9, 2)])
def test_depthwise_filter_rows(size: int, k: int, stride: int, target: Target) -> None:
    options: dict[str, Any] = {"stride": (stride, stride), "pads": (k // 2,) * 4, "act": RELU, "group": 64}
    item = conv("conv2d.depthwise", (1, 64, size, size), (64, 1, k, k), layout="blocked", **options)
    s = schedule_of(item, target)
    check(item, target, k * s["rows"] * s["cols"])


# -- every tile that fits ---------------------------------------------------------------------------------------------


def largest(target: Target, oc_vecs: int) -> int:
    """The most pixels that a tile can have."""
    return max(n for n in range(1, 40) if registers(oc_vecs, n, target) <= target.vector_registers)


def spilled(target: Target, tile: tuple[int, int], k: int, patch: pytest.MonkeyPatch) -> tuple[int, int]:
    """(accesses to the stack, products) in one turn of a direct convolution's inner loop."""
    oc_vecs, cols = tile
    lanes = target.vector_lanes
    schedule: Schedule = DirectSchedule(oc_vecs, 1, cols, 0, "oc", int(k == 1))
    prefer(patch, ConvDirect())
    force(patch, schedule)
    x, w = (1, 2 * lanes, 2 * k, cols + k - 1), (oc_vecs * lanes, 2 * lanes, k, k)
    products = lanes * oc_vecs * cols
    loops = product_loops(conv("conv2d.direct", x, w, layout="blocked"), target, products)
    return max(len(loop.spills) for loop in loops), products


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("oc_vecs", [1, 2, 3, 4])
def test_largest_tiles_on_32_registers(oc_vecs: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    target = TARGETS["x86-64-v4"]
    assert spilled(target, (oc_vecs, largest(target, oc_vecs)), k, monkeypatch)[0] == 0


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("oc_vecs", [2, 3, 4])
def test_largest_tiles_on_16_registers(oc_vecs: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    target = TARGETS["x86-64-v3"]
    spills, products = spilled(target, (oc_vecs, largest(target, oc_vecs)), k, monkeypatch)
    # With loops over the taps around it, register allocation moves two accumulators out and back in a turn of 96
    # products (LLVM 22): less than a smaller tile would cost.
    assert spills <= (0 if k == 1 else 0.05 * products)
