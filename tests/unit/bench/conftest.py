"""An interpreter with a runtime that calls itself onnxruntime and computes with numpy."""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from pathlib import Path
from types import ModuleType

import pytest
from small_nets import write_small_net

ROOT = Path(__file__).resolve().parents[3]

# What the worker asks of onnxruntime and no more; `offset` makes wrong answers of right ones.
RUNTIME = """
import os, time
import numpy as np
from onnx.reference import ReferenceEvaluator

__version__ = "9.9"
offset, delay = OFFSET, DELAY

class SessionOptions:
    pass

class GraphOptimizationLevel:
    ORT_ENABLE_ALL = 99

class OrtValue:
    def __init__(self, array):
        self.array = array
    @staticmethod
    def ortvalue_from_numpy(array):
        return OrtValue(array)
    def numpy(self):
        return self.array

class Binding:
    def __init__(self):
        self.inputs, self.outputs = {}, []
    def bind_ortvalue_input(self, name, value):
        self.inputs[name] = value.array
    def bind_ortvalue_output(self, name, value):
        self.outputs.append(value.array)

class Output:
    def __init__(self, name):
        self.name = name

class InferenceSession:
    def __init__(self, file, options, providers):
        assert options.intra_op_num_threads >= 1 and options.inter_op_num_threads == 1
        assert options.graph_optimization_level == 99 and providers == ["CPUExecutionProvider"]
        print("a runtime may print what it likes")
        self.net = ReferenceEvaluator(file)
    def get_outputs(self):
        return [Output(name) for name in self.net.output_names]
    def io_binding(self):
        return Binding()
    def run(self, names, inputs):
        assert names is None
        time.sleep(delay)
        return [np.ascontiguousarray(y + np.float32(offset)) for y in self.net.run(None, inputs)]
    def run_with_iobinding(self, binding):
        for array, result in zip(binding.outputs, self.run(None, binding.inputs)):
            array[...] = result
"""


class FakePeers:
    """Makes interpreters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def python(self, name: str = "peers", *, offset: float = 0.0, delay: float = 0.0) -> Path:
        """An interpreter whose onnxruntime adds `offset` to every output and takes `delay` seconds longer."""
        packages = self.folder / name
        packages.mkdir()
        text = RUNTIME.replace("OFFSET", repr(offset)).replace("DELAY", repr(delay))
        (packages / "onnxruntime.py").write_text(text)
        (packages / "onnxruntime-9.9.dist-info").mkdir()
        (packages / "onnxruntime-9.9.dist-info" / "METADATA").write_text("Name: onnxruntime\nVersion: 9.9\n")
        return self.script(f"{name}-python", f'shift\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')

    def script(self, name: str, body: str) -> Path:
        """Any program as an interpreter."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path


@pytest.fixture
def fake_peers(tmp_path: Path) -> FakePeers:
    """Interpreters with a runtime in them that is not the real one."""
    if os.name != "posix":
        pytest.skip("the stand-in for an interpreter is a shell script")
    folder = tmp_path / "interpreters"
    folder.mkdir()
    return FakePeers(folder)


@pytest.fixture(scope="session")
def small_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Caffe2 net."""
    return write_small_net(tmp_path_factory.mktemp("nets") / "small")


def load_script(name: str) -> ModuleType:
    """A program of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shapes() -> ModuleType:
    """benchmarks/shapes.py."""
    return load_script("shapes")


@pytest.fixture(scope="session")
def tables() -> ModuleType:
    """benchmarks/tables.py."""
    return load_script("tables")
