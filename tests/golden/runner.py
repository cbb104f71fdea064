"""Golden text tests: a `.sqz` file says in `RUN` lines what is done with it and in `CHECK` lines what comes out.

    # RUN: sqzc opt --passes fuse-conv-relu{limit=1}
    graph @g(...) { ... }
    # CHECK: conv2d

The command is carried out in process; its output is the printed graph, then one `note:` line per note of a pass.
`RUN: not sqzc opt` expects an error, whose rendering is the output. A line `# -----` splits a file into graphs that are
treated one by one; the outputs are joined by the same line. Constants that are not inline get stand-in data made from
their symbol and type.
"""

from __future__ import annotations

import io
import re
import shlex
import zlib
from pathlib import Path

import numpy as np
from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import Options
from filecheck.parser import Parser, pattern_for_opts

from sqzc.backends.reference import evaluate_node
from sqzc.diagnostics import SqzcError
from sqzc.ir.constant import Array
from sqzc.ir.equality import first_difference
from sqzc.ir.files import weights_of
from sqzc.ir.graph import Graph
from sqzc.ir.parser import parse_graph
from sqzc.ir.printer import print_graph
from sqzc.ir.types import DType
from sqzc.passes.manager import PassManager
from sqzc.target import TARGETS

SPLIT = "# -----"
_RUN = re.compile(r"^\s*(?:#|//)\s*RUN:\s*(.*)$", re.MULTILINE)
_CONST = re.compile(r'const\s+%(\w+|"[^"]*")\s*=\s*@("[^"]*"|[\w./-]+)\s*:\s*(\w+)\[([\d,\s]*)\]')


def stand_in_weights(text: str) -> dict[str, Array]:
    """Data for every constant of the text that is not inline, the same for the same symbol and type."""
    arrays: dict[str, Array] = {}
    for match in _CONST.finditer(text):
        symbol, dtype = match.group(2).strip('"'), DType(match.group(3)).numpy
        shape = tuple(int(dim) for dim in match.group(4).split(",") if dim.strip())
        rng = np.random.default_rng(zlib.crc32(f"{symbol}{shape}".encode()))
        arrays[symbol] = rng.uniform(-1, 1, shape).astype(dtype) if dtype.kind == "f" else np.ones(shape, dtype)
    return arrays


def parse(text: str, file: str = "") -> Graph:
    """The graph of a text with stand-in weights."""
    return parse_graph(text, stand_in_weights(text), file)


def manager(spec: str) -> PassManager:
    """A pass manager as the driver sets it up, for AVX2."""
    return PassManager(spec, target=TARGETS["x86-64-v3"], evaluate=evaluate_node)


def _options(words: list[str]) -> tuple[str, bool]:
    """(pipeline, whether an error is expected) of a RUN line."""
    fails = words[:1] == ["not"]
    words = words[fails:]
    assert words[:2] == ["sqzc", "opt"], f"unknown command {words}"
    rest = words[2:]
    assert rest[:1] in ([], ["--passes"]), f"unknown option {rest}"
    assert len(rest) in (0, 2), f"unknown options {rest}"
    return (rest[1] if rest else ""), fails


def _section(text: str, file: str, passes: str) -> str:
    graph = parse(text, file)
    records = manager(passes).run(graph)
    text = print_graph(graph)
    difference = first_difference(graph, parse_graph(text, weights_of(graph)))
    assert difference is None, f"the printed graph reads back as another one: {difference}\n{text}"
    notes = [f"note: {record.name}: {note}\n" for record in records for note in record.notes]
    return text + "".join(notes)


def output_of(text: str, command: str, file: str) -> str:
    """What a RUN command prints."""
    passes, fails = _options(shlex.split(command))
    outputs = []
    for section in text.split(f"\n{SPLIT}\n"):
        # Line numbers in errors count from the top of the section.
        try:
            outputs.append(_section(section.lstrip("\n"), file, passes))
            assert not fails, f"this was expected to fail:\n{outputs[-1]}"
        except SqzcError as error:
            if not fails:
                raise
            outputs.append(error.render() + "\n")
    return f"{SPLIT}\n".join(outputs)


def check(text: str, output: str, file: str) -> str:
    """Matches `output` against the CHECK lines of `text`; the empty string when it fits, else what is wrong."""
    options = Options(match_filename=file)
    matcher = Matcher(options, FInput("output", output), Parser(options, io.StringIO(text), *pattern_for_opts(options)))
    matcher.stderr = report = io.StringIO()
    return "" if matcher.run() == 0 else report.getvalue()


def run_file(path: Path) -> str:
    """Carries out every RUN line of a golden file; the empty string when all checks hold, else a report."""
    text = path.read_text()
    commands = _RUN.findall(text)
    if not commands:
        return f"{path} has no RUN line"
    for command in commands:
        try:
            output = output_of(text, command, path.name)
        except SqzcError as error:
            return f"{path}: unexpected failure\n{error.render()}"
        problem = check(text, output, str(path))
        if problem:
            return f"{problem}\nRUN: {command}\n--- output ---\n{output}"
    return ""
