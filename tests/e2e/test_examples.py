"""Every example runs, and says what it promises."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sqzc.cli.main import run
from sqzc.runtime.preprocess import preprocess
from sqzc.zoo.pictures import PICTURES

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

SAYS = {
    "classify.py": "maze: ",
    "debugging.py": "repro/ shows it with 4 ops:",
    "own_graph.py": "largest difference from the reference in double precision: ",
    "passes.py": "fuse-conv-relu",
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {*SAYS, "classify.c"}


@pytest.mark.parametrize("name", SAYS)
def test_python_examples(name: str, tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "http_proxy": "http://127.0.0.1:1"}
    env.update(https_proxy="http://127.0.0.1:1")  # nothing is to be fetched by a test
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout


def test_c_example(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no cc on this machine")
    for name in ("libsqz.so", "libsqz.h"):
        assert run(["compile", "squeezenet1.1", "--weights", "random", "-o", str(tmp_path / name)]) == 0
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", str(EXAMPLES / "classify.c"), "-I.", "-L.", "-lsqz"]
    subprocess.run([*command, "-Wl,-rpath,$ORIGIN", "-o", "classify"], cwd=tmp_path, check=True, timeout=120)
    pixels = preprocess(PICTURES["maze"].draw(), 227, 227)
    np.ascontiguousarray(pixels).tofile(tmp_path / "image.raw")
    done = subprocess.run(["./classify", "image.raw"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("class ")
    done = subprocess.run(["./classify"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "154587 floats" in done.stderr
