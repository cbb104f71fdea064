"""A folder with dumps."""

from __future__ import annotations

from pathlib import Path

import pytest
from dump_folders import AFTER, BEFORE, IDLE, PASS, PLAN, write_dump


@pytest.fixture
def dump_folder(tmp_path: Path) -> Path:
    """One pass that changed something, one that did not, and a plan."""
    entries = [{"file": "00-input.sqz"}, PASS, IDLE, {"file": "03-plan.txt"}]
    return write_dump(
        tmp_path / "dumps",
        entries,
        {"00-input.sqz": BEFORE, "01-fuse-conv-relu.sqz": AFTER, "03-plan.txt": PLAN},
    )
