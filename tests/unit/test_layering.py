"""The shape of the source tree: who imports whom, how long files are, and that packaging knows every folder."""

from __future__ import annotations

import ast
import fnmatch
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"compiler": "sqzc", "frontends": "sqzc.frontends", "passes": "sqzc.passes", "backends": "sqzc.backends"}

MAX_LINES = 600
# Longer by their nature, as tables are.
LONG_FILES: set[str] = set()

# What each part of sqzc may import of the others. A part that is not here is refused: say where it belongs.
MAY_IMPORT: dict[str, set[str]] = {
    "diagnostics": set(),
    "target": {"diagnostics"},
    "ir": {"diagnostics"},
    "plan": {"diagnostics", "ir", "target"},
    "passes": {"diagnostics", "ir", "target"},
    "frontends": {"diagnostics", "ir"},
    "backends": {"diagnostics", "ir", "plan", "target"},
    "runtime": {"diagnostics"},
    "zoo": {"diagnostics"},
    "report": {"diagnostics", "ir", "plan"},
    "driver": {"diagnostics", "ir", "target", "plan", "passes", "frontends", "backends", "runtime", "zoo", "report"},
}
# Nothing imports these, and they may import everything.
TOP = {"cli", "profile", "tune", "eval", "onnx_backend", "__main__"}
# Single modules that another part may import although it may not import their part.
EXCEPTIONS = {
    # The library's functions, error codes and header have one table, which loaders need without the compiler.
    ("backends", "sqzc.runtime.abi"),
}

# Packages of others that each part may import; numpy is everybody's.
EXTERNAL: dict[str, set[str]] = {
    "ir": {"networkx", "safetensors"},
    "passes": {"networkx"},
    "frontends": {"google", "onnx"},
    "backends": {"llvmlite", "onnx", "ziglang"},
    "runtime": {"PIL"},
    "zoo": {"PIL", "platformdirs"},
    "driver": {"llvmlite", "safetensors"},
    "onnx_backend": {"onnx"},
    "profile": {"llvmlite", "matplotlib"},
    "cli": {"click", "rich"},
}
DISTRIBUTIONS = {"google": "protobuf", "PIL": "pillow"}

# Where the process environment may be read; all else is told by its caller.
READS_ENVIRONMENT = {
    "compiler/driver/api.py",  # $SQZC_MODEL_PATH, for callers from Python
    "backends/llvm/link.py",  # handed on to the linker, less what would change its output
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages by its import name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, those inside functions too. `from sqzc import x` imports `sqzc.x`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module is None:
                continue  # A relative import, which is a fault of its own.
            if node.module in ("sqzc", *FOLDERS.values()):
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def part_of(module: str) -> str:
    """`ir` of `sqzc.ir.types`; empty for the root package itself."""
    return module.split(".")[1] if "." in module else ""


def test_the_tree_is_where_it_is_looked_for() -> None:
    assert {"sqzc", "sqzc.ir.graph", "sqzc.plan.lower", "sqzc.passes.manager"} <= modules().keys()
    assert {part_of(module) for module in modules()} - {""} - TOP <= MAY_IMPORT.keys()


def test_imports_follow_the_layers() -> None:
    broken = []
    for module, path in modules().items():
        part = part_of(module)
        if part in TOP:
            continue
        # The root package has the version, and imports on first use what it offers.
        allowed = {"", part, "__version__"} | (MAY_IMPORT[part] if part else {"diagnostics", "driver", "ir", "runtime"})
        for line, name in imports(path):
            known = name.split(".")[0] != "sqzc" or part_of(name) in allowed or (part, name) in EXCEPTIONS
            if not known:
                broken.append(f"{path}:{line}: {module} imports {name}")
    assert broken == []


def test_only_known_packages_of_others() -> None:
    broken = []
    for module, path in modules().items():
        known = {"sqzc", "numpy", *sys.stdlib_module_names, *EXTERNAL.get(part_of(module), ())}
        broken += [f"{path}:{line}: {name}" for line, name in imports(path) if name.split(".")[0] not in known]
    assert broken == []


def faults(path: Path) -> Iterator[tuple[int, str]]:
    """(line, what) of imports and handlers that the house style does not have."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "a relative import"
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            yield node.lineno, "a star import"
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            if broad and all(isinstance(line, ast.Pass | ast.Continue) for line in node.body):
                yield node.lineno, "a broad handler that does nothing"


def test_style_of_imports_and_handlers() -> None:
    assert [f"{path}:{line}: {what}" for path in modules().values() for line, what in faults(path)] == []


def test_environment_is_read_at_the_top_alone() -> None:
    readers = set()
    for module, path in modules().items():
        attributes = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
        if attributes & {"environ", "getenv"} and part_of(module) not in TOP:
            readers.add(path.relative_to(ROOT).as_posix())
    assert readers == READS_ENVIRONMENT


def test_every_package_of_others_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[<>=!~\[ ]", entry)[0].lower() for entries in lists for entry in entries}
    used = {name for names in EXTERNAL.values() for name in names} | {"numpy"}
    assert {DISTRIBUTIONS.get(name, name) for name in used} <= declared


def test_nobody_imports_folders_by_their_bare_names() -> None:
    paths = [path for folder in ("tests", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert Path(__file__).resolve() in paths
    for path in (*paths, *modules().values()):
        for line, name in imports(path):
            assert name.split(".")[0] not in FOLDERS, f"{path}:{line}: imports {name}, which is sqzc.{name}"


# -- files ------------------------------------------------------------------------------------------------------------


def source_files() -> list[Path]:
    folders = (*FOLDERS, "tests", "examples", "benchmarks")
    return [path for folder in folders for suffix in ("*.py", "*.pyi") for path in (ROOT / folder).rglob(suffix)]


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_files_stay_short() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): length(path) for path in source_files()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES and name not in LONG_FILES} == {}
    assert {name for name in LONG_FILES if lengths.get(name, 0) <= MAX_LINES} == set(), "no longer long"


def setuptools() -> dict[str, object]:
    settings: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return settings


def test_packaging_lists_every_package() -> None:
    folders = {path.parent for path in modules().values()}
    tree = set()
    for folder, package in FOLDERS.items():
        tree |= {
            ".".join([package, *path.relative_to(ROOT / folder).parts])
            for path in folders
            if path.is_relative_to(ROOT / folder)
        }
    listed = setuptools()["packages"]
    assert isinstance(listed, list)
    assert set(listed) - tree == set(), "packages that do not exist"
    assert tree - set(listed) == set(), "packages that pyproject.toml does not list"
    assert len(set(listed)) == len(listed)
    assert setuptools()["package-dir"] == {package: folder for folder, package in FOLDERS.items()}
    for path in folders:
        assert (path / "__init__.py").is_file(), f"{path} has modules but no __init__.py"


def test_packaging_takes_along_every_data_file() -> None:
    rules = setuptools()["package-data"]
    assert isinstance(rules, dict)
    packages = {path.parent: module for module, path in modules().items() if path.name == "__init__.py"}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if not path.is_file() or path.suffix in (".py", ".pyc", ".md", ".sh"):
                continue
            home = next(parent for parent in path.parents if parent in packages)
            patterns = [*rules["*"], *rules.get(packages[home], ())]
            name = path.relative_to(home).as_posix()
            matches = [p for p in patterns if fnmatch.fnmatch(name, p) and p.count("/") == name.count("/")]
            assert matches, f"no package-data pattern of {packages[home]} takes {name}"


# -- what an import brings in -----------------------------------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has after running `code`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


HEAVY = {"llvmlite", "onnx", "networkx", "google.protobuf", "safetensors", "click", "rich", "PIL", "platformdirs"}


@pytest.mark.parametrize("code", ["import sqzc", "import sqzc.runtime", "import sqzc; sqzc.load; sqzc.Model"])
def test_loading_a_library_needs_numpy_alone(code: str) -> None:
    loaded = loaded_by(code)
    assert not loaded & HEAVY
    assert {part_of(name) for name in loaded if name.split(".")[0] == "sqzc"} <= {"", "runtime", "diagnostics"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import sqzc.ir", {"llvmlite", "onnx", "google.protobuf"}),
        ("import sqzc.plan.text", {"llvmlite", "onnx", "google.protobuf"}),
        ("import sqzc.passes.pipelines", {"llvmlite", "onnx", "google.protobuf"}),
        ("import sqzc.frontends", {"llvmlite"}),
        ("import sqzc.backends.reference", {"llvmlite", "onnx", "google.protobuf"}),
    ],
)
def test_stages_bring_in_no_later_ones(code: str, absent: set[str]) -> None:
    assert not loaded_by(code) & absent
