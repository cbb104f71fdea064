"""From a Caffe2 model to graph IR: which blobs are inputs, which are parameters, and every operator in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sqzc.diagnostics import FrontendError, Location, UnsupportedError, UsageError, VerifyError, nearest
from sqzc.frontends.caffe2 import lifts
from sqzc.frontends.caffe2.args import ArgReader
from sqzc.frontends.caffe2.env import BlockedError, NameEnv
from sqzc.frontends.caffe2.loader import Model, check_dims, load_model
from sqzc.frontends.caffe2.model import Net
from sqzc.frontends.caffe2.table import OpView
from sqzc.frontends.caffe2.weights import Array, WeightsSpec, load_parameters, load_shapes, random_parameters
from sqzc.frontends.common import unsupported_error
from sqzc.ir import Builder, Graph
from sqzc.ir.ops.elementwise import Sub
from sqzc.ir.types import DType, TensorType

ShapeLike = Sequence[int] | TensorType


def lift(
    model: str | Path,
    init: str | Path | None = None,
    *,
    input_shapes: Mapping[str, ShapeLike] | None = None,
    weights: str = "pretrained",
    mean: Sequence[float] | None = None,
    name: str | None = None,
    param_shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
) -> Graph:
    """Imports a Caffe2 model as a graph.

    model: a folder with predict_net.pb (and init_net.pb, value_info.json), or the predict net's path. init: the init
    net; by default the one beside the predict net, if any. input_shapes: shape or full type of inputs, over what
    value_info.json says; float32 unless a type says otherwise. weights: `pretrained`, or `random[:SEED]` for He-normal
    parameters of the init net's shapes and those in `param_shapes`. mean: one number per channel, subtracted from the
    net's one input by an op of its own. name: the graph's, by default the net's own, else `model` (never the folder's:
    equal files give equal graphs). outputs: blobs to ask for in place of the net's external_output.

    SqzcError for anything wrong with the files or options; all unsupported operators are listed at once.
    """
    loaded = load_model(model, init)
    spec = WeightsSpec.parse(weights)
    return _Lifting(loaded, spec, dict(input_shapes or {}), dict(param_shapes or {}), outputs).run(name, mean)


class _Lifting:
    """The state of one import."""

    def __init__(
        self,
        model: Model,
        weights: WeightsSpec,
        input_shapes: dict[str, ShapeLike],
        param_shapes: dict[str, Sequence[int]],
        outputs: Sequence[str] | None,
    ) -> None:
        self.model, self.net, self.weights = model, model.predict, weights
        self.unsupported = [(op.place, op.type) for op in self.net.ops if lifts.table.get(op.type) is None]
        self.outputs = tuple(dict.fromkeys(self.net.external_outputs if outputs is None else outputs))
        if not self.outputs:
            raise FrontendError(
                "the net names no output: its external_output is empty",
                location=Location(self.net.file),
                hint="is the file complete? otherwise say which blobs to compute (outputs=...)",
            )
        self.reads = read_before_made(self.net, self.outputs)
        self.declared = self._declared(input_shapes)
        self.parameters, self.known_shapes = self._parameters(param_shapes)

    def _declared(self, input_shapes: dict[str, ShapeLike]) -> dict[str, TensorType]:
        types = {name: type_ for name, type_ in self.model.input_types.items() if name in self.reads}
        possible = {*self.reads, *self.net.external_inputs}
        for name, shape in input_shapes.items():
            if name not in possible:
                raise UsageError(
                    f"the net has no input '{name}'",
                    location=Location(self.net.file),
                    expected=", ".join(self._likely_inputs()) or "no input at all",
                    hint=nearest(name, possible),
                )
            if isinstance(shape, TensorType):
                types[name] = shape
            else:
                dims = check_dims(_plain_ints(shape), f"the shape of input '{name}'", None)
                dtype = types[name].dtype if name in types else DType.F32
                types[name] = TensorType(dtype, dims)
        return {name: type_ for name, type_ in types.items() if name in self.reads}

    def _likely_inputs(self) -> list[str]:
        filled = {out for op in (self.model.init.ops if self.model.init else ()) for out in op.outputs}
        unfilled = [blob for blob in self.reads if blob not in filled or blob in self.model.input_types]
        return (unfilled or list(self.reads)[:1])[:4]

    def _parameters(
        self, param_shapes: dict[str, Sequence[int]]
    ) -> tuple[dict[str, Array], Mapping[str, Sequence[int]]]:
        """Parameters by name, inputs left out."""
        if not self.weights.is_random:
            found = load_parameters(self.model.init)
            return {name: value for name, value in found.items() if name not in self.declared}, {}
        assert self.weights.seed is not None
        shapes, others = load_shapes(self.model.init)
        wanted = {**shapes, **param_shapes}
        chosen = {name: wanted[name] for name in self.reads if name in wanted and name not in self.declared}
        drawn = random_parameters(self.net, chosen, self.weights.seed, others)
        return {name: value for name, value in drawn.items() if name not in self.declared}, chosen

    def run(self, name: str | None, mean: Sequence[float] | None) -> Graph:
        """Builds the graph."""
        graph = Graph(name or self.net.name or "model")
        builder = Builder(graph)
        env = NameEnv(builder, self.net.file)
        self._check_sources()
        inputs = self._inputs()
        for blob, array in self.parameters.items():
            if blob not in inputs:
                env.bind_array(blob, array)
        for blob in inputs:
            env.bind(blob, graph.add_input(blob, self.declared[blob]))
        if mean is not None:
            self._subtract_mean(env, builder, inputs, mean)
        self._operators(env, builder)
        if self.unsupported:
            raise unsupported_error("Caffe2", self.net.file, self.unsupported, lifts.table)
        for blob in self.outputs:
            env.at(Location(self.net.file, f"external_output '{blob}'"))
            graph.add_output(blob, env.use(blob))
        env.finish()
        graph.meta = {
            "format": "caffe2",
            "sha256": dict(sorted(self.model.sha256.items())),
            "weights": str(self.weights),
            "mean": None if mean is None else [float(number) for number in mean],
        }
        return graph

    # -- inputs -------------------------------------------------------------------------------------------------------

    def _check_sources(self) -> None:
        """FrontendError for a blob read first that a non-empty external_input does not name."""
        listed = set(self.net.external_inputs)
        if not listed:
            return
        for blob, place in self.reads.items():
            if blob not in listed:
                raise FrontendError(
                    f"blob '{blob}' is read, but nothing makes it",
                    location=Location(self.net.file, place),
                    hint=nearest(blob, {*listed, *(out for op in self.net.ops for out in op.outputs)})
                    or "no operator before makes it and external_input does not name it",
                )

    def _inputs(self) -> list[str]:
        """Blobs to feed, in the order of external_input; every one has a declared type."""
        ranked = [*(name for name in self.net.external_inputs if name in self.reads), *self.reads]
        order = list(dict.fromkeys(ranked))
        missing = [blob for blob in order if blob not in self.declared and blob not in self.parameters]
        inputs = [blob for blob in order if blob in self.declared]
        if not inputs and not missing:
            # Exporters fill the input with one zero, so that it exists: it is an input for all that.
            missing = [blob for blob in order if _is_placeholder(self.parameters[blob])][:1]
        if missing:
            if self.unsupported:
                raise unsupported_error("Caffe2", self.net.file, self.unsupported, lifts.table)
            raise self._shape_unknown(missing)
        return inputs

    def _shape_unknown(self, missing: list[str]) -> FrontendError:
        first = missing[0]
        if self.model.init is None and len(missing) > 1:
            hint = "no init net was found: give one, or --weights random with known parameter shapes"
        elif len(missing) > 1:
            hint = "does the init net belong to this net, and is it complete?"
        else:
            hint = f"give it with --input-shape {first}:1,3,227,227 or in value_info.json"
        shown = ", ".join(f"'{blob}'" for blob in missing[:4]) + (", ..." if len(missing) > 4 else "")
        what = f"inputs {shown}" if len(missing) > 1 else f"input {shown}"
        if self.weights.is_random and len(missing) > 1:
            hint = "random weights need the shape of every parameter, from an init net or a zoo entry"
        return FrontendError(
            f"nothing fills {what} or gives a shape",
            location=Location(self.net.file, self.reads[first]),
            hint=hint if len(missing) == 1 else f"{hint}; an input's shape: --input-shape {first}:1,3,227,227",
        )

    def _subtract_mean(self, env: NameEnv, builder: Builder, inputs: list[str], mean: Sequence[float]) -> None:
        """Rebinds the net's one input to itself less the mean of each channel."""
        if len(inputs) != 1:
            raise UsageError(f"a mean for a net with {len(inputs)} inputs", expected="one input, or no mean")
        image = env.use(inputs[0])
        axis = 3 if _is_channels_last(self.net, inputs[0]) else 1
        count = len(mean)
        if image.type.rank != 4 or not image.type.dtype.is_float or count != image.type.shape[axis]:
            raise UsageError(
                f"a mean of {count} numbers for input '{inputs[0]}'",
                expected="a number for each channel of a float image",
                got=str(image.type),
            )
        dims = [count if dim == axis else 1 for dim in range(4)]
        values = np.asarray(mean, image.type.dtype.numpy).reshape(dims)
        if not np.isfinite(values).all():
            raise UsageError(f"a mean of {list(mean)}", expected="finite numbers")
        difference = builder.add(Sub(), image, builder.constant("mean", values), source=(inputs[0],))
        env.bind(inputs[0], difference)

    # -- operators ----------------------------------------------------------------------------------------------------

    def _operators(self, env: NameEnv, builder: Builder) -> None:
        # Errors about one operator can follow from an unsupported one before; then the list of those is the answer.
        for op in self.net.ops:
            lifter = lifts.table.get(op.type)
            view = OpView(op, ArgReader(self.net, op))
            env.at(view.location)
            try:
                if lifter is None:
                    raise BlockedError(op.type)
                lifter.check_arity(view)
                lifter.run(view, env, builder)
                view.args.finish()
            except BlockedError:
                _block(env, op.outputs)
            except UnsupportedError as error:
                self.unsupported.append((op.place, error.message))
                _block(env, op.outputs)
            except (FrontendError, VerifyError) as error:
                if self.unsupported:
                    raise unsupported_error("Caffe2", self.net.file, self.unsupported, lifts.table) from error
                if isinstance(error, FrontendError):
                    raise
                raise FrontendError(
                    error.message, location=view.location, expected=error.expected, got=error.got, hint=error.hint
                ) from error


def _block(env: NameEnv, outputs: Sequence[str]) -> None:
    for blob in outputs:
        env.block(blob)


def _is_channels_last(net: Net, blob: str) -> bool:
    """Whether the operators that read an input take it as NHWC."""
    for op in net.ops:
        order = op.args.get("order")
        if blob in op.inputs and (op.type == "NHWC2NCHW" or (order is not None and order.s == b"NHWC")):
            return True
        if blob in op.outputs:
            break
    return False


def _plain_ints(shape: Sequence[object]) -> list[object]:
    """Numpy's whole numbers as Python's; anything else is left for the check to refuse."""
    return [int(dim) if isinstance(dim, np.integer) else dim for dim in shape]


def _is_placeholder(value: Array) -> bool:
    return value.size == 1 and value.dtype.kind == "f" and float(value.ravel()[0]) == 0.0


def read_before_made(net: Net, outputs: Sequence[str]) -> dict[str, str]:
    """Blobs that come from outside, in the order of their first reading, with the place of it."""
    made: set[str] = set()
    reads: dict[str, str] = {}
    for op in net.ops:
        for blob in op.inputs:
            if blob not in made:
                reads.setdefault(blob, op.place)
        made.update(op.outputs)
    for blob in outputs:
        if blob not in made:
            reads.setdefault(blob, f"external_output '{blob}'")
    return reads
