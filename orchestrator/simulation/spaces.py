"""Search spaces that are read off a table, so that tables with methods of other systems can be searched as well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.simulation.curves import Curve
from search_spaces._base import SearchSpace

MAX_LINEAR_RATIO = 10
"""Positive numbers that span more than this factor are searched on a log scale."""


def space_of(curves: Sequence[Curve]) -> SearchSpace:
    """Return the space of a method: per parameter its values in the table, or their range if they hardly repeat.

    Args:
        curves: The method's curves; the configuration of the first is the default.
    """
    names = list(dict.fromkeys(name for curve in curves for name in curve.params))
    values = {name: [plain(curve.params.get(name)) for curve in curves] for name in names}
    return SearchSpace(
        distributions={name: _distribution(column) for name, column in values.items()},
        default={name: column[0] for name, column in values.items()},
        sources=dict.fromkeys(names, "the table"),
    )


def plain(value: Any) -> Any:
    """Return a parameter's value as a distribution can hold it: lists and mappings as JSON text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value, sort_keys=True)


def is_logarithmic(values: Sequence[float]) -> bool:
    """Return whether numbers are positive and span a wide range, so that a log scale suits them."""
    return min(values) > 0 and max(values) > MAX_LINEAR_RATIO * min(values)


def is_number(value: Any) -> bool:
    """Return whether a value is a number; truth values are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    distinct = list(dict.fromkeys(values))
    if not all(is_number(value) for value in distinct) or 2 * len(distinct) <= len(values) or len(distinct) == 1:
        return CategoricalDistribution(distinct)
    low, high, log = min(distinct), max(distinct), is_logarithmic(distinct)
    if all(isinstance(value, int) for value in distinct):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)
