"""Differences between graphs, op by op, and `sqzc diff`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden.runner import manager, parse
from property.graphs import seeded_graph

from sqzc.cli.main import run
from sqzc.driver.debug.diff import differences
from sqzc.ir.equality import equal
from sqzc.ir.files import save_graph

NET = """
graph @net(%x: f32[1,2,6,6]) {
  const %w = [0.5, -0.25, 0.75, -1.0] : f32[2,2,1,1]
  const %b = [0.25, -0.5] : f32[2]
  %a = conv2d(%x, %w, %b) : f32[1,2,6,6] @"a"
  %r = relu(%a) : f32[1,2,6,6] @"a"
  %p = max_pool2d(%r) {kernel=3x3, stride=2x2, rounding=ceil} : f32[1,2,3,3] @"p"
  %s = add(%p, %p) : f32[1,2,3,3] @"s"
  yield %s as "y"
}
"""


def listed(old: str, new: str) -> list[str]:
    return [str(change) for change in differences(parse(NET), parse(NET.replace(old, new)))]


def test_equal_graphs_have_no_differences() -> None:
    assert differences(parse(NET), parse(NET)) == []
    renamed = NET.replace("%p", "%other").replace("%w", "%v")
    assert differences(parse(NET), parse(renamed)) == []


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("rounding=ceil}", "rounding=ceil, pads=[0,0,0,0]}", []),
        ("stride=2x2", "stride=2x2, dilation=1x1", []),
        ("kernel=3x3", "kernel=2x2", ["~ %p: max_pool2d kernel=3x3 -> 2x2"]),
        (
            "[0.25, -0.5]",
            "[0.25, 0.5]",
            ["~ %a: conv2d bias: %b = [0.25, -0.5] : f32[2] -> %b = [0.25, 0.5] : f32[2]"],
        ),
        ("conv2d(%x, %w, %b)", "conv2d(%x, %w)", ["~ %a: conv2d bias: %b = [0.25, -0.5] : f32[2] -> nothing"]),
        ("add(%p, %p)", "mul(%p, %p)", ["- %s = add(%p, %p)", "+ %s = mul(%p, %p)"]),
        ('@"s"', '@"t"', ["~ %s: comes from 's' -> 't'"]),
        ('yield %s as "y"', 'yield %p as "y"', ["~ output 'y': %s -> %p"]),
        ('as "y"', 'as "z"', ["- output 'y' of %s", "+ output 'z' of %s"]),
        ("%x", "%in", ["- input %x: f32[1,2,6,6]", "~ %a: conv2d x: %x -> %in", "+ input %in: f32[1,2,6,6]"]),
    ],
)
def test_one_change_is_one_line(old: str, new: str, lines: list[str]) -> None:
    got = listed(old, new)
    assert sorted(line.split(" : f32[1,2,3,3]")[0] for line in got) == sorted(lines)


def test_a_fused_op_is_not_a_difference_for_its_readers() -> None:
    before, after = parse(NET), parse(NET)
    manager("fuse-conv-relu").run(after)
    assert [str(change) for change in differences(before, after)] == [
        "~ %a / %r: conv2d act=none -> relu",
        '- %r = relu(%a) : f32[1,2,6,6] @"a"',
    ]


def test_meta_counts_when_asked() -> None:
    other = parse(NET)
    other.meta = {"mean": [1.0]}
    assert differences(parse(NET), other) == []
    (change,) = differences(parse(NET), other, meta=True)
    assert str(change) == "~ meta 'mean': None -> [1.0]"


def test_another_order_is_a_difference() -> None:
    text = (
        'graph @g(%x: f32[2]) {\n  %a = relu(%x) : f32[2]\n  %b = neg(%x) : f32[2]\n  yield %a as "a", %b as "b"\n}\n'
    )
    swapped = parse(text)
    swapped.nodes.reverse()
    (change,) = differences(parse(text), swapped)
    assert "different ops" in change.text


@pytest.mark.parametrize("seed", range(20))
def test_empty_exactly_when_equal(seed: int) -> None:
    before = seeded_graph(seed)
    after = before.clone()
    manager("O3").run(after)
    assert (differences(before, after) == []) == equal(before, after)
    assert differences(after, after.clone()) == []


def test_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    old, new, same = (tmp_path / f"{name}.sqz" for name in ("old", "new", "same"))
    save_graph(parse(NET), old)
    save_graph(parse(NET), same)
    save_graph(parse(NET.replace("kernel=3x3", "kernel=2x2")), new)
    assert run(["diff", str(old), str(same)]) == 0
    assert capfd.readouterr() == ("", "")
    assert run(["diff", str(old), str(new)]) == 3
    assert capfd.readouterr() == ("~ %p: max_pool2d kernel=3x3 -> 2x2\n", "")
    assert run(["diff", str(old), str(new), "--json"]) == 3
    assert json.loads(capfd.readouterr().out) == [
        {"kind": "changed", "where": "%p", "text": "max_pool2d kernel=3x3 -> 2x2"}
    ]
    assert run(["diff", str(old), str(tmp_path / "none.sqz")]) == 1
    assert "cannot read" in capfd.readouterr().err
