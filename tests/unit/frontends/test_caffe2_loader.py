"""Files in, records out: every spelling of a good net, one clear error for every bad one."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from google.protobuf import text_format

from sqzc.diagnostics import FileError, FrontendError, SqzcError
from sqzc.frontends.caffe2 import caffe2_pb2, find_files, lift, load_model
from sqzc.frontends.caffe2 import loader as loader_module
from sqzc.frontends.caffe2.loader import parse_net, read_value_info
from sqzc.frontends.caffe2.weights import load_parameters


def relu_net(c2):
    return c2.net([c2.op("Relu", "X", "Y")], "X", "Y")


def test_a_folder_or_a_path_names_a_model(c2):
    c2.write(relu_net(c2))
    c2.write(c2.init({"w": np.ones(2, np.float32)}), "init_net.pb")
    (c2.folder / "value_info.json").write_text('{"X": [1, [2, 3]]}')
    for model in (c2.folder, c2.folder / "predict_net.pb", str(c2.folder)):
        files = find_files(model)
        assert [p and p.name for p in (files.predict, files.init, files.value_info)] == [
            "predict_net.pb",
            "init_net.pb",
            "value_info.json",
        ]
    assert str(lift(c2.folder).inputs[0].type) == "f32[2,3]"


def test_the_init_net_is_found_by_the_predict_nets_own_name(c2):
    c2.write(relu_net(c2), "my_predict.pb")
    c2.write(c2.init({}), "init_net.pb")
    c2.write(c2.init({}), "my_init.pb")
    assert find_files(c2.folder / "my_predict.pb").init.name == "my_init.pb"
    assert find_files(c2.folder / "my_predict.pb", c2.folder / "init_net.pb").init.name == "init_net.pb"


def test_text_and_binary_nets_are_the_same_net(c2):
    net = c2.net([c2.op("Conv", "X W", "Y", kernel=3, order="NHWC", pads=[0, 1, 2, 3], alpha=0.5)], "X W", "Y")
    net.op[0].device_option.device_type = 1
    text = text_format.MessageToString(net).encode()
    from_binary = parse_net(net.SerializeToString(), "a.pb")
    for name in ("a.pbtxt", "a.pb"):
        from_text = parse_net(text, name)
        assert [op.type for op in from_text.ops] == ["Conv"]
        assert from_text.ops[0].args.keys() == from_binary.ops[0].args.keys()
        assert all(from_text.ops[0].args[k].same_value(v) for k, v in from_binary.ops[0].args.items())
    assert parse_net(text.replace(b"CUDA", b"1"), "a.pbtxt").ops[0].type == "Conv"


def test_packed_and_unpacked_floats_are_the_same_values(c2):
    values = np.float32([1.5, -2.25, 3e-20, np.inf])
    packed = caffe2_pb2.Argument(name="values", floats=values.tolist()).SerializeToString()
    unpacked = c2.unpacked("values", 5, values.tolist())
    assert len(unpacked) > len(packed)
    for raw in (packed, unpacked):
        net = c2.net([c2.op("GivenTensorFill", "", "w", shape=[4])])
        net.op[0].arg.append(caffe2_pb2.Argument.FromString(raw))
        got = load_parameters(parse_net(net.SerializeToString(), "init.pb"))["w"]
        assert got.dtype == np.float32
        assert got.tolist() == values.tolist()


def test_packed_and_unpacked_ints_are_the_same_values(c2):
    unpacked = b"\x0a\x05shape" + b"\x30\x02\x30\x03"
    packed = b"\x0a\x05shape" + b"\x32\x02\x02\x03"
    for raw in (packed, unpacked):
        net = c2.net([c2.op("ConstantFill", "", "w", value=0.5)])
        net.op[0].arg.append(caffe2_pb2.Argument.FromString(raw))
        assert load_parameters(parse_net(net.SerializeToString(), "init.pb"))["w"].shape == (2, 3)


def test_a_large_init_net_loads_quickly(c2):
    rng = np.random.default_rng(1)
    body = c2.unpacked("values", 5, rng.standard_normal(1_200_000).astype(np.float32).tolist())
    net = c2.net([c2.op("GivenTensorFill", "", "w", shape=[1000, 1200])])
    net.op[0].arg.append(caffe2_pb2.Argument.FromString(body))
    # SerializeToString would pack: put the unpacked argument on the wire by hand.
    fill = c2.op("GivenTensorFill", "", "w", shape=[1000, 1200]).SerializeToString()
    fill += b"\x2a" + _varint(len(body)) + body
    data = b"\x12" + _varint(len(fill)) + fill
    assert len(data) > 6_000_000
    start = time.perf_counter()
    got = load_parameters(parse_net(data, "init_net.pb"))["w"]
    assert time.perf_counter() - start < 0.5
    assert got.shape == (1000, 1200)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def test_missing_files_say_what_was_looked_for(c2):
    with pytest.raises(FileError, match="no Caffe2 net in folder"):
        find_files(c2.folder)
    with pytest.raises(FileError, match="no file or folder"):
        find_files(c2.folder / "nothing.pb")
    c2.write(relu_net(c2))
    with pytest.raises(FileError, match="cannot read"):
        load_model(c2.folder, c2.folder / "nothing.pb")
    with pytest.raises(FileError, match="cannot"):
        load_model("x" * 5000)


def test_an_empty_file_and_a_folder_in_place_of_a_file(c2):
    (c2.folder / "predict_net.pb").write_bytes(b"")
    with pytest.raises(FileError, match="is empty"):
        load_model(c2.folder)
    (c2.folder / "init_net.pb").mkdir()
    c2.write(relu_net(c2))
    with pytest.raises(FileError, match=r"not a regular file|cannot read"):
        load_model(c2.folder / "predict_net.pb", c2.folder / "init_net.pb" / "..")


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"PK\x03\x04" + bytes(200), "zip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "HDF5"),
        (b"\x08\x07\x12\x07pytorch\x1a\x032.0:\x02\x08\x01", ".onnx"),
        (b'{"data": 1}', "JSON"),
        (bytes(range(256)) * 4, "complete"),
    ],
)
def test_foreign_files_are_named_for_what_they_are(data, hint):
    with pytest.raises(FrontendError, match="not a Caffe2") as caught:
        parse_net(data, "predict_net.pb")
    assert hint in (caught.value.hint or "")


def test_a_truncated_net_is_refused_at_every_offset(c2):
    data = c2.net([c2.op("Conv", "X W b", "conv1", kernel=3), c2.op("Relu", "conv1", "Y")], "X W b", "Y")
    raw = data.SerializeToString()
    c2.write(c2.init({"W": np.ones((2, 3, 3, 3), np.float32), "b": np.ones(2, np.float32)}), "init_net.pb")
    path = c2.folder / "predict_net.pb"
    for end in range(1, len(raw)):
        path.write_bytes(raw[:end])
        # Whatever the cut leaves standing, the output was named last and is gone.
        with pytest.raises(SqzcError):
            lift(path, input_shapes={"X": (1, 3, 8, 8)})


def test_a_truncated_init_net_is_refused_at_every_offset(c2):
    net = c2.net([c2.op("Conv", "X W b", "Y", kernel=1)], "X W b", "Y")
    c2.write(net)
    init = c2.init({"W": np.ones((2, 3, 1, 1), np.float32), "b": np.ones(2, np.float32)})
    del init.external_output[:]
    raw = init.SerializeToString()
    path = c2.folder / "init_net.pb"
    for end in range(1, len(raw)):
        path.write_bytes(raw[:end])
        with pytest.raises(SqzcError):
            lift(c2.folder, input_shapes={"X": (1, 3, 8, 8)})
    path.write_bytes(raw)
    lift(c2.folder, input_shapes={"X": (1, 3, 8, 8)})


def test_counts_are_bounded_before_anything_is_parsed(c2, monkeypatch):
    monkeypatch.setattr(loader_module, "MAX_OPS", 100)
    monkeypatch.setattr(loader_module, "MAX_ARGS", 100)
    monkeypatch.setattr(caffe2_pb2.NetDef, "ParseFromString", lambda *_: pytest.fail("parsed"), raising=False)
    with pytest.raises(FrontendError, match="more than 100 operators"):
        parse_net(b"\x12\x00" * 101, "a.pb")
    op = b"\x2a\x00" * 101
    with pytest.raises(FrontendError, match="more than 100 arguments"):
        parse_net(b"\x12" + _varint(len(op)) + op, "a.pb")


def test_sizes_are_bounded_before_reading(c2, monkeypatch):
    monkeypatch.setattr(loader_module, "MAX_PREDICT_BYTES", 10)
    c2.write(relu_net(c2))
    with pytest.raises(FileError, match="too large"):
        load_model(c2.folder)
    monkeypatch.setattr(loader_module, "MAX_TEXT_BYTES", 10)
    with pytest.raises(FrontendError, match="too large"):
        parse_net(b'name: "0123456789"', "a.pbtxt")


def test_a_shape_larger_than_its_values_never_allocates(c2):
    for shape in ([1 << 40], [1 << 20, 1 << 20], [-3], [2, 0], [1] * 9):
        net = c2.net([c2.op("GivenTensorFill", "", "w", shape=shape, values=[1.0])])
        with pytest.raises(FrontendError):
            load_parameters(parse_net(net.SerializeToString(), "init.pb"))
        net = c2.net([c2.op("ConstantFill", "", "w", shape=shape, value=1.0)])
        with pytest.raises(FrontendError):
            load_parameters(parse_net(net.SerializeToString(), "init.pb"))


def test_filled_blobs_cannot_use_up_the_memory(c2):
    big = [c2.op("ConstantFill", "", f"w{i}", shape=[1 << 27], value=1.0) for i in range(4)]
    net = c2.net([*big, c2.op("Sum", "w0 w1 w2 w3", "Y")], "", "Y")
    with pytest.raises(FrontendError, match="constant fills"):
        c2.lift(net)


def test_names_that_are_not_utf8_and_args_given_twice(c2):
    raw = b"\x12\x08\x22\x04Relu\x0a\x00"
    parse_net(raw, "a.pb")
    with pytest.raises(FrontendError, match="UTF-8"):
        parse_net(raw.replace(b"Relu", b"R\xff\xfeu"), "a.pb")
    op = c2.op("Relu", "X", "Y", order="NCHW")
    op.arg.append(caffe2_pb2.Argument(name="order", s=b"NCHW"))
    parse_net(c2.net([op]).SerializeToString(), "a.pb")
    op.arg[1].s = b"NHWC"
    with pytest.raises(FrontendError, match="given twice"):
        parse_net(c2.net([op]).SerializeToString(), "a.pb")


@pytest.mark.parametrize(
    "content",
    [
        *("[]", "{", '{"data": 3}', '{"data": [1, 3]}', '{"data": [99, [1]]}', '{"data": [1, [0]]}'),
        *('{"data": [1, [1.5]]}', '{"data": [true, [1]]}', "[" * 100_000),
    ],
)
def test_a_bad_value_info_is_one_error(tmp_path, content):
    path = tmp_path / "value_info.json"
    path.write_text(content)
    with pytest.raises(FrontendError):
        read_value_info(path)


def test_value_info_gives_types(tmp_path):
    path = tmp_path / "value_info.json"
    path.write_text(json.dumps({"data": [1, [1, 3, 4, 5]], "n": [10, [2]], "b": [5, []]}))
    assert {k: str(v) for k, v in read_value_info(path).items()} == {
        "data": "f32[1,3,4,5]",
        "n": "i64[2]",
        "b": "bool[]",
    }


def test_text_nets_with_mistakes_say_where():
    with pytest.raises(FrontendError, match=r"1:6|text net"):
        parse_net(b"op { nonsense: 3 }", "predict_net.pbtxt")
    with pytest.raises(FrontendError, match="text net"):
        parse_net(b"op { arg { i: 99999999999999999999999 } }", "predict_net.pbtxt")
    with pytest.raises(FrontendError, match="UTF-8"):
        parse_net(b'name: "\xff\xfe"', "predict_net.pbtxt")


def test_an_init_net_may_be_empty_but_not_foreign(c2):
    assert parse_net(b'name: "init"', "init_net.pbtxt", may_be_empty=True).ops == ()
    assert parse_net(b"\x0a\x04init", "init_net.pb", may_be_empty=True).ops == ()
    for data in (b"\x0a\x04init\x78\x01", b"\x08\x01"):
        with pytest.raises(FrontendError):
            parse_net(data, "init_net.pb", may_be_empty=True)
    with pytest.raises(FrontendError, match="no operators"):
        parse_net(b"\x0a\x04init", "predict_net.pb")
