"""Single ops as Caffe2 computed them, through generated code at the lowest and the highest level."""

from __future__ import annotations

import json
from pathlib import Path

import golden_runner
import numpy as np
import pytest
from conftest import find_shared

SHARED = find_shared()
FOLDERS = sorted((SHARED / "golden" / "ops").iterdir()) if SHARED else []


@pytest.mark.skipif(not FOLDERS, reason="golden data not found (SQZC_SHARED or ../shared)")
@pytest.mark.parametrize("level", ["O0", "O3"])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_compiled_op_gives_what_caffe2_gave(folder: Path, level: str) -> None:
    case = json.loads((folder / "case.json").read_text())
    init = folder / case.get("init_net", "init_net.pb")
    inputs = dict(np.load(folder / "inputs.npz"))
    run = golden_runner.compiled if level == "O3" else golden_runner.compiled_O0
    got = run(folder / "predict_net.pb", init if init.exists() else None, inputs)
    for name, want in np.load(folder / "outputs.npz").items():
        assert got[name].dtype.kind == want.dtype.kind
        if want.dtype.kind == "f":
            np.testing.assert_allclose(got[name], want, atol=case["atol"], rtol=case["rtol"], err_msg=name)
        else:
            np.testing.assert_array_equal(got[name], want, err_msg=name)
