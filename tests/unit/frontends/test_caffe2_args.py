"""Arguments by kind, and the generated wire format against its source."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sqzc.diagnostics import FrontendError
from sqzc.frontends.caffe2 import caffe2_pb2
from sqzc.frontends.caffe2.args import ArgReader
from sqzc.frontends.caffe2.loader import parse_net


@pytest.fixture
def reader(c2):
    """A reader of one argument of each kind."""
    args = {"i": 3, "f": 0.5, "s": "word", "ints": [1, 2], "floats": [1.0, 2.0], "bad": b"\xff", "long": [1] * 2000}
    net = parse_net(c2.net([c2.op("Relu", "X", "Y", **args)], "X", "Y").SerializeToString(), "p.pb")
    return ArgReader(net, net.ops[0])


def test_getters_give_values_and_defaults(reader):
    assert (reader.integer("i", 0), reader.integer("none", 7)) == (3, 7)
    assert (reader.real("f", 0.0), reader.real("i", 0.0), reader.real("none", 1.5)) == (0.5, 3.0, 1.5)
    assert (reader.flag("i", False), reader.flag("none", True)) == (True, True)
    assert (reader.text("s", ""), reader.text("none", "x")) == ("word", "x")
    assert (reader.ints("ints"), reader.ints("none")) == ((1, 2), None)
    assert (reader.number("i"), reader.number("f"), reader.number("none")) == (3, 0.5, None)
    assert (reader.word_or_int("i"), reader.word_or_int("s"), reader.word_or_int("none")) == (3, "word", None)
    assert reader.float_array("floats").tolist() == [1.0, 2.0]
    assert (reader.positive("i", 1), reader.has("s"), reader.has("none")) == (3, True, False)


@pytest.mark.parametrize(
    ("getter", "name"),
    [
        *[("integer", name) for name in ("f", "s", "ints", "floats")],
        *[("real", name) for name in ("s", "ints")],
        *[("text", name) for name in ("i", "bad", "ints")],
        *[("ints", name) for name in ("i", "f", "s", "floats", "long")],
        *[("number", name) for name in ("s", "ints")],
    ],
)
def test_a_value_of_the_wrong_kind_is_an_error_at_its_place(reader, getter, name):
    defaults = {"integer": (0,), "real": (0.0,), "text": ("",)}.get(getter, ())
    with pytest.raises(FrontendError) as caught:
        getattr(reader, getter)(name, *defaults)
    assert f"op 0 'Y' (Relu), argument '{name}'" in str(caught.value)


def test_positive_and_require(reader):
    with pytest.raises(FrontendError, match="at least 1, got 0"):
        reader.positive("none", 0)
    with pytest.raises(FrontendError, match="'none' is missing"):
        reader.require("none")


def test_finish_names_an_unread_argument(reader):
    for name in ("i", "f", "s", "ints", "floats", "bad"):
        reader.has(name)
    with pytest.raises(FrontendError, match="'long'"):
        reader.finish()
    reader.has("long")
    reader.finish()


def test_the_generated_code_is_that_of_the_proto_file():
    text = (Path(caffe2_pb2.__file__).parent / "caffe2.proto").read_text()
    messages = dict(re.findall(r"^message (\w+) \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE))
    assert set(messages) == set(caffe2_pb2.DESCRIPTOR.message_types_by_name)
    for name, body in messages.items():
        written = {
            (field, int(number)) for field, number in re.findall(r"^  \w+ \w+ (\w+) = (\d+)", body, re.MULTILINE)
        }
        fields = caffe2_pb2.DESCRIPTOR.message_types_by_name[name].fields
        assert written == {(field.name, field.number) for field in fields}


def test_the_generated_code_loads_without_a_warning():
    path = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:0] = {path!r}\nimport sqzc.frontends.caffe2.caffe2_pb2 as p; p.NetDef()"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
