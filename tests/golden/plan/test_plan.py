"""Golden plans: `.sqz` files are lowered for a target and `.plan` files read back; `CHECK` lines say what is printed.

# RUN: lower --target x86-64-v3 [--passes SPEC]        the graph of this file, by the kernels of the LLVM backend
# RUN: parse                                           the plan of this file; with `not` before it, its error
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from golden.runner import check, manager, parse, stand_in_weights

from sqzc.backends.llvm.library import Library
from sqzc.diagnostics import SqzcError
from sqzc.plan.lower import lower
from sqzc.plan.text import parse_program, print_program
from sqzc.plan.verifier import verify_program
from sqzc.target import TARGETS

HERE = Path(__file__).parent
FILES = sorted([*HERE.glob("*.sqz"), *HERE.glob("*.plan")])
_RUN = re.compile(r"^# RUN: (.*)$", re.MULTILINE)


def output_of(text: str, command: str, file: str) -> str:
    """What a RUN command prints."""
    match shlex.split(command):
        case ["lower", "--target", target, *rest]:
            graph = parse(text, file)
            if rest:
                flag, passes = rest
                assert flag == "--passes"
                manager(passes).run(graph)
            program = lower(graph, Library(TARGETS[target]))
            verify_program(program)
            printed = print_program(program)
            data = {constant.key: constant.data for constant in program.constants.values()}
            assert print_program(parse_program(printed, data)) == printed
            return printed
        case ["parse"]:
            return print_program(parse_program(text, stand_in_weights(text), file))
        case ["not", "parse"]:
            with pytest.raises(SqzcError) as caught:
                parse_program(text, stand_in_weights(text), file)
            return caught.value.render() + "\n"
        case words:
            raise AssertionError(f"unknown command {words}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_golden(path: Path) -> None:
    text = path.read_text()
    commands = _RUN.findall(text)
    assert commands, "there is no RUN line"
    for command in commands:
        output = output_of(text, command, path.name)
        problem = check(text, output, str(path))
        assert not problem, f"{problem}\nRUN: {command}\n--- output ---\n{output}"
