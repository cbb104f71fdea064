"""Shared libraries by every linker there is: what they contain, and what happens when linking fails."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sqzc.backends.llvm import elf, link
from sqzc.backends.llvm.link import LINKERS, check_writable, find_linker, link_relocatable, link_shared
from sqzc.backends.llvm.objects import LIBC_SYMBOLS, compile_module, data_object
from sqzc.diagnostics import FileError, InternalError, LinkError, UsageError
from sqzc.target import TARGETS

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the generated code is for x86-64")

TARGET = TARGETS["x86-64-v2"]
EXPORTS = ["thing_get", "thing_pid"]
DATA = bytes(range(256)) * 400

MODULE = """
target triple = "x86_64-unknown-linux-gnu"
@thing_data = external global [1 x i8]
declare i32 @getpid()

define internal i8 @layer_7(i64 %i) noinline {
  %at = getelementptr i8, ptr @thing_data, i64 %i
  %value = load i8, ptr %at
  ret i8 %value
}

define i8 @thing_get(i64 %i) {
  %value = call i8 @layer_7(i64 %i)
  ret i8 %value
}

define i32 @thing_pid() {
  %pid = call i32 @getpid()
  ret i32 %pid
}

define void @thing_unlisted() {
  ret void
}
"""


@pytest.fixture(scope="module")
def objects() -> list[bytes]:
    return [compile_module(MODULE, TARGET), data_object("thing_data", [DATA], TARGET)]


@pytest.fixture(params=LINKERS)
def linker(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        find_linker(name)
    except LinkError:
        pytest.skip(f"{name} is not installed")
    return name


def link_to(path: Path, objects: list[bytes], linker: str | None = None) -> bytes:
    link_shared(objects, path, exports=EXPORTS, soname="thing.so", linker=linker)
    return path.read_bytes()


def test_the_library_works(objects: list[bytes], linker: str, tmp_path: Path) -> None:
    path = tmp_path / "thing.so"
    link_to(path, objects, linker)
    library = ctypes.CDLL(str(path))
    library.thing_get.restype = ctypes.c_uint8
    assert [library.thing_get(ctypes.c_int64(i)) for i in (0, 77, len(DATA) - 1)] == [0, 77, 255]
    assert library.thing_pid() == os.getpid()
    assert os.listdir(tmp_path) == ["thing.so"]


def test_only_the_listed_names_are_visible(objects: list[bytes], linker: str, tmp_path: Path) -> None:
    contents = link_to(tmp_path / "thing.so", objects, linker)
    dynamic = elf.symbols(contents, dynamic=True)
    assert sorted(symbol.name for symbol in dynamic if symbol.defined) == EXPORTS
    assert {symbol.name for symbol in dynamic if not symbol.defined} <= LIBC_SYMBOLS
    assert "layer_7" in {symbol.name for symbol in elf.symbols(contents)}, "profilers need the kernels' names"


def segments(contents: bytes) -> list[tuple[int, int, int, int]]:
    """Type, flags, address and size of each program header."""
    start, count = struct.unpack_from("<Q", contents, 32)[0], struct.unpack_from("<H", contents, 56)[0]
    found = []
    for i in range(count):
        kind, flags, _, address, _, _, size, _ = struct.unpack_from("<IIQQQQQQ", contents, start + 56 * i)
        found.append((kind, flags, address, size))
    return found


def test_no_memory_stays_writable_and_no_stack_executable(objects: list[bytes], linker: str, tmp_path: Path) -> None:
    load, stack, relro = 1, 0x6474E551, 0x6474E552
    executable, writable = 1, 2
    found = segments(link_to(tmp_path / "thing.so", objects, linker))
    ((_, _, relro_start, relro_size),) = [segment for segment in found if segment[0] == relro]
    for kind, flags, address, size in found:
        if kind == load and flags & writable:
            assert not flags & executable
            assert relro_start <= address
            assert address + size <= relro_start + relro_size
    assert [flags & executable for kind, flags, *_ in found if kind == stack] == [0]


def test_equal_input_gives_equal_bytes(
    objects: list[bytes], linker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "some" / "other folder"
    for folder in (one, two):
        folder.mkdir(parents=True)
    first = link_to(one / "a.so", objects, linker)
    monkeypatch.chdir(two)
    monkeypatch.setenv("LD_RUN_PATH", "/somewhere")
    monkeypatch.setenv("TMPDIR", str(two))
    assert link_to(Path("b.so"), objects, linker) == first
    assert str(tmp_path).encode() not in first
    assert b"sqzc-link" not in first


def test_one_object_of_several(objects: list[bytes], linker: str, tmp_path: Path) -> None:
    merged = link_relocatable(objects, linker=linker)
    assert elf.undefined_symbols([merged]) == ["getpid"]
    assert link_relocatable(objects, linker=linker) == merged
    path = tmp_path / "merged.so"
    link_to(path, [merged])
    library = ctypes.CDLL(str(path))
    library.thing_get.restype = ctypes.c_uint8
    assert library.thing_get(ctypes.c_int64(300)) == 300 % 256


def test_the_file_has_the_rights_of_any_new_file(objects: list[bytes], linker: str, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        link_to(tmp_path / "thing.so", objects, linker)
    finally:
        os.umask(old)
    mode = stat.S_IMODE((tmp_path / "thing.so").stat().st_mode)
    assert mode & 0o027 == 0
    assert mode & 0o640 == 0o640


def test_an_existing_file_is_replaced_and_not_written_into(objects: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "thing.so"
    link_to(path, objects)
    # A library that is loaded stays whole: its pages belong to the old file.
    library = ctypes.CDLL(str(path))
    inode = path.stat().st_ino
    link_to(path, objects)
    assert path.stat().st_ino != inode
    assert library.thing_pid() == os.getpid()


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
    path.chmod(0o755)


def fail_with(body: str, objects: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LinkError:
    """The error when the only linker is a program of this text; nothing may be left where the library should be."""
    tools, output = tmp_path / "tools", tmp_path / "output"
    tools.mkdir()
    output.mkdir()
    program(tools, "ld", body)
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(LinkError) as caught:
        link_to(output / "thing.so", objects)
    assert not list(output.iterdir())
    return caught.value


def test_a_failing_linker_is_quoted(objects: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = fail_with("sys.exit('ld: the moon is full')", objects, tmp_path, monkeypatch)
    assert "the moon is full" in error.render()
    assert "sqzc[link]" in error.render()


def test_a_hanging_linker_is_stopped(objects: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TIMEOUT_SECONDS", 0.5)
    error = fail_with("time.sleep(60)", objects, tmp_path, monkeypatch)
    assert "did not finish" in error.message


def test_a_linker_that_is_no_program(objects: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ld").write_bytes(b"\x7fELFgarbage")
    (tmp_path / "ld").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LinkError, match="cannot be run"):
        link_to(tmp_path / "thing.so", objects)


def without_ziglang(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., object] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ziglang" else real(name))


def test_no_linker_at_all(objects: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    without_ziglang(monkeypatch)
    with pytest.raises(LinkError) as caught:
        link_to(tmp_path / "thing.so", objects)
    text = caught.value.render()
    assert "binutils" in text
    assert "pip install 'sqzc[link]'" in text
    assert not list(tmp_path.iterdir())


def test_order_and_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("cc", "ld.lld", "ld"):
        program(tmp_path, name, "")
        assert find_linker().name == name
    if importlib.util.find_spec("ziglang") is not None:
        monkeypatch.setenv("PATH", "")
        assert find_linker().name == "ziglang"


def test_an_unknown_linker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'ld\.lld'"):
        find_linker("ldlld")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LinkError, match="'ld' is not installed"):
        find_linker("ld")


def test_missing_symbols_and_exports_are_found_here(objects: list[bytes], linker: str, tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="thing_data"):
        link_to(tmp_path / "thing.so", objects[:1], linker)
    with pytest.raises(InternalError, match="thing_nothing"):
        link_shared(
            objects, tmp_path / "thing.so", exports=["thing_get", "thing_nothing"], soname="thing.so", linker=linker
        )
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be_written(objects: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    bad = [tmp_path, tmp_path / "absent" / "x.so", tmp_path / "file" / "x.so", Path("/proc/x.so")]
    for path in bad:
        with pytest.raises(FileError) as caught:
            check_writable(path)
        assert str(path) in caught.value.render()
        with pytest.raises(FileError):
            link_to(path, objects)
    check_writable(tmp_path / "x.so")
    check_writable(tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    check_writable("x.so")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(FileError, match="cannot be written"):
            check_writable(tmp_path / "x.so")
    finally:
        tmp_path.chmod(0o700)
