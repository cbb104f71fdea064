"""What is known of a model beyond its graph, and how it travels: `Graph.meta` in every dump, JSON in the library.

A `.sqz` file may come from anywhere, so what its meta says is checked before it is believed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import llvmlite.binding as llvm

import sqzc
from sqzc.diagnostics import Location, ParseError
from sqzc.ir.graph import Graph, Value
from sqzc.ir.opdef import Layouts
from sqzc.plan.program import Program
from sqzc.runtime.abi import ABI_VERSION
from sqzc.runtime.labels import Labels
from sqzc.runtime.metadata import Metadata, SourceMeta, TensorMeta
from sqzc.target import Target


class LibraryFacts(Metadata):
    """The metadata of a library with what the command line shows besides."""

    macs: int
    """Multiply-accumulates of one batch unit."""
    layers: list[dict[str, Any]]
    """The kernels in order, each with `kernel`, `sources`, `result`, `flops` and `schedule`."""


@dataclass(frozen=True)
class BuildState:
    """How far a dumped graph has come: what a compilation needs to go on as if it had not been interrupted."""

    opt_level: int
    target: str
    prefix: str
    threads_max: int
    done: tuple[str, ...]
    remaining: str
    winograd: str = "auto"


@dataclass(frozen=True)
class ModelFacts:
    """The contents of a graph's meta. Everything has a default, as a graph may come from anywhere."""

    format: str = "sqz"
    sources: tuple[SourceMeta, ...] = ()
    weights: str = "file"
    mean: tuple[float, ...] | None = None
    channel_order: str | None = None
    licence: str | None = None
    layouts: Mapping[str, str] = field(default_factory=dict)
    labels_sha256: str | None = None
    flops: int | None = None
    macs: int | None = None
    params: int | None = None
    build: BuildState | None = None

    def to_meta(self) -> dict[str, Any]:
        """JSON-able data, without what has its default."""
        default = asdict(ModelFacts())
        found = {key: value for key, value in asdict(self).items() if value != default[key]}
        return {key: _plain(value) for key, value in found.items()}

    @staticmethod
    def of(graph: Graph, file: str = "") -> ModelFacts:
        """The facts in a graph's meta; ParseError for one that makes no sense. Unknown keys are ignored."""
        found: dict[str, Any] = {}
        for key, (check, words) in _CHECKS.items():
            if graph.meta.get(key) is None:
                continue
            value = graph.meta[key]
            if not check(value):
                got = repr(value)[:80]
                raise ParseError(f"meta '{key}' makes no sense", location=Location(file), expected=words, got=got)
            found[key] = tuple(value) if isinstance(value, list) else value
        if "build" in found:
            build = found["build"]
            found["build"] = BuildState(**{**build, "done": tuple(build["done"])})
        return ModelFacts(**found)


def _plain(value: Any) -> Any:
    """`value` with lists for tuples, as JSON gives it back."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


# -- checks of meta that was read from a file ---------------------------------------------------------------------


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 1 << 16 and "\0" not in value


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_list(item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) < 4096 and all(item(entry) for entry in value)


def _is_record(**fields: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return isinstance(value, dict) and set(value) == set(fields) and all(fields[k](v) for k, v in value.items())

    return check


def _is_build(value: Any) -> bool:
    return _is_record(
        opt_level=lambda v: type(v) is int and 0 <= v <= 3,
        target=_is_text,
        prefix=_is_text,
        threads_max=_is_count,
        done=_is_list(_is_text),
        remaining=_is_text,
        winograd=_is_text,
    )(value)


def _is_weights(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"pretrained|file|random:[0-9]{1,18}", value) is not None


_SOURCES = _is_list(_is_record(name=_is_text, sha256=_is_sha256, verified=lambda v: type(v) is bool))

_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format": (_is_text, "a word"),
    "sources": (_SOURCES, "a list of {name, sha256, verified}"),
    "weights": (_is_weights, "pretrained, file or random:SEED"),
    "mean": (_is_list(_is_number), "a list of numbers"),
    "channel_order": (lambda v: v in ("BGR", "RGB"), "BGR or RGB"),
    "licence": (_is_text, "text"),
    "layouts": (
        lambda v: isinstance(v, dict) and all(_is_text(k) and v[k] in ("nchw", "nhwc", "") for k in v),
        "layouts by input name",
    ),
    "labels_sha256": (_is_sha256, "64 hexadecimal digits"),
    "flops": (_is_count, "a whole number"),
    "macs": (_is_count, "a whole number"),
    "params": (_is_count, "a whole number"),
    "build": (_is_build, "the state of a compilation"),
}


# -- facts read off a graph ---------------------------------------------------------------------------------------


def input_layouts(graph: Graph) -> dict[str, str]:
    """`nchw` for every input that the network treats as an image with its channels second."""
    return {value.name: "nchw" for value in graph.inputs if value.type.rank == 4 and _is_image(value)}


def _is_image(value: Value) -> bool:
    """Whether the first op other than arithmetic that reads the value takes images as its first operand."""
    seen: set[int] = set()
    todo = [value]
    while todo:
        value = todo.pop()
        for node in value.users:
            if node.op.layouts is Layouts.IMAGE and node.inputs[0] is value:
                return True
            same_shape = len(node.outputs) == 1 and node.output.type.shape == value.type.shape
            if node.op.layouts in (Layouts.BROADCAST, Layouts.SAME) and same_shape and id(node.output) not in seen:
                seen.add(id(node.output))
                todo.append(node.output)
    return False


def count_work(graph: Graph) -> tuple[int, int, int]:
    """FLOPs by the rule of `sqzc info`, multiply-accumulates, and parameters; the subtraction of a mean is not counted.

    The graph is one that a frontend made: a mean is subtracted from the one input before anything else reads it.
    """
    flops, macs, params = graph.flops, graph.macs, graph.parameters
    if graph.meta.get("mean") is not None:
        subtraction = graph.inputs[0].users[0]
        flops -= subtraction.flops
        params -= subtraction.inputs[1].type.elements
    return flops, macs, params


# -- the library's metadata ---------------------------------------------------------------------------------------


def library_metadata(
    program: Program, facts: ModelFacts, state: BuildState, labels: Labels | None, target: Target, workspace_bytes: int
) -> LibraryFacts:
    """What the library says about itself. Depends on its arguments and the versions of sqzc and LLVM alone."""
    outputs = [(name, program.buffers[buffer].type) for name, buffer in program.outputs]
    inputs = [(name, program.buffers[name].type) for name in program.inputs]
    flops = sum(step.flops for step in program.steps)

    def tensor(name: str, type_: Any) -> TensorMeta:
        layout = facts.layouts.get(name, "")
        return {"name": name, "shape": list(type_.shape), "dtype": type_.dtype.value, "layout": layout}

    return {
        "abi": ABI_VERSION,
        "name": program.name,
        "prefix": state.prefix,
        "inputs": [tensor(name, type_) for name, type_ in inputs],
        "outputs": [tensor(name, type_) for name, type_ in outputs],
        "mean": None if facts.mean is None else [float(value) for value in facts.mean],
        "channel_order": facts.channel_order,
        "labels": None if labels is None else list(labels.names),
        "labels_sha256": None if labels is None else labels.sha256,
        "sources": list(facts.sources),
        "licence": facts.licence,
        "passes": list(state.done),
        "opt_level": state.opt_level,
        "target": {"name": target.name, "features": list(target.features)},
        "versions": {"sqzc": sqzc.__version__, "llvm": ".".join(str(part) for part in llvm.llvm_version_info)},
        "weights": facts.weights,
        "flops": flops if facts.flops is None else facts.flops,
        "macs": facts.macs or 0,
        "params": facts.params or 0,
        "workspace_bytes": workspace_bytes,
        "tolerance": None,
        "layers": [_layer(program, index) for index in range(len(program.steps))],
    }


def _layer(program: Program, index: int) -> dict[str, Any]:
    step = program.steps[index]
    return {
        "kernel": step.kernel,
        "sources": list(step.sources),
        "result": str(program.buffers[step.writes[0]].type),
        "flops": step.flops,
        "schedule": ".".join(f"{key}={value}" for key, value in step.schedule.items()),
    }
