"""Runners for the golden data's check.py: lift a Caffe2 net as it is, evaluate it, hand back every output.

PYTHONPATH=tests python ../shared/golden/check.py --runner golden_runner:reference [--kind ops] [--taps]
PYTHONPATH=tests python ../shared/golden/check.py --runner golden_runner:compiled --kind squeezenet

`compiled` is the library's code at O3; `compiled_O0` to `compiled_O2` are those of the other levels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from differential.compiling import Compiled

import sqzc
from sqzc.backends.reference import evaluate, evaluate_node
from sqzc.frontends.caffe2 import lift
from sqzc.ir import DType, Graph, TensorType
from sqzc.ir.verifier import verify
from sqzc.passes.manager import PassManager
from sqzc.target import native

Arrays = Mapping[str, npt.NDArray[np.generic]]


def lifted(predict: str | Path, init: str | Path | None, inputs: Arrays) -> Graph:
    """The graph of a net, for inputs of these shapes and element types."""
    types = {name: TensorType(DType.of(array.dtype), tuple(array.shape)) for name, array in inputs.items()}
    graph = lift(predict, init, input_shapes=types)
    verify(graph)
    return graph


def reference(predict: str | Path, init: str | Path | None, inputs: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """All external outputs by the numpy reference backend, in float32."""
    graph = lifted(predict, init, inputs)
    return evaluate(graph, {value.name: inputs[value.name] for value in graph.inputs})


def _model(predict: str | Path, init: str | Path | None, inputs: Arrays, level: str) -> sqzc.Model:
    """The compiled net; the last ones are kept, as check.py asks again and again for the same one."""
    shapes = tuple((name, array.dtype.name, array.shape) for name, array in inputs.items())
    return _compiled(str(predict), None if init is None else str(init), shapes, level)


@functools.lru_cache(maxsize=4)
def _compiled(
    predict: str, init: str | None, shapes: tuple[tuple[str, str, tuple[int, ...]], ...], level: str
) -> sqzc.Model:
    graph = lifted(predict, init, {name: np.empty(shape, dtype) for name, dtype, shape in shapes})
    return sqzc.compile(graph, opt_level=level)


def _run(
    predict: str | Path, init: str | Path | None, inputs: Arrays, level: str
) -> dict[str, npt.NDArray[np.generic]]:
    if not inputs:
        # There is no library without inputs, but there is code.
        graph = lifted(predict, init, inputs)
        PassManager(level, target=native(), evaluate=evaluate_node).run(graph)
        return Compiled(graph, native())({})
    model = _model(predict, init, inputs, level)
    return model.run({info.name: np.ascontiguousarray(inputs[info.name]) for info in model.inputs})


def compiled(predict: str | Path, init: str | Path | None, inputs: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """All external outputs by generated code at O3."""
    return _run(predict, init, inputs, "O3")


def compiled_O2(predict: str | Path, init: str | Path | None, inputs: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """All external outputs by generated code at O2."""
    return _run(predict, init, inputs, "O2")


def compiled_O1(predict: str | Path, init: str | Path | None, inputs: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """All external outputs by generated code at O1."""
    return _run(predict, init, inputs, "O1")


def compiled_O0(predict: str | Path, init: str | Path | None, inputs: Arrays) -> dict[str, npt.NDArray[np.generic]]:
    """All external outputs by generated code at O0."""
    return _run(predict, init, inputs, "O0")
