"""Caffe2 models in, graph IR out.

`lift` does all of it. The stages, each usable alone: `loader` (files to checked records), `weights` (init nets to
arrays), `lifts` (the table of operators), `importer` (the net, operator by operator).
"""

from __future__ import annotations

from sqzc.frontends.caffe2.importer import lift
from sqzc.frontends.caffe2.loader import find_files, load_model

__all__ = ["find_files", "lift", "load_model"]
