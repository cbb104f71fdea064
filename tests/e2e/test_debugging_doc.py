"""docs/debugging.md shows what examples/debugging.py really prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def plain(text: str) -> list[str]:
    """The lines with what depends on the machine left out: times, rounded digits and their places, the target."""
    text = re.sub(r"x86-64-v\d(-amx)?", "TARGET", text)
    text = re.sub(r"at \[[0-9, ]+\]", "at [...]", text)
    text = re.sub(r"\d+(\.\d+)? [kM]?B\b|-?\d+\.\d+(e[-+]?\d+)?", "#", text)
    return [line.rstrip() for line in text.strip().splitlines() if line.strip()]


@pytest.mark.weights
@pytest.mark.slow
def test_the_walk_through_is_true(squeezenet_dir: Path, tmp_path: Path) -> None:
    env = {**os.environ, "SQZC_MODEL_PATH": str(squeezenet_dir.parent)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "debugging.py"), str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / "debugging.md").read_text(), re.DOTALL)
    assert len(shown) > 5
    assert plain("\n".join(shown)) == plain(done.stdout)


def test_every_option_it_names_exists() -> None:
    from sqzc.cli import bisect, compile, diff, opt

    known = {
        name
        for command in (bisect.command, compile.command, diff.command, opt.command)
        for parameter in command.params
        for name in parameter.opts
    }
    named = set(re.findall(r"--[a-z][a-z-]+", (ROOT / "docs" / "debugging.md").read_text()))
    assert named - known == {"--top"}
