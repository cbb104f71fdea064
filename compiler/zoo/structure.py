"""The networks of the zoo without their weights, shipped with sqzc so that random weights need no download.

`structures/NAME.predict.pbtxt` is the network, `NAME.init.pbtxt` the shapes of its parameters; both are Caffe2 text
nets written for sqzc, with the blob names of the published ones.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from sqzc.zoo.manifest import look_up, published


def structure(name: str) -> tuple[Path, Path]:
    """Paths of the predict net and the init net of the zoo model `name`; ZooError for an unknown one."""
    look_up(name, published())
    folder = Path(str(resources.files("sqzc.zoo").joinpath("structures")))
    predict, init = folder / f"{name}.predict.pbtxt", folder / f"{name}.init.pbtxt"
    assert predict.is_file(), f"{name} is in the manifest, but its structure is not in sqzc"
    assert init.is_file(), f"{name} is in the manifest, but its parameter shapes are not in sqzc"
    return predict, init
