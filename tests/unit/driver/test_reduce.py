"""Parts of graphs, shrinking, reproducers on disk."""

from __future__ import annotations

import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
from golden.runner import manager, parse

from sqzc.backends.reference import evaluate
from sqzc.diagnostics import FileError
from sqzc.driver.debug.cases import Arrays, kernel_cases
from sqzc.driver.debug.extract import extract, neighbours, nodes_between, row_major_interface
from sqzc.driver.debug.reduce import Reduced, reduce
from sqzc.driver.debug.reproducer import Reproducer, load_arrays, right_outputs, save_arrays
from sqzc.ir.equality import first_difference
from sqzc.ir.files import load_graph
from sqzc.ir.graph import Graph, Node
from sqzc.ir.verifier import verify

# x -> a -> b -> c -> d, with b read by e too, and c joined with a.
NET = """
graph @net(%x: f32[1,4,5,5]) {
  const %k = [2.0] : f32[1]
  %a = relu(%x) : f32[1,4,5,5] @"a"
  %b = mul(%a, %k) : f32[1,4,5,5] @"b"
  %c = neg(%b) : f32[1,4,5,5] @"c"
  %e = abs(%b) : f32[1,4,5,5] @"e"
  %f = add(%c, %a) : f32[1,4,5,5] @"f"
  %d = exp(%f) : f32[1,4,5,5] @"d"
  yield %d as "out", %e as "side"
}
"""


def nodes(graph: Graph, *names: str) -> list[Node]:
    return [node for node in graph.nodes if node.output.name in names]


def names(found: list[Node]) -> list[str]:
    return [node.output.name for node in found]


def values(graph: Graph) -> dict[str, np.ndarray]:
    return evaluate(graph, kernel_cases(graph, 1)[0].inputs, taps="all")


def test_part_has_what_it_reads_as_inputs() -> None:
    graph = parse(NET)
    part = extract(graph, nodes(graph, "b", "c", "f"))
    verify(part)
    assert [value.name for value in part.inputs] == ["a"]
    assert [name for name, _ in part.outputs] == ["b", "f"]
    assert part.value("c").source == ("c",)
    assert part.value("k").constant is graph.value("k").constant
    known = values(graph)
    got = evaluate(part, {"a": known["a"]})
    np.testing.assert_array_equal(got["f"], known["f"])
    np.testing.assert_array_equal(got["b"], known["b"])


def test_part_with_chosen_outputs_and_the_whole() -> None:
    graph = parse(NET)
    part = extract(graph, nodes(graph, "c"), [graph.value("c")])
    assert (len(part.nodes), [name for name, _ in part.outputs]) == (1, ["c"])
    whole = extract(graph, graph.nodes)
    assert [name for name, _ in whole.outputs] == ["e", "d"]
    assert first_difference(whole, extract(whole, whole.nodes)) is None


def test_nodes_between_values() -> None:
    graph = parse(NET)
    v = graph.value
    assert sorted(names(nodes_between([v("f")]))) == ["a", "b", "c", "f"]
    assert sorted(names(nodes_between([v("f")], [v("b"), v("a")]))) == ["c", "f"]
    assert names(nodes_between([v("b")], [v("b")])) == []


def test_neighbours_make_and_read_the_same_values() -> None:
    graph = parse(NET)
    assert names(neighbours(graph, nodes(graph, "c"))) == ["b", "c", "e", "f"]
    assert names(neighbours(graph, nodes(graph, "d"))) == ["f", "d"]


def test_row_major_interface() -> None:
    graph = parse(NET)
    manager("assign-layout{lanes=4}").run(graph)
    for value in graph.values():
        if value.producer is not None and value.name != "d":
            assert value.type.rank == 4
    part = extract(graph, nodes(graph, "b", "c"))
    plain = row_major_interface(part)
    verify(plain)
    assert all(value.type.layout.is_plain for value in plain.inputs)
    assert all(value.type.layout.is_plain for _, value in plain.outputs)
    a = np.random.default_rng(0).normal(size=(1, 4, 5, 5)).astype(np.float32)
    for name, array in evaluate(part, {"a": a}).items():
        np.testing.assert_array_equal(evaluate(plain, {"a": a})[name], array)


# -- shrinking --------------------------------------------------------------------------------------------------------


def fails_with(*ops: str, log: list[int] | None = None):  # type: ignore[no-untyped-def]
    """A failure that takes certain ops, one reading the other."""

    def fails(graph: Graph, inputs: Arrays) -> bool:
        verify(graph)
        evaluate(graph, inputs)
        if log is not None:
            log.append(len(graph.nodes))
        wanted = list(ops)
        for node in graph.nodes:
            if wanted and node.op.name == wanted[0]:
                wanted.pop(0)
        return not wanted

    return fails


@pytest.mark.parametrize(
    ("ops", "seed", "left"),
    [
        (("neg",), "c", ["c"]),
        (("mul", "abs"), "e", ["b", "e"]),
        (("relu", "exp"), "d", ["a", "d"]),
        (("neg", "add"), "a", ["c", "f"]),
    ],
)
def test_reduces_to_what_it_takes(ops: tuple[str, ...], seed: str, left: list[str]) -> None:
    graph = parse(NET)
    inputs = kernel_cases(graph, 1)[0].inputs
    reduced = reduce(graph, inputs, nodes(graph, seed), fails_with(*ops))
    assert reduced is not None
    assert names(reduced.graph.nodes) == left
    assert len(reduced.graph.outputs) == 1
    known = values(graph)
    for value in reduced.graph.inputs:
        np.testing.assert_array_equal(reduced.inputs[value.name], known[value.name])


def test_reduces_a_long_graph_in_few_tries() -> None:
    lines = [f"%v{i + 1} = {'neg' if i == 77 else 'relu'}(%v{i}) : f32[2]" for i in range(100)]
    graph = parse("graph @long(%v0: f32[2]) {\n" + "\n".join(lines) + '\n  yield %v100 as "y"\n}\n')
    log: list[int] = []
    reduced = reduce(graph, {"v0": np.ones(2, np.float32)}, graph.nodes, fails_with("neg", log=log))
    assert reduced is not None
    assert names(reduced.graph.nodes) == ["v78"]
    assert len(log) < 40


def test_what_never_fails_is_not_reduced() -> None:
    graph = parse(NET)
    assert reduce(graph, kernel_cases(graph, 1)[0].inputs, graph.nodes[:1], lambda g, x: False) is None


def test_time_is_limited() -> None:
    graph = parse(NET)
    reduced = reduce(graph, kernel_cases(graph, 1)[0].inputs, graph.nodes, fails_with("neg"), seconds=0)
    assert reduced is not None
    assert len(reduced.graph.nodes) == len(graph.nodes)


# -- on disk ----------------------------------------------------------------------------------------------------------


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"fire2/squeeze 1": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3, np.int64)}
    save_arrays(tmp_path / "a.npz", arrays)
    save_arrays(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = load_arrays(tmp_path / "a.npz")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    np.save(tmp_path / "one.npy", arrays["n"])
    assert load_arrays(tmp_path / "one.npy")[""] == 3


def test_arrays_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read"):
        load_arrays(tmp_path / "missing.npy")
    for name in ("bad.npy", "bad.npz"):
        (tmp_path / name).write_bytes(b"no arrays at all")
        with pytest.raises(FileError, match=r"no \.npy or \.npz file"):
            load_arrays(tmp_path / name)
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(FileError):
        load_arrays(tmp_path / "pickle.npy")
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00 cut off")
    with pytest.raises(FileError):
        load_arrays(tmp_path / "odd.npz")


def test_huge_arrays_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqzc.driver.debug import reproducer

    save_arrays(tmp_path / "a.npz", {"x": np.zeros(1000, np.float32)})
    monkeypatch.setattr(reproducer, "MAX_ARRAYS", 1000)
    with pytest.raises(FileError, match="too large"):
        load_arrays(tmp_path / "a.npz")


def test_reproducer_is_complete(tmp_path: Path) -> None:
    graph = parse(NET)
    inputs = kernel_cases(graph, 1)[0].inputs
    reproducer = Reproducer(Reduced(graph, inputs), ["--passes", "fold-mean{limit=1}"])
    command = reproducer.save(tmp_path / "a folder", "what is wrong")
    assert sorted(path.name for path in (tmp_path / "a folder").iterdir()) == [
        "expected.npz",
        "inputs.npz",
        "report.txt",
        "repro.safetensors",
        "repro.sqz",
    ]
    assert (tmp_path / "a folder" / "report.txt").read_text() == f"what is wrong\n\n{command}\n"
    words = shlex.split(command)
    assert words[:2] == ["sqzc", "bisect"]
    assert words[words.index("--passes") + 1] == "fold-mean{limit=1}"
    assert first_difference(load_graph(Path(words[2])), graph) is None
    expected = load_arrays(Path(words[words.index("--expect") + 1]))
    for name, array in right_outputs(graph, inputs).items():
        np.testing.assert_array_equal(expected[name], array)
        assert expected[name].dtype == np.float32
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match="cannot write"):
        reproducer.save(tmp_path / "file")
