"""The options by which subcommands say which model is meant."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from sqzc.cli.console import PATH
from sqzc.driver.options import ModelOptions, parse_input_shape, parse_mean, zoo_path

F = TypeVar("F", bound=Callable[..., Any])


def model_options(command: F) -> F:
    """Options that say which model is read, and how."""
    for option in reversed(
        [
            click.option("--init-net", type=PATH, help="The init net, when it is not beside the predict net."),
            click.option(
                "--weights",
                default="pretrained",
                metavar="KIND",
                show_default=True,
                help="pretrained, or random[:SEED] for seeded random ones.",
            ),
            click.option(
                "--mean",
                default="model",
                metavar="B,G,R|none",
                help="What the library subtracts from its input, by channel. Default: what the zoo says; for a model "
                "given by path nothing.",
            ),
            click.option(
                "--input-shape",
                "input_shapes",
                multiple=True,
                metavar="NAME:DIMS",
                help="The shape of an input, such as data:1,3,227,227; may be repeated.",
            ),
            click.option(
                "--external-data",
                is_flag=True,
                help="Read the weights that an ONNX model keeps in other files, which must lie below its folder.",
            ),
            click.option(
                "--model-dir",
                type=PATH,
                help="Where to look first for a zoo model: its own folder, or one that holds it.",
            ),
        ]
    ):
        command = option(command)
    return command


tuning_option = click.option(
    "--tuning", type=PATH, metavar="FILE", help="Choices of kernels and schedules that sqzc tune measured."
)


def read_model_options(
    init_net: Path | None,
    weights: str,
    mean: str,
    input_shapes: Sequence[str],
    model_dir: Path | None,
    *,
    external_data: bool = False,
    labels: Path | None = None,
    allow_network: bool = True,
    download: Callable[[int, int], None] | None = None,
) -> ModelOptions:
    """The options of `model_options` as the driver wants them, with the folders to look for zoo models in."""
    return ModelOptions(
        init_net=init_net,
        inputs=dict(parse_input_shape(text) for text in input_shapes),
        mean=parse_mean(mean),
        weights=weights,
        model_dir=model_dir,
        search_path=zoo_path(os.environ),
        external_data=external_data,
        labels=labels,
        allow_network=allow_network,
        download=download,
    )
