"""From programs to modules: shared functions, symbols, constants, counters, and the same text every time."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from differential.compiling import Compiled
from llvmlite import ir

import sqzc
from sqzc.backends.llvm import codegen, objects
from sqzc.backends.llvm.codegen import constant_pool, generate, generate_kernels, step_symbol
from sqzc.backends.llvm.library import Library
from sqzc.backends.llvm.probes import COUNT_INTO
from sqzc.backends.reference import evaluate
from sqzc.ir.constant import Constant
from sqzc.ir.graph import Graph
from sqzc.ir.parser import parse_graph
from sqzc.plan.lower import lower
from sqzc.plan.program import Program, Step
from sqzc.target import TARGETS

TARGET = TARGETS["x86-64-v2"]
LIBRARY = Library(TARGET)


def chain(*convolutions: str, channels: int = 8) -> Graph:
    """Convolutions of 3 x 3 one after the other, each with weights and bias of its own."""
    rng = np.random.default_rng(0)
    lines, weights = [], {}
    image = f"f32[1,{channels},6,7]"
    for number in range(1, len(convolutions) + 1):
        weights[f"w{number}"] = rng.standard_normal((channels, channels, 3, 3), np.float32)
        weights[f"b{number}"] = rng.standard_normal(channels, np.float32)
        lines.append(f"const %w{number} = @w{number} : f32[{channels},{channels},3,3]")
        lines.append(f"const %b{number} = @b{number} : f32[{channels}]")
    lines.append(f"%c0 = relayout(%x) : {image}:nchw4c")
    for number, attributes in enumerate(convolutions, 1):
        given = f"%c{number} = conv2d(%c{number - 1}, %w{number}, %b{number}) {attributes}"
        lines.append(f'{given} : {image}:nchw4c @"layer{number}/conv"')
    lines += [f"%y = relayout(%c{len(convolutions)}) : {image}", 'yield %y as "y"']
    return parse_graph(f"graph @g(%x: {image}) {{\n" + "\n".join(lines) + "\n}", weights)


def program_of(graph: Graph) -> Program:
    return lower(graph, LIBRARY)


SAME = "{pads=[1,1,1,1]}"
RELU = "{pads=[1,1,1,1], act=relu}"


def convolutions(program: Program) -> dict[str, list[str]]:
    """The symbols that the convolutions of a program run, with the last source name of each step."""
    _, symbols = generate_kernels(program, LIBRARY.families, TARGET)
    found: dict[str, list[str]] = {}
    for step, symbol in zip(program.steps, symbols, strict=True):
        if step.kernel.startswith("conv2d."):
            found.setdefault(symbol, []).append(step.sources[-1])
    return found


# -- shared code ------------------------------------------------------------------------------------------------------


def test_equal_layers_run_one_function_on_their_own_weights() -> None:
    # The last layer writes an image without a border; those between write and read equal ones.
    graph = chain(SAME, SAME, SAME, SAME)
    program = program_of(graph)
    found = convolutions(program)
    assert sorted(map(len, found.values())) == [1, 3]
    assert max(found.values(), key=len) == ["layer1/conv", "layer2/conv", "layer3/conv"]
    compiled = Compiled(graph, TARGET)
    x = np.random.default_rng(1).standard_normal((1, 8, 6, 7), np.float32)
    want = evaluate(graph, {"x": x}, dtype="float64")["y"]
    np.testing.assert_allclose(compiled({"x": x})["y"], want, rtol=0, atol=3e-5 * np.abs(want).max())


def test_a_shared_function_names_all_its_layers() -> None:
    for symbol, layers in convolutions(program_of(chain(SAME, SAME, SAME, RELU))).items():
        for layer in layers:
            assert layer.replace("/", "_") in symbol


@pytest.mark.parametrize(
    "other", [RELU, "{pads=[2,1,0,1]}", "{pads=[2,2,2,2], dilation=2x2}"], ids=["act", "pads", "dilation"]
)
def test_another_op_has_another_function(other: str) -> None:
    found = convolutions(program_of(chain(SAME, other, SAME)))
    assert ["layer2/conv"] in found.values()


def test_another_border_around_the_same_image_has_another_function() -> None:
    program = program_of(chain(SAME, SAME, SAME))
    found = convolutions(program)
    (wide,) = [name for name in program.buffers if name == "c1"]
    assert sorted(map(len, found.values())) == [1, 2]
    program.buffers[wide] = replace(program.buffers[wide], border=(2, 1, 1, 1))
    assert sorted(map(len, convolutions(program).values())) == [1, 1, 1]


def test_another_schedule_has_another_function() -> None:
    program = program_of(chain(SAME, SAME, SAME))
    (first, second) = [i for i, step in enumerate(program.steps) if step.ops and step.writes[0] in ("c1", "c2")]
    assert program.steps[first].schedule == program.steps[second].schedule
    changed = {k: 1 if k == "oc_vecs" else v for k, v in program.steps[second].schedule.items()}
    assert changed != program.steps[second].schedule
    program.steps[second] = replace(program.steps[second], schedule=changed)
    assert ["layer2/conv"] in convolutions(program).values()


def test_families_that_do_not_promise_it_share_nothing() -> None:
    graph = parse_graph(
        """
        graph @g(%x: f32[4,6]) {
          %a = softmax(%x) {axes=[1]} : f32[4,6]
          %b = softmax(%a) {axes=[1]} : f32[4,6]
          yield %b as "y"
        }"""
    )
    program = program_of(graph)
    assert not getattr(LIBRARY.families["softmax.rows"], "shares_code", False)
    _, symbols = generate_kernels(program, LIBRARY.families, TARGET)
    assert len(set(symbols)) == len(program.steps) == 2


# -- functions and symbols --------------------------------------------------------------------------------------------


def step(kernel: str = "conv2d.direct", sources: tuple[str, ...] = (), writes: tuple[str, ...] = ("out",)) -> Step:
    return Step(kernel, (), (), (), writes, sources=sources)


def test_symbol_says_number_kernel_and_layer() -> None:
    assert step_symbol(7, step(sources=("fire2/squeeze",))) == "k007_conv2d_direct_fire2_squeeze"
    assert step_symbol(7, step(sources=("a", "conv1", "relu_conv1"))) == "k007_conv2d_direct_conv1_relu_conv1"
    # What has no name in the source has one in the program.
    assert step_symbol(12, step(writes=("%r.2",))) == "k012_conv2d_direct_r_2"
    others = [step(sources=("x", "fire3/conv")), step(sources=("fire4/conv",))]
    assert step_symbol(0, step(sources=("c",)), others) == "k000_conv2d_direct_c_fire3_conv_fire4_conv"


def test_symbols_are_identifiers_of_bounded_length() -> None:
    for name in ("ä/ö ü", "a" * 500, '"\\x00', "..", "名"):
        symbol = step_symbol(3, step(sources=(name,)))
        assert symbol.isascii()
        assert symbol.isidentifier()
        assert symbol.startswith("k003_")
        assert len(symbol) <= 120


def test_kernels_are_local_and_their_pointers_do_not_meet() -> None:
    program = program_of(chain(SAME, RELU))
    module = generate(program, LIBRARY.families, TARGET)
    kernels = [function for function in module.functions if function.name.startswith("k0")]
    assert {f.name[:4] for f in kernels} <= {f"k{i:03d}" for i in range(len(program.steps))}
    assert len(kernels) >= 4
    for function in kernels:
        assert function.linkage == "internal"
        assert {"noinline", "nounwind"} <= set(function.attributes)
        *pointers, begin, end = function.args
        assert all("noalias" in argument.attributes for argument in pointers)
        assert begin.type == end.type == ir.IntType(64)
    assert module.globals[codegen.NET].linkage == "internal"
    assert module.triple == TARGET.triple


def test_kernels_can_be_had_one_by_one() -> None:
    program = program_of(chain(SAME, SAME, SAME))
    module, symbols = generate_kernels(program, LIBRARY.families, TARGET)
    assert len(symbols) == len(program.steps)
    assert all(module.globals[name].linkage == "external" for name in symbols)
    # They are the very functions of the library.
    own = {f.name: f.blocks for f in generate(program, LIBRARY.families, TARGET).functions}
    for name in symbols:
        assert [str(block) for block in module.globals[name].blocks] == [str(block) for block in own[name]]


@pytest.mark.parametrize("wanted", [False, True])
def test_prepare_is_there_when_a_step_has_something_to_prepare(wanted: bool) -> None:
    program = program_of(chain(SAME))
    program.steps = [replace(s, prepared=s.prepared if wanted else 0) for s in program.steps]
    assert (program.prepared_bytes > 0) == wanted
    module = generate(program, LIBRARY.families, TARGET)
    assert (codegen.PREPARE in module.globals) == wanted


# -- constants --------------------------------------------------------------------------------------------------------


def with_constants(**arrays: np.ndarray) -> Program:
    program = Program("p", TARGET.name)
    program.constants = {name: Constant(name, array) for name, array in arrays.items()}
    return program


def test_constants_lie_in_order_at_cache_lines() -> None:
    arrays = {
        "a": np.arange(5, dtype=np.float32),
        "b": np.arange(64, dtype=np.uint8),
        "c": np.arange(3, dtype=np.int64),
        "d": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    }
    pool = constant_pool(with_constants(**arrays))
    assert pool.offsets == {"a": 0, "b": 64, "c": 128, "d": 192}
    assert pool.bytes == 256
    held = dict(pool.parts)
    for name, array in arrays.items():
        assert held[pool.offsets[name]] == array.tobytes("C")


def test_equal_constants_are_stored_once() -> None:
    x = np.arange(20, dtype=np.float32)
    pool = constant_pool(with_constants(a=x, b=x + 1, c=x.copy(), d=x.astype(np.float64), e=x.reshape(4, 5)))
    assert pool.offsets["a"] == pool.offsets["c"]
    assert len({pool.offsets[name] for name in "abd"}) == 3
    assert len(pool.parts) == len(set(pool.offsets.values()))
    held = dict(pool.parts)
    assert held[pool.offsets["e"]] == held[pool.offsets["a"]] == x.tobytes()
    assert held[pool.offsets["d"]] == x.astype(np.float64).tobytes()


def test_constants_without_elements_have_a_place() -> None:
    pool = constant_pool(with_constants(a=np.zeros((0, 3), np.float32), b=np.ones(1, np.float32)))
    assert pool.offsets == {"a": 0, "b": 64}
    assert constant_pool(with_constants()).bytes == 0


def test_offsets_are_those_of_the_data_object() -> None:
    pool = constant_pool(program_of(chain(SAME, RELU)))
    offsets, _ = objects.data_offsets([len(data) for _, data in pool.parts])
    assert offsets == [at for at, _ in pool.parts]


# -- the same every time ----------------------------------------------------------------------------------------------


def test_equal_programs_give_equal_text() -> None:
    texts = {str(generate(program_of(chain(SAME, RELU, SAME)), LIBRARY.families, TARGET)) for _ in range(2)}
    assert len(texts) == 1
    assert texts != {str(generate(program_of(chain(SAME, RELU, RELU)), LIBRARY.families, TARGET))}


def test_hash_seed_does_not_change_the_text() -> None:
    script = textwrap.dedent(
        """
        import hashlib, sys
        sys.path[:0] = sys.argv[1:]
        from small_nets import write_small_net
        import tempfile, pathlib, sqzc
        from sqzc.backends.llvm.codegen import constant_pool, generate
        from sqzc.backends.llvm.library import Library
        from sqzc.plan.lower import lower
        from sqzc.target import TARGETS
        digest = hashlib.sha256()
        with tempfile.TemporaryDirectory() as folder:
            net = sqzc.lift(write_small_net(pathlib.Path(folder)))
        for name in ("x86-64-v2", "x86-64-v4"):
            library = Library(TARGETS[name])
            program = lower(sqzc.optimize(net, "O3", target=name), library)
            digest.update(str(generate(program, library.families, library.target)).encode())
            for at, data in constant_pool(program).parts:
                digest.update(data)
        print(digest.hexdigest())
        """
    )
    paths = [str(Path(__file__).parents[3]), str(Path(sqzc.__file__).parent.parent)]
    answers = set()
    for seed in ("0", "1", "4242"):
        run = subprocess.run(
            [sys.executable, "-c", script, *paths],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        answers.add(run.stdout)
    assert len(answers) == 1


# -- counters ---------------------------------------------------------------------------------------------------------


class Counted:
    """A program with counters between its steps, in this process."""

    def __init__(self, program: Program) -> None:
        self.program = program
        module = generate(program, LIBRARY.families, TARGET, probes=True)
        module.globals[codegen.NET].linkage = "external"
        barrier = module.globals[codegen.BARRIER]
        ir.IRBuilder(barrier.append_basic_block("entry")).ret_void()
        pool = constant_pool(program)
        data = bytearray(pool.bytes)
        for at, part in pool.parts:
            data[at : at + len(part)] = part
        self.jit = llvm.create_lljit_compiler(objects.target_machine(TARGET), use_jit_link=True)
        builder = llvm.JITLibraryBuilder().add_current_process()
        builder.add_object_img(objects.compile_module(str(module), TARGET))
        builder.add_object_img(objects.data_object(codegen.CONSTANTS, [bytes(data)], TARGET))
        for name in (codegen.NET, COUNT_INTO):
            builder.export_symbol(name)
        self.tracker = builder.link(self.jit, "counted")
        pointers = [ctypes.c_void_p] * 4
        self.net = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p)(
            self.tracker[codegen.NET]
        )
        self.count_into = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.tracker[COUNT_INTO])

    def close(self) -> None:
        del self.tracker

    def run(self, x: np.ndarray, sync: np.ndarray | None) -> np.ndarray:
        memory = np.zeros(self.program.arena_bytes + self.program.scratch_bytes + 192, np.uint8)
        start = memory.ctypes.data + -memory.ctypes.data % 64
        y = np.zeros_like(x)
        inputs, outputs = (ctypes.c_void_p * 1)(x.ctypes.data), (ctypes.c_void_p * 1)(y.ctypes.data)
        self.net(start, inputs, outputs, None, 0, 1, None if sync is None else sync.ctypes.data)
        return y


def test_counters_stand_before_between_and_after_the_steps() -> None:
    graph = chain(SAME, RELU)
    program = program_of(graph)
    counted = Counted(program)
    x = np.random.default_rng(1).standard_normal((1, 8, 6, 7), np.float32)
    want = Compiled(graph, TARGET)({"x": x})["y"]
    given, told = (np.zeros(len(program.steps) + 3, np.uint64) for _ in range(2))
    try:
        # Into the array given with the run...
        np.testing.assert_array_equal(counted.run(x, given[1:]), want)
        check_counters(given)
        # ...unless the code was told of another one, until it is told to forget it.
        kept = given.copy()
        counted.count_into(told[1:].ctypes.data)
        np.testing.assert_array_equal(counted.run(x, None), want)
        check_counters(told)
        np.testing.assert_array_equal(given, kept)
        counted.count_into(None)
        kept = told.copy()
        counted.run(x, given[1:])
        check_counters(given)
        np.testing.assert_array_equal(told, kept)
    finally:
        counted.close()


def check_counters(array: np.ndarray) -> None:
    """One counter for each step and one more, each later than the one before; nothing around them is touched."""
    assert array[0] == array[-1] == 0
    assert (array[1:-1] > 0).all()
    assert (np.diff(array[1:-1].astype(np.int64)) > 0).all()
    # 6 x 7 pixels take far less than a second.
    assert int(array[-2]) - int(array[1]) < 10**10


def test_code_without_counters_has_none_of_them() -> None:
    program = program_of(chain(SAME))
    assert "readcyclecounter" not in str(generate(program, LIBRARY.families, TARGET))
    text = str(generate(program, LIBRARY.families, TARGET, probes=True))
    assert text.count('call i64 @"llvm.readcyclecounter"') == len(program.steps) + 1
