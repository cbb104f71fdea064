"""The numpy reference: evaluates any graph in float32 or float64, for clarity. The oracle of all other backends.

It is the only place in sqzc where numpy computes a layer.
"""

from __future__ import annotations

from sqzc.backends.reference import elementwise, nn, shape, trigonometry  # noqa: F401  (registers the kernels)
from sqzc.backends.reference.evaluate import Precision, evaluate, evaluate_node, evaluate_values, find_tap, iterate
from sqzc.backends.reference.registry import kernel, supported

__all__ = ["Precision", "evaluate", "evaluate_node", "evaluate_values", "find_tap", "iterate", "kernel", "supported"]
