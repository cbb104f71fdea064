"""`python -m sqzc.onnx_backend`: runs ONNX's node tests and names the declared ones that fail."""

from __future__ import annotations

import argparse
import sys

from sqzc.onnx_backend.table import BACKENDS, cases, document, run


def main(arguments: list[str] | None = None) -> int:
    """0 when every declared test passes, else 1."""
    parser = argparse.ArgumentParser(prog="python -m sqzc.onnx_backend", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print docs/onnx.md")
    parser.add_argument("--backend", choices=sorted(BACKENDS), default="compiled")
    parser.add_argument("--match", default="", metavar="TEXT", help="only tests whose name contains TEXT")
    options = parser.parse_args(arguments)
    found = [case for case in cases() if options.match in case.name]
    failures = run(found, BACKENDS[options.backend])
    passed = frozenset(case.name for case in found if case.why_not is None and case.name not in failures)
    for name, words in failures.items():
        print(f"{name}: {words}", file=sys.stderr)
    print(f"{len(passed)} passed, {len(passed) + len(failures)} declared, {len(found)} in all", file=sys.stderr)
    if options.table:
        print(document(found, passed), end="")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
