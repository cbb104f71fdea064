"""The backend classes: models and nodes prepared for compiled or reference execution.

sqzc compiles for static shapes. An input whose value decides a shape (the second one of Reshape, say) is fixed to what
the first call brings; another value, or another shape of an input that the model leaves open, compiles anew. What was
compiled is kept for the next call of the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from sqzc.backends.reference import evaluate, evaluate_node
from sqzc.diagnostics import UnsupportedError, UsageError
from sqzc.frontends.onnx import UnsupportedModelError, lift_proto
from sqzc.frontends.onnx.importer import NotStaticError
from sqzc.ir.graph import Graph
from sqzc.onnx_backend.declared import undeclared

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Runner = Callable[[Arrays], Arrays]
"""A prepared graph: arrays by input name to arrays by output name."""

MAX_VARIANTS = 64
"""How many compiled forms of one model are kept."""


class SqzcBackendRep(BackendRep):  # type: ignore[misc]
    """One model, ready to run."""

    def __init__(self, model: Any, make: Callable[[Graph], Runner]) -> None:
        self.model, self._make = model, make
        stored = {tensor.name for tensor in model.graph.initializer}
        self.inputs: tuple[str, ...] = tuple(info.name for info in model.graph.input if info.name not in stored)
        self.outputs: tuple[str, ...] = tuple(info.name for info in model.graph.output)
        self._fixed: dict[str, None] = {}
        self._variants: dict[object, Runner] = {}
        try:
            self._variants[self._key({})] = self._compiled({})
        except UnsupportedModelError as error:
            if not error.inputs:
                raise
        except NotStaticError:
            pass  # the first call says what the model does not

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Array, ...]:
        """The outputs in the model's order, also by name; inputs as a list in its order, by name, or the one."""
        if kwargs:
            raise UsageError(f"run() knows no option '{next(iter(kwargs))}'")
        feeds = self._feeds(inputs)
        runner = self._runner(feeds)
        found = runner({name: array for name, array in feeds.items() if name not in self._fixed and array.size})
        result: tuple[Array, ...] = namedtupledict("Outputs", self.outputs)(*(found[name] for name in self.outputs))
        return result

    def _feeds(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, Mapping):
            given = dict(inputs)
        else:
            arrays = inputs if isinstance(inputs, list | tuple) else [inputs]
            if len(arrays) != len(self.inputs):
                raise UsageError(f"{len(arrays)} inputs", expected=f"{len(self.inputs)}: {', '.join(self.inputs)}")
            given = dict(zip(self.inputs, arrays, strict=True))
        return {name: _array(name, value) for name, value in given.items()}

    def _runner(self, feeds: dict[str, Array]) -> Runner:
        """What was compiled for inputs of this kind, compiled now if need be."""
        while True:
            key = self._key(feeds)
            known = self._variants.get(key) or self._variants.get(self._key({}))
            if known is not None:
                return known
            try:
                runner = self._compiled(feeds)
            except UnsupportedModelError as error:
                new = [name for name in error.inputs if name not in self._fixed and name in feeds]
                if not new:
                    raise
                self._fixed.update(dict.fromkeys(new))
                continue
            while len(self._variants) >= MAX_VARIANTS:
                del self._variants[next(iter(self._variants))]
            self._variants[key] = runner
            return runner

    def _key(self, feeds: Arrays) -> object:
        """Shapes of all inputs, and the values of the fixed ones."""
        shapes = tuple((name, array.shape, array.dtype.str) for name, array in sorted(feeds.items()))
        return shapes, tuple(feeds[name].tobytes() for name in self._fixed if name in feeds)

    def _compiled(self, feeds: Arrays) -> Runner:
        # An empty tensor is known by its shape.
        known = {name: array for name, array in feeds.items() if name in self._fixed or array.size == 0}
        free = {name: tuple(array.shape) for name, array in feeds.items() if name not in known}
        return self._make(lift_proto(self.model, evaluate_node, input_shapes=free, known_inputs=known).graph)


def _array(name: str, value: object) -> Array:
    if isinstance(value, list | tuple):
        raise UnsupportedError(f"input '{name}' is a sequence")
    array = np.asarray(value)
    return array if array.flags.c_contiguous else array.copy()


class SqzcBackend(Backend):  # type: ignore[misc]
    """What the compiled and the reference backend share."""

    @classmethod
    def runner(cls, graph: Graph, **options: Any) -> Runner:
        """Makes a graph ready to run."""
        raise NotImplementedError

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> SqzcBackendRep:
        """A model ready to run, checked and, as far as it is static, compiled. `kwargs` are for `runner`."""
        if not cls.supports_device(device):
            raise UnsupportedError(f"device {device}", expected="CPU")
        return SqzcBackendRep(model, lambda graph: cls.runner(graph, **kwargs))

    @classmethod
    def run_node(
        cls,
        node: Any,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """The outputs of one node for these inputs, which decide all types; an `opset_version` may be given."""
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        version = int(kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        arrays = [np.asarray(array) for array in (inputs if isinstance(inputs, list | tuple) else [inputs])]
        names = [name for name in dict.fromkeys(node.input) if name]
        if len(names) != len(arrays):
            raise UsageError(f"{len(arrays)} inputs for a node that reads {len(names)}")
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [_value_info(name, array) for name, array in zip(names, arrays, strict=True)],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, version)])
        return SqzcBackendRep(model, lambda lifted: cls.runner(lifted, **kwargs)).run(arrays)

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether sqzc says that it runs the model; told from operators and element types alone."""
        return cls.supports_device(device) and undeclared(model) is None

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU is all."""
        return device.split(":")[0] == "CPU"


def _value_info(name: str, array: Array) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


class CompiledBackend(SqzcBackend):
    """Runs machine code, made in process by LLVM."""

    @classmethod
    def runner(cls, graph: Graph, *, opt_level: int = 3, threads: int = 1, **options: Any) -> Runner:
        """Compiles a graph, but for outputs that are known already."""
        _refuse(options)
        from sqzc.driver import compile

        answers = {name: value.data for name, value in graph.outputs if value.is_constant}
        graph.outputs = [(name, value) for name, value in graph.outputs if not value.is_constant]
        model = compile(graph, opt_level=opt_level, threads=threads) if graph.outputs else None

        def run(feeds: Arrays) -> Arrays:
            found = {name: array.copy() for name, array in answers.items()}
            return found if model is None else {**found, **model.run(feeds)}

        return run


class ReferenceBackend(SqzcBackend):
    """Evaluates the graph by the numpy reference."""

    @classmethod
    def runner(cls, graph: Graph, **options: Any) -> Runner:
        """Holds the graph."""
        _refuse(options)
        return lambda feeds: evaluate(graph, feeds)


def _refuse(options: Mapping[str, Any]) -> None:
    if options:
        raise UsageError(f"the backend has no option '{next(iter(options))}'")
