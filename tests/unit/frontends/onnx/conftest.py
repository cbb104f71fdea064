"""The fixture `maker`, see `onnx_maker`."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_maker import OnnxMaker


@pytest.fixture
def maker(tmp_path: Path) -> OnnxMaker:
    """Makes and lifts models."""
    return OnnxMaker(tmp_path)
