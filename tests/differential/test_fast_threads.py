"""A whole net through the driver: neither the number of threads nor the kind of handle changes a bit of the answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from differential.checking import TARGET_NAMES, target_or_skip
from differential.compiling import Compiled
from small_nets import NetWriter

import sqzc
from sqzc.driver.build import make_plan, run_passes, settle
from sqzc.driver.options import CodeOptions, ModelOptions
from sqzc.driver.sources import read_model

CLASSES = 20


def write_net(folder: Path, size: int) -> Path:
    """A fire module wide enough for every fast kernel on every target; the pool before it leaves odd sizes."""
    net = NetWriter(7)
    net.predict.external_input.append("data")
    net.conv("data", "conv1", 3, 24, 3, stride=2)
    net.op("MaxPool", ["conv1"], ["pool1"], kernel=3, stride=2, legacy_pad=3)
    net.conv("pool1", "squeeze", 24, 32, 1)
    net.conv("squeeze", "left", 32, 48, 1)
    net.conv("squeeze", "right", 32, 48, 3, pad=1)
    net.op("Concat", ["left", "right"], ["joined", "_dims"], order="NCHW")
    net.conv("joined", "conv2", 96, 40, 3, pad=1)
    net.op("MaxPool", ["conv2"], ["pool2"], kernel=3, stride=2, legacy_pad=3)
    net.conv("pool2", "conv3", 40, CLASSES, 1)
    net.op("AveragePool", ["conv3"], ["pool3"], kernel=0, global_pooling=1)
    net.op("Softmax", ["pool3"], ["prob"])
    net.predict.external_output.append("prob")
    return net.save(folder, (1, 3, size, size))


def pixels(size: int, batch: int = 1) -> npt.NDArray[np.float32]:
    return np.random.default_rng(size).uniform(0, 255, (batch, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize("target", TARGET_NAMES)
@pytest.mark.parametrize("size", [47, 63])
def test_threads_do_not_change_the_answer(size: int, target: str, tmp_path: Path) -> None:
    target_or_skip(target)
    net = write_net(tmp_path, size)
    x = pixels(size, batch=2)
    want = sqzc.evaluate(sqzc.lift(net), {"data": x[:1]}, dtype="float64")["prob"]
    model = sqzc.compile(net, target=target)
    one = model(x)
    np.testing.assert_allclose(one[:1], want, rtol=0, atol=2e-6)
    for threads in (2, 3, 5):
        other = model.with_threads(threads)
        for _ in range(5):
            assert other(x).tobytes() == one.tobytes(), f"{threads} threads"


@pytest.mark.parametrize("target", TARGET_NAMES)
def test_memory_that_is_not_prepared_does_not_change_the_answer(target: str, tmp_path: Path) -> None:
    # `run_in` has no handle: kernels do at every run what a handle would keep.
    size = 63
    source = read_model(write_net(tmp_path, size), ModelOptions())
    optimised = run_passes(source, settle(source, CodeOptions(target=target)))
    program = make_plan(optimised)
    assert "conv2d.winograd" in {step.kernel for step in program.steps}
    assert program.prepared_bytes
    compiled = Compiled(optimised.graph, target_or_skip(target))
    ready, inputs = compiled.prepared(), {"data": pixels(size)}
    want = compiled(inputs)["prob"].tobytes()
    for threads in (1, 2, 3):
        assert compiled(inputs, threads)["prob"].tobytes() == want, f"{threads} threads"
        assert compiled(inputs, threads, ready)["prob"].tobytes() == want, f"{threads} threads, prepared"
