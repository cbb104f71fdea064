"""The table of exporters: how one op is said in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqzc.ir.graph import Node
from sqzc.ir.opdef import registry

if TYPE_CHECKING:
    from sqzc.backends.onnx_export.emitter import Emitter

Exporter = Callable[["Emitter", Node], str | tuple[str, ...]]

_exporters: dict[str, Exporter] = {}


def exporter(name: str) -> Callable[[Exporter], Exporter]:
    """Registers a function that emits ONNX nodes for the op `name` and returns the tensor name of each result."""

    def register(function: Exporter) -> Exporter:
        assert name in registry, f"there is no op {name}"
        assert name not in _exporters, f"op {name} has two exporters"
        _exporters[name] = function
        return function

    return register


def exporter_of(name: str) -> Exporter | None:
    """The exporter of an op; None when ONNX has no word for it."""
    return _exporters.get(name)


def supported() -> frozenset[str]:
    """Names of the ops that can be exported."""
    return frozenset(_exporters)
