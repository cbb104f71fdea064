"""Runners for the golden data's check.py: lift a Caffe2 net as it is, evaluate it, hand back every output.

PYTHONPATH=tests python ../shared/golden/check.py --runner golden_runner:reference [--kind ops] [--taps]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sqzc.backends.reference import evaluate
from sqzc.frontends.caffe2 import lift
from sqzc.ir import DType, Graph, TensorType
from sqzc.ir.verifier import verify

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
