"""Reading files of class names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sqzc.diagnostics import FileError
from sqzc.runtime.labels import read_labels


def write(folder: Path, data: bytes) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(data)
    return path


def test_wordnet_ids_are_left_out(tmp_path: Path) -> None:
    data = b"n01440764 tench, Tinca tinca\r\nn01443537\tgoldfish\nplain label\nn123 kept\n\n"
    labels = read_labels(write(tmp_path, data))
    assert labels.names == ("tench, Tinca tinca", "goldfish", "plain label", "n123 kept")
    assert labels.sha256 == hashlib.sha256(data).hexdigest()


def test_only_newlines_end_a_label(tmp_path: Path) -> None:
    assert len(read_labels(write(tmp_path, "a\u2028b\x0cc\nd".encode())).names) == 2


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xff\xfe\n", b"a\n\nb\n"])
def test_a_file_that_is_no_list_of_labels(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FileError):
        read_labels(write(tmp_path, data))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(FileError, match=r"cannot be read"):
            read_labels(path)


def test_a_file_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqzc.runtime.labels.MAX_LABELS_BYTES", 10)
    with pytest.raises(FileError, match="too large"):
        read_labels(write(tmp_path, b"12345678901"))


def test_the_real_list(squeezenet_dir: Path) -> None:
    labels = read_labels(squeezenet_dir / "synset_words.txt")
    assert len(labels.names) == 1000
    assert labels.names[0] == "tench, Tinca tinca"
