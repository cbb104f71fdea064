"""Builds small ONNX models and runs them through the frontend, the reference backend and ONNX's own evaluator."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sqzc.backends.reference import evaluate, evaluate_node
from sqzc.frontends.onnx import Imported, lift, lift_proto
from sqzc.ir import Graph
from sqzc.ir.verifier import verify

Array = npt.NDArray[Any]
Dims = Sequence[int | str | None]


class OnnxMaker:
    """What tests call; one per test, with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def node(self, type_: str, inputs: str, outputs: str, **attributes: Any) -> Any:
        """A NodeProto; names are separated by blanks, `-` stands for one that is left out."""
        names = [["" if name == "-" else name for name in text.split()] for text in (inputs, outputs)]
        return helper.make_node(type_, *names, **attributes)

    def model(
        self,
        nodes: Sequence[Any],
        inputs: Mapping[str, Dims | Array] | None = None,
        outputs: Sequence[str] = ("y",),
        weights: Mapping[str, Array] | None = None,
        opset: int = 18,
        name: str = "net",
        **more: Any,
    ) -> Any:
        """A ModelProto. Inputs are float32 of the given dimensions, or like an array."""
        infos = []
        for key, given in (inputs or {}).items():
            dtype = given.dtype if isinstance(given, np.ndarray) else np.dtype(np.float32)
            dims = given.shape if isinstance(given, np.ndarray) else given
            infos.append(helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(dtype), list(dims)))
        stored = [numpy_helper.from_array(np.asarray(array), key) for key, array in (weights or {}).items()]
        graph = helper.make_graph(
            list(nodes), name, infos, [onnx.ValueInfoProto(name=key) for key in outputs], initializer=stored
        )
        domains = {node.domain for node in nodes} - {""}
        imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in sorted(domains))]
        return helper.make_model(graph, opset_imports=imports, **more)

    def lift(self, model: Any, **options: Any) -> Imported:
        """Lifts a ModelProto; the graph is verified."""
        imported = lift_proto(model, evaluate_node, **options)
        verify(imported.graph)
        return imported

    def graph(self, model: Any, **options: Any) -> Graph:
        """The graph of a ModelProto."""
        return self.lift(model, **options).graph

    def save(self, model: Any, name: str = "model.onnx") -> Path:
        """Writes a model into the test's folder."""
        path = self.folder / name
        path.write_bytes(model.SerializeToString())
        return path

    def load(self, path: Path, **options: Any) -> Imported:
        """Lifts a model file."""
        return lift(path, evaluate_node, **options)

    def ours(self, model: Any, feeds: Mapping[str, Array], known: Sequence[str] = ()) -> dict[str, Array]:
        """The outputs by sqzc's reference; inputs called in `known` are given at compile time."""
        graph = self.graph(
            model,
            known_inputs={key: feeds[key] for key in known},
            input_shapes={key: array.shape for key, array in feeds.items() if key not in known},
        )
        return evaluate(graph, {value.name: feeds[value.name] for value in graph.inputs})

    def theirs(self, model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by ONNX's evaluator."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(model).run(None, dict(feeds))
        return {info.name: np.asarray(array) for info, array in zip(model.graph.output, results, strict=True)}

    def agree(self, model: Any, feeds: Mapping[str, Array], known: Sequence[str] = (), tolerance: float = 1e-5) -> None:
        """AssertionError unless both evaluators give the same."""
        ours, theirs = self.ours(model, feeds, known), self.theirs(model, feeds)
        for key, want in theirs.items():
            assert ours[key].dtype == want.dtype
            np.testing.assert_allclose(ours[key], want, rtol=tolerance, atol=tolerance, err_msg=key)


def normal(*shape: int, seed: int = 5) -> Array:
    """Normally distributed float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
