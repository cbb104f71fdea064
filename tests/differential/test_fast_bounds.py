"""Fast kernels touch nothing outside the memory that they are given, not even to read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from differential.checking import TARGET_NAMES, target_or_skip

import sqzc

PATHS = [str(Path(__file__).parents[1]), str(Path(sqzc.__file__).parent.parent)]


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_no_access_outside(target: str) -> None:
    target_or_skip(target)
    script = "import sys; sys.path[:0] = sys.argv[2:]; from differential.fenced import main; main(sys.argv[1])"
    run = subprocess.run([sys.executable, "-c", script, target, *PATHS], capture_output=True, text=True, check=False)
    assert run.stdout.endswith("done\n"), f"ended by {run.returncode} in {run.stdout[-80:]}{run.stderr}"


def test_an_access_outside_is_noticed() -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]; from differential.fenced import Fence; import ctypes; "
        "memory = Fence()(8, 4); print('made', flush=True); ctypes.c_uint8.from_address(memory.address + 8).value"
    )
    run = subprocess.run([sys.executable, "-c", script, *PATHS], capture_output=True, text=True, check=False)
    assert run.stdout == "made\n"
    assert run.returncode < 0
