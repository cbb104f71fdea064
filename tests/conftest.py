"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def find_shared() -> Path | None:
    """The folder with golden data and trained weights: $SQZC_SHARED, else ../shared beside the checkout."""
    for candidate in (os.environ.get("SQZC_SHARED"), str(ROOT.parent / "shared")):
        if candidate and (Path(candidate) / "golden").is_dir():
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The shared data folder; skips the test, naming what is missing, on a machine without it."""
    found = find_shared()
    if found is None:
        pytest.skip("golden data not found (SQZC_SHARED or ../shared)")
    return found


@pytest.fixture(scope="session")
def squeezenet_dir(shared_dir: Path) -> Path:
    """Folder with the real SqueezeNet 1.1 predict_net.pb and init_net.pb."""
    return shared_dir / "models" / "squeezenet1.1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what takes minutes unless `-m` says something about it."""
    if "long" not in config.getoption("markexpr"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
