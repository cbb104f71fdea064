"""`--dump-ir DIR`: the IR after every pass that changed it, then plan, LLVM IR and assembly, in numbered files.

    00-input.sqz  03-fold-constants.sqz  ...  19-plan.txt  20-llvm.ll  21-assembly.s  weights.safetensors  index.json
    index.html

Every `.sqz` file is an input for `sqzc compile` that goes on from there. Numbers are those of the passes as they ran;
passes that changed nothing stand in index.json alone. index.html shows all of it (`sqzc.report`). The files of an
earlier dump are removed first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqzc.diagnostics import FileError
from sqzc.driver.build import Code, Settings
from sqzc.driver.facts import ModelFacts
from sqzc.driver.labels import labels_array
from sqzc.driver.sources import Source
from sqzc.ir.constant import Array
from sqzc.ir.files import SHARED_WEIGHTS, save_weights, weights_of, write_text
from sqzc.ir.graph import Graph
from sqzc.ir.printer import print_graph
from sqzc.passes.base import Pass
from sqzc.passes.manager import Instrument, PassRecord
from sqzc.plan.program import Program
from sqzc.plan.text import print_program

INDEX = "index.json"
_NUMBERED = re.compile(r"\d{2,}-[a-z0-9-]+\.(sqz|txt|ll|s)")


class DumpIr(Instrument):
    """Writes the dumps of one compilation. It only reads what it is shown."""

    def __init__(self, folder: Path, source: Source, settings: Settings) -> None:
        self.folder, self.source, self.settings = folder, source, settings
        self.records: list[PassRecord] = []
        self.arrays: dict[str, Array] = dict(labels_array(source.labels))
        self.stored: set[str] = set()
        self.files: list[dict[str, Any]] = []

    def before_pipeline(self, graph: Graph) -> None:
        """Makes the folder and writes the graph as it came."""
        self._prepare()
        self._write_graph("00-input.sqz", graph)
        self.files.append({"file": "00-input.sqz", "changed": True})
        self._write_index()

    def after_pass(self, index: int, step: Pass, graph: Graph, record: PassRecord) -> None:
        """Writes the graph if the pass changed it."""
        self.records.append(record)
        entry: dict[str, Any] = {"file": None, **record.to_json()}
        if record.changed:
            entry["file"] = f"{index:02d}-{record.name}.sqz"
            self._write_graph(entry["file"], graph)
        self.files.append(entry)
        self._write_index()

    def write_plan(self, program: Program) -> None:
        """Writes the buffer program; its packed weights go to the weights file like all others."""
        constants = [constant for constant in program.constants.values() if not constant.is_inline]
        self._store({constant.key: constant.data for constant in constants})
        self._write_stage("plan", "txt", print_program(program))

    def write_code(self, code: Code) -> None:
        """Writes LLVM IR and assembly."""
        self._write_stage("llvm", "ll", code.module_text)
        self._write_stage("assembly", "s", code.assembly)

    def note_checks(self, checks: Sequence[Mapping[str, Any]]) -> None:
        """Adds what `--verify-passes` measured of each pass, in the order in which they ran."""
        entries = [entry for entry in self.files if "spec" in entry]
        for entry, check in zip(entries, checks, strict=False):
            entry["check"] = dict(check)
        self._write_index()

    def write_page(self) -> None:
        """Writes the page about everything that has been dumped."""
        from sqzc.report import write_report

        write_report(self.folder)

    def _write_stage(self, name: str, suffix: str, text: str) -> None:
        file = f"{len(self.files):02d}-{name}.{suffix}"
        write_text(self.folder / file, text)
        self.files.append({"file": file, "changed": True})
        self._write_index()

    def _prepare(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.folder / INDEX).is_file():
                for path in self.folder.iterdir():
                    if _NUMBERED.fullmatch(path.name) or path.name == "index.html":
                        path.unlink()
        except OSError as error:
            raise FileError(f"cannot write dumps to {self.folder}", got=error.strerror) from None

    def _write_graph(self, file: str, graph: Graph) -> None:
        self._store(weights_of(graph))
        write_text(self.folder / file, print_graph(self._continuable(graph)))

    def _store(self, arrays: Mapping[str, Array]) -> None:
        self.arrays.update(arrays)
        if self.arrays.keys() - self.stored:
            save_weights(self.folder / SHARED_WEIGHTS, self.arrays)
            self.stored = set(self.arrays)

    def _continuable(self, graph: Graph) -> Graph:
        """A copy whose meta says how far the compilation has come."""
        copy = graph.clone()
        facts: ModelFacts = replace(self.source.facts, build=self.settings.state(self.records))
        copy.meta = facts.to_meta()
        return copy

    def _write_index(self) -> None:
        write_text(self.folder / INDEX, json.dumps({"dumps": self.files}, indent=1) + "\n")
