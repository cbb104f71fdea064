"""The page is whole, safe and small. That it works is tested in a browser: tests/e2e/test_report_browser.py."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from sqzc.cli.report import command
from sqzc.diagnostics import FileError
from sqzc.report import read_dumps, render_page, report_data, write_report
from sqzc.report.page import LIBRARIES, SCRIPTS, script_json


@pytest.fixture
def page(dump_folder: Path) -> str:
    """The text of a page."""
    return write_report(dump_folder).read_text()


def test_the_page_names_nothing_that_a_browser_would_fetch(page: str) -> None:
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["']?\s*(?:https?:)?//""", markup)
    assert "@import" not in markup
    assert "url(" not in markup
    assert "default-src 'none'" in markup


def test_the_data_come_out_as_they_went_in(dump_folder: Path, page: str) -> None:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    assert json.loads(match.group(1)) == json.loads(json.dumps(report_data(read_dumps(dump_folder))))


def test_names_cannot_end_the_script_or_the_title(dump_folder: Path) -> None:
    data = report_data(read_dumps(dump_folder))
    data["model"] = "</script></title><b>&amp;{{STYLE}}"
    text = render_page(data)
    assert text.count("</script>") == len(LIBRARIES) + len(SCRIPTS) + 1
    assert text.count("</title>") == 1
    assert "<b>" not in text.split("<style>")[0]
    assert json.loads(script_json(data)) == json.loads(json.dumps(data))


def test_equal_dumps_give_equal_pages(dump_folder: Path, page: str) -> None:
    assert write_report(dump_folder).read_text() == page


def test_the_page_itself_is_small(page: str) -> None:
    assert len(page) < 700_000


def test_vendored_files_are_those_that_the_readme_names() -> None:
    folder = files("sqzc.report") / "vendor"
    readme = (folder / "README.md").read_text()
    for name in LIBRARIES:
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert re.search(rf"`{re.escape(name)}`.*\| {digest} \|", readme), name
    for licence in re.findall(r"`([\w-]+\.LICENSE\.txt)`", readme):
        assert "Permission is hereby granted" in (folder / licence).read_text()


def test_every_script_is_in_the_page() -> None:
    names = {entry.name for entry in (files("sqzc.report") / "assets").iterdir() if entry.name.endswith(".js")}
    assert names == set(SCRIPTS)


def test_the_command_writes_where_it_is_told(dump_folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [str(dump_folder)], catch_exceptions=False)
    assert done.exit_code == 0
    assert str(dump_folder / "index.html") in done.output
    other = tmp_path / "other.html"
    CliRunner().invoke(command, [str(dump_folder), "-o", str(other)], catch_exceptions=False)
    assert other.read_text() == (dump_folder / "index.html").read_text()


def test_the_command_gives_the_table_as_json(dump_folder: Path) -> None:
    done = CliRunner().invoke(command, [str(dump_folder), "--json"], catch_exceptions=False)
    data = json.loads(done.output)
    assert [row["pass"] for row in data["passes"]] == ["input", "fuse-conv-relu", "dead-code"]
    assert data["plan"]["kernels"] == 2
    assert not (dump_folder / "index.html").exists()


def test_the_command_needs_a_dump(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no dump"):
        CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False)
