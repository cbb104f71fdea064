"""What can be asked of the driver: which model, with which weights and mean, and which code to make of it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sqzc.diagnostics import UsageError
from sqzc.ir.types import DType, TensorType
from sqzc.zoo import search_path
from sqzc.zoo.fetch import Progress

Shape = Sequence[int] | TensorType | np.ndarray[Any, Any]
MeanLike = str | Sequence[float] | None


@dataclass(frozen=True)
class ModelOptions:
    """How a model is found and read.

    mean: `model` takes what the zoo says (nothing for models given by path), None leaves the net as it is, numbers are
    subtracted from the input channel by channel. search_path: folders that hold zoo models' folders. external_data:
    whether an ONNX model's weights in other files are read, from below its folder only.
    """

    init_net: Path | None = None
    inputs: Mapping[str, Shape] = field(default_factory=dict)
    mean: str | tuple[float, ...] | None = "model"
    weights: str = "pretrained"
    model_dir: Path | None = None
    search_path: tuple[Path, ...] = ()
    allow_network: bool = True
    external_data: bool = False
    labels: Path | None = None
    download: Progress | None = None

    @property
    def input_types(self) -> dict[str, Sequence[int] | TensorType]:
        """The inputs as the frontends want them; an example array stands for its type."""
        return {
            name: TensorType(DType.of(shape.dtype), tuple(int(d) for d in shape.shape))
            if isinstance(shape, np.ndarray)
            else shape
            for name, shape in self.inputs.items()
        }


@dataclass(frozen=True)
class CodeOptions:
    """What code is made. None is the default: `native`, level 3, the model's name as prefix, 256 threads.

    A `.sqz` file that was dumped in the middle of a compilation has defaults of its own: those it was dumped with.
    `passes` is a pipeline to run in place of the level's; `winograd` one of `WINOGRAD`; `tuning` a file of `sqzc tune`,
    whose choices come before those of the cost model.
    """

    target: str | None = None
    opt_level: int | None = None
    passes: str | None = None
    prefix: str | None = None
    threads_max: int | None = None
    stop_after: str | int | None = None
    winograd: str | None = None
    tuning: Path | None = None


def parse_mean(mean: MeanLike) -> str | tuple[float, ...] | None:
    """Reads `model`, `none` or numbers separated by commas, or takes numbers; UsageError for anything else."""
    if mean is None or mean == "none":
        return None
    if mean == "model":
        return "model"
    parts = mean.split(",") if isinstance(mean, str) else mean
    try:
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"mean {mean!r}", expected="model, none, or one number for each channel such as 104,117,123")
    return numbers


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Reads `NAME:1,3,227,227`; names may contain colons."""
    match = re.fullmatch(r"(.+):([0-9]+(?:[,x][0-9]+)*)", text)
    if match is None:
        raise UsageError(f"input shape '{text}'", expected="NAME:DIMS, for example data:1,3,227,227")
    dims = tuple(int(dim) for dim in re.split("[,x]", match.group(2)))
    return match.group(1), dims


def parse_level(level: str | int) -> int:
    """Reads `O2` or 2."""
    text = str(level)
    match = re.fullmatch(r"O?([0-3])", text)
    if match is None:
        raise UsageError(f"unknown optimisation level 'O{text.removeprefix('O')}'", expected="O0, O1, O2 or O3")
    return int(match.group(1))


def zoo_path(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Folders with zoo models, from $SQZC_MODEL_PATH and the pyproject.toml nearest to the current folder."""
    return tuple(Path(os.path.normpath(path)) for path in search_path(environment, Path.cwd()))


def optional_path(path: str | os.PathLike[str] | None) -> Path | None:
    """A Path, or None for None."""
    return None if path is None else Path(path)


def parse_winograd(word: str) -> str:
    """Checks a choice of Winograd's form: where it pays, never, or F(2,3) or F(4,3) wherever it is possible."""
    from sqzc.backends.llvm.library import WINOGRAD

    if word not in WINOGRAD:
        raise UsageError(f"no form of Winograd's convolution '{word}'", expected=", ".join(WINOGRAD))
    return word


def parse_threads_max(count: int) -> int:
    """Checks the most threads that a library is to accept."""
    from sqzc.backends.llvm.abi import MAX_THREADS

    if not 1 <= count <= MAX_THREADS:
        raise UsageError(f"at most {count} threads", expected=f"--threads-max from 1 to {MAX_THREADS}")
    return count
