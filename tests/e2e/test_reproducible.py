"""Equal inputs, options and version give equal bytes, whatever the hash seed, folder or time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from small_nets import write_labels, write_small_net

from sqzc.driver.emit import SUFFIXES


@pytest.mark.parametrize("kind", ["so", "archive", "ir", "onnx", "header"])
def test_other_process_folder_seed_and_time(kind: str, tmp_path: Path, sqzc_shell) -> None:
    results = []
    for seed, place in ((1, "here"), (2, "some/where else")):
        folder = tmp_path / place
        net = write_small_net(folder / f"net{seed}")
        write_labels(net)
        for file in net.iterdir():
            os.utime(file, (seed * 1e8, seed * 1e8))
        env = {"PYTHONHASHSEED": str(seed), "TZ": f"UTC+{seed}", "LC_ALL": "C", "SOURCE_DATE_EPOCH": str(seed)}
        output = folder / f"result{seed}{SUFFIXES[kind]}"
        done = sqzc_shell("compile", net, "-o", output, "--emit", kind, cwd=folder, env=env)
        assert done.returncode == 0, done.stderr
        weights = output.with_suffix(".safetensors")
        results.append((output.read_bytes(), weights.read_bytes() if weights.exists() else b""))
        time.sleep(1.1)  # into the next second, should a clock find its way into a file
    assert results[0] == results[1]


def test_nothing_of_the_machine_is_in_the_library(tmp_path: Path, sqzc_shell) -> None:
    net = write_small_net(tmp_path / "a-telling-name")
    done = sqzc_shell("compile", net, "-o", tmp_path / "lib.so", "--dump-ir", tmp_path / "dumps")
    assert done.returncode == 0, done.stderr
    for file in (tmp_path / "lib.so", *(tmp_path / "dumps").iterdir()):
        data = file.read_bytes()
        for word in (b"a-telling-name", str(tmp_path).encode(), b"/tmp/"):
            assert word not in data, f"{file.name} contains {word!r}"
