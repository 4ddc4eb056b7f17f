"""Values that nobody means to write, and how few or many of them a test tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.common.errors import InputError, SweepError

FEW = settings(max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=4000, derandomize=False)
MANY_TIMEOUT_S = 3600
"""Thousands of small examples: no example takes long, but on a loaded machine their sum does."""

texts = st.text(max_size=12) | st.sampled_from(["", " ", "~x", "a\0b", "../x", "x:y", "{text}", "***@", "\u2028"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**63, 10**400, float("nan"), float("inf"), -0.0, 1e-320])
    | st.floats()
    | texts
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(), inner, max_size=3),
    max_leaves=6,
)
json_values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


def paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all values inside dicts and lists."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [found for key in keys for found in [(*path, key), *paths(tree[key], (*path, key))]]


@st.composite
def changed(draw: st.DrawFn, tree: Any, replacement: st.SearchStrategy[Any]) -> Any:
    """Return a tree in which up to three values are replaced, removed, or have a neighbour that nobody knows."""
    import copy

    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        if not (known := paths(tree)):
            break
        path = draw(st.sampled_from(known))
        holder = tree
        for part in path[:-1]:
            holder = holder[part]
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                holder[path[-1]] = draw(replacement)
            case "remove":
                del holder[path[-1]]
            case "add" if isinstance(holder, dict):
                holder[draw(texts)] = draw(replacement)
    return tree


def ends_well(work: Callable[[], Any]) -> Any:
    """Return what work returns; let it fail with lines for a person only."""
    try:
        return work()
    except (InputError, SweepError) as error:
        lines = error.lines() if isinstance(error, InputError) else [str(error)]
        assert lines
        for line in lines:
            assert line.strip(), lines
            assert "\n" not in line, lines
            assert not line.startswith("unexpected"), lines  # a yaml parser's message may hold the word
        return None


def tried(strategy: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], tuple[Any, Any]]:
    """Return a decorator that makes two tests of a check: one with few examples, and an exhaustive one with many."""

    def decorate(check: Callable[..., None]) -> tuple[Any, Any]:
        few = FEW(given(strategy)(check))
        many = pytest.mark.exhaustive(pytest.mark.timeout(MANY_TIMEOUT_S)(MANY(given(strategy)(check))))
        return few, many

    return decorate
