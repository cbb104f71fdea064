"""Every rule of a plan, broken once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sqzc.diagnostics import VerifyError
from sqzc.ir import Layout, TensorType
from sqzc.ir.constant import Constant
from sqzc.ir.types import f32
from sqzc.plan import Program
from sqzc.plan.text import parse_program
from sqzc.plan.verifier import MAX_NESTING, verify_program

GOOD = """plan @p target=t arena=3584 bound=3584 {
  in %x
  out %y as "prob"
  const %w = [1.0, 2.0] : f32[2]
  const %k = [3.0] : f32[1]
  buf %k : f32[1] constant
  buf %x : f32[2,4,4,4] input
  buf %cat : f32[2,16,4,4]:nchw8c arena at=0 border=[0,0,1,0] live=0..3
  buf %a : f32[2,8,4,4]:nchw8c view of=%cat border=[0,0,1,0]
  buf %b : f32[2,8,4,4]:nchw8c view of=%cat channel=8 at=640 border=[0,0,1,0]
  buf %t : f32[2,8,4,4]:nchw8c arena at=2560 live=3..4
  buf %u : f32[512] arena at=0 live=4..5
  buf %u.head : f32[256] view of=%u
  buf %y : f32[1,512,1,1] output
  buf %y.flat : f32[512] view of=%y
  0: border.clear() -> (%cat)
  1: blocks(%x) with(%w) -> (%a)
  2: blocks(%x, %k) with(%w) -> (%b)
  3: whole(%cat) -> (%t) scratch=64 flops=10
  4: flat(%t) -> (%u)
  5: last(%u.head, %u) -> (%y.flat)
}
"""


def test_good_program_passes() -> None:
    verify_program(parse_program(GOOD))


BROKEN = {
    "no such input": ("in %x", "in %q", "there is no buffer %q", "inputs"),
    "input that is none": ("in %x", "in %u", "%u is no input buffer", "inputs"),
    "input left out": ("  in %x\n", "", "not a row-major input of the program", "%x"),
    "input twice": ("in %x", "in %x in %x", "the input 'x' stands twice", "inputs"),
    "blocked input": ("%x : f32[2,4,4,4]", "%x : f32[2,4,4,4]:nchw8c", "not a row-major input of the program", "%x"),
    "input with border": (
        "%x : f32[2,4,4,4] input",
        "%x : f32[2,4,4,4] input border=[1,0,0,0]",
        "input memory has no border",
        "%x",
    ),
    "output twice": ('as "prob"', 'as "prob" out %y.flat as "prob"', "the output 'prob' stands twice", "outputs"),
    "output memory twice": (
        'as "prob"',
        'as "prob" out %y.flat as "q"',
        "the output buffer 'y' stands twice",
        "output buffers",
    ),
    "output that is none": ("out %y", "out %u", "'prob' is %u", "outputs"),
    "output left out": ('  out %y as "prob"\n', "", "belongs to no output of the program", "%y"),
    "output unwritten": ("  5: last(%u.head, %u) -> (%y.flat)\n", "", "no step writes all of 'prob', %y", "outputs"),
    "constant without data": ("const %k =", "const %kk =", "the constant's data", "%k"),
    "constant of another type": ("%k : f32[1] constant", "%k : f32[2] constant", "the constant's data", "%k"),
    "parent unknown": ("of=%u", "of=%v", "its parent %v does not stand before it", "%u.head"),
    "parent of no view": ("input\n", "input of=%k\n", "input memory is no part of another buffer", "%x"),
    "border without an image": (
        "%u : f32[512] arena",
        "%u : f32[512] arena border=[0,0,0,1]",
        "border [0, 0, 0, 1] on f32[512]",
        "%u",
    ),
    "view past the end": ("f32[256] view", "f32[513] view", "leaves its parent %u", "%u.head"),
    "view shifted past the end": ("view of=%u\n", "view of=%u at=1028\n", "leaves its parent %u", "%u.head"),
    "channel of another shape": (
        "view of=%u\n",
        "view of=%u channel=1\n",
        "a channel of a parent of another shape",
        "%u.head",
    ),
    "another shape of a bordered image": (
        "%b : f32[2,8,4,4]:nchw8c view of=%cat channel=8 at=640 border=[0,0,1,0]",
        "%b : f32[2,8,16,1]:nchw8c view of=%cat at=640",
        "a border does not survive another shape",
        "%b",
    ),
    "slice of too many channels": (
        "%b : f32[2,8,4,4]",
        "%b : f32[2,16,4,4]",
        "leaves its parent %cat",
        "%b",
    ),
    "slice within a block": ("channel=8", "channel=4", "channels 4..12 are no whole blocks of 8", "%b"),
    "slice of a part block": (
        "%a : f32[2,8,4,4]",
        "%a : f32[2,4,4,4]",
        "channels 0..4 are no whole blocks of 8",
        "%a",
    ),
    "slice with another border": (
        "at=640 border=[0,0,1,0]",
        "at=640",
        "another border than %cat",
        "%b",
    ),
    "slice at another place": ("at=640", "at=512", "the offset of channel 8", "%b"),
    "reads the unknown": ("flat(%t)", "flat(%tt)", "there is no buffer %tt", "step 4, flat"),
    "writes the unknown": ("-> (%u)", "-> (%uu)", "there is no buffer %uu", "step 4, flat"),
    "constant unknown": ("(%x) with(%w)", "(%x) with(%ww)", "there is no constant %ww", "step 1, blocks"),
    "constant in place of a read": ("flat(%t)", "flat(%w)", "there is no buffer %w", "step 4, flat"),
    "writes nothing": ("-> (%y.flat)", "-> ()", "writes nothing", "step 5, last"),
    "writes an input": ("-> (%u)", "-> (%x)", "writes %x, which is input memory", "step 4, flat"),
    "writes a constant": ("-> (%u)", "-> (%k)", "writes %k, which is constant memory", "step 4, flat"),
    "reads before anything is written": ("blocks(%x) ", "blocks(%t) ", "reads %t before all of it is written", "1"),
    "reads a concat of which a slice is missing": (
        "with(%w) -> (%b)",
        "with(%w) -> (%a)",
        "reads %cat before all of it is written",
        "step 3, whole",
    ),
    "reads more than was written": (
        "4: flat(%t) -> (%u)",
        "4: flat(%t) -> (%u.head)",
        "reads %u before all of it is written",
        "step 5, last",
    ),
    "reads a border nobody cleared": (
        "0: border.clear() -> (%cat)",
        "0: zeros() -> (%cat)",
        "reads %cat before its border is cleared",
        "step 3, whole",
    ),
    "writes what it reads": (
        "4: flat(%t) -> (%u)",
        "4: flat(%t) -> (%t)",
        "writes %t, which shares memory with its operand %t",
        "step 4, flat",
    ),
    "writes the same twice": (
        "-> (%u)",
        "-> (%u, %u.head)",
        "writes %u.head, which shares memory with its operand %u",
        "step 4, flat",
    ),
    "born late": ("live=3..4", "live=4..4", "step 3 uses %t outside its life", "%t"),
    "dead early": ("live=0..3", "live=0..2", "step 3 uses %cat outside its life", "%cat"),
    "life backwards": ("live=0..3", "live=3..0", "step 0 uses %cat outside its life", "%cat"),
    "life past the end": ("live=4..5", "live=4..7", "no range of steps", "%u"),
    "unused memory": (
        "  buf %y :",
        "  buf %lost : f32[1] arena at=3520 live=0..0\n  buf %y :",
        "memory that no step uses",
        "%lost",
    ),
    "unaligned": ("at=2560 ", "at=2576 ", "the offset is no multiple of 64", "%t"),
    "past the arena": ("at=2560 ", "at=2624 ", "leaves the arena", "%t"),
    "overlapping": ("at=2560 ", "at=2496 ", "shares memory with %cat, which lives at the same time", "%t"),
    "overlapping what came later": (
        "%u : f32[512] arena at=0",
        "%u : f32[512] arena at=1024",
        "shares memory with %t, which lives at the same time",
        "%u",
    ),
    "a bound that is not the bound": ("bound=3584", "bound=3520", "the lower bound of the arena", "plan @p"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_rule(case: str) -> None:
    old, new, message, place = BROKEN[case]
    assert GOOD.count(old) == 1, f"{old!r} stands {GOOD.count(old)} times"
    with pytest.raises(VerifyError) as caught:
        parse_program(GOOD.replace(old, new), file="p.plan")
    assert caught.value.message.startswith(message)
    assert str(caught.value.location).startswith("plan @p")
    assert place in str(caught.value.location)


def test_message_says_expected_and_got() -> None:
    with pytest.raises(VerifyError) as caught:
        parse_program(GOOD.replace("at=2560 ", "at=2496 "))
    assert str(caught.value) == (
        "error[VE01]: shares memory with %cat, which lives at the same time\n"
        "  --> plan @p, %t\n"
        "  got:      0..2560 in steps 0..3 and 2496..3520 in steps 3..4"
    )
    with pytest.raises(VerifyError, match="did you mean 'cat'"):
        parse_program(GOOD.replace("whole(%cat)", "whole(%caat)"))


def test_a_clear_writes_no_more_than_the_border() -> None:
    lines = [line for line in GOOD.splitlines() if "blocks" not in line]
    text = "\n".join(lines).replace("3: whole", "1: whole").replace("4: flat", "2: flat").replace("5: last", "3: last")
    text = text.replace("0..3", "0..1").replace("3..4", "1..2").replace("4..5", "2..3")
    with pytest.raises(VerifyError, match="reads %cat before all of it is written"):
        parse_program(text)


def good() -> Program:
    return parse_program(GOOD)


# What text cannot say.


def test_arena_below_its_bound() -> None:
    text = """plan @p target=t arena=8 bound=64 {
      in %x out %y as "y"
      buf %x : f32[2] input
      buf %y : f32[2] output
      buf %a : f32[2] arena live=0..1
      0: k(%x) -> (%a)
      1: k(%a) -> (%y)
    }"""
    with pytest.raises(VerifyError, match="an arena smaller than its lower bound") as caught:
        parse_program(text)
    # Rounding up to the alignment counts.
    assert (caught.value.expected, caught.value.got) == ("at least 64", "8")
    parse_program(text.replace("arena=8", "arena=64"))


@pytest.mark.parametrize(
    ("type_", "offset"), [(f32(511), 0), (f32(511), 4), (f32(1, 512, 1, 1).with_layout(Layout(8)), 0)], ids=str
)
def test_output_that_is_part_of_a_buffer_or_blocked(type_: TensorType, offset: int) -> None:
    p = good()
    p.buffers["y.flat"] = replace(p.buffers["y.flat"], type=type_, offset=offset)
    p.outputs = [("prob", "y.flat")]
    with pytest.raises(VerifyError, match=r"'prob' is %y\.flat"):
        verify_program(p)


def test_names_that_disagree() -> None:
    p = good()
    p.buffers["t"] = replace(p.buffers["t"], name="s")
    with pytest.raises(VerifyError, match="the buffer is called %s"):
        verify_program(p)


@pytest.mark.parametrize("changes", [{"scratch": -1}, {"prepared": -1}, {"flops": -1}])
def test_negative_counts(changes: dict[str, int]) -> None:
    p = good()
    p.steps[3] = replace(p.steps[3], **changes)  # type: ignore[arg-type]
    with pytest.raises(VerifyError, match="a negative count"):
        verify_program(p)


def test_views_are_not_nested_without_end() -> None:
    lines = ["  buf %v0 : f32[2] view of=%u.head"]
    lines += [f"  buf %v{i} : f32[2] view of=%v{i - 1}" for i in range(1, MAX_NESTING)]
    text = GOOD.replace("  buf %y :", "\n".join(lines) + "\n  buf %y :")
    with pytest.raises(VerifyError, match=f"views nested over {MAX_NESTING} deep"):
        parse_program(text)
    verify_program(parse_program(text.replace(f"{lines[-1]}\n", "").replace(f"{lines[-2]}\n", "")))


def test_a_view_is_no_part_of_itself() -> None:
    with pytest.raises(VerifyError, match=r"its parent %u.head does not stand before it"):
        parse_program(GOOD.replace("of=%u\n", "of=%u.head\n"))


def test_another_shape_of_images_with_others_in_between() -> None:
    text = """plan @p target=t arena=0 bound=0 {
      in %x out %y as "y"
      buf %x : f32[2,4,2,2] input
      buf %y : f32[2,8,2,2] output
      buf %s : f32[2,4,2,2] view of=%y
      buf %v : f32[32] view of=%s
      0: k(%x) -> (%y)
    }"""
    with pytest.raises(VerifyError, match="another shape of the images of %s, between which others lie"):
        parse_program(text)
    parse_program(text.replace("[2,", "[1,").replace("[32]", "[16]"))


def test_reads_across_written_slices() -> None:
    text = """plan @p target=t arena=0 bound=0 {{
      in %x out %y as "y" out %z as "z"
      buf %x : f32[1,4,2,2] input
      buf %y : f32[1,16,2,2] output
      buf %z : f32[4] output
      buf %a : f32[1,6,2,2] view of=%y
      buf %b : f32[1,6,2,2] view of=%y channel=6 at=96
      buf %c : f32[1,4,2,2] view of=%y channel=12 at=192
      buf %mid : f32[1,{count},2,2] view of=%y channel=4 at=64
      buf %flat : f32[16] view of=%c
      0: k(%x) -> (%a)
      1: k(%x) -> (%b)
      2: k(%mid) -> (%z)
      3: k(%x) -> (%flat)
    }}"""
    parse_program(text.format(count=8))
    with pytest.raises(VerifyError, match="reads %mid before all of it is written"):
        parse_program(text.format(count=9))


def test_constants_of_steps_are_checked_against_programs_made_by_hand() -> None:
    p = good()
    p.constants["k"] = Constant("k", np.zeros(1, np.float64))
    with pytest.raises(VerifyError, match="the constant's data") as caught:
        verify_program(p)
    assert (caught.value.expected, caught.value.got) == ("f32[1]", "f64[1]")
