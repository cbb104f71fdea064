"""Shows what every pass of a level does to SqueezeNet: `python passes.py [O0|O1|O2|O3]`."""

from __future__ import annotations

import sys

import sqzc
from sqzc.backends.reference import evaluate_node
from sqzc.passes.manager import PassManager
from sqzc.target import native


def main() -> None:
    """Prints a line for every pass, and the first rewrites of those that made any."""
    graph = sqzc.lift("squeezenet1.1", weights="random")  # the structure is what matters here
    manager = PassManager(sys.argv[1] if len(sys.argv) > 1 else "O3", target=native(), evaluate=evaluate_node)
    for record in manager.run(graph):
        print(f"{record.index:2} {record.spec:24} {record.ops_before:3} -> {record.ops_after:3} ops")
        for rewrite in record.rewrites[:2]:
            print(f"     {rewrite}")
        if len(record.rewrites) > 2:
            print(f"     and {len(record.rewrites) - 2} more")
        for note in record.notes:
            print(f"     not done: {note}")


if __name__ == "__main__":
    main()
