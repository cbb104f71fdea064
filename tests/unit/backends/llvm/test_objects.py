"""Object files from modules and from data, archives, and loading them in process."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sqzc.backends.llvm import elf
from sqzc.backends.llvm.jit import load_in_process
from sqzc.backends.llvm.objects import (
    archive,
    assembly,
    check_symbols,
    compile_module,
    data_object,
    data_offsets,
)
from sqzc.diagnostics import InternalError
from sqzc.target import TARGETS

TARGET = TARGETS["x86-64-v2"]
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the generated code is for x86-64")

PARTS = [b"first", bytearray(range(256)), memoryview(b"x" * 64), b"", b"last"]

READER = """
target triple = "x86_64-unknown-linux-gnu"
@data = external VISIBILITY global [1 x i8]
declare ptr @memcpy(ptr, ptr, i64)

define i8 @reader_get(i64 %i) {
  %at = getelementptr i8, ptr @data, i64 %i
  %value = load i8, ptr %at
  ret i8 %value
}

define ptr @reader_start() {
  ret ptr @data
}

define void @reader_copy(ptr %to, i64 %count) {
  %_ = call ptr @memcpy(ptr %to, ptr @data, i64 %count)
  ret void
}

define hidden void @reader_inside() {
  ret void
}
"""


def reader(visibility: str = "") -> bytes:
    return compile_module(READER.replace("VISIBILITY", visibility), TARGET)


def laid_out(parts: list[bytes | bytearray | memoryview]) -> bytes:
    offsets, total = data_offsets([len(part) for part in parts])
    contents = bytearray(total)
    for offset, part in zip(offsets, parts, strict=True):
        contents[offset : offset + len(part)] = part
    return bytes(contents)


def test_offsets_are_aligned_and_end_with_the_last_byte() -> None:
    assert data_offsets([5, 256, 64, 0, 4]) == ([0, 64, 320, 384, 384], 388)
    assert data_offsets([]) == ([], 0)


def test_symbols_of_an_object() -> None:
    found = {symbol.name: symbol for symbol in elf.symbols(reader())}
    assert found["reader_get"].defined
    assert found["reader_get"].is_function
    assert not found["data"].defined
    assert found["reader_inside"].is_hidden
    assert elf.exported_functions([reader()]) == ["reader_copy", "reader_get", "reader_start"]
    assert elf.undefined_symbols([reader()]) == ["data", "memcpy"]
    both = [reader(), data_object("data", PARTS, TARGET)]
    assert elf.undefined_symbols(both) == ["memcpy"]
    check_symbols(both)
    with pytest.raises(InternalError, match=r"data$"):
        check_symbols([reader()])


def test_the_data_object_has_one_hidden_symbol() -> None:
    (symbol,) = elf.symbols(data_object("m_constants", PARTS, TARGET))
    assert (symbol.name, symbol.size) == ("m_constants", 388)
    assert (symbol.defined, symbol.is_global, symbol.is_hidden, symbol.is_function) == (True, True, True, False)


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf to check the file with")
def test_readelf_accepts_the_data_object(tmp_path: Path) -> None:
    path = tmp_path / "data.o"
    path.write_bytes(data_object("data", PARTS, TARGET))
    done = subprocess.run(["readelf", "-aW", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rodata = next(line for line in done.stdout.splitlines() if ".rodata" in line).split()
    assert rodata[-4:] == ["A", "0", "0", "64"], "read-only, aligned to 64"


@needs_x86
@pytest.mark.parametrize("visibility", ["", "hidden"])
def test_code_and_data_load_in_process(visibility: str) -> None:
    code = load_in_process([reader(visibility), data_object("data", PARTS, TARGET)], TARGET)
    assert sorted(code.addresses) == ["reader_copy", "reader_get", "reader_start"]
    start = ctypes.CFUNCTYPE(ctypes.c_void_p)(code.addresses["reader_start"])()
    assert start is not None
    assert start % 64 == 0
    want = laid_out(PARTS)
    assert ctypes.string_at(start, len(want)) == want
    get = ctypes.CFUNCTYPE(ctypes.c_uint8, ctypes.c_int64)(code.addresses["reader_get"])
    assert bytes(get(i) for i in range(len(want))) == want
    copy = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.addresses["reader_copy"])
    buffer = ctypes.create_string_buffer(len(want))
    copy(buffer, len(want))
    assert buffer.raw == want


@needs_x86
def test_constants_in_process_are_read_only() -> None:
    code = load_in_process([reader(), data_object("data", PARTS, TARGET)], TARGET)
    start = ctypes.CFUNCTYPE(ctypes.c_uint64)(code.addresses["reader_start"])()
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        low, high = (int(part, 16) for part in span.split("-"))
        if low <= start < high:
            assert rights.startswith("r-")
            return
    pytest.fail("the constants are not mapped")


@needs_x86
def test_memory_is_given_back() -> None:
    objects = [reader(), data_object("data", [bytes(8 << 20)], TARGET)]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    load_in_process(objects, TARGET)
    gc.collect()
    before = resident()
    for _ in range(10):
        load_in_process(objects, TARGET)
        gc.collect()
    assert resident() - before < 16 << 20


@needs_x86
def test_what_is_missing_is_an_error_not_the_end_of_the_process() -> None:
    text = """
    target triple = "x86_64-unknown-linux-gnu"
    declare void @absent()
    define void @f() {
      call void @absent()
      ret void
    }
    """
    with pytest.raises(InternalError, match="absent"):
        load_in_process([compile_module(text, TARGET)], TARGET)


def test_a_bad_module_is_a_bug() -> None:
    with pytest.raises(InternalError, match="generated module"):
        compile_module("define void @f() { ret i32 1 }", TARGET)


def test_assembly_is_for_the_target() -> None:
    text = """
    target triple = "x86_64-unknown-linux-gnu"
    define <16 x float> @f(<16 x float> %a, <16 x float> %b, <16 x float> %c) {
      %d = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
      ret <16 x float> %d
    }
    declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
    """
    assert "vfmadd" in assembly(text, TARGETS["x86-64-v4"])
    assert "%zmm" in assembly(text, TARGETS["x86-64-v4"])
    assert "%zmm" not in assembly(text, TARGETS["x86-64-v3"])


def test_equal_input_gives_equal_bytes_in_any_process(tmp_path: Path) -> None:
    source = (
        "import hashlib, sys\n"
        "from sqzc.backends.llvm.objects import archive, compile_module, data_object\n"
        "from sqzc.target import TARGETS\n"
        "t = TARGETS['x86-64-v2']\n"
        f"objects = [compile_module({READER.replace('VISIBILITY', '')!r}, t), data_object('data', [b'1', b'23'], t)]\n"
        "print(hashlib.sha256(archive(objects)).hexdigest())\n"
    )
    digests = set()
    for seed in ("0", "1"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "HOME": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, cwd=folder, env=environment
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.strip())
    here = archive([reader(), data_object("data", [b"1", b"23"], TARGET)])
    assert digests == {hashlib.sha256(here).hexdigest()}


@pytest.mark.skipif(shutil.which("ar") is None, reason="no ar to check the archive with")
def test_ar_accepts_the_archive(tmp_path: Path) -> None:
    objects = [reader(), data_object("data", [b"odd"], TARGET)]
    (tmp_path / "x.a").write_bytes(archive(objects, "thing"))
    listed = subprocess.run(["ar", "t", "x.a"], cwd=tmp_path, capture_output=True, text=True)
    assert (listed.stdout.split(), listed.stderr) == (["thing0.o", "thing1.o"], "")
    subprocess.run(["ar", "x", "x.a"], cwd=tmp_path, check=True)
    assert [(tmp_path / name).read_bytes() for name in ("thing0.o", "thing1.o")] == objects


@needs_x86
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to link the archive with")
def test_a_c_program_links_the_archive(tmp_path: Path) -> None:
    """By the archive's index: the linker takes members only for symbols that it lists."""
    (tmp_path / "libreader.a").write_bytes(archive([reader(), data_object("data", [b"*"], TARGET)]))
    (tmp_path / "main.c").write_text("char reader_get(long); int main(void) { return reader_get(0); }")
    linked = subprocess.run(
        ["cc", "main.c", "-o", "main", "-L.", "-lreader"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (linked.returncode, linked.stderr) == (0, "")
    assert subprocess.run([tmp_path / "main"]).returncode == ord("*")
