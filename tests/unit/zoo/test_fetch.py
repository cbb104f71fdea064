"""Downloading: nothing but the published bytes ever gets the file's name."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqzc.diagnostics import ZooError
from sqzc.zoo.fetch import fetch
from sqzc.zoo.manifest import FileEntry


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_a_good_server(tmp_path: Path, weights: FileEntry, served_weights: Any) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(weights, tmp_path / "deep" / "cache", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == served_weights.data
    assert names(path.parent) == {"weights.pb"}
    assert seen[0] == (0, weights.bytes)
    assert seen[-1] == (weights.bytes, weights.bytes)
    assert seen == sorted(seen)
    assert served_weights.seen_ranges == [None]


def test_what_is_there_is_not_fetched_again(tmp_path: Path, weights: FileEntry, served_weights: Any) -> None:
    fetch(weights, tmp_path)
    fetch(weights, tmp_path)
    assert len(served_weights.seen_ranges) == 1


def test_a_damaged_file_is_thrown_away_and_fetched_again(
    tmp_path: Path, weights: FileEntry, served_weights: Any
) -> None:
    (tmp_path / "weights.pb").write_bytes(b"x" + served_weights.data[1:])
    assert fetch(weights, tmp_path).read_bytes() == served_weights.data


def test_a_broken_connection_is_resumed_within_one_call(
    tmp_path: Path, only_first: FileEntry, served_weights: Any
) -> None:
    served_weights.breaks_after = [100_000, 50_000]
    assert fetch(only_first, tmp_path).read_bytes() == served_weights.data
    assert served_weights.seen_ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_call_goes_on(tmp_path: Path, only_first: FileEntry, served_weights: Any) -> None:
    served_weights.breaks_after = [1000, 0]
    with pytest.raises(ZooError, match=r"ended after 1000 of 1024000 bytes(.|\n)*sha256 [0-9a-f]{64}, sha384"):
        fetch(only_first, tmp_path)
    assert names(tmp_path) == {"weights.pb.part"}
    served_weights.seen_ranges.clear()
    assert fetch(only_first, tmp_path).read_bytes() == served_weights.data
    assert served_weights.seen_ranges == ["bytes=1000-"]
    assert names(tmp_path) == {"weights.pb"}


def test_a_server_without_ranges_starts_over(tmp_path: Path, only_first: FileEntry, served_weights: Any) -> None:
    served_weights.ranges = False
    served_weights.breaks_after = [100_000]
    assert fetch(only_first, tmp_path).read_bytes() == served_weights.data
    assert served_weights.seen_ranges == [None, "bytes=100000-"]


def test_bytes_of_an_earlier_call_that_are_wrong(tmp_path: Path, only_first: FileEntry, served_weights: Any) -> None:
    (tmp_path / "weights.pb.part").write_bytes(b"rubbish")
    assert fetch(only_first, tmp_path).read_bytes() == served_weights.data
    assert served_weights.seen_ranges == ["bytes=7-", None]


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_complete_but_wrong_part(tmp_path: Path, only_first: FileEntry, served_weights: Any, surplus: int) -> None:
    (tmp_path / "weights.pb.part").write_bytes(b"y" * (only_first.bytes + surplus))
    assert fetch(only_first, tmp_path).read_bytes() == served_weights.data


def test_a_complete_part_needs_no_server(tmp_path: Path, only_first: FileEntry, served_weights: Any) -> None:
    (tmp_path / "weights.pb.part").write_bytes(served_weights.data)
    fetch(only_first, tmp_path)
    assert served_weights.seen_ranges == []


def test_corrupted_bytes_are_refused_and_nothing_is_left(
    tmp_path: Path, only_first: FileEntry, served_weights: Any
) -> None:
    served_weights.data = b"x" + served_weights.data[1:]
    with pytest.raises(ZooError, match="another file than the published one"):
        fetch(only_first, tmp_path)
    assert len(served_weights.seen_ranges) == 1, "the same bytes would only come again"
    assert (tmp_path / "weights.pb.part").read_bytes() == b""
    assert not (tmp_path / "weights.pb").exists()


@pytest.mark.parametrize("size", [-1, 1, 10**6])
def test_another_size_is_refused_before_it_is_read(
    tmp_path: Path, only_first: FileEntry, served_weights: Any, size: int
) -> None:
    served_weights.announces = only_first.bytes + size
    with pytest.raises(ZooError, match=f"has {only_first.bytes + size} bytes, not the published"):
        fetch(only_first, tmp_path)
    assert (tmp_path / "weights.pb.part").stat().st_size == 0


def test_no_more_than_the_published_size_is_read(tmp_path: Path, only_first: FileEntry, served_weights: Any) -> None:
    served_weights.data += b"z" * 10**6
    served_weights.omits_length = True
    seen = []
    with pytest.raises(ZooError, match="more than the published"):
        fetch(only_first, tmp_path, lambda done, total: seen.append(done))
    assert max(seen) <= only_first.bytes
    assert (tmp_path / "weights.pb.part").stat().st_size == 0


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_the_next_address_is_asked(tmp_path: Path, weights: FileEntry, server: Any, status: int) -> None:
    first = server.served["a/weights.pb"]
    server.served["b/weights.pb"] = replace(first, seen_ranges=[])
    first.status = status
    assert fetch(weights, tmp_path).read_bytes() == first.data


def test_the_next_address_goes_on_where_the_first_broke_off(tmp_path: Path, weights: FileEntry, server: Any) -> None:
    first = server.served["a/weights.pb"]
    second = server.served["b/weights.pb"] = replace(first, seen_ranges=[])
    first.breaks_after = [5000, 0]
    assert fetch(weights, tmp_path).read_bytes() == first.data
    assert second.seen_ranges == ["bytes=5000-"]


def test_every_address_is_named_when_none_serves(tmp_path: Path, weights: FileEntry, server: Any) -> None:
    server.served.clear()
    with pytest.raises(ZooError) as caught:
        fetch(weights, tmp_path)
    for url in weights.urls:
        assert f"{url}: HTTP 404" in str(caught.value)


def test_a_range_that_was_not_asked_for(tmp_path: Path, only_first: FileEntry, served_weights: Any) -> None:
    (tmp_path / "weights.pb.part").write_bytes(served_weights.data[:10])
    for lie in ("bytes 0-9/1024000", "bytes 10-1023999/5", "nonsense"):
        served_weights.content_range = lie
        with pytest.raises(ZooError, match="another range"):
            fetch(only_first, tmp_path)
    served_weights.content_range = None
    assert fetch(only_first, tmp_path).read_bytes() == served_weights.data


def test_a_range_that_cannot_be_satisfied(tmp_path: Path, only_first: FileEntry, served_weights: Any) -> None:
    whole = served_weights.data
    (tmp_path / "weights.pb.part").write_bytes(whole[:1000])
    served_weights.data = whole[:500]
    with pytest.raises(ZooError, match="has 500 bytes"):
        fetch(only_first, tmp_path)


def test_nobody_listens_and_nobody_answers(tmp_path: Path, weights: FileEntry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(ZooError, match="timed out"):
            fetch(replace(weights, urls=(f"http://127.0.0.1:{port}/x",)), tmp_path, timeout=0.2)
        assert time.monotonic() - start < 5
    with pytest.raises(ZooError, match="refused"):
        fetch(replace(weights, urls=(f"http://127.0.0.1:{port}/x",)), tmp_path)


def test_an_answer_that_is_not_http(tmp_path: Path, weights: FileEntry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            with listener.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(ZooError, match="could not be downloaded"):
            fetch(replace(weights, urls=(f"http://127.0.0.1:{listener.getsockname()[1]}/x",)), tmp_path)
        thread.join()


def test_a_cache_that_cannot_be_written(tmp_path: Path, weights: FileEntry) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ZooError, match="cache cannot be used"):
        fetch(weights, tmp_path / "file" / "cache")


def test_threads_that_want_the_same_file(tmp_path: Path, weights: FileEntry, served_weights: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(weights, tmp_path), range(4)))
    assert len(set(paths)) == 1
    assert len(served_weights.seen_ranges) == 1


def test_processes_that_want_the_same_file(tmp_path: Path, weights: FileEntry, served_weights: Any) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch, args=(weights, tmp_path)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "weights.pb").read_bytes() == served_weights.data
    assert len(served_weights.seen_ranges) == 1
