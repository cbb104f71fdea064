"""Plans as text: what is printed, that it reads back to the same program, and what is refused with which words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sqzc.diagnostics import ParseError, SqzcError
from sqzc.ir import Layout, TensorType
from sqzc.ir.constant import Constant
from sqzc.ir.ops.activation import Activation
from sqzc.ir.ops.elementwise import Clip, Relu
from sqzc.ir.ops.nn import Conv2d
from sqzc.ir.types import DType, f32
from sqzc.plan import Buffer, Program, Role, Step
from sqzc.plan.equality import first_difference
from sqzc.plan.text import parse_program, print_program

BIG = np.linspace(0, 1, 4 * 3 * 3 * 8, dtype=np.float32).reshape(1, 1, 3, 3, 8, 4)
BLOCKED = TensorType(DType.F32, (1, 4, 5, 5), Layout(4))


def sample() -> Program:
    """One of everything that a plan can say."""
    conv = Conv2d(pads=(1, 1, 1, 1), act=Activation("clip", (0.0, 6.0)))
    bordered = (1, 1, 1, 1)
    p = Program("net.1", "x86-64-v3", meta={"mean": [1.5, -2], "licence": 'a "b"', "none": None})
    p.inputs, p.outputs = ["x"], [("soft max", "v")]
    p.constants = {
        "c.w": Constant("c.w", BIG),
        "c.b": Constant("bias", np.array([1.0, -0.1, np.inf, np.nan], np.float32)),
        "k": Constant("k", np.array([7, -1], np.int64)),
    }
    buffers = [
        Buffer("x", f32(1, 4, 5, 5), Role.INPUT),
        Buffer("k", TensorType(DType.I64, (2,)), Role.CONSTANT),
        Buffer("a", TensorType(DType.F32, (1, 8, 5, 5), Layout(4)), Role.ARENA, bordered, live=(0, 4)),
        Buffer("a 1", BLOCKED, Role.VIEW, bordered, "a"),
        Buffer("a/2", BLOCKED, Role.VIEW, bordered, "a", 4, 784),
        Buffer("y", f32(8, 25), Role.OUTPUT),
        Buffer("v", f32(200), Role.VIEW, parent="y"),
    ]
    p.buffers = {buffer.name: buffer for buffer in buffers}
    p.steps = [
        Step("border.clear", (), (), (), ("a",)),
        Step("copy.image", (), ("x",), (), ("a/2",), sources=("data",)),
        Step(
            "conv2d.direct",
            (conv, Relu()),
            ("a/2",),
            ("c.w", "c.b"),
            ("a 1",),
            {"kh": 3, "mode": "same"},
            {"oc_vecs": 2, "order": "oc", "word": "4x6", "odd name": -1, "empty": ""},
            4096,
            ("conv1", 'the "relu"', "ünïcode"),
            12345,
            640,
        ),
        Step("odd kernel!", (Clip(lo=0.0),), ("a", "k"), (), ("y",)),
        Step("reader", (), ("a", "v"), (), ("a.unused",)),
    ]
    p.buffers["a.unused"] = Buffer("a.unused", f32(), Role.ARENA, offset=1600, live=(4, 5))
    p.arena_bytes, p.bound_bytes = 1664, 1664
    return p


TEXT = r"""plan @net.1 target=x86-64-v3 arena=1664 bound=1664 {
  meta "mean" = [1.5, -2]
  meta "licence" = "a \"b\""
  meta "none" = null
  in %x
  out %v as "soft max"
  const %c.w = @c.w : f32[1,1,3,3,8,4] sha=0a2d3f2f0a6ab0b8
  const %c.b = @bias [1.0, -0.1, inf, nan] : f32[4]
  const %k = [7, -1] : i64[2]
  buf %x : f32[1,4,5,5] input bytes=400
  buf %k : i64[2] constant bytes=16
  buf %a : f32[1,8,5,5]:nchw4c arena at=0 border=[1,1,1,1] bytes=1568 live=0..4
  buf %"a 1" : f32[1,4,5,5]:nchw4c view of=%a border=[1,1,1,1] bytes=784
  buf %a/2 : f32[1,4,5,5]:nchw4c view of=%a channel=4 at=784 border=[1,1,1,1] bytes=784
  buf %y : f32[8,25] output bytes=800
  buf %v : f32[200] view of=%y bytes=800
  buf %a.unused : f32[] arena at=1600 bytes=4 live=4..5
  0: border.clear() -> (%a)
  1: copy.image(%x) -> (%a/2) @"data"
  2: conv2d.direct(%a/2) with(%c.w, %c.b) -> (%"a 1") [conv2d {pads=[1,1,1,1], act=clip(0.0,6.0)}, relu] facts={kh=3, mode=same} sched={oc_vecs=2, order=oc, word="4x6", "odd name"=-1, empty=""} scratch=4096 prepared=640 flops=12345 @"conv1" @"the \"relu\"" @"\u00fcn\u00efcode"
  3: "odd kernel!"(%a, %k) -> (%y) [clip {lo=0.0}]
  4: reader(%a, %v) -> (%a.unused)
}
""".replace("0a2d3f2f0a6ab0b8", Constant("c.w", BIG).sha)  # noqa: E501


def test_sample_prints_as_documented() -> None:
    assert print_program(sample()) == TEXT


def test_sample_reads_back_field_by_field() -> None:
    program = parse_program(TEXT, {"c.w": BIG})
    assert first_difference(program, sample()) is None
    assert program.buffers == sample().buffers
    assert program.steps == sample().steps
    assert print_program(program) == TEXT


def test_weights_are_found_by_key_by_symbol_or_by_a_function() -> None:
    key = Constant("c.w", BIG).key
    for weights in ({key: BIG}, {"c.w": BIG}, lambda symbol, sha: BIG if f"{symbol}#{sha}" == key else None):
        assert parse_program(TEXT, weights).constants["c.w"].data.tobytes() == BIG.tobytes()


def test_defaults_layout_and_comments_are_free() -> None:
    program = parse_program(
        """# a plan
        plan @"" bound=0 arena=0 target=none { // its fields in any order
          buf %y : f32[2] output
          buf %x : f32[2] input
          0: copy (%x)->(%y)
          in %x out %y as "y"
        }"""
    )
    assert program.name == ""
    assert program.steps == [Step("copy", (), ("x",), (), ("y",))]
    assert program.buffers["y"] == Buffer("y", f32(2), Role.OUTPUT)


NAMES = st.text(min_size=1, max_size=12) | st.sampled_from(["nan", "inf", "const", "buf", "1x1", "a->b", "%", "x.1"])
ENTRIES = st.dictionaries(NAMES | st.just(""), st.integers() | st.text(max_size=8), max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), st.data())
def test_any_names_and_fields_read_back(names: list[str], data: st.DataObject) -> None:
    p = Program(data.draw(NAMES), data.draw(NAMES), inputs=names[:1], outputs=[(data.draw(NAMES), names[-1])])
    p.meta = {data.draw(NAMES): data.draw(st.recursive(st.none() | NAMES | st.integers(), st.lists))}
    for i, name in enumerate(names):
        role = Role.INPUT if i == 0 else Role.OUTPUT if i == len(names) - 1 else Role.ARENA
        p.buffers[name] = Buffer(name, f32(4), role)
        p.constants[name] = Constant(data.draw(NAMES), np.array([i], np.float32))
        if role is Role.ARENA:
            p.buffers[name] = replace(p.buffers[name], offset=64 * (i - 1), live=(i - 1, i))
        if i:
            sources = tuple(data.draw(st.lists(NAMES, max_size=2)))
            counts = [data.draw(st.integers(0, 1 << 40)) for _ in range(3)]
            fields = data.draw(ENTRIES), data.draw(ENTRIES), counts[0], sources, counts[1], counts[2]
            p.steps.append(Step(data.draw(NAMES), (Relu(),), (names[i - 1],), (name,), (name,), *fields))
    p.arena_bytes, p.bound_bytes = 64 * (len(names) - 2), 64 * min(2, len(names) - 2)
    text = print_program(p)
    again = parse_program(text)
    assert first_difference(p, again) is None
    assert print_program(again) == text


GOOD = """plan @p target=t arena=64 bound=64 {
  in %x
  out %y as "y"
  const %w = [1.0] : f32[1]
  buf %x : f32[2] input
  buf %a : f32[2] arena at=0 bytes=8 live=0..1
  buf %y : f32[2] output
  0: k(%x) with(%w) -> (%a) [conv2d {stride=2x2}] sched={n=1}
  1: k(%a) -> (%y) [relu]
}
"""

REFUSED = {
    "plan @p": ("graph @p", "unexpected text", "expected: 'plan'"),
    "@p target=t ": ("@p ", "field 'target' is missing", None),
    "arena=64 bound": ("arena=64 arena=64 bound", "field 'arena' stands twice", None),
    "arena=64": ("arena=-64", "a negative number", None),
    "bound=64": ("bonud=64", "unknown field 'bonud'", "hint: did you mean 'bound'?"),
    "in %x": ("input %x", "unexpected text", "expected: meta, in, out, const, buf, a step's number or '}'"),
    'as "y"': ("as y", "a quoted string is missing", "got:      'y'"),
    "const %w = [1.0]": ("const %w = @q", "no data for @q", "expected: the weights file beside the text"),
    "  buf %x": ("  const %w = [1.0] : f32[1]\n  buf %x", "the constant %w is defined twice", None),
    "%y : f32[2] output": ("%a : f32[2] output", "the buffer %a is defined twice", None),
    "f32[2] input": ("f31[2] input", "unknown element type 'f31'", "expected: one of f32, f64"),
    "[2] input": ("[2] inputs", "unknown role 'inputs'", "expected: one of input, output, constant, arena, view"),
    "bytes=8": ("bytes=12", "the size of %a", "expected: bytes=8"),
    "at=0": ("at=0 border=[1,2,3]", "3 numbers", "expected: 4"),
    "at=0 ": ("at=0 border=[1,2,3,4,5] ", "too many numbers", "expected: 4"),
    " at=0 ": (" border=[1,-2,3,4] ", "a negative border", None),
    "live=0..1": ("live=0,1", "unexpected text", "expected: '..'"),
    "live=0": ("live=0.5", "a whole number is missing", "got:      '0.5'"),
    "  0: k": ("  1: k", "steps are numbered in order", "expected: 0"),
    "(%x) with": ("(%x %x) with", "unexpected text", "expected: ','"),
    "-> (%a)": ("(%a)", "unexpected text", "expected: '->'"),
    "conv2d": ("conv3d", "unknown op 'conv3d'", "hint: did you mean 'conv2d'?"),
    "stride=2x2": ("stride=0x2", "conv2d: 'stride' must be at least 1, got 0x2", None),
    "stride=": ("stripe=", "conv2d has no attribute 'stripe'", "hint: did you mean 'stride'?"),
    "2x2}": ("2x2, act=rely}", "there is no activation 'rely'", "hint: did you mean 'relu'?"),
    "{n=1}": ("{n=1, n=2}", "'n' stands twice", None),
    "n=1": ("n=1.5", "a whole number is missing", "got:      '1.5'"),
    "[relu]\n}": ("[relu]", "unexpected text", "got:      end of text"),
    "[relu]\n}\n": ("[relu]\n}\nplan", "text after the end of the plan", None),
}


@pytest.mark.parametrize("old", REFUSED)
def test_what_is_refused_is_pointed_at(old: str) -> None:
    new, message, line = REFUSED[old]
    assert GOOD.count(old) == 1, old
    with pytest.raises(ParseError) as caught:
        parse_program(GOOD.replace(old, new), file="net.plan")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"error[PA01]: {message}"
    assert lines[1].startswith("  --> net.plan, line ")
    assert lines[3].strip() == "^"
    if line is not None:
        assert any(known.startswith(f"  {line}") for known in lines), lines


def test_caret_stands_below_the_word() -> None:
    with pytest.raises(ParseError) as caught:
        parse_program(GOOD.replace("stride=2x2", "stripe=2x2"), file="net.plan")
    assert str(caught.value) == (
        "error[PA01]: conv2d has no attribute 'stripe'\n"
        "  --> net.plan, line 8, column 38\n"
        "        0: k(%x) with(%w) -> (%a) [conv2d {stripe=2x2}] sched={n=1}\n"
        "                                           ^\n"
        "  hint: did you mean 'stride'?"
    )


def test_broken_rules_are_verify_errors_with_the_file() -> None:
    with pytest.raises(SqzcError) as caught:
        parse_program(GOOD.replace("1: k(%a)", "1: k(%y)"), file="net.plan")
    assert caught.value.code == "VE01"


@settings(deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.integers(0, 12), st.text('@%(){}[],:=0x1 \n-.abufin"', max_size=6))
def test_damaged_text_is_a_program_or_an_error_of_the_users(at: int, removed: int, inserted: str) -> None:
    text = TEXT[:at] + inserted + TEXT[at + removed :]
    try:
        program = parse_program(text, {"c.w": BIG})
    except SqzcError:
        return
    assert print_program(parse_program(print_program(program), {"c.w": BIG})) == print_program(program)


def test_programs_of_graphs_read_back(lowered: Callable[..., Program]) -> None:
    program = lowered('graph @g(%x: f32[2]) {\n  %y = relu(%x) : f32[2] @"r"\n  yield %y as "out"\n}')
    assert print_program(program) == (
        "plan @g target=x86-64-v3 arena=0 bound=0 {\n"
        "  in %x\n"
        '  out %y as "out"\n'
        "  buf %x : f32[2] input bytes=8\n"
        "  buf %y : f32[2] output bytes=8\n"
        '  0: relu(%x) -> (%y) [relu] facts={operands=1} sched={tile=4, order=oc} scratch=100 flops=2 @"r"\n'
        "}\n"
    )
