"""Collects the golden `.sqz` files below this folder that have `RUN` lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden.runner import run_file

HERE = Path(__file__).parent
FOLDERS = ("parser", "verifier", "passes")


class GoldenFile(pytest.File):
    """One `.sqz` file."""

    def collect(self) -> Iterator[GoldenItem]:
        yield GoldenItem.from_parent(self, name=self.path.stem)


class GoldenItem(pytest.Item):
    """All RUN lines of a file."""

    def runtest(self) -> None:
        problem = run_file(self.path)
        if problem:
            pytest.fail(problem, pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"golden {self.path.name}"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Any:
    """Golden files of the folders that belong to this runner."""
    if file_path.suffix == ".sqz" and file_path.parent.parent == HERE and file_path.parent.name in FOLDERS:
        return GoldenFile.from_parent(parent, path=file_path)
    return None
