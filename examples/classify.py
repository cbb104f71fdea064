"""Compiles SqueezeNet in process and classifies pictures: `python classify.py [IMAGE...]`.

Without arguments it draws pictures itself. Without the trained weights it goes on with random ones, whose answers mean
nothing.
"""

from __future__ import annotations

import sys
import warnings

import sqzc
from sqzc.diagnostics import ZooError
from sqzc.zoo.pictures import PICTURES


def main() -> None:
    """Shows the three likeliest classes of every picture."""
    warnings.simplefilter("ignore")  # weights that are not the published ones are good enough here
    try:
        model = sqzc.compile("squeezenet1.1")
    except ZooError as error:
        print(error.message.splitlines()[0], "- going on with random weights")
        model = sqzc.compile("squeezenet1.1", weights="random")
    pictures = {name: name for name in sys.argv[1:]} or {name: drawn.draw() for name, drawn in PICTURES.items()}
    for name, picture in pictures.items():
        answers = ", ".join(f"{p.label or f'class {p.index}'} {p.score:.2f}" for p in model.classify(picture, top=3))
        print(f"{name}: {answers}")


if __name__ == "__main__":
    main()
