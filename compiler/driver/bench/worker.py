"""The process of one contender of a benchmark. Runs by itself, in an interpreter that may know nothing of sqzc.

Reads a JSON object a line from standard input and answers each with one on standard output:

    {"do": "open", "contender", "file", "threads", "inputs": {name: .npy}, "bound", "isa"}
                                          -> {"version", "import_seconds", "load_seconds", "first_seconds"}
    {"do": "answer", "file": .npz}        -> {}           the outputs in order, as arr_0, arr_1, ...
    {"do": "turn", "warmups", "calls"}    -> {"seconds": [one for each timed call]}

The end of the input ends the process. What goes wrong is answered as {"error": words}. `bound` calls leave inputs and
outputs in the same memory every time; others are what a user of the runtime writes, which allocates the outputs. Needs
Python 3.10, numpy, and the runtime that is asked for.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Opened(NamedTuple):
    """A loaded model: one call of it, and the outputs of the latest call in order."""

    version: str
    call: Callable[[], object]
    outputs: Callable[[], list[Any]]
    import_seconds: float
    load_seconds: float


class Clock:
    """Seconds since it was last asked."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        passed, self.last = now - self.last, now
        return passed


class Latest:
    """Calls a function and keeps what it gave."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.result: Any = None

    def __call__(self) -> None:
        self.result = self.function()


Inputs = dict[str, Any]


def open_sqzc(spec: dict[str, Any], inputs: Inputs) -> Opened:
    """A compiled library: `Model.run`, or when bound its C function with fixed pointers."""
    clock = Clock()
    runtime = importlib.import_module("sqzc.runtime")
    imported = clock.lap()
    model = runtime.load(spec["file"], threads=spec["threads"])
    loaded = clock.lap()
    version = model.metadata["versions"]["sqzc"]
    if spec["bound"]:
        call, outputs = bind_sqzc(model, spec, inputs)
        return Opened(version, call, outputs, imported, loaded)
    latest = Latest(lambda: model.run(inputs))
    return Opened(version, latest, lambda: list(latest.result.values()), imported, loaded)


def bind_sqzc(model: Any, spec: dict[str, Any], inputs: Inputs) -> Any:
    """The C function of the library on memory that stays where it is."""
    import ctypes

    functions = importlib.import_module("sqzc.runtime.library").open_library(spec["file"])
    handle = ctypes.c_void_p()
    functions.check(functions.create(ctypes.byref(handle), spec["threads"]), "loading the model")
    arrays = [inputs[info.name] for info in model.inputs]
    batch = arrays[0].shape[0] // model.inputs[0].shape[0]
    results = [np.empty(info.batch_shape(batch), info.dtype) for info in model.outputs]
    pointers = [(ctypes.c_void_p * len(some))(*(a.ctypes.data for a in some)) for some in (arrays, results)]
    functions.check(functions.run(handle, batch, *pointers), "running the model")
    run = functions.run
    return lambda: run(handle, batch, *pointers), lambda: results


def open_onnxruntime(spec: dict[str, Any], inputs: Inputs) -> Opened:
    """A session with all optimisations on the CPU."""
    clock = Clock()
    runtime = importlib.import_module("onnxruntime")
    imported = clock.lap()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = runtime.InferenceSession(spec["file"], options, providers=["CPUExecutionProvider"])
    loaded = clock.lap()
    if not spec["bound"]:
        latest = Latest(lambda: session.run(None, inputs))
        return Opened(runtime.__version__, latest, lambda: list(latest.result), imported, loaded)
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, runtime.OrtValue.ortvalue_from_numpy(array))
    values = []
    for info, like in zip(session.get_outputs(), session.run(None, inputs), strict=True):
        values.append(runtime.OrtValue.ortvalue_from_numpy(np.empty_like(like)))
        binding.bind_ortvalue_output(info.name, values[-1])
    run = session.run_with_iobinding
    return Opened(
        runtime.__version__, lambda: run(binding), lambda: [value.numpy() for value in values], imported, loaded
    )


def open_openvino(spec: dict[str, Any], inputs: Inputs) -> Opened:
    """One request of one stream on the CPU, in full precision: bf16 is the default where there is AMX."""
    if spec.get("isa"):
        # Read by oneDNN, which makes the kernels, before its first one.
        os.putenv("ONEDNN_MAX_CPU_ISA", spec["isa"])
    clock = Clock()
    runtime = importlib.import_module("openvino")
    version = runtime.__version__.partition("-")[0]  # The rest is the build's.
    imported = clock.lap()
    core = runtime.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": str(spec["threads"]),
        "NUM_STREAMS": "1",
    }
    compiled = core.compile_model(core.read_model(spec["file"]), "CPU", settings)
    request = compiled.create_infer_request()
    loaded = clock.lap()

    def outputs() -> list[Any]:
        return [np.array(request.get_output_tensor(i).data) for i in range(len(compiled.outputs))]

    if not spec["bound"]:
        latest = Latest(lambda: request.infer(inputs, share_inputs=True, share_outputs=True))
        return Opened(version, latest, outputs, imported, loaded)
    for name, array in inputs.items():
        request.set_tensor(name, runtime.Tensor(array, shared_memory=True))
    return Opened(version, request.infer, outputs, imported, loaded)


OPENERS = {"sqzc": open_sqzc, "onnxruntime": open_onnxruntime, "openvino": open_openvino}


class Worker:
    """Answers requests; the model is what the first of them opened."""

    def __init__(self) -> None:
        self.opened: Any = None
        self.inputs: Inputs = {}

    def do_open(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Loads the model and runs it once."""
        # Kept, because calls that are bound have no more than the address.
        self.inputs = {name: np.load(file, allow_pickle=False) for name, file in spec["inputs"].items()}
        self.opened = OPENERS[spec["contender"]](spec, self.inputs)
        clock = Clock()
        self.opened.call()
        return {
            "version": self.opened.version,
            "import_seconds": self.opened.import_seconds,
            "load_seconds": self.opened.load_seconds,
            "first_seconds": clock.lap(),
        }

    def do_answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Writes the outputs of the latest call."""
        np.savez(request["file"], *self.opened.outputs())
        return {}

    def do_turn(self, request: dict[str, Any]) -> dict[str, Any]:
        """Calls the model and takes the times."""
        call, now, seconds = self.opened.call, time.perf_counter_ns, []
        for _ in range(request["warmups"]):
            call()
        for _ in range(request["calls"]):
            start = now()
            call()
            seconds.append((now() - start) / 1e9)
        return {"seconds": seconds}


def main() -> None:
    """Answers until there is nobody to ask."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What a runtime prints must not come between the replies.
    gc.disable()
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(worker, "do_" + request["do"])(request)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
