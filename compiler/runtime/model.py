"""A compiled model that runs on numpy arrays."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sqzc.diagnostics import LibraryError, Location, UsageError
from sqzc.runtime.library import Functions, open_library
from sqzc.runtime.metadata import Metadata
from sqzc.runtime.tensor import Array, InputTypeError, TensorInfo, check_batch_fits, check_inputs

if TYPE_CHECKING:
    from sqzc.runtime.classify import Prediction
    from sqzc.runtime.preprocess import Picture

IN_PROCESS = "a model compiled in process"
"""What messages call a model that has no file."""


def load(path: str | os.PathLike[str], threads: int = 1) -> Model:
    """The model in the library at `path`, computing on `threads` threads (0 means one for each core).

    Raises LibraryError when the file is missing, is not a library that sqzc compiled, was built for another ABI
    version, or needs something this CPU has not.
    """
    functions = open_library(path)
    return Model(functions, threads=threads, path=functions.origin)


class Model:
    """A compiled network, its weights and its working memory.

    `model(x)` runs it when it has one input and one output, `model.run({...})` always. Calls from several threads are
    safe and take turns; for calls at the same time give each thread a model of its own, by `with_threads`. The
    weights are shared between all of them. A model is also a context manager; leaving it, or `close()`, frees the
    working memory. It can be pickled when it came from a file (the path is what is kept), and it survives a fork.
    """

    def __init__(self, functions: Functions, *, threads: int = 1, path: str | None = None) -> None:
        """For `load` and `from_functions`. `path` is the library's, None for a model without a file."""
        _check_threads(threads)
        self._functions = functions
        self._path = path
        self._threads = threads
        self._metadata = functions.read_metadata()
        self._inputs = tuple(TensorInfo.from_metadata(meta) for meta in self._metadata["inputs"])
        self._outputs = tuple(TensorInfo.from_metadata(meta) for meta in self._metadata["outputs"])
        self._lock = threading.Lock()
        self._closed = False
        self._handle: _Handle | None = _Handle(functions, threads)
        _live_models.add(self)

    @classmethod
    def from_functions(cls, addresses: Mapping[str, int], keepalive: object, *, threads: int = 1) -> Model:
        """A model from code that is already in memory, such as a JIT compiler's.

        `addresses` maps each name of `sqzc.runtime.abi.FUNCTION_NAMES` (without a prefix) to the function's address;
        the code stays valid for as long as `keepalive` is referred to, which the model does.
        """
        return cls(Functions.from_addresses(addresses, keepalive, IN_PROCESS), threads=threads)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The inputs in order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The outputs in order."""
        return self._outputs

    @property
    def metadata(self) -> Metadata:
        """What the library says about itself; see `sqzc.runtime.metadata.Metadata`."""
        return self._metadata

    @property
    def path(self) -> str | None:
        """The library's absolute path, None for a model compiled in process."""
        return self._path

    @property
    def threads(self) -> int:
        """The number of threads asked for; 0 means one for each core."""
        return self._threads

    @property
    def workspace_bytes(self) -> int:
        """Working memory of one thread, in bytes, as the library reports it."""
        return self._functions.workspace_bytes()

    def __call__(self, x: Array) -> Array:
        """The one output for the one input `x`; the first dimension may be any multiple of the model's."""
        if len(self._inputs) != 1 or len(self._outputs) != 1:
            raise UsageError(
                "calling a model directly needs one input and one output",
                got=f"{len(self._inputs)} inputs and {len(self._outputs)} outputs",
                hint="model.run({name: array})",
            )
        return self.run({self._inputs[0].name: x})[self._outputs[0].name]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs, as new arrays, for the inputs by name.

        The first dimension of every input may be a multiple of the model's own, the same one for all: that is the
        batch. Raises InputTypeError (a TypeError) or InputValueError (a ValueError) for arrays that do not fit.
        """
        batch, arrays = check_inputs(self._inputs, inputs)
        check_batch_fits([*self._inputs, *self._outputs], batch)
        results = [np.empty(info.batch_shape(batch), info.dtype) for info in self._outputs]
        with self._lock:
            handle = self._open_handle()
            status = self._functions.run(handle.pointer, batch, _pointers(arrays), _pointers(results))
        self._functions.check(status, "running the model")
        return {info.name: result for info, result in zip(self._outputs, results, strict=True)}

    def classify(
        self,
        picture: Picture,
        top: int = 5,
        *,
        preset: str = "pillow",
        labels: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        channel_order: str | None = None,
    ) -> list[Prediction]:
        """The `top` likeliest classes of a picture, likeliest first. Needs Pillow.

        `picture` is a path, a PIL image, or a uint8 RGB array [height, width, 3]. `preset` says how it is brought to
        size, see `sqzc.runtime.preprocess`. `labels` default to those in the library. `mean` and `channel_order` are
        for a library that does not know its own.
        """
        from sqzc.runtime.classify import classify

        return classify(self, picture, top, preset, labels, mean, channel_order)

    def with_threads(self, threads: int) -> Model:
        """Another handle on the same model and weights, with its own working memory, on `threads` threads."""
        return Model(self._functions, threads=threads, path=self._path)

    def close(self) -> None:
        """Frees the working memory and ends the threads. Doing so twice is fine; running afterwards is an error."""
        with self._lock:
            self._closed = True
            if self._handle is not None:
                self._handle.release()
                self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            raise LibraryError(
                "a model compiled in process cannot be pickled or copied: its code has no file",
                hint="compile to a file, sqzc.compile(model, 'libmodel.so')",
            )
        return load, (self._path, self._threads)

    def __repr__(self) -> str:
        ins = ", ".join(f"{info.name}: {info}" for info in self._inputs)
        outs = ", ".join(f"{info.name}: {info}" for info in self._outputs)
        where = self._path or "in process"
        return f"<sqzc.Model {self._metadata['name']} ({ins}) -> ({outs}), {where}>"

    def _open_handle(self) -> _Handle:
        """The handle, made again in a forked child. The caller holds the lock."""
        if self._closed:
            raise LibraryError("the model has been closed", location=Location(self._functions.origin))
        if self._handle is None:
            self._handle = _Handle(self._functions, self._threads)
        return self._handle

    def _forget_after_fork(self) -> None:
        """Lets go of what a forked child cannot use: threads that were not copied, a lock that somebody held."""
        self._lock = threading.Lock()
        if self._handle is not None:
            self._handle.abandon()
            self._handle = None


class _Handle:
    """One model made by the library's `create`, destroyed when this object goes."""

    def __init__(self, functions: Functions, threads: int) -> None:
        self.pointer = ctypes.c_void_p()
        functions.check(functions.create(ctypes.byref(self.pointer), threads), "loading the model")
        assert self.pointer.value, "create succeeded but gave no model"
        # All the functions are given, not `destroy` alone, because they are what keeps the code in memory.
        self._finalizer = weakref.finalize(self, _destroy, functions, self.pointer)

    def release(self) -> None:
        self._finalizer()

    def abandon(self) -> None:
        """Leaves the memory as it is: in a forked child, ending threads that do not exist there would hang."""
        self._finalizer.detach()


def _destroy(functions: Functions, pointer: ctypes.c_void_p) -> None:
    functions.destroy(pointer)


def _check_threads(threads: object) -> None:
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise InputTypeError("the number of threads must be an int", expected="int", got=type(threads).__name__)
    if not 0 <= threads < 2**31:
        raise UsageError(
            "the number of threads makes no sense", expected="0 (one for each core) or more", got=str(threads)
        )


def _pointers(arrays: Sequence[Array]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


_live_models: weakref.WeakSet[Model] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for model in list(_live_models):
        model._forget_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
