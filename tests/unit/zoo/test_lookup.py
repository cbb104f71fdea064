"""Finding a zoo model: the order of places, and what may be used from each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sqzc.diagnostics import ZooError
from sqzc.zoo import ZooModel, default_cache_dir, find
from sqzc.zoo.manifest import ModelEntry


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def put(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name.replace("_", ".")).write_bytes(data)
    return folder


def look(tiny: ModelEntry, cache: Path, **options: Any) -> ZooModel:
    return find("tiny", cache_dir=cache, manifest={"tiny": tiny}, **options)


def test_places_in_order(tmp_path: Path, tiny: ModelEntry, cache: Path, server: Any) -> None:
    first, second, given = tmp_path / "first", tmp_path / "second", tmp_path / "given"
    options: dict[str, Any] = {"model_dir": given, "search_path": [first, second]}
    assert look(tiny, cache, **options).where == "network"
    assert look(tiny, cache, **options).where == "cache"
    put(second / "tiny", net_pb=b"2", weights_pb=b"2")
    assert look(tiny, cache, **options).folder == second / "tiny"
    put(first / "tiny", net_pb=b"1", weights_pb=b"1")
    found = look(tiny, cache, **options)
    assert (found.where, found.folder) == ("search-path", first / "tiny")
    put(given, net_pb=b"0", weights_pb=b"0")
    found = look(tiny, cache, **options)
    assert (found.where, found.folder) == ("model-dir", given)
    put(given / "tiny", net_pb=b"0", weights_pb=b"0")
    assert look(tiny, cache, **options).folder == given / "tiny"


def test_a_folder_that_lacks_a_file_is_passed_over(tmp_path: Path, tiny: ModelEntry, cache: Path) -> None:
    put(tmp_path / "tiny", net_pb=b"here")
    assert look(tiny, cache, search_path=[tmp_path]).where == "network"
    assert look(tiny, cache, search_path=[tmp_path], weights=False).where == "search-path"


def test_only_a_folder_named_by_the_model_is_taken_from_the_search_path(
    tmp_path: Path, tiny: ModelEntry, cache: Path
) -> None:
    put(tmp_path, net_pb=b"some", weights_pb=b"other model")
    assert look(tiny, cache, search_path=[tmp_path]).where == "network"


def test_a_local_file_that_is_not_published_is_used_with_a_warning(
    tmp_path: Path, tiny: ModelEntry, cache: Path, server: Any
) -> None:
    published = server.served["a/net.pb"].data
    folder = put(tmp_path / "tiny", net_pb=published, weights_pb=b"rounded", names_txt=b"a\nb")
    found = look(tiny, cache, search_path=[tmp_path])
    assert found.paths == {"net.pb": folder / "net.pb", "weights.pb": folder / "weights.pb"}
    assert {name: file.verified for name, file in found.files.items()} == {"net.pb": True, "weights.pb": False}
    assert not found.verified
    (warning,) = found.warnings
    assert "unverified" in warning
    assert str(folder / "weights.pb") in warning
    assert "\n" not in warning
    assert found.labels == folder / "names.txt"


def test_what_comes_over_the_network_is_verified(tiny: ModelEntry, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = look(tiny, cache, progress=lambda done, total: seen.append((done, total)))
    assert found.verified
    assert found.warnings == ()
    assert found.labels is None
    assert found.folder == cache / "tiny"
    total = sum(file.bytes for file in tiny.files)
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


def test_the_network_is_refused_what_is_not_published(tiny: ModelEntry, cache: Path, server: Any) -> None:
    server.served["a/weights.pb"].data = b"z" * tiny.files[1].bytes
    with pytest.raises(ZooError, match="another file than the published one"):
        look(tiny, cache)
    assert not (cache / "tiny" / "weights.pb").exists()


@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_a_damaged_cache_is_fetched_again(tiny: ModelEntry, cache: Path, damage: str) -> None:
    path = look(tiny, cache).paths["weights.pb"]
    good = path.read_bytes()
    path.write_bytes(good[:-1] if damage == "truncated" else good[:-1] + b"?")
    found = look(tiny, cache)
    assert (found.where, found.verified) == ("network", True)
    assert path.read_bytes() == good


def test_a_damaged_cache_is_not_used_without_the_network(tiny: ModelEntry, cache: Path) -> None:
    look(tiny, cache).paths["weights.pb"].write_bytes(b"?")
    with pytest.raises(ZooError, match=r"damaged(.|\n)*not to be used"):
        look(tiny, cache, allow_network=False)


def test_not_found_names_places_checksums_and_the_way_out(
    tmp_path: Path, tiny: ModelEntry, cache: Path, server: Any
) -> None:
    server.served.clear()
    put(tmp_path / "path" / "tiny", net_pb=b"x")
    with pytest.raises(ZooError) as caught:
        look(tiny, cache, model_dir=tmp_path / "given", search_path=[tmp_path / "path"])
    text = str(caught.value)
    assert f"{tmp_path / 'given'}: no such folder" in text
    assert f"{tmp_path / 'path' / 'tiny'}: no weights.pb" in text
    assert f"{cache / 'tiny'}: no such folder" in text
    assert f"{server.url('b/net.pb')}: HTTP 404" in text
    for file in tiny.files:
        for fact in (file.name, str(file.bytes), file.sha256, file.sha384):
            assert fact in text
    assert "--weights random" in text
    assert "--model-dir" in text


def test_random_weights_are_no_way_out_when_the_structure_is_missing(
    tiny: ModelEntry, cache: Path, server: Any
) -> None:
    with pytest.raises(ZooError) as caught:
        look(tiny, cache, weights=False, allow_network=False)
    assert "--weights random" not in str(caught.value)
    assert "weights.pb" not in str(caught.value)
    assert look(tiny, cache, weights=False).paths.keys() == {"net.pb"}
    assert server.served["a/weights.pb"].seen_ranges == []


def test_an_unknown_name(tiny: ModelEntry, cache: Path) -> None:
    with pytest.raises(ZooError, match=r"no model 'tniy'(.|\n)*one of tiny(.|\n)*did you mean 'tiny'"):
        find("tniy", cache_dir=cache, manifest={"tiny": tiny})
    with pytest.raises(ZooError, match=r"squeezenet1\.1"):
        find("squeezenet")


@pytest.mark.parametrize("name", ["../tiny", "/etc", "", "tiny/."])
def test_a_name_is_never_a_path(tiny: ModelEntry, cache: Path, name: str) -> None:
    with pytest.raises(ZooError, match="no model"):
        find(name, cache_dir=cache, manifest={"tiny": tiny})


def test_the_default_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir().name == "models"
    assert "sqzc" in default_cache_dir().parts


def test_the_shared_weights_are_found_and_called_unverified(shared_dir: Path, cache: Path) -> None:
    found = find("squeezenet1.1", search_path=[shared_dir / "models"], cache_dir=cache, allow_network=False)
    assert found.files["predict_net.pb"].verified
    assert not found.files["init_net.pb"].verified
    assert len(found.warnings) == 1
    assert found.labels is not None
