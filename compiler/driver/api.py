"""The functions that `import sqzc` offers, and `build`, which the command line uses."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy.typing as npt

from sqzc.backends import reference
from sqzc.backends.reference import evaluate_node
from sqzc.diagnostics import UsageError
from sqzc.driver import emit
from sqzc.driver.build import (
    Code,
    OnStage,
    Optimised,
    generate,
    load_code,
    make_plan,
    run_passes,
    settle,
    tuning_warnings,
)
from sqzc.driver.debug.cases import kernel_cases
from sqzc.driver.debug.verify import VerifyPasses
from sqzc.driver.dump import DumpIr
from sqzc.driver.options import (
    CodeOptions,
    MeanLike,
    ModelOptions,
    Shape,
    optional_path,
    parse_level,
    parse_mean,
    zoo_path,
)
from sqzc.driver.sources import ModelLike, Source, read_model
from sqzc.driver.watch import PrintIr
from sqzc.ir.constant import Array
from sqzc.ir.graph import Graph
from sqzc.ir.parser import parse_graph
from sqzc.passes.manager import Instrument, PassFailure, PassManager
from sqzc.passes.registry import parse_pipeline
from sqzc.runtime import Model, load
from sqzc.target import resolve, runs_here

if TYPE_CHECKING:
    from sqzc.driver.debug.kernels import StepCheck
    from sqzc.plan.program import Program


class SqzcWarning(UserWarning):
    """Something that a caller should know and that is no error, such as weights that could not be verified."""


@dataclass(frozen=True)
class WatchOptions:
    """What to show and check of a compilation. None of it changes the code that comes out.

    `verify_passes` and `verify_kernels` are numbers of seeded inputs of each size to check with; 0 is no check.
    """

    dump_ir: Path | None = None
    print_before: Sequence[str] = ()
    print_after: Sequence[str] = ()
    show: Callable[[str], None] = print
    verify_passes: int = 0
    verify_kernels: int = 0
    on_stage: OnStage | None = None


@dataclass(frozen=True)
class Result:
    """A compilation: `code` is None when only the graph was wanted. `seconds` are those of each stage."""

    source: Source
    optimised: Optimised
    code: Code | None
    verified: VerifyPasses | None
    kernels: Sequence[StepCheck] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the caller should be told."""
        of_tuning = [] if self.code is None else tuning_warnings(self.optimised.settings, self.code.program)
        return (*self.source.warnings, *of_tuning)


class _Clock:
    """Seconds by stage."""

    def __init__(self, on_stage: OnStage | None) -> None:
        self.on_stage, self.seconds = on_stage, dict[str, float]()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if self.on_stage is not None:
            self.on_stage(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def build(
    model: ModelLike,
    output: Path | None,
    model_options: ModelOptions,
    code_options: CodeOptions,
    watch: WatchOptions,
    *,
    emit_kind: str | None = None,
    linker: str | None = None,
) -> Result:
    """Compiles a model and writes `output`, if one is given; the output's place is tried before any work is done."""
    kind = emit_kind or ("so" if output is None else emit.kind_for(output))
    if output is not None:
        emit.check_output(output)
        if kind == "so":
            emit.check_linker(linker)
    clock = _Clock(watch.on_stage)
    with clock.stage("reading the model"):
        _check_code_options(code_options, watch)
        source = read_model(model, model_options)
        settings = settle(source, code_options)
    dump = DumpIr(watch.dump_ir, source, settings) if watch.dump_ir is not None else None
    verifier = None
    if watch.verify_passes:
        verifier = VerifyPasses(seeds=watch.verify_passes, target=settings.target.name)
    with clock.stage("running passes"), _page_of_failure(dump):
        optimised = run_passes(source, settings, _instruments(watch, dump, verifier))
    if dump is not None and verifier is not None:
        dump.note_checks([check.to_json() for check in verifier.checks])
    code: Code | None = None
    kernels: list[StepCheck] = []
    if emit.needs_code(kind) or dump is not None or watch.verify_kernels:
        with clock.stage("planning"):
            program = make_plan(optimised)
        if dump is not None:
            dump.write_plan(program)
        with clock.stage("generating code"):
            code = generate(optimised, program, shared=kind not in emit.STATIC_KINDS)
            if emit.needs_code(kind) and kind in ("so", "archive"):
                _ = code.objects
        if dump is not None:
            dump.write_code(code)
            dump.write_page()
        if watch.verify_kernels:
            with clock.stage("checking kernels"):
                kernels = _check_kernels(optimised, program, watch.verify_kernels)
    if output is not None:
        with clock.stage("writing"):
            if emit.needs_code(kind):
                assert code is not None
                emit.write_code(code, kind, output, linker)
            else:
                emit.write_graph(optimised, kind, output)
    return Result(source, optimised, code, verifier, kernels, clock.seconds)


def _check_kernels(optimised: Optimised, program: Program, seeds: int) -> list[StepCheck]:
    """Runs every kernel on its own; WrongKernel at the first that is wrong."""
    from sqzc.driver.debug.kernels import verify_kernels
    from sqzc.driver.debug.setting import Setting

    target = optimised.settings.target
    if not runs_here(target):
        raise UsageError(f"code for {target.name} does not run here, so its kernels cannot be checked")
    cases = kernel_cases(optimised.source.graph, seeds)
    return verify_kernels(optimised.graph, program, Setting.of(optimised.settings), cases)


@contextmanager
def _page_of_failure(dump: DumpIr | None) -> Iterator[None]:
    """Writes the page even when a pass turns out to be wrong: then most of all somebody wants to look."""
    try:
        yield
    except PassFailure:
        if dump is not None:
            dump.write_page()
        raise


def _check_code_options(options: CodeOptions, watch: WatchOptions) -> None:
    """Mistakes in options that need no model, so that they are found before one is read."""
    if options.passes is not None:
        parse_pipeline(options.passes)
    if options.target is not None:
        resolve(options.target)
    PrintIr(watch.print_before, watch.print_after, watch.show)


def _instruments(watch: WatchOptions, dump: DumpIr | None, verifier: VerifyPasses | None) -> list[Instrument]:
    instruments: list[Instrument] = []
    if watch.print_before or watch.print_after:
        instruments.append(PrintIr(watch.print_before, watch.print_after, watch.show))
    # The dump comes before the check, so that a bad pass's result is there to read.
    return instruments + [instrument for instrument in (dump, verifier) if instrument is not None]


def _model_options(
    init_net: str | os.PathLike[str] | None,
    inputs: Mapping[str, Shape] | None,
    mean: MeanLike,
    weights: str,
    model_dir: str | os.PathLike[str] | None,
    labels: str | os.PathLike[str] | None = None,
    external_data: bool = False,
) -> ModelOptions:
    return ModelOptions(
        init_net=optional_path(init_net),
        inputs=dict(inputs or {}),
        mean=parse_mean(mean),
        weights=weights,
        model_dir=optional_path(model_dir),
        search_path=zoo_path(os.environ),
        labels=optional_path(labels),
        external_data=external_data,
    )


def compile(
    model: ModelLike,
    output: str | os.PathLike[str] | None = None,
    *,
    init_net: str | os.PathLike[str] | None = None,
    inputs: Mapping[str, Shape] | None = None,
    mean: MeanLike = "model",
    weights: str = "pretrained",
    target: str | None = None,
    opt_level: int | str | None = None,
    passes: str | None = None,
    dump_ir: str | os.PathLike[str] | None = None,
    verify_passes: bool | int = False,
    verify_kernels: bool | int = False,
    prefix: str | None = None,
    threads: int = 1,
    threads_max: int | None = None,
    winograd: str | None = None,
    tuning: str | os.PathLike[str] | None = None,
    model_dir: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    external_data: bool = False,
) -> Model:
    """Compiles a model and loads it.

    model: a zoo name, a folder or predict net of Caffe2, an `.onnx` or `.sqz` file, or a Graph. output: where to write
    the library; None compiles in process, without a linker. inputs: shapes, or example arrays, by input name. mean:
    `model` for what the zoo says, `none`, or a number per channel that the library is to subtract. weights:
    `pretrained` or `random[:SEED]`. target, opt_level: `native` and 3, unless a dumped `.sqz` says how it was being
    compiled. passes: a pipeline in place of the level's. threads: of the model that is returned; threads_max: that the
    library accepts. winograd: `auto` for 3x3 convolutions with fewer multiplications where that is predicted to be
    faster, `off`, or `f2` and `f4` for one form wherever it is possible. tuning: a file that `sqzc tune` wrote.
    external_data: also read what an ONNX model keeps in other files, below its folder only.

    SqzcError for anything wrong with the model or the options; SqzcWarning for weights that are not the published ones.
    """
    path = optional_path(output)
    if path is not None and emit.kind_for(path) != "so":
        raise UsageError(
            f"sqzc.compile writes shared libraries, not {path.suffix} files",
            hint=f"sqzc compile {model} -o {path} on the command line writes other forms",
        )
    if not runs_here(resolve(target or "native")):
        raise UsageError(
            f"code for {target} does not run here, so it cannot be loaded",
            hint=f"sqzc compile MODEL --target {target} -o OUT on the command line only writes it",
        )
    level = None if opt_level is None else parse_level(opt_level)
    result = build(
        model,
        path,
        _model_options(init_net, inputs, mean, weights, model_dir, labels, external_data),
        CodeOptions(target, level, passes, prefix, threads_max, winograd=winograd, tuning=optional_path(tuning)),
        WatchOptions(
            dump_ir=optional_path(dump_ir), verify_passes=int(verify_passes), verify_kernels=int(verify_kernels)
        ),
    )
    _warn(result.warnings)
    if path is not None:
        return load(path, threads=threads)
    assert result.code is not None
    return load_code(result.code, threads)


def lift(
    model: ModelLike,
    *,
    init_net: str | os.PathLike[str] | None = None,
    inputs: Mapping[str, Shape] | None = None,
    mean: MeanLike = "model",
    weights: str = "pretrained",
    model_dir: str | os.PathLike[str] | None = None,
    external_data: bool = False,
) -> Graph:
    """The graph of a model before any pass; options as for `compile`."""
    source = read_model(model, _model_options(init_net, inputs, mean, weights, model_dir, external_data=external_data))
    _warn(source.warnings)
    return source.graph


def parse(text: str, weights: Mapping[str, Array] | None = None) -> Graph:
    """The graph that text IR describes; ParseError with the place otherwise.

    `weights` has the arrays that the text leaves out, by name or `name#hash`; `load_graph` of `sqzc.ir.files` reads
    them from the file beside a `.sqz`.
    """
    return parse_graph(text, weights)


def optimize(graph: Graph, pipeline: str = "O3", *, target: str = "native") -> Graph:
    """A copy of the graph after a pipeline: a level, or passes such as `fold-mean,fuse-conv-relu{limit=3}`."""
    result = graph.clone()
    PassManager(pipeline, target=resolve(target), evaluate=evaluate_node).run(result)
    return result


def evaluate(graph: Graph, inputs: Mapping[str, npt.ArrayLike], *, dtype: str = "float32") -> dict[str, Array]:
    """The outputs by name, computed by the numpy reference in `float32` or `float64`."""
    if dtype not in ("float32", "float64"):
        raise UsageError(f"unknown precision '{dtype}'", expected="float32 or float64")
    return reference.evaluate(graph, inputs, dtype="float64" if dtype == "float64" else "float32")


def _warn(messages: Sequence[str]) -> None:
    for message in messages:
        warnings.warn(message, SqzcWarning, stacklevel=3)
