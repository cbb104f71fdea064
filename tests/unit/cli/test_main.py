"""Finding subcommands, exit codes, and what is kept of a bug."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest

import sqzc as package
from sqzc.cli import crash, main
from sqzc.diagnostics import InternalError, UsageError
from sqzc.ir.files import load_graph
from sqzc.ir.parser import parse_graph
from sqzc.passes.manager import PassFailure

GRAPH = 'graph @g(%x: f32[2]) {\n  %y = relu(%x) : f32[2]\n  yield %y as "y"\n}\n'


def commands() -> list[list[str]]:
    found = [[name] for name in main.SUBCOMMANDS if name != "zoo"]
    return [*found, ["zoo", "list"], ["zoo", "fetch"], ["zoo", "verify"]]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_shows_examples(words: list[str], sqzc) -> None:
    done = sqzc(*words, "--help")
    assert done.code == 0
    assert "Examples:\n" in done.out
    assert f"sqzc {' '.join(words)} " in done.out.split("Examples:\n")[1]
    assert done.err == ""


def test_help_lists_every_subcommand(sqzc) -> None:
    done = sqzc("--help")
    assert done.code == 0
    for name in main.SUBCOMMANDS:
        assert f"\n  {name} " in done.out


def test_version(sqzc) -> None:
    assert sqzc("--version").out == f"sqzc, version {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compil"], "did you mean 'compile'?"),
        (["compile"], "Missing argument 'MODEL'"),
        (["compile", "squeezenet1.1"], "Missing option '-o'"),
        (["compile", "a", "-o", "b", "--emit", "exe"], "'exe' is not one of"),
        (["classify", "lib.so"], "Missing argument 'IMAGES...'"),
        (["info", "a", "--frobnicate"], "--frobnicate"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, sqzc) -> None:
    done = sqzc(*arguments)
    assert done.code == 2
    assert words in done.err
    assert "Usage:" in done.err


def broken(error: BaseException) -> click.Group:
    """A command line with a subcommand that raises."""

    @click.group()
    def cli() -> None:
        pass

    @cli.command()
    @click.argument("words", nargs=-1)
    def work(words: tuple[str, ...]) -> None:
        raise error

    return cli


def test_a_mistake_of_the_users(sqzc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "cli", broken(UsageError("that is odd", hint="try another")))
    done = sqzc("work")
    assert done == (1, "", "error[US01]: that is odd\n  hint: try another\n")


def test_a_bug_is_kept(sqzc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = parse_graph(GRAPH)
    failure = PassFailure("it is wrong", "fold-mean", ["dead-code"], graph)
    error = RuntimeError("outer")
    error.__cause__ = failure
    monkeypatch.setattr(main, "cli", broken(error))
    monkeypatch.setattr(crash.tempfile, "tempdir", str(tmp_path))
    done = sqzc("work", "a b")
    assert done.code == 70
    assert "Traceback" in done.err
    assert "it is wrong" in done.err
    (folder,) = tmp_path.glob("sqzc-bug-*")
    assert str(folder) in done.err
    assert (folder / "command.txt").read_text() == "sqzc work 'a b'\n"
    assert "RuntimeError: outer" in (folder / "traceback.txt").read_text()
    assert json.loads((folder / "versions.json").read_text())["sqzc"] == package.__version__
    assert str(load_graph(folder / "before.sqz")) == str(graph)


@pytest.mark.parametrize("error", [InternalError("promise broken"), AssertionError("never"), ZeroDivisionError()])
def test_bugs_have_their_own_code(error: Exception, sqzc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(main, "cli", broken(error))
    monkeypatch.setattr(crash.tempfile, "tempdir", str(tmp_path))
    done = sqzc("work")
    assert done.code == 70
    assert type(error).__name__ in done.err


def test_interruption(sqzc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "cli", broken(KeyboardInterrupt()))
    done = sqzc("work")
    assert done.code == 130
    assert "Traceback" not in done.err


def test_a_reader_that_has_had_enough(place: Path) -> None:
    (place / "g.sqz").write_text(GRAPH.replace("[2]", "[2]") * 1)
    script = textwrap.dedent(
        """
        import sys
        from sqzc.cli.main import run
        sys.exit(run(["opt", "g.sqz"]))
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=place
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(timeout=60)


def test_classify_loads_no_compiler() -> None:
    script = textwrap.dedent(
        """
        import sys
        import sqzc.cli.classify
        assert not {"llvmlite", "onnx", "networkx", "google.protobuf"} & set(sys.modules)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
