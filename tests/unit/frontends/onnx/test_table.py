"""The table of lifting functions against the standard's own list of operator versions."""

from __future__ import annotations

from collections import defaultdict

import onnx
import pytest

from sqzc.frontends.onnx import lifts
from sqzc.frontends.onnx.loader import EXPANDED
from sqzc.frontends.onnx.table import NEWEST_OPSET, OLDEST_OPSET, Versions, lifter


def history() -> dict[str, set[int]]:
    """Versions of every operator of the standard domain."""
    found: dict[str, set[int]] = defaultdict(set)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found[schema.name].add(schema.since_version)
    return found


HISTORY = history()


@pytest.mark.parametrize("name", list(lifts.table))
def test_functions_begin_where_versions_do(name: str) -> None:
    versions = lifts.table.get(name)
    assert versions is not None
    assert set(versions.sinces) <= HISTORY[name], f"{name} has the versions {sorted(HISTORY[name])}"


@pytest.mark.parametrize("name", list(lifts.table))
def test_operators_are_lifted_wherever_they_exist(name: str) -> None:
    for opset in range(max(OLDEST_OPSET, min(HISTORY[name])), NEWEST_OPSET + 1):
        current = max(since for since in HISTORY[name] if since <= opset)
        if not onnx.defs.get_schema(name, opset).deprecated:
            assert lifter(name, opset) is not None, f"{name} of opset {opset}, version {current}"


def test_expanded_operators_are_defined_in_terms_of_others() -> None:
    for name in EXPANDED:
        schema = onnx.defs.get_schema(name, NEWEST_OPSET)
        assert schema.has_function or schema.has_context_dependent_function
        assert lifts.table.get(name) is None


def test_the_highest_since_that_is_not_above_wins() -> None:
    versions = Versions()
    old, new = (lambda op: op), (lambda op: op)
    versions.add(7, old)
    versions.add(11, new)
    assert versions.at(6) is None
    assert versions.at(7) is versions.at(10) is old
    assert versions.at(11) is versions.at(99) is new
    assert versions.oldest == 7
    with pytest.raises(AssertionError, match="two functions"):
        versions.add(7, old)


def test_the_newest_operator_set_has_been_gone_through() -> None:
    # When this fails, read what changed in the operators lifted here, then raise NEWEST_OPSET.
    newer = {
        name: sorted(since for since in HISTORY[name] if since > NEWEST_OPSET)
        for name in lifts.table
        if max(HISTORY[name]) > NEWEST_OPSET
    }
    assert newer == {}
