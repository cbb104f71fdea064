"""From an ONNX model to graph IR: static shapes of the inputs, constants, and every node in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sqzc.diagnostics import FrontendError, Location, SqzcError, UnsupportedError, UsageError, VerifyError, nearest
from sqzc.frontends.common import unsupported_error
from sqzc.frontends.onnx import lifts
from sqzc.frontends.onnx.attributes import AttrReader
from sqzc.frontends.onnx.branches import inlined_branch
from sqzc.frontends.onnx.loader import STANDARD_DOMAINS, Model, check_model, read_model
from sqzc.frontends.onnx.table import DynamicError, OpView, lifter
from sqzc.frontends.onnx.tensors import ir_dtype, to_array, type_name
from sqzc.frontends.onnx.values import BlockedError, Evaluate, Values
from sqzc.ir import Builder, Graph, Value
from sqzc.ir.ops.elementwise import Identity, Sub
from sqzc.ir.types import MAX_RANK, TensorType

ShapeLike = Sequence[int] | TensorType

BATCH = 1
"""What an unknown first dimension is taken to be."""


class UnsupportedModelError(UnsupportedError):
    """All that sqzc cannot do with a model. `inputs` names the inputs whose values would have to be known."""

    def __init__(self, error: UnsupportedError, inputs: Sequence[str]) -> None:
        hint = error.hint
        if inputs:
            shown = ", ".join(f"'{name}'" for name in inputs)
            hint = f"shapes must be known at compile time: fix the value of input {shown}"
        super().__init__(error.message, location=error.location, expected=error.expected, got=error.got, hint=hint)
        self.inputs = tuple(inputs)


class NotStaticError(FrontendError):
    """The model leaves the shape of an input open, and nobody gave it."""


@dataclass(frozen=True)
class Imported:
    """A graph, what was assumed on the way, in words, and the files that were read besides the model's."""

    graph: Graph
    notes: tuple[str, ...]
    files: tuple[Path, ...] = ()


def lift(
    model: str | Path,
    evaluate: Evaluate,
    *,
    input_shapes: Mapping[str, ShapeLike] | None = None,
    known_inputs: Mapping[str, npt.ArrayLike] | None = None,
    mean: Sequence[float] | None = None,
    name: str | None = None,
    allow_external_data: bool = False,
) -> Imported:
    """Imports an ONNX model file.

    evaluate: computes the results of a node from known operands, as `sqzc.backends.reference.evaluate_node` does.
    input_shapes: shape or full type of inputs; needed where the file's own is not static, but for the batch, which is
    1 unless given. known_inputs: values of inputs that are fixed at compile time; they are no inputs of the graph.
    mean: one number per channel, subtracted from the one image by an op of its own. allow_external_data: whether
    weights in other files are read, from below the model's folder only.

    SqzcError for anything wrong with the file or options; all that is not supported is listed at once.
    """
    loaded = read_model(model, allow_external_data=allow_external_data)
    shapes, known = dict(input_shapes or {}), dict(known_inputs or {})
    return import_model(loaded, evaluate, shapes, known, mean=mean, name=name)


def lift_proto(
    proto: Any,
    evaluate: Evaluate,
    *,
    input_shapes: Mapping[str, ShapeLike] | None = None,
    known_inputs: Mapping[str, npt.ArrayLike] | None = None,
    file: str = "model",
) -> Imported:
    """Imports an onnx.ModelProto, of which a copy is made. External data is refused."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    loaded = check_model(copy, file)
    return import_model(loaded, evaluate, dict(input_shapes or {}), dict(known_inputs or {}))


def import_model(
    model: Model,
    evaluate: Evaluate,
    input_shapes: Mapping[str, ShapeLike],
    known_inputs: Mapping[str, npt.ArrayLike],
    *,
    mean: Sequence[float] | None = None,
    name: str | None = None,
) -> Imported:
    """Lifts a model as read."""
    importer = _Importer(model, input_shapes, known_inputs, evaluate)
    return Imported(importer.run(name, mean), (*model.notes, *importer.notes), model.external)


class _Importer:
    """The state of one import."""

    def __init__(
        self,
        model: Model,
        input_shapes: Mapping[str, ShapeLike],
        known_inputs: Mapping[str, npt.ArrayLike],
        evaluate: Evaluate,
    ) -> None:
        self.model, self.file = model, model.file
        self.graph = Graph(str(model.graph.name) or "main")
        self.values = Values(Builder(self.graph), evaluate)
        self.known = {name: np.asarray(array) for name, array in known_inputs.items()}
        self.notes: list[str] = []
        self.unsupported: list[tuple[str, str]] = []
        self.dynamic: dict[str, None] = {}
        stored = {*model.arrays, *model.refused}
        self.inputs = [info for info in model.graph.input if info.name not in stored]
        self.shapes = self._checked_shapes(input_shapes)
        self.dims: dict[str, int] = {}

    def run(self, name: str | None, mean: Sequence[float] | None) -> Graph:
        """Builds the graph."""
        self._inputs()
        for symbol, array in self.model.arrays.items():
            self.values.bind(symbol, self.values.constant(symbol, array))
        for symbol, reason in self.model.refused.items():
            self.unsupported.append((f"initializer '{symbol}'", reason))
            self.values.bind(symbol, None)
        if mean is not None:
            self._subtract_mean(mean)
        for index, node in enumerate(self.model.graph.node):
            self._node(node, f"node {index}")
        self._raise_unsupported()
        self._outputs()
        if name is not None:
            self.graph.name = name
        self.graph.meta = {
            "format": "onnx",
            "sha256": {"model": self.model.sha256} if self.model.sha256 else {},
            "weights": "file",
            "mean": None if mean is None else [float(number) for number in mean],
        }
        return self.graph

    def _raise_unsupported(self, cause: SqzcError | None = None) -> None:
        if self.unsupported:
            error = unsupported_error("ONNX", self.file, self.unsupported, lifts.table)
            raise UnsupportedModelError(error, tuple(self.dynamic)) from cause

    # -- inputs -------------------------------------------------------------------------------------------------------

    def _checked_shapes(self, given: Mapping[str, ShapeLike]) -> dict[str, ShapeLike]:
        names = [str(info.name) for info in self.inputs]
        for what, wanted in (("shape", given), ("value", self.known)):
            for name in wanted:
                if name not in names:
                    raise UsageError(
                        f"a {what} for '{name}', but the model has no such input",
                        location=Location(self.file),
                        expected=", ".join(names) or "no input at all",
                        hint=nearest(name, names),
                    )
        return dict(given)

    def _inputs(self) -> None:
        for info in self.inputs:
            if info.name in self.shapes:
                self._note_dims(info, self.shapes[info.name])
        unknown: list[str] = []
        for info in self.inputs:
            if info.name in self.known:
                array = self.known[info.name]
                self.values.bind(info.name, self.values.constant(info.name, array))
                continue
            type_ = self._input_type(info, unknown)
            if type_ is None:
                self.values.bind(info.name, None)
            elif type_.elements == 0:
                self.notes.append(f"input '{info.name}' has no elements and is left out")
                empty = np.empty(type_.shape, type_.dtype.numpy)
                self.values.bind(info.name, self.values.constant(info.name, empty))
            else:
                self.values.bind(info.name, self.graph.add_input(info.name, type_))
        if unknown:
            name = unknown[0].split("'")[1]
            raise NotStaticError(
                f"the shape of {' and '.join(unknown)} is not static",
                location=Location(self.file),
                hint=f"give it with --input-shape {name}:1,3,224,224",
            )

    def _note_dims(self, info: Any, shape: ShapeLike) -> None:
        """The values of the symbolic dimensions of an input whose shape is given."""
        dims = shape.shape if isinstance(shape, TensorType) else shape
        declared = list(info.type.tensor_type.shape.dim)
        for known, dim in zip(dims, declared, strict=False):
            if dim.dim_param:
                self.dims.setdefault(dim.dim_param, int(known))

    def _input_type(self, info: Any, unknown: list[str]) -> TensorType | None:
        place = f"input '{info.name}'"
        if not info.type.HasField("tensor_type"):
            kind = info.type.WhichOneof("value") or "nothing known"
            self.unsupported.append((place, f"is no tensor: {kind}"))
            return None
        tensor = info.type.tensor_type
        dtype = ir_dtype(tensor.elem_type)
        if dtype is None:
            self.unsupported.append((place, f"has elements of type {type_name(tensor.elem_type)}"))
            return None
        given = self.shapes.get(info.name)
        if isinstance(given, TensorType):
            if given.dtype is not dtype:
                raise UsageError(f"{place} has another element type", expected=dtype.value, got=str(given))
            given = given.shape
        declared = list(tensor.shape.dim) if tensor.HasField("shape") else None
        if given is not None:
            return TensorType(dtype, self._given_dims(place, given, declared))
        dims = self._declared_dims(info.name, declared)
        if dims is None:
            unknown.append(place)
            return None
        return TensorType(dtype, dims)

    def _given_dims(self, place: str, given: Sequence[int], declared: list[Any] | None) -> tuple[int, ...]:
        dims = tuple(int(dim) for dim in given)
        fits = declared is None or (
            len(dims) == len(declared)
            and all(not dim.HasField("dim_value") or dim.dim_value == d for dim, d in zip(declared, dims, strict=True))
        )
        # A batch that exporters wrote down is theirs, not the net's.
        if not fits and declared is not None and len(dims) == len(declared):
            fits = [d.dim_value for d in declared[1:] if d.HasField("dim_value")] == [
                dim for d, dim in zip(declared[1:], dims[1:], strict=True) if d.HasField("dim_value")
            ]
        if not fits or any(dim < 0 for dim in dims):
            shown = "any rank" if declared is None else str([d.dim_value or d.dim_param or "?" for d in declared])
            raise UsageError(f"shape {list(dims)} for {place}", location=Location(self.file), expected=shown)
        return dims

    def _declared_dims(self, name: str, declared: list[Any] | None) -> tuple[int, ...] | None:
        if declared is None or len(declared) > MAX_RANK:
            return None
        dims: list[int] = []
        for axis, dim in enumerate(declared):
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                dims.append(int(dim.dim_value))
            elif dim.dim_param in self.dims:
                dims.append(self.dims[dim.dim_param])
            elif axis == 0 and len(declared) > 1:
                dims.append(BATCH)
                if dim.dim_param:
                    self.dims[dim.dim_param] = BATCH
                self.notes.append(f"input '{name}': the batch '{dim.dim_param or '?'}' is taken to be {BATCH}")
            else:
                return None
        return tuple(dims)

    def _subtract_mean(self, mean: Sequence[float]) -> None:
        if len(self.graph.inputs) != 1:
            raise UsageError(f"a mean for a net with {len(self.graph.inputs)} inputs", expected="one input, or no mean")
        (image,) = self.graph.inputs
        values = np.asarray(list(mean), np.float64)
        fits = image.type.rank == 4 and image.type.dtype.is_float and values.shape == (image.type.shape[1],)
        if not fits or not np.isfinite(values).all():
            raise UsageError(
                f"a mean of {len(mean)} numbers for input '{image.name}'",
                expected="a finite number for each channel of a float image",
                got=str(image.type),
            )
        planes = values.astype(image.type.dtype.numpy).reshape(1, -1, 1, 1)
        operands = [image, self.values.constant("mean", planes)]
        self.values.rebind(image.name, self.values.add(Sub(), operands, image.name)[0])

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _node(self, node: Any, place: str) -> None:
        where = Location(
            self.file, f"{place} '{node.name}' ({node.op_type})" if node.name else f"{place} ({node.op_type})"
        )
        if node.domain not in STANDARD_DOMAINS:
            self._refuse(node, where, f"operator {node.domain}::{node.op_type} is not supported")
            return
        if node.op_type == "If":
            self._guarded(node, where, lambda: self._branch(node, where, place))
            return
        function = lifter(node.op_type, self.model.opset)
        if function is None:
            known = lifts.table.get(node.op_type)
            words = node.op_type
            if known is not None:
                words = f"operator {node.op_type} is supported from opset {known.oldest} on, not {self.model.opset}"
            self._refuse(node, where, words)
            return
        self._guarded(node, where, lambda: self._lift(node, where, function))

    def _refuse(self, node: Any, where: Location, words: str) -> None:
        self.unsupported.append((where.place, words))
        for name in node.output:
            if name and not self.values.knows(name):
                self.values.bind(name, None)

    def _guarded(self, node: Any, where: Location, run: Any) -> None:
        """Errors about one node can follow from an unsupported one before; then the list of those is the answer."""
        try:
            run()
        except BlockedError:
            for name in node.output:
                if name and not self.values.knows(name):
                    self.values.bind(name, None)
        except DynamicError as error:
            self.dynamic.update(dict.fromkeys(error.inputs))
            self._refuse(node, where, error.message)
        except UnsupportedError as error:
            self._refuse(node, where, error.message)
        except SqzcError as error:
            self._raise_unsupported(error)
            if isinstance(error, FrontendError) and error.location is not None and error.location.place:
                raise
            raise FrontendError(
                error.message, location=where, expected=error.expected, got=error.got, hint=error.hint
            ) from error

    def _lift(self, node: Any, where: Location, function: Any) -> None:
        view = OpView(node, self.model.opset, self.model.written, where, AttrReader(node, where), self.values)
        first = len(self.graph.nodes)
        found = function(view)
        view.attrs.finish()
        results = [found] if isinstance(found, Value) else list(found)
        fresh = {id(value) for made in self.graph.nodes[first:] for value in made.outputs}
        for index, name in enumerate(node.output):
            if not name:
                continue
            value = results[index] if index < len(results) else None
            if value is None:
                raise view.unsupported(f"output {index} of {node.op_type}, '{name}'")
            self.values.bind(name, self._named(value, str(name), fresh))

    def _named(self, value: Value, name: str, fresh: set[int]) -> Value:
        """`value` under the name that it has in the file; a copy where it has another one already."""
        if value.is_constant:
            return value
        if id(value) not in fresh:
            (value,) = self.values.add(Identity(), [value], name)
        fresh.discard(id(value))
        value.source = (name,)
        if value.name != name:
            self.graph.rename(value, name)
        return value

    def _branch(self, node: Any, where: Location, place: str) -> None:
        """An If whose condition is known: the nodes of the branch that is taken."""
        view = OpView(node, self.model.opset, self.model.written, where, AttrReader(node, where), self.values)
        taken = "then_branch" if view.known(0, "the condition").all() else "else_branch"
        branch = view.attrs.graph(taken)
        if branch is None or len(branch.output) != len(node.output):
            raise view.error(f"{taken} does not have the outputs of the If")
        graph = inlined_branch(branch, list(node.output), node.output[0])
        for tensor in graph.initializer:
            array = to_array(tensor, f"initializer '{tensor.name}'")
            self.values.bind(tensor.name, self.values.constant(tensor.name, array))
        for index, inner in enumerate(graph.node):
            self._node(inner, f"{place}, {taken}, node {index}")

    # -- outputs ------------------------------------------------------------------------------------------------------

    def _outputs(self) -> None:
        for name, declared in self.model.outputs:
            where = Location(self.file, f"output '{name}'")
            value = self.values.attach(self.values.get(name, where))
            # The element type is part of the interface: what came out must be what was declared.
            if declared and ir_dtype(declared) is not value.type.dtype:
                raise FrontendError(
                    f"output '{name}' has another element type than declared",
                    location=where,
                    expected=type_name(declared),
                    got=str(value.type),
                )
            try:
                self.graph.add_output(name, value)
            except VerifyError as error:
                raise FrontendError(error.message, location=where) from error
