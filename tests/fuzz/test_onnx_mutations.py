"""Mutated ONNX files: the outcome is a graph or an SqzcError, in bounded time and memory, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_maker import OnnxMaker, normal

from sqzc.backends.reference import evaluate_node
from sqzc.diagnostics import SqzcError
from sqzc.frontends.onnx import lift
from sqzc.ir.verifier import verify

ROUNDS = 400


def ints(*values: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.asarray(values, np.int64)


def models(maker: OnnxMaker) -> Iterator[onnx.ModelProto]:
    """Models that between them reach most of the importer."""
    node = maker.node
    weights = {"w": normal(4, 3, 3, 3), "f": normal(4, 5), "t": ints(1, -1), "k": ints(2)}
    yield maker.model(
        [
            node("Conv", "x w", "c", pads=[1, 1, 1, 1], strides=[2, 2], name="conv"),
            node("MaxPool", "c", "m", kernel_shape=[2, 2], ceil_mode=1),
            node("GlobalAveragePool", "m", "g"),
            node("Flatten", "g", "l"),
            node("Gemm", "l f", "y"),
        ],
        {"x": ["N", 3, 9, 9]},
        weights=weights,
    )
    yield maker.model(
        [
            node("Shape", "x", "s"),
            node("Slice", "s zero k", "s2"),
            node("Concat", "s2 k", "target", axis=0),
            node("ConstantOfShape", "target", "fill"),
            node("Range", "a b c", "r"),
            node("Tile", "r k", "r2"),
            node("Expand", "one s", "e"),
            node("Pad", "e p4", "p"),
            node("TopK", "p k", "v i"),
            node("Resize", "x - sc", "z"),
            node("Split", "x", "h1 h2", axis=0, num_outputs=2),
            node("ScatterND", "x idx upd", "y"),
        ],
        {"x": [2, 6]},
        ("y", "v", "i", "z", "r2", "h2"),
        {
            **weights,
            "zero": ints(0),
            "a": np.asarray(0, np.int64),
            "b": np.asarray(5, np.int64),
            "c": np.asarray(1, np.int64),
            "one": normal(1, 1),
            "p4": ints(0, 1, 2, 0),
            "sc": np.asarray([1, 1.5], np.float32),
            "idx": ints(1).reshape(1, 1),
            "upd": normal(1, 6),
        },
    )
    yield maker.model(
        [
            node("BatchNormalization", "x s b m v", "n"),
            node("LRN", "n", "l", size=3),
            node("Softmax", "l", "q", axis=1),
            node("Upsample", "q", "u", scales=[1.0, 1.0, 2.0, 2.0]),
            node("PRelu", "u slope", "y"),
        ],
        {"x": [1, 3, 4, 4]},
        weights={**{k: np.abs(normal(3)) for k in "sbmv"}, "slope": normal(3, 1, 1)},
        opset=8,
    )


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, dropped, doubled, or exchanged for large numbers."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(out))
        kind = rng.randrange(6)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del out[at : at + rng.randrange(1, 5)]
        elif kind == 3:
            out[at:at] = out[at : at + rng.randrange(1, 20)]
        elif kind == 4:
            out[at : at + 5] = b"\xff\xff\xff\xff\x7f"
        else:
            out = out[: max(at, 1)]
        if not out:
            return b"\0"
    return bytes(out)


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("seed", range(2))
def test_mutations_never_surprise(tmp_path: Path, index: int, seed: int) -> None:
    data = list(models(OnnxMaker(tmp_path)))[index].SerializeToString()
    path = tmp_path / "mutated.onnx"
    rng = random.Random(1000 * index + seed)
    survivors = 0
    for number in range(ROUNDS):
        contents = mutated(data, rng)
        path.write_bytes(contents)
        try:
            verify(lift(path, evaluate_node).graph)
            survivors += 1
        except SqzcError:
            pass
        except Exception as error:
            kept = tmp_path / f"found-{index}-{seed}-{number}.onnx"
            kept.write_bytes(contents)
            raise AssertionError(f"{type(error).__name__} from round {number}, kept as {kept}") from error
    assert survivors > 0, "every mutation was refused: do the models themselves still lift?"
