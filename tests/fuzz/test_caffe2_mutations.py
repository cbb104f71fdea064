"""Mutated Caffe2 files: the outcome is a graph or a SqzcError, whatever the bytes.

A failure names its seed in the test's id; the nets have a few hundred bytes, so there is little to minimise.
"""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from google.protobuf import text_format

from sqzc.diagnostics import SqzcError
from sqzc.frontends.caffe2 import caffe2_pb2, lift
from sqzc.ir.verifier import verify

PREDICT = """
name: "fuzz"
op { input: "data" input: "w" input: "b" output: "c" type: "Conv"
     arg { name: "kernel" i: 3 } arg { name: "pad" i: 1 } arg { name: "order" s: "NHWC" } }
op { input: "c" output: "c" type: "Relu" }
op { input: "c" output: "p" type: "MaxPool"
     arg { name: "kernel" i: 2 } arg { name: "stride" i: 2 } arg { name: "legacy_pad" i: 3 }
     arg { name: "order" s: "NHWC" } }
op { input: "p" input: "s" output: "p" type: "Mul" arg { name: "broadcast" i: 1 } arg { name: "axis" i: 3 } }
op { input: "p" output: "l" output: "r" type: "Split" arg { name: "axis" i: 3 } arg { name: "split" ints: 1 ints: 3 } }
op { input: "l" input: "r" output: "k" output: "k_dims" type: "Concat" arg { name: "axis" i: -1 } }
op { output: "z" type: "ConstantFill" arg { name: "shape" ints: 4 } arg { name: "value" f: 0.5 } }
op { input: "k" input: "z" output: "k" type: "Add" arg { name: "broadcast" i: 1 } }
op { input: "k" output: "q" type: "ResizeNearest"
     arg { name: "width_scale" f: 1.5 } arg { name: "height_scale" f: 2 } arg { name: "order" s: "NHWC" } }
op { input: "q" output: "t" type: "Transpose" arg { name: "axes" ints: 0 ints: 3 ints: 1 ints: 2 } }
op { input: "t" output: "f" output: "old" type: "Reshape" arg { name: "shape" ints: 0 ints: -1 } }
op { input: "f" output: "g" type: "Slice"
     arg { name: "starts" ints: 0 ints: 1 } arg { name: "ends" ints: -1 ints: 9 } }
op { input: "g" input: "fw" input: "fb" output: "y" type: "FC" }
op { input: "y" output: "y" type: "Softmax" }
external_input: "data" external_input: "w" external_input: "b" external_input: "s"
external_input: "fw" external_input: "fb"
external_output: "y" external_output: "k_dims"
"""
INIT = """
name: "init"
op { output: "w" type: "ConstantFill"
     arg { name: "shape" ints: 4 ints: 3 ints: 3 ints: 2 } arg { name: "value" f: 0.1 } }
op { output: "b" type: "GivenTensorFill" arg { name: "shape" ints: 4 }
     arg { name: "values" floats: 1 floats: 2 floats: 3 floats: 4 } }
op { output: "s" type: "GivenTensorFill" arg { name: "shape" ints: 4 }
     arg { name: "values" floats: 1 floats: 2 floats: 3 floats: 4 } }
op { output: "fw" type: "ConstantFill" arg { name: "shape" ints: 5 ints: 8 } arg { name: "value" f: 1 } }
op { output: "fb" type: "ConstantFill" arg { name: "shape" ints: 5 } }
"""
SHAPES = {"data": (2, 5, 6, 2)}
INTERESTING = [0, 1, 2, 7, 8, 10, 18, 34, 42, 127, 128, 255]


def binary(text: str) -> bytes:
    return text_format.Parse(text, caffe2_pb2.NetDef()).SerializeToString()


def attempt(folder, predict: bytes, init: bytes, suffix: str = "pb") -> bool:
    """Whether the model was lifted; anything but success or a SqzcError escapes."""
    paths = folder / f"predict_net.{suffix}", folder / f"init_net.{suffix}"
    paths[0].write_bytes(predict)
    paths[1].write_bytes(init)
    try:
        verify(lift(*paths, input_shapes=SHAPES))
    except SqzcError:
        return False
    return True


def mutate(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(out))
        kind = rng.randrange(5)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            out[at] = rng.choice(INTERESTING)
        elif kind == 2:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del out[at : at + rng.randrange(1, 9)]
            out = out or bytearray(b"\x00")
        else:
            start = rng.randrange(len(out))
            out[at:at] = out[start : start + rng.randrange(1, 40)]
    return bytes(out)


def test_the_unharmed_net_is_lifted(tmp_path):
    assert attempt(tmp_path, binary(PREDICT), binary(INIT))
    assert attempt(tmp_path, PREDICT.encode(), INIT.encode(), "pbtxt")


@pytest.mark.parametrize("seed", range(6))
def test_mutated_binary_nets(tmp_path, seed):
    rng = random.Random(seed)
    predict, init = binary(PREDICT), binary(INIT)
    lifted = 0
    for _ in range(250):
        if rng.randrange(4):
            lifted += attempt(tmp_path, mutate(predict, rng), init)
        else:
            lifted += attempt(tmp_path, predict, mutate(init, rng))
    assert 0 < lifted < 250


@pytest.mark.parametrize("seed", range(2))
def test_mutated_text_nets(tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(40):
        attempt(tmp_path, mutate(PREDICT.encode(), rng), INIT.encode(), "pbtxt")


def test_every_number_at_its_extremes(tmp_path):
    """Each integer of each argument set to numbers that break arithmetic, one at a time."""
    extremes = (0, -1, -2, 3, 1 << 20, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63))
    for text, is_predict in ((PREDICT, True), (INIT, False)):
        net = text_format.Parse(text, caffe2_pb2.NetDef())
        for op in net.op:
            for arg in op.arg:
                fields = [(arg, "i")] if arg.HasField("i") else [(arg.ints, i) for i in range(len(arg.ints))]
                for holder, key in fields:
                    for value in extremes:
                        before = getattr(holder, "i") if key == "i" else holder[key]  # noqa: B009
                        _store(holder, key, value)
                        raw = net.SerializeToString()
                        attempt(tmp_path, raw if is_predict else binary(PREDICT), binary(INIT) if is_predict else raw)
                        _store(holder, key, before)


def _store(holder, key, value):
    if key == "i":
        holder.i = value
    else:
        holder[key] = value


def test_every_float_at_its_extremes(tmp_path):
    for value in (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-45, 3e38):
        net = text_format.Parse(PREDICT, caffe2_pb2.NetDef())
        for op in net.op:
            for arg in op.arg:
                if arg.HasField("f"):
                    before, arg.f = arg.f, value
                    attempt(tmp_path, net.SerializeToString(), binary(INIT))
                    arg.f = before


def test_swapped_and_repeated_blobs(tmp_path):
    """Blob names dealt out anew: wrong ranks, wrong types, reads of side outputs and cycles of names."""
    rng = random.Random(11)
    lifted = 0
    for _ in range(300):
        net = text_format.Parse(PREDICT, caffe2_pb2.NetDef())
        names = sorted({name for op in net.op for name in (*op.input, *op.output)})
        for _ in range(rng.choice((1, 1, 2, 4))):
            op = rng.choice([op for op in net.op if op.input])
            op.input[rng.randrange(len(op.input))] = rng.choice(names)
        lifted += attempt(tmp_path, net.SerializeToString(), binary(INIT))
    assert 0 < lifted < 300


def test_random_operator_types_with_these_arguments(tmp_path):
    """Any operator in any other's place."""
    from sqzc.frontends.caffe2.lifts import table

    rng = random.Random(12)
    for _ in range(400):
        net = text_format.Parse(PREDICT, caffe2_pb2.NetDef())
        op = rng.choice(list(net.op))
        op.type = rng.choice(list(table))
        if rng.randrange(2):
            del op.arg[:]
        attempt(tmp_path, net.SerializeToString(), binary(INIT))


def test_random_bytes(tmp_path):
    rng = np.random.default_rng(5)
    for size in (1, 2, 3, 17, 100, 1000):
        for _ in range(20):
            assert not attempt(tmp_path, rng.bytes(size), binary(INIT))


def test_a_small_file_cannot_ask_for_much_memory(tmp_path):
    net = text_format.Parse(PREDICT, caffe2_pb2.NetDef())
    bomb = b"".join(b"\x12\x02\x2a\x00" for _ in range(200_000))
    tracemalloc.start()
    try:
        assert not attempt(tmp_path, net.SerializeToString() + bomb, binary(INIT))
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()
