"""The ABI's constants and the header that a C or C++ program includes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sqzc.diagnostics import UsageError
from sqzc.ir.types import DType
from sqzc.runtime.abi import DTYPES, FUNCTION_NAMES, Status, check_prefix, header, identifier, strerror_text
from sqzc.runtime.metadata import Metadata, TensorMeta
from sqzc.runtime.tensor import TensorInfo

MakeMetadata = Callable[..., Metadata]


def compile_c(tool: str, flags: list[str], source: Path) -> None:
    compiler = shutil.which(tool)
    if compiler is None:
        pytest.skip(f"no compiler ({tool}) to check the header with")
    command = [compiler, *flags, "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_status_codes_are_the_published_ones() -> None:
    assert {status.name: status.value for status in Status} == {
        "OK": 0,
        "ERR_NULL": 1,
        "ERR_BATCH": 2,
        "ERR_THREADS": 3,
        "ERR_MEMORY": 4,
        "ERR_CPU": 5,
        "ERR_THREAD_START": 6,
        "ERR_ALIGN": 7,
    }
    texts = [strerror_text(status) for status in Status]
    assert len(set(texts)) == len(texts)


def test_element_types_are_spelt_as_in_the_ir() -> None:
    assert set(DTYPES) == {dtype.value for dtype in DType}
    for dtype in DType:
        meta: TensorMeta = {"name": "x", "shape": [1], "dtype": dtype.value, "layout": ""}
        assert TensorInfo.from_metadata(meta).dtype == dtype.numpy


def test_the_text_about_the_cpu_names_the_features() -> None:
    assert "avx512f, avx512vl" in strerror_text(Status.ERR_CPU, ["avx512f", "avx512vl"])
    assert "avx512f" not in strerror_text(Status.ERR_MEMORY, ["avx512f"])


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("squeezenet1.1", "squeezenet1_1"),
        ("resnet-50 v2", "resnet_50_v2"),
        ("1x1", "m_1x1"),
        ("äöü", "model"),
        ("", "model"),
        ("_x", "x"),
        ("9" * 100, "m_" + "9" * 62),
    ],
)
def test_a_model_name_becomes_an_identifier(name: str, word: str) -> None:
    assert identifier(name) == word
    assert check_prefix(word) == word


@pytest.mark.parametrize("prefix", ["", "1a", "_a", "a-b", "a b", "ä", "a\n", "a" * 65])
def test_a_bad_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError):
        check_prefix(prefix)


def test_the_header_declares_every_function_and_leaves_no_blank(make_metadata: MakeMetadata) -> None:
    text = header("net1", make_metadata())
    for name in FUNCTION_NAMES:
        assert re.search(rf"\bnet1_{name}\(", text), name
    assert "@" not in text
    assert "f32[1,3,4,5] NCHW" in text
    assert "subtracts the mean (1, 2.5, 3)" in text
    assert "#define net1_INPUT_0_ELEMENTS 60 " in text
    assert "#define net1_WORKSPACE_ALIGNMENT 64" in text


def test_the_header_says_when_weights_are_random(make_metadata: MakeMetadata) -> None:
    assert "not trained" not in header("net", make_metadata())
    assert "not trained (random:7)" in header("net", make_metadata(weights="random:7"))


@pytest.mark.parametrize(("tool", "flags"), [("cc", ["-std=c89"]), ("cc", ["-std=c11"]), ("c++", ["-x", "c++"])])
def test_two_headers_go_into_one_program(
    tmp_path: Path, make_metadata: MakeMetadata, tool: str, flags: list[str]
) -> None:
    hostile = make_metadata(name="*/ int x; /* ??/ \\", licence="ö */\nint y;")
    hostile["inputs"][0]["name"] = "**//*\\"
    (tmp_path / "one.h").write_text(header("one", hostile))
    (tmp_path / "ONE.h").write_text(header("ONE", make_metadata(mean=None)))
    source = tmp_path / "program.c"
    source.write_text(
        '#include "one.h"\n#include "ONE.h"\n#include "one.h"\n'
        "int main(void) { one_model *m = 0; ONE_destroy(0); one_destroy(m); return SQZC_ERR_CPU; }\n"
    )
    compile_c(tool, flags, source)
