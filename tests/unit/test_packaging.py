"""What `pip install` takes along is what the repository has; test_layering.py sees to the packages themselves."""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def folder_of(package: str) -> Path:
    """Where a package's files are, by the longest entry of package-dir that fits."""
    home = max((name for name in SETUP["package-dir"] if f"{package}.".startswith(f"{name}.")), key=len)
    return ROOT.joinpath(SETUP["package-dir"][home], *package.removeprefix(home).strip(".").split("."))


def test_every_data_file_is_taken_along() -> None:
    patterns = SETUP["package-data"]
    for package in SETUP["packages"]:
        folder = folder_of(package)
        wanted = [*patterns["*"], *patterns.get(package, [])]
        inner = {folder_of(other) for other in SETUP["packages"]} - {folder}
        for path in folder.rglob("*"):
            if not path.is_file() or path.suffix in (".py", ".pyc", ".md", ".sh") or inner & set(path.parents):
                continue
            name = path.relative_to(folder).as_posix()
            assert any(fnmatch.fnmatch(name, pattern) for pattern in wanted), f"{path} would not be installed"
