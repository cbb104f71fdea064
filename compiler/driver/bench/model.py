"""A network timed against the peers: the library, the same network as ONNX, and the same numbers into both."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

import sqzc
from sqzc.diagnostics import UsageError
from sqzc.driver.api import WatchOptions, build
from sqzc.driver.api import optimize as run_pipeline
from sqzc.driver.bench.agreement import Agreement, compare
from sqzc.driver.bench.contender import Contender, Spec, opened
from sqzc.driver.bench.machine import Watch, busy_warning, machine_facts
from sqzc.driver.bench.peers import Peers, isa_limit, limit_note
from sqzc.driver.bench.summary import best, ratio, summarise
from sqzc.driver.bench.timing import Pace, Times, interleave
from sqzc.driver.facts import LibraryFacts
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.driver.sources import ModelLike, Source, read_model
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph
from sqzc.ir.types import DType
from sqzc.runtime.library import open_library
from sqzc.zoo import published

OURS = "sqzc"
"""What the compiled library is called among the contenders."""

FORMAT = 1
"""Of the records; another number for another meaning of a field."""


@dataclass(frozen=True)
class BenchOptions:
    """What is timed: every number of threads with every batch. `tolerance` is a share of the largest output."""

    peers: Peers
    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1,)
    pace: Pace = field(default_factory=Pace)
    tolerance: float = 1e-3
    seed: int = 0
    tell: Callable[[str], None] = lambda words: None

    def __post_init__(self) -> None:
        if not self.threads or not self.batches or min(*self.threads, *self.batches) < 1:
            raise UsageError(f"threads {self.threads}, batches {self.batches}", expected="numbers from 1 up")


@dataclass(frozen=True)
class Subject:
    """What is timed: a library, and the model that it was compiled from, which the peers run."""

    library: Path
    facts: LibraryFacts
    model: ModelLike | None
    options: ModelOptions
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.facts["name"]


@contextmanager
def prepare(
    model: str, of: ModelLike | None, options: ModelOptions, code: CodeOptions, tell: Callable[[str], None]
) -> Iterator[Subject]:
    """The library at `model`, or one compiled from `model` for as long as the block runs.

    A library does not hold the model it was compiled from: that is `of`, else the zoo's of the library's name.
    """
    path = Path(model)
    if is_library(path):
        if code != CodeOptions():
            raise UsageError("a library is compiled already", expected="a model for options of the compiler")
        facts = cast(LibraryFacts, open_library(path).read_metadata())
        known = of if of is not None else (facts["name"] if facts["name"] in published() else None)
        yield Subject(path, facts, known, _options_of(facts, options))
        return
    if of is not None:
        raise UsageError(f"{model} is a model, so another one for the peers makes no sense", expected="a library")
    with tempfile.TemporaryDirectory(prefix="sqzc-bench-") as folder:
        output = Path(folder, "model.so")
        tell("compiling")
        result = build(model, output, options, code, WatchOptions())
        facts = cast(LibraryFacts, open_library(output).read_metadata())
        yield Subject(output, facts, model, options, sum(result.seconds.values()))


def is_library(path: Path) -> bool:
    """Whether the file starts like a shared library."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def _options_of(facts: LibraryFacts, options: ModelOptions) -> ModelOptions:
    """Reads the model with the random weights that the library has, if it has such."""
    drawn = facts["weights"].startswith("random")
    return replace(options, weights=facts["weights"]) if drawn else options


# -- the peers' side --------------------------------------------------------------------------------------------------


def peer_graph(subject: Subject, batch: int) -> tuple[Graph, bool]:
    """The network as it was lifted, for a batch, and whether it leaves the subtraction of the mean to the caller.

    UsageError when it is not what the library was compiled from.
    """
    if subject.model is None:
        raise UsageError(
            f"which model the library '{subject.name}' was compiled from is not known, so the peers have none to run",
            hint="name it: --model MODEL",
        )
    if isinstance(subject.model, Graph) or str(subject.model).endswith(".sqz"):
        if batch != 1:
            raise UsageError(f"a batch of {batch} of a graph whose shapes are fixed", expected="--batch 1")
        return _without_passes(_same_files(subject, read_model(subject.model, subject.options))), False
    shapes = {meta["name"]: (batch * meta["shape"][0], *meta["shape"][1:]) for meta in subject.facts["inputs"]}
    source = read_model(subject.model, replace(subject.options, inputs=shapes, mean=None))
    return _without_passes(_same_files(subject, source)), True


def _without_passes(graph: Graph) -> Graph:
    """The graph at O0: what inference does not need is gone, all else is as in the file."""
    return run_pipeline(graph, "O0")


def _same_files(subject: Subject, source: Source) -> Graph:
    """The graph of a source that the library was compiled from."""
    ours = {entry["sha256"] for entry in subject.facts["sources"]}
    theirs = {entry["sha256"] for entry in source.facts.sources}
    if ours and theirs and ours != theirs:
        raise UsageError(f"the library was not compiled from {subject.model}: the checksums of the files differ")
    return source.graph


def make_inputs(facts: LibraryFacts, batch: int, seed: int) -> dict[str, Array]:
    """Seeded inputs of the library: 0..255 where it subtracts a mean, standard normal elsewhere; 0 and 1 if whole."""
    random = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    for meta in facts["inputs"]:
        shape, dtype = (batch * meta["shape"][0], *meta["shape"][1:]), DType(meta["dtype"]).numpy
        if dtype.kind != "f":
            inputs[meta["name"]] = random.integers(0, 2, shape).astype(dtype)
        elif facts["mean"] is not None:
            inputs[meta["name"]] = random.uniform(0, 255, shape).astype(dtype)
        else:
            inputs[meta["name"]] = random.standard_normal(shape).astype(dtype)
    return inputs


def minus_mean(inputs: Mapping[str, Array], mean: Sequence[float] | None) -> dict[str, Array]:
    """The inputs for who does not subtract the mean itself. A network with a mean has one input, an image."""
    if mean is None:
        return dict(inputs)
    return {name: array - np.asarray(mean, array.dtype).reshape(1, -1, 1, 1) for name, array in inputs.items()}


# -- the run ----------------------------------------------------------------------------------------------------------


def bench(subject: Subject, options: BenchOptions) -> dict[str, Any]:
    """Runs everything and gives the record, ready for JSON."""
    watch = Watch()
    isa = isa_limit(subject.facts["target"]["name"])
    settings: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="sqzc-bench-") as folder:
        for batch in options.batches:
            specs = _specs(subject, options, batch, isa, Path(folder))
            for threads in options.threads:
                settings.append(_time(subject, options, [replace(s, threads=threads) for s in specs], batch))
    load = watch.facts()
    notes = [limit_note(peer, isa) for peer in options.peers.names]
    return {
        "format": FORMAT,
        "kind": "model",
        "model": subject.name,
        "weights": subject.facts["weights"],
        "target": subject.facts["target"]["name"],
        "opt_level": subject.facts["opt_level"],
        "flops": subject.facts["flops"],
        "library_bytes": subject.library.stat().st_size,
        "compile_seconds": subject.seconds,
        "machine": machine_facts(),
        "load": load,
        "versions": {OURS: sqzc.__version__, "llvm": subject.facts["versions"]["llvm"], **options.peers.versions},
        "pace": {"rounds": options.pace.rounds, "runs": options.pace.runs, "warmups": options.pace.warmups},
        "inputs": _inputs_note(subject, options),
        "notes": [note for note in notes if note],
        "warning": busy_warning(load),
        "tolerance": options.tolerance,
        "settings": settings,
    }


def _inputs_note(subject: Subject, options: BenchOptions) -> str:
    words = f"the same random numbers for all (seed {options.seed})"
    if subject.facts["mean"] is None or not options.peers.names:
        return words
    return f"{words}, for the peers with the mean already subtracted; {OURS} subtracts it itself, in the time measured"


def _specs(subject: Subject, options: BenchOptions, batch: int, isa: str | None, folder: Path) -> list[Spec]:
    """Writes the files of the contenders for a batch, and says what they run."""
    inputs = make_inputs(subject.facts, batch, options.seed)
    specs = [Spec(OURS, subject.library.absolute(), _save(inputs, folder, f"{OURS}-{batch}"))]
    if not options.peers.names:
        return specs
    from sqzc.backends.onnx_export import to_bytes

    options.tell(f"exporting for batch {batch}")
    graph, subtracted = peer_graph(subject, batch)
    path = folder / f"batch-{batch}.onnx"
    path.write_bytes(to_bytes(graph))
    files = _save(minus_mean(inputs, subject.facts["mean"] if subtracted else None), folder, f"peers-{batch}")
    for peer in options.peers.names:
        specs.append(Spec(peer, path, files, python=options.peers.python, isa=isa))
    return specs


def _save(arrays: Mapping[str, Array], folder: Path, stem: str) -> dict[str, Path]:
    """Files by input name; names of inputs are no names of files."""
    paths = {}
    for index, (name, array) in enumerate(arrays.items()):
        paths[name] = folder / f"{stem}-{index}.npy"
        np.save(paths[name], array)
    return paths


def _time(subject: Subject, options: BenchOptions, specs: Sequence[Spec], batch: int) -> dict[str, Any]:
    """One number of threads and one batch."""
    words, pace = f"batch {batch}, threads {specs[0].threads}", options.pace
    options.tell(f"{words}: loading")
    with opened(specs) as contenders:
        times = interleave(contenders, pace, lambda round: options.tell(f"{words}: round {round + 1} of {pace.rounds}"))
        answers = {contender.name: contender.answer() for contender in contenders}
        scores = batch if len(subject.facts["outputs"]) == 1 else 0
        agreements = compare(answers, scores)
        return setting(contenders, times, agreements, batch, options.tolerance)


def setting(
    contenders: Sequence[Contender],
    times: Sequence[Times],
    agreements: Sequence[Agreement],
    batch: int,
    tolerance: float,
) -> dict[str, Any]:
    """The record of one setting. The first contender is ours; ratios are its times to the others'."""
    summaries = {c.name: summarise(some) for c, some in zip(contenders, times, strict=True)}
    ours, *peers = summaries
    rows = []
    for contender in contenders:
        summary = summaries[contender.name]
        row = {"name": contender.name, **contender.facts, **summary.to_data(), "per_image": summary.median / batch}
        if contender.name != ours:
            row["ratio"] = ratio(summaries[ours], summary).to_data()
        rows.append(row)
    fastest = best({name: summaries[name] for name in peers}) if peers else None
    return {
        "threads": contenders[0].spec.threads,
        "batch": batch,
        "contenders": rows,
        "best_peer": fastest,
        "ratio": None if fastest is None else ratio(summaries[ours], summaries[fastest]).of_medians,
        "agreements": [agreement.to_data() for agreement in agreements],
        "agree": all(agreement.holds(tolerance) for agreement in agreements),
    }
