"""Finding what breaks the numbers: checks after every pass and kernel, bisection, small reproducers, IR differences.

`cases` draws inputs, `compare` measures arrays and `comparison` graphs, `verify` checks passes, `tap` and `kernels`
check generated code, `extract` and `reduce` shrink, `reproducer` saves, `bisect` finds, `diff` compares two IR files.
"""

from __future__ import annotations
