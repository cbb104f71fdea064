"""Graphs on disk: text and weights beside it, whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from sqzc.diagnostics import FileError, ParseError
from sqzc.ir import Builder, Graph, files
from sqzc.ir.equality import first_difference
from sqzc.ir.files import (
    SHARED_WEIGHTS,
    WeightStore,
    load_graph,
    read_text,
    replacing,
    save_graph,
    save_weights,
    weights_of,
    write_text,
)
from sqzc.ir.ops.elementwise import Add
from sqzc.ir.types import f32


def sample() -> Graph:
    """Two large constants of one symbol, and a small one."""
    g = Graph("g")
    b = Builder(g)
    x = g.add_input("x", f32(20))
    for data in (np.arange(20), np.ones(20), np.ones(1)):
        x = b.add(Add(), x, b.constant("w", data.astype(np.float32)))
    g.add_output("y", x)
    return g


def test_saved_graph_loads_equal(tmp_path: Path) -> None:
    path = tmp_path / "net.sqz"
    save_graph(sample(), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.safetensors", "net.sqz"]
    assert first_difference(load_graph(path), sample()) is None
    assert len(safetensors.numpy.load_file(tmp_path / "net.safetensors")) == 2


def test_same_graph_same_bytes(tmp_path: Path) -> None:
    save_graph(sample(), tmp_path / "a.sqz")
    save_graph(sample(), tmp_path / "b.sqz")
    for suffix in (".sqz", ".safetensors"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_weights_do_not_depend_on_order(tmp_path: Path) -> None:
    arrays = weights_of(sample())
    save_weights(tmp_path / "a", arrays)
    save_weights(tmp_path / "b", dict(reversed(arrays.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_dumps_share_one_weights_file(tmp_path: Path) -> None:
    g = sample()
    save_graph(g, tmp_path / "one.sqz", weights=False)
    save_graph(g, tmp_path / "two.sqz", weights=False)
    with pytest.raises(ParseError, match="no data for @w"):
        load_graph(tmp_path / "one.sqz")
    save_weights(tmp_path / SHARED_WEIGHTS, weights_of(g, g))
    for name in ("one.sqz", "two.sqz"):
        assert first_difference(load_graph(tmp_path / name), g) is None


def test_own_weights_come_before_shared_ones(tmp_path: Path) -> None:
    (tmp_path / "net.sqz").write_text("graph @g() { const %w = @w : f32[20] yield %w }")
    ours, theirs = np.zeros(20, np.float32), np.ones(20, np.float32)
    save_weights(tmp_path / SHARED_WEIGHTS, {"w": theirs})
    assert load_graph(tmp_path / "net.sqz").constants[0].data[0] == 1
    save_weights(tmp_path / "net.safetensors", {"w": ours})
    assert load_graph(tmp_path / "net.sqz").constants[0].data[0] == 0


def test_store_prefers_the_hash_to_the_symbol(tmp_path: Path) -> None:
    arrays = {"w#aa": np.zeros(1, np.float32), "w": np.ones(1, np.float32)}
    save_weights(tmp_path / "w", arrays)
    store = WeightStore([tmp_path / "missing", tmp_path / "w"])
    for sha, value in (("aa", 0), ("bb", 1), ("", 1)):
        found = store("w", sha)
        assert found is not None
        assert found[0] == value
    assert store("v", "aa") is None


# -- errors -----------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read .*none\.sqz") as caught:
        load_graph(tmp_path / "none.sqz")
    assert caught.value.got == "No such file or directory"
    with pytest.raises(FileError, match="cannot read"):
        read_text(tmp_path)


def test_parse_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.sqz"
    path.write_text("graph @g(\n  $")
    with pytest.raises(ParseError, match=r"net\.sqz, line 2, column 3"):
        load_graph(path)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "net.sqz"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="is not text IR"):
        load_graph(path)


def test_sizes_are_bounded_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.sqz"
    save_graph(sample(), path)
    monkeypatch.setattr(files, "MAX_WEIGHTS", 100)
    with pytest.raises(FileError, match=r"net\.safetensors is too large"):
        load_graph(path)
    monkeypatch.setattr(files, "MAX_TEXT", 100)
    with pytest.raises(FileError, match=r"net\.sqz is too large for text IR"):
        load_graph(path)


@pytest.mark.parametrize("data", [b"", b"no weights", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_damaged_weights(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.sqz"
    save_graph(sample(), path)
    path.with_suffix(".safetensors").write_bytes(data)
    with pytest.raises(FileError, match="not a readable weights file") as caught:
        load_graph(path)
    assert "net.safetensors" in str(caught.value.location)


def test_truncated_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.sqz"
    save_graph(sample(), path)
    whole = path.with_suffix(".safetensors").read_bytes()
    path.with_suffix(".safetensors").write_bytes(whole[:-8])
    with pytest.raises(FileError):
        load_graph(path)


def test_exchanged_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.sqz"
    save_graph(sample(), path)
    arrays = {key: data + 1 for key, data in weights_of(sample()).items()}
    save_weights(path.with_suffix(".safetensors"), arrays)
    with pytest.raises(ParseError, match="the data of @w has another hash"):
        load_graph(path)


def test_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot write") as caught:
        write_text(tmp_path / "none" / "net.sqz", "")
    assert caught.value.hint == "check that the folder exists and is writable"
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="cannot write"):
        write_text(tmp_path / "folder", "")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


# -- whole or not at all ----------------------------------------------------------------------------------------------


def fail_to_write(path: Path, error: Exception) -> None:
    with replacing(path) as handle:
        handle.write(b"half")
        raise error


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("before")
    with pytest.raises(RuntimeError, match="stop"):
        fail_to_write(path, RuntimeError("stop"))
    with pytest.raises(FileError, match="cannot write") as caught:
        fail_to_write(path, OSError(28, "No space left on device"))
    assert caught.value.got == "No space left on device"
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "ü\n")
    (tmp_path / "b").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
    assert modes[0] == modes[1]
    assert (tmp_path / "a").read_bytes() == "ü\n".encode()
