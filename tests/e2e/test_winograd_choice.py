"""Every form of the 3x3 convolutions gives Caffe2's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sqzc
from sqzc.diagnostics import UsageError


@pytest.mark.parametrize("form", ["off", "f2", "f4"])
def test_every_form_answers_as_caffe2_does(form: str, shared_dir: Path, squeezenet_dir: Path) -> None:
    golden = np.load(shared_dir / "golden" / "squeezenet1.1" / "golden.npz")
    model = sqzc.compile(squeezenet_dir, mean=(103.96, 116.78, 123.68), winograd=form)
    for crop, want in zip(golden["crops"], golden["softmaxout"], strict=True):
        pixels = np.ascontiguousarray(crop.astype(np.float32).transpose(2, 0, 1)[None])
        got = model(pixels).ravel()
        assert np.abs(got - want.ravel()).max() <= 1e-5
        assert set(np.argsort(-got)[:5]) == set(np.argsort(-want.ravel())[:5])


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="no form of Winograd's convolution 'f6'"):
        sqzc.compile("squeezenet1.1", weights="random:1", winograd="f6")
