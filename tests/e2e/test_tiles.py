"""A library with tile products in a process that has not asked the system for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sqzc
from sqzc.target import TARGETS, runs_here

AMX = TARGETS["x86-64-v4-amx"]
ROOT = str(Path(sqzc.__file__).parent.parent)

LOADED = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import sqzc
model = sqzc.load(sys.argv[2], threads=int(sys.argv[5]))
assert "sqzc.target" not in sys.modules and "llvmlite" not in sys.modules
np.save(sys.argv[4], model(np.load(sys.argv[3])))
"""

IN_PLACE = """
import ctypes, sys
import numpy as np
library = ctypes.CDLL(sys.argv[2])
library.sqz_workspace_bytes.restype = ctypes.c_size_t
memory = np.zeros(library.sqz_workspace_bytes() + 64, np.uint8)
image, scores = np.load(sys.argv[3]), np.zeros((1, 1000, 1, 1), np.float32)
start = ctypes.c_void_p(memory.ctypes.data + -memory.ctypes.data % 64)
inputs, outputs = (ctypes.c_void_p * 1)(image.ctypes.data), (ctypes.c_void_p * 1)(scores.ctypes.data)
status = library.sqz_run_in(start, ctypes.c_int64(1), inputs, outputs)
assert status == 0, status
np.save(sys.argv[4], scores)
"""


@pytest.mark.slow
@pytest.mark.skipif(not runs_here(AMX), reason=f"this machine has no {AMX.name}")
def test_a_library_asks_for_the_tiles_itself(tmp_path: Path) -> None:
    library, image = tmp_path / "libsqz.so", tmp_path / "image.npy"
    sqzc.compile("squeezenet1.1", library, weights="random:1", target=AMX.name)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 3, 227, 227)).astype(np.float32)
    np.save(image, pixels)
    plain = sqzc.compile("squeezenet1.1", weights="random:1", target="x86-64-v3")(pixels)
    for number, (script, threads) in enumerate(((LOADED, 1), (LOADED, 2), (IN_PLACE, 1))):
        out = tmp_path / f"{number}.npy"
        words = [sys.executable, "-c", script, ROOT, str(library), str(image), str(out), str(threads)]
        subprocess.run(words, check=True, timeout=60)
        np.testing.assert_allclose(np.load(out), plain, rtol=0, atol=1e-5)


@pytest.mark.skipif(not runs_here(AMX), reason=f"this machine has no {AMX.name}")
def test_code_in_process_asks_for_the_tiles_too() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from sqzc.profile.machine import measure; "
        "from sqzc.target import resolve; assert measure(resolve(sys.argv[2]), memory_bytes=1 << 20).tile_flops"
    )
    subprocess.run([sys.executable, "-c", script, ROOT, AMX.name], check=True, timeout=60)
