"""Rewrites of the graph IR: a manager, a registry, pipelines as data, one file per pass.

Layering: imports `sqzc.diagnostics`, `sqzc.ir` and `sqzc.target` only. Whoever runs a pipeline hands in what needs a
backend (evaluating a node on constants, comparing graphs numerically).
"""
