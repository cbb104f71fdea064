"""From what the user calls a model to its graph and what is known of it.

MODEL is a zoo name, a folder or predict net of Caffe2, an `.onnx` file, a `.sqz` file, or a Graph.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sqzc.backends.reference import evaluate_node
from sqzc.diagnostics import FileError, UsageError
from sqzc.driver.facts import ModelFacts, count_work, input_layouts
from sqzc.driver.labels import find_labels, stored_labels
from sqzc.driver.options import ModelOptions
from sqzc.ir.files import load_graph
from sqzc.ir.graph import Graph
from sqzc.runtime.labels import Labels, read_labels
from sqzc.runtime.metadata import SourceMeta
from sqzc.zoo import ModelEntry, ZooModel, find, published
from sqzc.zoo.structure import structure

ModelLike = str | os.PathLike[str] | Graph


@dataclass(frozen=True)
class Source:
    """A model as read. `graph.meta` holds the facts too, so that they travel with the graph."""

    graph: Graph
    facts: ModelFacts
    labels: Labels | None
    warnings: tuple[str, ...] = ()


def read_model(model: ModelLike, options: ModelOptions) -> Source:
    """Reads a model; SqzcError for anything that is not one, or cannot be found."""
    source = _read(model, options)
    if options.labels is not None:
        source = replace(source, labels=read_labels(options.labels))
    return _checked_labels(source, given=options.labels is not None)


def _read(model: ModelLike, options: ModelOptions) -> Source:
    if isinstance(model, Graph):
        _only_defaults(options, "a graph")
        return _from_graph(model.clone(), "")
    name = os.fspath(model)
    if isinstance(model, str) and name in published():
        if options.external_data:
            raise UsageError("external data for a model of the zoo", expected="none: its files are known")
        return _from_zoo(name, options)
    path = Path(name)
    if not path.exists():
        raise _no_such_model(name)
    if options.external_data and path.suffix not in (".sqz", ".onnx"):
        raise UsageError("external data for a Caffe2 model", expected="none: its weights are in the init net")
    if path.suffix == ".sqz":
        return _from_sqz(path, options)
    if path.suffix == ".onnx":
        return _from_onnx(path, options)
    return _from_caffe2(path, options)


def _no_such_model(name: str) -> FileError:
    """For a path, that it does not exist; for a plain word, the zoo's names."""
    if os.sep in name or Path(name).suffix in (".pb", ".pbtxt", ".onnx", ".sqz"):
        raise FileError(f"there is no file or folder {name}")
    find(name, allow_network=False)  # says which names the zoo knows
    raise AssertionError(f"the zoo found '{name}', which is not in its manifest")


# -- Caffe2 -------------------------------------------------------------------------------------------------------


def _from_zoo(name: str, options: ModelOptions) -> Source:
    entry = published()[name]
    mean = entry.input.mean if options.mean == "model" else options.mean
    if options.weights != "pretrained":
        # From the structure that sqzc describes itself, so that the result is the same on every machine.
        with TemporaryDirectory() as folder:
            predict, init = structure(name, Path(folder))
            source = _lift_caffe2(predict, init, options, entry, mean, "file")
    else:
        found = find_zoo_model(name, options)
        roles = {file.role: found.paths[file.name] for file in entry.files}
        source = _lift_caffe2(roles["graph"], roles["weights"], options, entry, mean, "pretrained")
        labels = None if found.labels is None else read_labels(found.labels)
        source = replace(source, warnings=found.warnings, labels=labels)
    facts = replace(source.facts, channel_order=entry.input.channel_order, licence=entry.licence)
    return _with_facts(source, facts)


def find_zoo_model(name: str, options: ModelOptions) -> ZooModel:
    """The files of a zoo model, looked for where the options say."""
    return find(
        name,
        model_dir=options.model_dir,
        search_path=options.search_path,
        allow_network=options.allow_network,
        progress=options.download,
    )


def _from_caffe2(path: Path, options: ModelOptions) -> Source:
    from sqzc.frontends.caffe2 import find_files

    mean = None if options.mean == "model" else options.mean
    files = find_files(path, options.init_net)
    source = _lift_caffe2(files.predict, files.init, options, None, mean, "file")
    # Three numbers stand for the planes of an image; `--mean B,G,R` says in which order.
    order = "BGR" if isinstance(mean, tuple) and len(mean) == 3 else None
    return _with_facts(
        replace(source, labels=find_labels(files.predict.parent)), replace(source.facts, channel_order=order)
    )


def _lift_caffe2(
    predict: Path,
    init: Path | None,
    options: ModelOptions,
    entry: ModelEntry | None,
    mean: str | tuple[float, ...] | None,
    weights: str,
) -> Source:
    """Lifts a net and notes what is known of it. `weights` is what to call those that are not random."""
    from sqzc.frontends.caffe2 import lift

    assert not isinstance(mean, str), "a mean of the model's own is settled by the caller"
    inputs = dict(options.input_types)
    if entry is not None:
        inputs.setdefault(entry.input.name, entry.input.shape)
    name = entry.name if entry is not None else None
    graph = lift(predict, init, input_shapes=inputs, weights=options.weights, mean=mean, name=name)
    return _lifted(graph, "caffe2", [path for path in (predict, init) if path is not None], mean, weights)


def _lifted(graph: Graph, format: str, paths: Iterable[Path], mean: tuple[float, ...] | None, weights: str) -> Source:
    """The source that a frontend's graph is; random weights show in the meta that the frontend wrote."""
    drawn = str(graph.meta.get("weights", ""))
    flops, macs, params = count_work(graph)
    facts = ModelFacts(
        format=format,
        sources=tuple(_sources(paths)),
        weights=drawn if drawn.startswith("random") else weights,
        mean=mean,
        layouts=input_layouts(graph),
        flops=flops,
        macs=macs,
        params=params,
    )
    return _with_facts(Source(graph, facts, None), facts)


def _sources(paths: Iterable[Path]) -> list[SourceMeta]:
    known = {file.sha256 for entry in published().values() for file in entry.files}
    found: list[SourceMeta] = []
    for path in paths:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        found.append({"name": path.name, "sha256": sha256, "verified": sha256 in known})
    return found


# -- other formats ------------------------------------------------------------------------------------------------


def _from_onnx(path: Path, options: ModelOptions) -> Source:
    from sqzc.frontends.onnx import lift

    if options.weights != "pretrained":
        raise UsageError("random weights for an ONNX model", expected="its own: weights cannot be told from constants")
    if options.init_net is not None:
        raise UsageError("an init net for an ONNX model", expected="none: its weights are in the file")
    mean = None if options.mean == "model" else options.mean
    assert not isinstance(mean, str)
    imported = lift(
        path,
        evaluate_node,
        input_shapes=options.input_types,
        mean=mean,
        allow_external_data=options.external_data,
    )
    source = _lifted(imported.graph, "onnx", [path, *imported.files], mean, "file")
    source = replace(source, labels=find_labels(path.parent), warnings=imported.notes)
    order = "BGR" if mean is not None and len(mean) == 3 else None
    return _with_facts(source, replace(source.facts, channel_order=order))


def _from_sqz(path: Path, options: ModelOptions) -> Source:
    _only_defaults(options, "a .sqz file")
    graph = load_graph(path)
    source = _from_graph(graph, str(path))
    if not source.facts.sources:
        # The text names every weight by its hash, so its own hash stands for all.
        source = _with_facts(source, replace(source.facts, sources=tuple(_sources([path]))))
    if source.facts.labels_sha256 is None:
        return source
    labels = stored_labels(path, source.facts.labels_sha256)
    warnings = () if labels else (f"{path}: its labels are not in the weights file beside it; compiling without them",)
    return replace(source, labels=labels, warnings=warnings)


def _from_graph(graph: Graph, file: str) -> Source:
    facts = ModelFacts.of(graph, file)
    if facts.flops is None:
        facts = replace(facts, flops=graph.flops, macs=graph.macs, params=graph.parameters)
    if not facts.layouts:
        facts = replace(facts, layouts=input_layouts(graph))
    return _with_facts(Source(graph, facts, None), facts)


def _only_defaults(options: ModelOptions, what: str) -> None:
    """UsageError for options that only make sense while a model file is imported."""
    given = {
        "an init net": options.init_net is not None,
        "input shapes": bool(options.inputs),
        "a mean": options.mean != "model",
        "random weights": options.weights != "pretrained",
        "external data": options.external_data,
    }
    wrong = [name for name, is_given in given.items() if is_given]
    if wrong:
        raise UsageError(f"{what} has its weights, shapes and mean already, but {wrong[0]} was asked for")


# -- facts --------------------------------------------------------------------------------------------------------


def _with_facts(source: Source, facts: ModelFacts) -> Source:
    source.graph.meta = facts.to_meta()
    return replace(source, facts=facts)


def _checked_labels(source: Source, *, given: bool) -> Source:
    """Labels that do not fit the network's one output are a mistake when given, else left out with a warning."""
    labels, outputs = source.labels, source.graph.outputs
    if labels is not None and (len(outputs) != 1 or outputs[0][1].type.elements != len(labels.names)):
        words = f"{len(labels.names)} labels do not fit the outputs {', '.join(str(v.type) for _, v in outputs)}"
        if given:
            raise UsageError(words)
        source = replace(source, labels=None, warnings=(*source.warnings, f"{words}; compiling without them"))
    sha256 = source.labels.sha256 if source.labels else None
    return _with_facts(source, replace(source.facts, labels_sha256=sha256))
