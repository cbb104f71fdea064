"""Folders with dumps, written by hand: for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEFORE = """
graph @tiny(%x: f32[1,1,4,4]) {
  meta "build" = {"opt_level": 3, "target": "x86-64-v3"}
  meta "weights" = "file"
  const %w = [1.0] : f32[1,1,1,1]
  %a = conv2d(%x, %w) : f32[1,1,4,4] @"a"
  %a.1 = relu(%a) : f32[1,1,4,4] @"a"
  %b = max_pool2d(%a.1) {kernel=2x2, stride=2x2} : f32[1,1,2,2] @"b"
  yield %b as "b"
}
"""

AFTER = """
graph @tiny(%x: f32[1,1,4,4]) {
  meta "build" = {"opt_level": 3, "target": "x86-64-v3", "done": ["fuse-conv-relu"]}
  meta "weights" = "file"
  const %w = [1.0] : f32[1,1,1,1]
  %a = conv2d(%x, %w) {act=relu} : f32[1,1,4,4] @"a"
  %b = max_pool2d(%a) {kernel=2x2, stride=2x2} : f32[1,1,2,2] @"b"
  yield %b as "b"
}
"""

PLAN = """
plan @tiny target=x86-64-v3 arena=64 bound=64 {
  in %x
  out %b as "b"
  const %w = [1.0] : f32[1,1,1,1]
  buf %x : f32[1,1,4,4] input bytes=64
  buf %a : f32[1,1,4,4] arena bytes=64 live=0..1
  buf %b : f32[1,1,2,2] output bytes=16
  0: conv2d.plain(%x) with(%w) -> (%a) [conv2d {act=relu}] facts={kh=1} sched={tile=4} flops=48 @"a"
  1: max_pool2d.plain(%a) -> (%b) [max_pool2d {kernel=2x2, stride=2x2}] flops=12 @"b"
}
"""

PASS = {
    "spec": "fuse-conv-relu",
    "name": "fuse-conv-relu",
    "index": 1,
    "file": "01-fuse-conv-relu.sqz",
    "changed": True,
    "seconds": 0.001,
    "ops_before": 3,
    "ops_after": 2,
    "rewrites": ["fused relu %a.1 into %a"],
    "notes": [],
    "remaining": "",
}

IDLE = {
    **PASS,
    "spec": "dead-code",
    "name": "dead-code",
    "index": 2,
    "file": None,
    "changed": False,
    "ops_before": 2,
    "rewrites": [],
    "notes": ["nothing is dead"],
}


def write_dump(
    folder: Path, entries: Sequence[Mapping[str, Any]], files: Mapping[str, str], *, index: str | None = None
) -> Path:
    """A folder with an index and files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_text(json.dumps({"dumps": list(entries)}) if index is None else index)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder
