"""The published facts and where local models are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqzc.diagnostics import FileError
from sqzc.zoo import published, search_path


def test_the_published_facts_are_well_formed() -> None:
    for name, entry in published().items():
        assert entry.name == name
        assert entry.licence
        assert entry.licence_url.startswith("https://")
        assert len(entry.input.mean) == entry.input.shape[1]
        assert {file.role for file in entry.files} == {"graph", "weights"}
        for file in entry.files:
            assert file.bytes > 0
            assert len(bytes.fromhex(file.sha256)) == 32
            assert len(bytes.fromhex(file.sha384)) == 48
            assert file.urls
            assert all(url.startswith("https://") and url.endswith(f"/{file.name}") for url in file.urls)


def test_squeezenet() -> None:
    entry = published()["squeezenet1.1"]
    assert entry.input.shape == (1, 3, 227, 227)
    assert entry.input.mean == (103.96, 116.78, 123.68)
    assert entry.input.channel_order == "BGR"
    assert (entry.input.name, entry.output) == ("data", "softmaxout")
    assert {file.name: file.bytes for file in entry.files} == {"predict_net.pb": 6175, "init_net.pb": 6181001}


def test_the_environment_comes_before_pyproject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.sqzc]\nmodel-path = ["models", "../shared", "/abs"]\n')
    got = search_path({"SQZC_MODEL_PATH": "/one::two:~/three"}, inner)
    assert got == [
        Path("/one"),
        inner / "two",
        Path("/home/somebody/three"),
        tmp_path / "models",
        tmp_path / "../shared",
        Path("/abs"),
    ]


def test_the_nearest_table_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.sqzc]\nmodel-path = ["outer"]\n')
    (inner / "pyproject.toml").write_text("[tool.ruff]\n")
    assert search_path({}, inner) == [tmp_path / "outer"]
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.sqzc]\n")
    assert search_path({}, inner) == []


def test_nothing_is_set(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("tool = 3\n")
    assert not [path for path in search_path({"SQZC_MODEL_PATH": ""}, tmp_path) if path.is_relative_to(tmp_path)]


@pytest.mark.parametrize(
    "text",
    [
        "[tool.sqzc",
        '[tool.sqzc]\nmodel-path = "models"\n',
        "[tool.sqzc]\nmodel-path = [1]\n",
        "\xff",
        "a = " + "[" * 9999,
    ],
)
def test_a_pyproject_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(FileError, match=r"pyproject\.toml"):
        search_path({}, tmp_path)


def test_a_pyproject_too_large(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(FileError, match="too large"):
        search_path({}, tmp_path)
