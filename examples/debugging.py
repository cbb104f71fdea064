"""A pass with a mistake, and the way from a wrong label to the few ops that show it: `python debugging.py [FOLDER]`.

docs/debugging.md walks through what this prints. Files go to FOLDER, by default a temporary one. Without the trained
weights it goes on with random ones, whose labels mean nothing.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from sqzc.cli.main import run
from sqzc.diagnostics import ZooError
from sqzc.driver.options import ModelOptions, zoo_path
from sqzc.driver.sources import read_model
from sqzc.ir.graph import Graph, Node
from sqzc.ir.ops import elementwise, nn
from sqzc.passes.base import PassContext, RewritePass
from sqzc.passes.registry import registered
from sqzc.passes.rewriting import label, replace_node
from sqzc.runtime.preprocess import preprocess
from sqzc.zoo.pictures import PICTURES

REST = "fuse-conv-relu,dead-code,assign-layout,elide-concat,dead-code"
PIPELINE = f"drop-inference-noops,fold-mean,share-relu,{REST}"


@dataclass(frozen=True)
class ShareRelu(RewritePass):
    """Fuses a relu that several ops read into the convolution before it."""

    name: ClassVar[str] = "share-relu"
    careful: bool = False  # what was forgotten at first

    def rewrite(self, graph: Graph, node: Node, ctx: PassContext) -> bool:
        """One rewrite at `node`."""
        conv = node.inputs[0].producer
        if not isinstance(node.op, elementwise.Relu) or conv is None or not isinstance(conv.op, nn.Conv2d):
            return False
        readers = node.output.users
        if conv.op.act or len(readers) < 2 or not ctx.take(f"fused relu {label(node.output)}"):
            return False
        if not self.careful:
            # The mistake: all readers but the first get what the convolution gave before.
            for reader in readers[1:]:
                graph.set_input(reader, reader.inputs.index(node.output), conv.output)
        replace_node(graph, node, conv.op.replace(act=node.op.activation()), conv.inputs, absorbed=[conv.output])
        return True


def sqzc(*words: str) -> None:
    """Shows a command line, runs it here, where the pass is known, and shows its exit code if it is not 0."""
    print(f"\n$ sqzc {shlex.join(words)}", flush=True)
    code = run(words)
    if code:
        print(f"(exit code {code})", flush=True)


def weights() -> list[str]:
    """Options for random weights, where there are no others."""
    try:
        read_model("squeezenet1.1", ModelOptions(search_path=zoo_path(os.environ), allow_network=False))
    except ZooError:
        return ["--weights", "random"]
    return []


def main() -> None:
    """The whole way."""
    options = weights()
    os.chdir(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    picture = PICTURES["maze"].draw()
    picture.save("maze.png")
    np.save("maze.npy", preprocess(picture, 227, 227))
    with registered(ShareRelu):
        sqzc("compile", "squeezenet1.1", *options, "-o", "good.so")
        sqzc("classify", "good.so", "maze.png", "--top", "2")
        sqzc("compile", "squeezenet1.1", *options, "--passes", PIPELINE, "-o", "bad.so")
        sqzc("classify", "bad.so", "maze.png", "--top", "2")
        sqzc("bisect", "squeezenet1.1", *options, "--passes", PIPELINE, "--input", "maze.npy", "-o", "repro")
        print("\n$ cat repro/repro.sqz")
        lines = Path("repro/repro.sqz").read_text().splitlines()
        print("\n".join(line if len(line) <= 120 else f"{line[:117]}..." for line in lines))
        sqzc("opt", "repro/repro.sqz", "--passes", "share-relu{limit=1}", "-o", "after.sqz")
        sqzc("diff", "repro/repro.sqz", "after.sqz")
        files = ["--input", "repro/inputs.npz", "--expect", "repro/expected.npz", "--replay"]
        sqzc("bisect", "repro/repro.sqz", "--passes", "share-relu{limit=1}", *files)
        sqzc("bisect", "repro/repro.sqz", "--passes", "share-relu{limit=1,careful=true}", *files)


if __name__ == "__main__":
    main()
