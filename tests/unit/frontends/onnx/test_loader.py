"""Model files: what is no model, what is too much, functions, old operator sets, and weights kept elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_maker import Array, OnnxMaker, normal

from sqzc.diagnostics import FileError, FrontendError, UnsupportedError
from sqzc.frontends.onnx import external as frontends_external
from sqzc.frontends.onnx import loader
from sqzc.frontends.onnx.loader import read_model


@pytest.fixture
def relu(maker: OnnxMaker) -> onnx.ModelProto:
    return maker.model([maker.node("Relu", "x", "y")], {"x": [2, 3]})


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_model_is_read_with_its_hash(maker: OnnxMaker, relu: onnx.ModelProto) -> None:
    graph = maker.load(maker.save(relu)).graph
    assert len(graph.meta["sha256"]["model"]) == 64


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04 and more", "zip archive"),
        (b"<!DOCTYPE html>", "web page"),
        (b'{"a": 1}', "JSON"),
        (b"\xff" * 50, "50 bytes"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, data: bytes, hint: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(FrontendError, match="not an ONNX model") as caught:
        read_model(path)
    assert hint in str(caught.value.hint)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relu: onnx.ModelProto) -> None:
    with pytest.raises(FileError, match="cannot read"):
        read_model(tmp_path / "missing.onnx")
    with pytest.raises(FileError, match="not a regular file"):
        read_model(tmp_path)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(FileError, match="is empty"):
        read_model(tmp_path / "empty.onnx")
    monkeypatch.setattr(loader, "MAX_BYTES", 10)
    (tmp_path / "large.onnx").write_bytes(relu.SerializeToString())
    with pytest.raises(FileError, match="too large"):
        read_model(tmp_path / "large.onnx")


def test_every_truncation_is_an_error_of_the_users(maker: OnnxMaker) -> None:
    model = maker.model([maker.node("Gemm", "x w", "y")], {"x": [2, 3]}, weights={"w": normal(3, 4)})
    data = model.SerializeToString()
    path = maker.folder / "cut.onnx"
    for length in range(0, len(data) - 1, 3):
        path.write_bytes(data[:length])
        with pytest.raises((FileError, FrontendError, UnsupportedError)):
            maker.load(path)


# -- form -------------------------------------------------------------------------------------------------------------


def test_the_standards_checker_is_asked(maker: OnnxMaker, relu: onnx.ModelProto) -> None:
    relu.graph.node[0].input[0] = "nowhere"
    with pytest.raises(FrontendError, match="malformed") as caught:
        maker.lift(relu, file="a.onnx")
    assert "nowhere" in caught.value.message
    assert str(caught.value.location) == "a.onnx"


def test_unknown_attributes_are_refused(maker: OnnxMaker) -> None:
    with pytest.raises(FrontendError, match=r"malformed.*speed"):
        maker.lift(maker.model([maker.node("Relu", "x", "y", speed=3)], {"x": [2]}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dims": [7]}, "does not fill its shape"),
        ({"dims": [-6]}, "has shape"),
        ({"dims": [1 << 40]}, "has shape"),
        ({"dims": [1] * 9}, "rank 9"),
        ({"raw_data": b"123"}, "does not fill its shape"),
        ({"name": ""}, "no name"),
    ],
)
def test_bad_initializers(maker: OnnxMaker, change: dict[str, object], words: str) -> None:
    model = maker.model([maker.node("Add", "x w", "y")], {"x": [6]}, weights={"w": normal(6)})
    weight = model.graph.initializer[0]
    for key, value in change.items():
        if key == "dims":
            del weight.dims[:]
            weight.dims.extend(value)  # type: ignore[arg-type]
        else:
            setattr(weight, key, value)
    with pytest.raises(FrontendError, match=words):
        maker.lift(model)


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "int8", "uint8", "uint16", "int32", "uint32", "uint64", "bool"]
)
def test_typed_fields_hold_the_same_as_raw_bytes(maker: OnnxMaker, dtype: str) -> None:
    array = np.asarray([0, 1, 1, 0]).astype(dtype)
    typed = helper.make_tensor("w", helper.np_dtype_to_tensor_dtype(array.dtype), [4], array)
    assert not typed.raw_data
    model = maker.model([maker.node("Identity", "w", "y")], {"x": [1]})
    model.graph.initializer.append(typed)
    np.testing.assert_array_equal(maker.graph(model).outputs[0][1].data, array)


def test_counts_are_bounded(maker: OnnxMaker, relu: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "MAX_NODES", 0)
    with pytest.raises(FrontendError, match="1 nodes"):
        maker.lift(relu)


# -- operator sets ----------------------------------------------------------------------------------------------------


def test_newer_operator_sets_are_refused(maker: OnnxMaker, relu: onnx.ModelProto) -> None:
    relu.opset_import[0].version = 99
    with pytest.raises(UnsupportedError, match="operator set 99") as caught:
        maker.lift(relu)
    assert "convert_version" in str(caught.value.hint)


def test_older_operator_sets_are_converted(maker: OnnxMaker) -> None:
    node = maker.node("BatchNormalization", "x s b m v", "y", is_test=1)
    vectors = {name: np.abs(normal(3, seed=i)) for i, name in enumerate("sbmv")}
    imported = maker.lift(maker.model([node], {"x": [2, 3, 4, 4]}, weights=vectors, opset=6))
    assert [node.op.name for node in imported.graph.nodes] == ["batch_norm"]
    assert imported.notes == ("operator set 6 was converted to 7",)


def test_slopes_of_old_operator_sets_are_per_channel(maker: OnnxMaker) -> None:
    model = maker.model([maker.node("PRelu", "x s", "y")], {"x": [2, 3, 4]}, weights={"s": normal(3)}, opset=6)
    assert [node.op.name for node in maker.graph(model).nodes] == ["prelu"]


# -- functions --------------------------------------------------------------------------------------------------------


def with_functions(maker: OnnxMaker, *bodies: tuple[str, list[str]]) -> onnx.ModelProto:
    """Functions of one input that call others of the domain, or Relu, in a row; the model calls the first."""
    functions = []
    for name, called in bodies:
        nodes = []
        for index, callee in enumerate(called):
            source, target = "a" if index == 0 else f"t{index}", "b" if index + 1 == len(called) else f"t{index + 1}"
            nodes.append(helper.make_node(callee, [source], [target], domain="" if callee == "Relu" else "own"))
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", name, ["a"], ["b"], nodes, imports))
    node = helper.make_node(bodies[0][0], ["x"], ["y"], domain="own")
    return maker.model([node], {"x": [2]}, functions=functions)


def test_functions_are_inlined(maker: OnnxMaker) -> None:
    graph = maker.graph(with_functions(maker, ("Outer", ["Inner", "Inner"]), ("Inner", ["Relu", "Relu"])))
    assert [node.op.name for node in graph.nodes] == ["relu"] * 4


def test_circles_of_functions_are_refused(maker: OnnxMaker) -> None:
    with pytest.raises(FrontendError, match=r"malformed|circle"):
        maker.lift(with_functions(maker, ("A", ["B"]), ("B", ["A"])))


def test_functions_that_multiply_are_refused_before_they_do(maker: OnnxMaker) -> None:
    names = [f"F{i}" for i in range(60)]
    bodies = [(name, [names[i + 1]] * 8 if i < 59 else ["Relu"]) for i, name in enumerate(names)]
    with pytest.raises(FrontendError, match="too many nodes"):
        maker.lift(with_functions(maker, *bodies))


def test_operators_that_are_defined_by_others(maker: OnnxMaker) -> None:
    nodes = [maker.node("CenterCropPad", "x shape", "y", axes=[1])]
    model = maker.model(nodes, {"x": [2, 5, 3]}, weights={"shape": np.asarray([3], np.int64)})
    maker.agree(model, {"x": normal(2, 5, 3)})


# -- weights elsewhere ------------------------------------------------------------------------------------------------


def external(maker: OnnxMaker, location: str, array: Array, **entries: object) -> Path:
    """Saves y = x + w with the data of w said to be in another file."""
    model = maker.model([maker.node("Add", "x w", "y")], {"x": list(array.shape)}, weights={"w": array})
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    return maker.save(model)


W = normal(2, 3)


def test_external_data_is_refused_unless_asked_for(maker: OnnxMaker) -> None:
    path = external(maker, "w.bin", W)
    (maker.folder / "w.bin").write_bytes(W.tobytes())
    with pytest.raises(FrontendError, match="in another file") as caught:
        maker.load(path)
    assert "--external-data" in str(caught.value.hint)
    imported = maker.load(path, allow_external_data=True)
    np.testing.assert_array_equal(imported.graph.value("w").data, W)
    assert imported.files == (maker.folder.resolve() / "w.bin",)


def test_external_data_may_be_a_part_of_a_file_in_a_subfolder(maker: OnnxMaker) -> None:
    (maker.folder / "data").mkdir()
    (maker.folder / "data" / "all.bin").write_bytes(b"12345678" + W.tobytes() + b"more")
    path = external(maker, "data/all.bin", W, offset=8, length=W.nbytes)
    np.testing.assert_array_equal(maker.load(path, allow_external_data=True).graph.value("w").data, W)


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "data/../../w.bin", "", "C:\\w.bin", "..\\w.bin", "file:w.bin", "a\0b"]
)
def test_paths_out_of_the_folder_are_refused(maker: OnnxMaker, location: str) -> None:
    path = external(maker, location, W)
    with pytest.raises(FrontendError, match="is refused"):
        maker.load(path, allow_external_data=True)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_are_not_followed(maker: OnnxMaker, tmp_path_factory: pytest.TempPathFactory, what: str) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "w.bin").write_bytes(W.tobytes())
    if what == "file":
        os.symlink(elsewhere / "w.bin", maker.folder / "w.bin")
        path = external(maker, "w.bin", W)
    else:
        os.symlink(elsewhere, maker.folder / "data")
        path = external(maker, "data/w.bin", W)
    with pytest.raises(FrontendError, match="is refused"):
        maker.load(path, allow_external_data=True)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"length": 5}, "does not fit"),
        ({"offset": 4}, "too short"),
        ({"offset": -4}, "offset '-4'"),
        ({"offset": "9" * 30}, "offset"),
    ],
)
def test_external_data_that_does_not_fit(maker: OnnxMaker, entries: dict[str, object], words: str) -> None:
    path = external(maker, "w.bin", W, **entries)
    (maker.folder / "w.bin").write_bytes(W.tobytes())
    with pytest.raises(FrontendError, match=words):
        maker.load(path, allow_external_data=True)


def test_all_external_data_together_is_bounded(maker: OnnxMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    # Many weights may point to the same large file, which need not even take room on the disk.
    (maker.folder / "w.bin").write_bytes(W.tobytes())
    path = external(maker, "w.bin", W)
    model = onnx.load(path, load_external_data=False)
    for number in range(3):
        copy = model.graph.initializer.add()
        copy.CopyFrom(model.graph.initializer[0])
        copy.name = f"w{number}"
    path = maker.save(model)
    monkeypatch.setattr(frontends_external, "MAX_EXTERNAL_BYTES", 4 * W.nbytes)
    assert len(maker.load(path, allow_external_data=True).files) == 1
    monkeypatch.setattr(frontends_external, "MAX_EXTERNAL_BYTES", 4 * W.nbytes - 1)
    with pytest.raises(FrontendError, match="too much external data"):
        maker.load(path, allow_external_data=True)


def test_external_data_must_be_a_regular_file(maker: OnnxMaker) -> None:
    path = external(maker, "w.bin", W)
    with pytest.raises(FileError, match="cannot read"):
        maker.load(path, allow_external_data=True)
    os.mkfifo(maker.folder / "w.bin")
    with pytest.raises(FileError, match="not a regular file"):
        maker.load(path, allow_external_data=True)


def test_models_in_memory_have_no_folder(maker: OnnxMaker) -> None:
    path = external(maker, "w.bin", W)
    with pytest.raises(FrontendError, match="in another file"):
        maker.lift(onnx.load(path, load_external_data=False))


def test_external_data_of_attributes_is_never_read(maker: OnnxMaker) -> None:
    tensor = onnx.numpy_helper.from_array(W)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    path = maker.save(maker.model([maker.node("Constant", "", "y", value=tensor)], {"x": [1]}))
    (maker.folder / "w.bin").write_bytes(W.tobytes())
    for allowed in (False, True):
        with pytest.raises(FrontendError, match="has its data in another file"):
            maker.load(path, allow_external_data=allowed)
