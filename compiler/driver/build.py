"""Model to machine code, stage by stage. Each stage is a function whose result can be looked at.

read_model -> Source    run_passes -> Optimised    make_plan -> Program    generate -> Code    write / load_code
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import sqzc
from sqzc.backends.llvm.tuning import NO_TUNING, Tuning, load_tuning
from sqzc.backends.reference import evaluate_node
from sqzc.diagnostics import InternalError, SqzcError, UnsupportedError, VerifyError
from sqzc.driver.facts import BuildState, LibraryFacts, library_metadata
from sqzc.driver.options import CodeOptions
from sqzc.driver.sources import Source
from sqzc.ir.graph import Graph
from sqzc.passes.manager import Instrument, PassManager, PassRecord
from sqzc.passes.pipelines import PIPELINES
from sqzc.plan.lower import lower
from sqzc.plan.memory import align
from sqzc.plan.program import Program
from sqzc.plan.verifier import verify_program
from sqzc.runtime.abi import check_prefix, identifier
from sqzc.runtime.metadata import dumps
from sqzc.target import Target, host_cpu, resolve

if TYPE_CHECKING:
    from sqzc.backends.llvm.abi import AbiSpec
    from sqzc.runtime import Model

OnStage = Callable[[str], None]
"""Told the name of each stage as it begins."""

# Effort of LLVM's code generation by level. 0 is never used: its code is many times slower.
_EFFORT = (1, 1, 2, 2)


class StageFailure(InternalError):
    """A stage after the passes broke; `before` is the graph it was given. `__cause__` says what happened."""

    def __init__(self, stage: str, error: Exception, before: Graph) -> None:
        super().__init__(f"{stage} failed: {type(error).__name__}: {error}")
        self.stage, self.before = stage, before


@contextmanager
def stage(name: str, graph: Graph, on_stage: OnStage | None = None) -> Iterator[None]:
    """Announces a stage, and keeps its input for a reproducer when it turns out to have a bug."""
    if on_stage is not None:
        on_stage(name)
    try:
        yield
    except SqzcError:
        raise
    except Exception as error:
        raise StageFailure(name, error, graph) from error


# -- passes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """The code options with all defaults settled; `pipeline` is what is still to run, `done` what ran before."""

    target: Target
    opt_level: int
    pipeline: str
    prefix: str
    threads_max: int
    winograd: str = "auto"
    done: tuple[str, ...] = ()
    stop_after: str | int | None = None
    tuning: Tuning = NO_TUNING

    @property
    def effort(self) -> int:
        """How hard LLVM's code generator tries."""
        return _EFFORT[self.opt_level]

    def state(self, records: Sequence[PassRecord]) -> BuildState:
        """Where a compilation stands after `records`."""
        remaining = records[-1].remaining if records else self.pipeline
        done = (*self.done, *(record.spec for record in records))
        fixed = self.opt_level, self.target.name, self.prefix, self.threads_max
        return BuildState(*fixed, done, remaining, self.winograd)


def settle(source: Source, options: CodeOptions) -> Settings:
    """What to make of a source: the caller's wishes, else those that a dump carries, else the defaults."""
    from sqzc.backends.llvm.abi import MAX_THREADS
    from sqzc.driver.options import parse_level, parse_threads_max, parse_winograd

    state = source.facts.build
    level = options.opt_level if options.opt_level is not None else state.opt_level if state else 3
    threads_max = options.threads_max
    if threads_max is None:
        threads_max = state.threads_max if state else MAX_THREADS
    goes_on = state is not None and options.passes is None and level == state.opt_level
    if goes_on:
        assert state is not None
        pipeline = state.remaining
    else:
        pipeline = PIPELINES[f"O{parse_level(level)}"] if options.passes is None else options.passes
    target = resolve(options.target or (state.target if state else "native"))
    winograd = parse_winograd(options.winograd or (state.winograd if state else "auto"))
    tuning = NO_TUNING if options.tuning is None else load_tuning(options.tuning)
    if options.tuning is not None:
        tuning.require(sqzc=sqzc.__version__, target=target.name, winograd=winograd)
    return Settings(
        target=target,
        opt_level=level,
        pipeline=pipeline,
        prefix=check_prefix(options.prefix or (state.prefix if state else identifier(source.graph.name))),
        threads_max=parse_threads_max(threads_max),
        winograd=winograd,
        done=state.done if state else (),
        stop_after=options.stop_after,
        tuning=tuning,
    )


@dataclass(frozen=True)
class Optimised:
    """A graph after its passes; `records` are those of this run, `state` counts earlier runs too."""

    graph: Graph
    source: Source
    settings: Settings
    state: BuildState
    records: tuple[PassRecord, ...]


def run_passes(source: Source, settings: Settings, instruments: Sequence[Instrument] = ()) -> Optimised:
    """Runs the pipeline on a copy of the source's graph."""
    graph = source.graph.clone()
    manager = PassManager(
        settings.pipeline,
        instruments,
        target=settings.target,
        evaluate=evaluate_node,
        stop_after=settings.stop_after,
    )
    records = tuple(manager.run(graph))
    return Optimised(graph, source, settings, settings.state(records), records)


# -- plan and code ------------------------------------------------------------------------------------------------


def make_plan(optimised: Optimised) -> Program:
    """Chooses kernels and places buffers."""
    from sqzc.backends.llvm.legalize import legalize
    from sqzc.backends.llvm.library import Library

    graph, settings = optimised.graph, optimised.settings
    with stage("planning", graph):
        program = lower(legalize(graph), Library(settings.target, settings.winograd, settings.tuning))
        if settings.tuning:
            program.meta = {**program.meta, "tuning": tuning_facts(settings.tuning, program)}
        try:
            verify_program(program)
        except VerifyError as error:
            # The plan is ours, so this is no mistake of the user's.
            raise InternalError(f"the plan breaks a rule: {error}") from error
        return program


def tuning_facts(tuning: Tuning, program: Program) -> Mapping[str, Any]:
    """What the plan says of a tuning: where it was measured, and which of the steps have their schedule from it."""
    return {"cpu": tuning.cpu, "threads": tuning.threads, "steps": tuning.steps(program)}


def tuning_warnings(settings: Settings, program: Program) -> list[str]:
    """What a caller should know of the tuning: that it is for other kernels, or for another CPU than this."""
    tuning, warnings = settings.tuning, []
    if not tuning.file:
        return []
    if not tuning.steps(program):
        warnings.append(f"{tuning.file} is about none of the kernels of @{program.name}")
    if tuning.cpu != host_cpu():
        warnings.append(f"{tuning.file} was measured on {tuning.cpu}, this is {host_cpu()}")
    return warnings


@dataclass(frozen=True)
class Code:
    """The generated module in LLVM's text form, its constants, and what the library says about itself."""

    program: Program
    settings: Settings
    metadata: LibraryFacts
    spec: AbiSpec
    module_text: str
    constants: bytes
    graph: Graph = field(repr=False)

    @property
    def constants_symbol(self) -> str:
        """The name by which the code refers to its constants."""
        return constants_symbol(self.settings.prefix)

    @property
    def effort(self) -> int:
        """How hard LLVM's code generator tries."""
        return self.settings.effort

    @property
    def exports(self) -> list[str]:
        """The functions that are visible outside."""
        from sqzc.backends.llvm.abi import exported_names

        return exported_names(self.spec)

    @cached_property
    def objects(self) -> list[bytes]:
        """The object files: code, then constants."""
        from sqzc.backends.llvm.objects import compile_module, data_object

        target = self.settings.target
        with stage("generating machine code", self.graph):
            code = compile_module(self.module_text, target, opt=self.effort)
            return [code, data_object(self.constants_symbol, [self.constants], target)]

    @cached_property
    def assembly(self) -> str:
        """The code as assembler text, without the constants."""
        from sqzc.backends.llvm.objects import assembly

        with stage("generating assembly", self.graph):
            return assembly(self.module_text, self.settings.target, opt=self.effort)


def constants_symbol(prefix: str) -> str:
    """Several models may be linked into one program, so the name has the prefix in it."""
    return f"{prefix}_constants"


def generate(optimised: Optimised, program: Program, *, shared: bool = True, probes: bool = False) -> Code:
    """LLVM IR for a plan, with the functions of the ABI around it; `shared` adds the names that loaders look for.

    Those are the same in every library, so what is to be linked into a program must not have them. `probes` are for
    profiles: see `codegen.generate`.
    """
    from sqzc.backends.llvm import codegen
    from sqzc.backends.llvm.abi import AbiSpec, add_abi
    from sqzc.backends.llvm.library import Library

    settings, source = optimised.settings, optimised.source
    if not program.inputs or not program.outputs:
        missing = "outputs" if program.inputs else "inputs"
        raise UnsupportedError(f"the network @{program.name} has no {missing}, so there is no library to make of it")
    scratch = align(program.scratch_bytes)
    workspace = align(program.arena_bytes) + scratch
    metadata = library_metadata(program, source.facts, optimised.state, source.labels, settings.target, workspace)
    spec = AbiSpec(
        prefix=settings.prefix,
        metadata_json=dumps(metadata).encode("ascii"),
        workspace_bytes=workspace,
        input_bytes=tuple(program.buffers[name].type.physical_bytes for name in program.inputs),
        output_bytes=tuple(program.buffers[name].type.physical_bytes for _, name in program.outputs),
        cpu_features=settings.target.features,
        max_threads=settings.threads_max,
        scratch_bytes=scratch,
        prepared_bytes=program.prepared_bytes,
        batch_split=True,
        fixed_prefix=shared,
    )
    with stage("generating LLVM IR", optimised.graph):
        module = codegen.generate(program, Library(settings.target).families, settings.target, probes=probes)
        module.get_global(codegen.CONSTANTS).name = constants_symbol(settings.prefix)
        add_abi(module, spec)
        pool = codegen.constant_pool(program)
        constants = bytearray(max(pool.bytes, 1))
        for offset, data in pool.parts:
            constants[offset : offset + len(data)] = data
        return Code(program, settings, metadata, spec, str(module), bytes(constants), optimised.graph)


def load_code(code: Code, threads: int = 1) -> Model:
    """The model, linked into this process by LLVM's JIT."""
    from sqzc.backends.llvm.jit import load_in_process
    from sqzc.runtime import Model
    from sqzc.runtime.abi import FUNCTION_NAMES

    with stage("loading the code", code.graph):
        loaded = load_in_process(code.objects, code.settings.target)
    addresses = {name: loaded.addresses[f"{code.settings.prefix}_{name}"] for name in FUNCTION_NAMES}
    return Model.from_functions(addresses, loaded, threads=threads)


def continued(optimised: Optimised) -> Graph:
    """The graph with the state of the compilation in its meta, so that compiling its text goes on from here."""
    graph = optimised.graph.clone()
    graph.meta = replace(optimised.source.facts, build=optimised.state).to_meta()
    return graph
