"""`--external-data`: weights beside an ONNX model are read when asked for, and nothing else ever is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from sqzc.ir.files import load_graph

W = np.arange(6, dtype=np.float32).reshape(2, 3)


def write_model(folder: Path, location: str = "w.bin", **entries: int) -> Path:
    """y = x + w, with w in another file."""
    w = onnx.numpy_helper.from_array(W, "w")
    w.ClearField("raw_data")
    w.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        w.external_data.add(key=key, value=str(value))
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [w])
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


def test_it_is_read_when_asked_for(sqzc, place: Path) -> None:
    path = write_model(place / "net")
    (place / "net" / "w.bin").write_bytes(W.tobytes())
    refused = sqzc("compile", path, "-o", "out.sqz", "--passes", "")
    assert refused.code == 1
    assert "--external-data" in refused.err
    assert sqzc("compile", path, "-o", "out.sqz", "--passes", "", "--external-data").code == 0
    np.testing.assert_array_equal(load_graph(place / "out.sqz").value("w").data, W)
    assert sqzc("info", path).code == 1
    assert sqzc("info", path, "--external-data").code == 0


def test_what_was_read_is_a_source(sqzc, place: Path) -> None:
    path = write_model(place / "net")
    (place / "net" / "w.bin").write_bytes(W.tobytes())
    assert sqzc("compile", path, "-o", "out.sqz", "--passes", "", "--external-data").code == 0
    assert [source["name"] for source in load_graph(place / "out.sqz").meta["sources"]] == ["model.onnx", "w.bin"]


@pytest.mark.parametrize("location", ["../w.bin", "sub/../../w.bin", "/etc/hostname", "link.bin", "folder/w.bin"])
def test_paths_that_lead_out_are_refused(sqzc, place: Path, location: str) -> None:
    path = write_model(place / "net", location)
    (place / "w.bin").write_bytes(W.tobytes())
    (place / "net" / "sub").mkdir()
    os.symlink(place / "w.bin", place / "net" / "link.bin")
    os.symlink(place, place / "net" / "folder")
    outcome = sqzc("compile", path, "-o", "out.sqz", "--external-data")
    assert outcome.code == 1
    assert "is refused" in outcome.err
    assert "without '..' and links" in outcome.err
    assert not (place / "out.sqz").exists()


@pytest.mark.parametrize(
    ("entries", "words"),
    [({"length": 10**14}, "does not fit"), ({"offset": 10**14}, "is too short"), ({"length": 4}, "does not fit")],
)
def test_sizes_are_checked(sqzc, place: Path, entries: dict[str, int], words: str) -> None:
    path = write_model(place / "net", **entries)
    (place / "net" / "w.bin").write_bytes(W.tobytes())
    outcome = sqzc("compile", path, "-o", "out.sqz", "--external-data")
    assert outcome.code == 1
    assert words in outcome.err


@pytest.mark.parametrize("command", ["compile", "info", "profile", "bench", "bisect"])
def test_every_command_that_reads_models_has_it(sqzc, command: str) -> None:
    assert "--external-data" in sqzc(command, "--help").out


def test_other_models_have_none(sqzc, place: Path) -> None:
    (place / "g.sqz").write_text('graph @g(%x: f32[2]) {\n  yield %x as "y"\n}\n')
    (place / "net.pb").write_bytes(b"")
    for model in ("g.sqz", "net.pb", "squeezenet1.1"):
        outcome = sqzc("compile", model, "-o", "out.sqz", "--external-data")
        assert outcome.code == 1
        assert "external data" in outcome.err
