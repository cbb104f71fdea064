"""Model to library, stage by stage: reading, passes, plan, code, output.

`sources` reads models, `facts` says what travels with them, `build` has the stages, `emit` writes what was made,
`dump` and `watch` show what happens on the way, `api` is what users call.
"""

from __future__ import annotations

from sqzc.driver.api import SqzcWarning, build, compile, evaluate, lift, optimize, parse

__all__ = ["SqzcWarning", "build", "compile", "evaluate", "lift", "optimize", "parse"]
