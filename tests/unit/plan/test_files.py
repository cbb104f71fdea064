"""Programs on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sqzc.diagnostics import FileError, ParseError
from sqzc.ir.constant import Constant
from sqzc.ir.files import SHARED_WEIGHTS
from sqzc.plan import Program
from sqzc.plan.equality import first_difference
from sqzc.plan.files import constants_path, load_program, save_program

GRAPH = """graph @g(%x: f32[1,4,5,5]) {
  const %w = @w : f32[8,4,3,3]
  %y = conv2d(%x, %w) {pads=[1,1,1,1]} : f32[1,8,5,5]
  yield %y as "y"
}"""


@pytest.fixture
def program(lowered: Callable[..., Program]) -> Program:
    data = np.random.default_rng(3).standard_normal((8, 4, 3, 3)).astype(np.float32)
    return lowered(GRAPH, {"w": data})


def test_saved_program_loads_equal(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "net.plan"
    save_program(program, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.plan", "net.plan.safetensors"]
    assert first_difference(load_program(path), program) is None


def test_same_program_same_bytes(program: Program, tmp_path: Path) -> None:
    a, b = tmp_path / "a.plan", tmp_path / "b.plan"
    save_program(program, a)
    program.constants = dict(reversed(program.constants.items()))
    save_program(program, b)
    assert constants_path(a).read_bytes() == constants_path(b).read_bytes()
    save_program(program, a)
    assert a.read_bytes() == b.read_bytes()


def test_constants_may_be_in_the_shared_file(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "net.plan"
    save_program(program, path)
    constants_path(path).rename(tmp_path / SHARED_WEIGHTS)
    assert first_difference(load_program(path), program) is None


def test_without_constants(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "net.plan"
    save_program(program, path, constants=False)
    with pytest.raises(ParseError, match=r"no data for @y\.c1"):
        load_program(path)


def test_other_data_is_noticed(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "net.plan"
    save_program(program, path)
    text = path.read_text()
    changed = text.replace(f"sha={program.constants['y.c1'].sha}", "sha=0123456789abcdef")
    assert changed != text
    path.write_text(changed)
    with pytest.raises(ParseError, match=r"no data for @y\.c1"):
        load_program(path)
    program.constants["y.c1"] = Constant("y.c1", np.zeros((8, 4, 3, 3), np.float32))
    save_program(program, tmp_path / "other.plan")
    constants_path(tmp_path / "other.plan").replace(constants_path(path))
    path.write_text(text)
    with pytest.raises(ParseError, match=r"no data for @y\.c1"):
        load_program(path)


def test_errors_name_the_file(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "net.plan"
    with pytest.raises(FileError, match=r"cannot read .*net\.plan"):
        load_program(path)
    with pytest.raises(FileError, match=r"cannot write .*net\.plan"):
        save_program(program, tmp_path / "none" / "net.plan")
    path.write_text("plan @")
    with pytest.raises(ParseError, match=r"net\.plan, line 1, column 7"):
        load_program(path)
    path.write_bytes(b"plan @\xff")
    with pytest.raises(FileError, match="is not text IR"):
        load_program(path)
    save_program(program, path)
    constants_path(path).write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    with pytest.raises(FileError, match="not a readable weights file"):
        load_program(path)
