"""What end-to-end tests share: the small net, the command line in this process and in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from small_nets import write_small_net

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def small_net(tmp_path: Path) -> Path:
    """A folder with a small Caffe2 model."""
    return write_small_net(tmp_path / "net")


@pytest.fixture
def sqzc_shell(tmp_path: Path) -> Shell:
    """Runs `sqzc ...` in a process of its own, by default in the test's folder."""

    def run(
        *arguments: str | Path, cwd: Path = tmp_path, env: dict[str, str] | None = None, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sqzc", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            input=input,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def check_one_error(done: subprocess.CompletedProcess[str], code: str = "error[") -> None:
    """One message, no traceback, exit code 1."""
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("error[") == 1, done.stderr
    assert code in done.stderr
    assert "Traceback" not in done.stderr


def files_in(folder: Path) -> Sequence[str]:
    """Every file below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
