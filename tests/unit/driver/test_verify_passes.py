"""Comparing the numbers of graphs: differences, names that survive, budgets, blame, and the instrument."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import planted
import pytest
from golden.runner import manager, parse
from property.graphs import seeded_graph

from sqzc.backends.reference import evaluate_values
from sqzc.driver.debug.cases import Case, kernel_cases, pass_cases
from sqzc.driver.debug.compare import NOTHING, budget_of, compare
from sqzc.driver.debug.comparison import compare_graphs, interface_difference, pairs
from sqzc.driver.debug.evaluation import Evaluator
from sqzc.driver.debug.verify import VerifyPasses, WrongNumbers
from sqzc.ir.files import load_graph
from sqzc.ir.graph import Graph
from sqzc.ir.ops import elementwise
from sqzc.ir.types import DType
from sqzc.passes.base import Pass
from sqzc.passes.manager import PassFailure, PassManager
from sqzc.passes.registry import PASSES, registered

# `conv` and `out` are bound twice, as Caffe2 does.
NET = """
graph @net(%x: f32[1,2,6,6]) {
  const %mean = [1.0, -2.0] : f32[1,2,1,1]
  const %w = [0.5, -0.25, 0.75, -1.0] : f32[2,2,1,1]
  const %b = [0.25, -0.5] : f32[2]
  %s = sub(%x, %mean) : f32[1,2,6,6] @"x"
  %a = conv2d(%s, %w, %b) : f32[1,2,6,6] @"conv"
  %r = relu(%a) : f32[1,2,6,6] @"conv"
  %d = dropout(%r) : f32[1,2,6,6] @"drop"
  %p = max_pool2d(%d) {kernel=3x3, stride=2x2, rounding=ceil} : f32[1,2,3,3] @"pool"
  %m = reduce_mean(%p) {axes=[2,3]} : f32[1,2,1,1] @"out"
  %y = softmax(%m) {axes=[1]} : f32[1,2,1,1] @"out"
  yield %y as "y"
}
"""


def pixels(graph: Graph) -> Case:
    return kernel_cases(graph, 1)[1]


# -- differences ------------------------------------------------------------------------------------------------------


def test_difference_finds_the_worst() -> None:
    expected = np.array([[1.0, -4.0], [2.0, 3.0]])
    got = expected.astype(np.float32)
    assert compare(got, expected).relative == 0
    got[0, 0] = 1.5
    found = compare(got, expected)
    assert (found.max_abs, found.relative, found.index) == (0.5, 0.125, (0, 0))
    assert "at [0, 0] expected 1, got 1.5" in found.words
    got[1, 1] = np.nextafter(np.float32(3), np.float32(4))
    assert compare(got, expected).ulps == 1 << 22


def test_difference_of_special_numbers() -> None:
    expected = np.array([1.0, -4.0, np.nan, np.inf], np.float32)
    assert compare(expected.copy(), expected) == NOTHING or compare(expected.copy(), expected).relative == 0
    for index, value in ((2, 0.0), (3, -np.inf), (1, np.nan), (0, np.inf), (3, 1e30)):
        got = expected.copy()
        got[index] = value
        assert compare(got, expected).relative == math.inf
        assert compare(got, expected).index == (index,)
    assert compare(expected[:1], expected).relative == math.inf
    assert "expected shape [4], got [1]" in compare(expected[:1], expected).words
    assert compare(np.zeros(0), np.zeros(0)) == NOTHING


def test_difference_outside_the_range_of_the_type_does_not_count() -> None:
    got = np.array([np.inf, 1.0], np.float32)
    assert compare(got, np.array([1e40, 1.0])).relative == 0
    assert compare(got.astype(np.float64), np.array([1e40, 1.0])).relative == math.inf


def test_differences_below_every_magnitude_do_not_count() -> None:
    tiny = np.full(4, 1e-42)
    assert compare(np.zeros(4, np.float32), tiny).relative < budget_of(DType.F32)
    assert compare(np.zeros(4, np.float32), np.full(4, 1e-20)).relative == 1


def test_integers_must_be_equal() -> None:
    a = np.array([1000, 7], np.int64)
    assert compare(a + np.array([0, 1]), a).relative == 1 > budget_of(DType.I64)
    assert compare(a, a).relative == 0 <= budget_of(DType.I64)


def test_steps_between_neighbours_are_one() -> None:
    for value in (1.0, -1.0, 1e-30, 65504.0):
        for kind in (np.float32, np.float16):
            x = np.array([value], kind)
            if np.isfinite(x).all() and x[0]:
                y = np.nextafter(x, kind(0))
                assert compare(y, x.astype(np.float64)).ulps == 1


# -- cases ------------------------------------------------------------------------------------------------------------


def test_cases_are_awkward_and_always_the_same() -> None:
    graph = parse(NET)
    cases = {case.name: case for case in pass_cases(graph, 2)}
    names = ["pixels-0", "small-0", "pixels-1", "small-1", "zeros", "extremes", "denormals", "nan"]
    assert list(cases) == names
    again = {case.name: case for case in pass_cases(parse(NET), 2)}
    for name, case in cases.items():
        np.testing.assert_array_equal(case.inputs["x"], again[name].inputs["x"])
        assert case.inputs["x"].dtype == np.float32
    assert not cases["zeros"].inputs["x"].any()
    assert (np.abs(cases["extremes"].inputs["x"]) == np.finfo(np.float32).max).all()
    denormals = np.abs(cases["denormals"].inputs["x"])
    assert 0 < denormals.max() < np.finfo(np.float32).smallest_normal
    assert np.isnan(cases["nan"].inputs["x"]).sum() == 1
    assert (cases["pixels-0"].inputs["x"] != cases["pixels-1"].inputs["x"]).all()


def test_no_nan_where_it_has_no_meaning() -> None:
    cast = 'graph @g(%x: f32[2]) {\n  %y = cast(%x) {to=i32} : i32[2]\n  yield %y as "y"\n}\n'
    assert "nan" not in [case.name for case in pass_cases(parse(cast), 1)]
    indices = 'graph @g(%x: i64[2]) {\n  yield %x as "y"\n}\n'
    assert [case.name for case in pass_cases(parse(indices), 1)] == ["pixels-0", "small-0", "zeros"]


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_bound_twice_pair_in_order() -> None:
    graph = parse(NET)
    found = {(pair.name, pair.after.name): [v.name for v in pair.before] for pair in pairs(graph, graph.clone())}
    assert found[("conv", "a")] == ["a"]
    assert found[("conv", "r")] == ["r"]
    assert found[("y", "y")] == ["y"]


def test_a_name_that_lost_a_value_may_be_any_of_them() -> None:
    before, after = parse(NET), parse(NET)
    manager("fuse-conv-relu").run(after)
    (pair,) = [pair for pair in pairs(before, after) if pair.name == "conv"]
    assert [value.name for value in pair.before] == ["a", "r"]
    assert compare_graphs(before, after, pixels(before)).deviations == ()


# -- comparing graphs -------------------------------------------------------------------------------------------------


def changed(old: str, new: str) -> Graph:
    assert old in NET
    return parse(NET.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("[0.25, -0.5]", "[0.25, -0.501]", "conv"),
        ("relu(%a)", "abs(%a)", "conv"),
        ("dropout(%r)", "identity(%r)", None),
        ("max_pool2d(%d)", "avg_pool2d(%d)", "pool"),
        ("{axes=[1]}", "{axes=[2]}", "out"),
    ],
)
def test_the_first_value_off_is_named(old: str, new: str, name: str | None) -> None:
    comparison = compare_graphs(parse(NET), changed(old, new), pixels(parse(NET)))
    assert [deviation.name for deviation in comparison.deviations][:1] == ([name] if name else [])


def test_another_shape_is_a_deviation() -> None:
    after = changed(", rounding=ceil} : f32[1,2,3,3]", "} : f32[1,2,2,2]")
    first = compare_graphs(parse(NET), after, pixels(after)).deviations[0]
    assert first.name == "pool"
    assert "has another shape" in first.words


def test_a_lost_relu_is_blamed_although_the_name_has_such_a_value() -> None:
    before, after = parse(NET), parse(NET)
    with registered(*planted.PLANTED):
        manager("bad-loses-relu").run(after)
    found = compare_graphs(before, after, pixels(before)).deviations
    assert found[0].name == "conv"
    assert found[0].op.startswith("%a = conv2d(")
    assert found[1].name == "drop"


def test_a_name_that_rightly_lost_its_last_value_is_not_blamed() -> None:
    """`x` is the input again once the mean is folded away; a mistake further down is that of the op there."""
    before, after = parse(NET), parse(NET)
    manager("fold-mean").run(after)
    assert compare_graphs(before, after, pixels(before)).deviations == ()
    node = next(node for node in after.nodes if node.op.name == "relu")
    node.op = elementwise.Abs()
    found = compare_graphs(before, after, pixels(before)).deviations
    assert (found[0].name, found[0].value) == ("conv", "r")


def test_rounding_is_no_deviation_where_it_was_as_large_before() -> None:
    """1e7 + x - 1e7 has few right digits in single precision, before and after its terms change places."""
    text = """
    graph @g(%x: f32[1,4]) {
      const %c = [1.0e7] : f32[1]
      %a = add(%x, %c) : f32[1,4] @"a"
      %b = sub(%a, %c) : f32[1,4] @"b"
      yield %b as "y"
    }
    """
    before, after = parse(text), parse(text.replace("add(%x, %c)", "add(%c, %x)"))
    comparison = compare_graphs(before, after, pixels(before))
    assert comparison.single.relative > budget_of(DType.F32)
    assert comparison.deviations == ()
    # What single precision gets right before a pass, it must get right after it too.
    plain = 'graph @g(%x: f32[1,4]) {\n  %b = identity(%x) : f32[1,4] @"b"\n  yield %b as "y"\n}\n'
    found = compare_graphs(parse(plain), before, pixels(before)).deviations
    assert found[0].name == "b"


def test_nan_must_stay_where_it_is() -> None:
    nan = next(case for case in pass_cases(parse(NET), 1) if case.name == "nan")
    assert compare_graphs(parse(NET), parse(NET), nan).deviations == ()
    # Equal for numbers, but not for NaN.
    swallowed = changed("%r = relu(%a)", "%big = clip(%a) {lo=0.0, hi=inf} : f32[1,2,6,6]\n  %r = relu(%big)")
    assert compare_graphs(parse(NET), swallowed, nan).deviations == ()
    replaced = changed(
        "%d = dropout(%r)",
        "%k = equal(%r, %r) : bool[1,2,6,6]\n  const %zero = [0.0] : f32[1]\n  %d = where(%k, %r, %zero)",
    )
    ordinary = pixels(parse(NET))
    assert compare_graphs(parse(NET), replaced, ordinary).deviations == ()
    assert compare_graphs(parse(NET), replaced, nan).deviations[0].name == "drop"


def test_interface_is_compared() -> None:
    before = parse(NET)
    assert interface_difference(before, before.clone()) == ""
    assert "the outputs were 'y'" in interface_difference(before, changed('as "y"', 'as "z"'))
    assert "the inputs were" in interface_difference(before, changed("%x", "%in"))


@pytest.mark.parametrize("seed", range(25))
def test_right_passes_are_never_blamed(seed: int) -> None:
    graph = seeded_graph(seed)
    for spec in ("O3", ",".join(PASSES)):
        verifier = VerifyPasses()
        PassManager(spec, [verifier], target=manager("").target, evaluate=manager("").evaluate).run(graph.clone())
        assert len(verifier.checks) == len(spec.split(",")) or spec == "O3"


def test_evaluator_gives_what_the_reference_gives() -> None:
    graph = parse(NET)
    case = pixels(graph)
    evaluator = Evaluator(case.inputs)
    first = evaluator.values(graph, "float32")
    after = graph.clone()
    manager("fold-mean,fuse-conv-relu,drop-inference-noops").run(after)
    for dtype in ("float32", "float64"):
        for candidate in (graph, after, graph):
            wanted = evaluate_values(candidate, case.inputs, dtype)  # type: ignore[arg-type]
            got = evaluator.values(candidate, dtype)  # type: ignore[arg-type]
            assert wanted.keys() == got.keys()
            for name, array in wanted.items():
                np.testing.assert_array_equal(got[name], array)
    again = evaluator.values(graph, "float32")
    assert evaluator.values(graph.clone(), "float32")["p"] is again["p"]
    assert first.keys() == again.keys()
    assert evaluator.bytes > 0
    evaluator.forget()
    assert evaluator.bytes == 0


# -- the instrument ---------------------------------------------------------------------------------------------------

RIGHT = "drop-inference-noops,fold-mean"


def verified(spec: str, graph: Graph) -> VerifyPasses:
    verifier = VerifyPasses()
    with registered(*planted.PLANTED):
        PassManager(spec, [verifier], target=manager("").target, evaluate=manager("").evaluate).run(graph)
    return verifier


def test_checks_say_what_was_measured() -> None:
    verifier = verified(f"{RIGHT},fold-constants,fuse-conv-relu", parse(NET))
    assert [(check.spec, check.changed) for check in verifier.checks] == [
        ("drop-inference-noops", True),
        ("fold-mean", True),
        ("fold-constants", False),
        ("fuse-conv-relu", True),
    ]
    assert all(check.compared >= 4 for check in verifier.checks if check.changed)
    assert 0 < max(check.relative for check in verifier.checks) < verifier.budget
    assert verifier.checks[0].exact == 0
    assert verifier.checks[1].to_json()["worst"]


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (planted.FloorForCeil, "pool"),
        (planted.LosesRelu, "drop"),
        (planted.SoftmaxAxis, "out"),
    ],
)
def test_stops_at_the_bad_pass(bad: type[Pass], name: str, tmp_path: Path) -> None:
    with pytest.raises(WrongNumbers) as failure:
        verified(f"{RIGHT},{bad.name},fuse-conv-relu", parse(NET))
    assert failure.value.spec == bad.name
    assert failure.value.predecessors == tuple(RIGHT.split(","))
    assert failure.value.deviation.name == name
    words = str(failure.value)
    assert f"pass {bad.name} changed the numbers: '{name}'" in words
    assert "passes before it: drop-inference-noops, fold-mean" in words
    with registered(*planted.PLANTED):
        command = failure.value.save_reproducer(tmp_path / "small")
    assert f"--passes {bad.name}" in command.replace("'", "")
    assert 0 < len(load_graph(tmp_path / "small" / "repro.sqz").nodes) < 4
    assert (tmp_path / "small" / "report.txt").read_text().startswith(f"pass 3 {bad.name} is wrong")


def test_a_pass_may_not_change_the_interface() -> None:
    class Renames(Pass):
        name = "renames"

        def run(self, graph: Graph, ctx: object) -> bool:
            graph.outputs = [("z", value) for _, value in graph.outputs]
            return True

    graph = parse(NET)
    with pytest.raises(PassFailure, match="the outputs were 'y'"):
        PassManager([Renames()], [VerifyPasses()]).run(graph)
