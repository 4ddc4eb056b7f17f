"""Search spaces as a table shows them, so that tables with methods from elsewhere can be searched as well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.simulation.curves import Curve
from search_spaces._base import SearchSpace

LOG_SPAN = 10
"""Positive numbers that span more than this factor are looked at on a log scale."""


def space_of(curves: Sequence[Curve]) -> SearchSpace:
    """The space of a method: per parameter the values that were seen, or their range where they hardly repeat.

    Args:
        curves: of the method; the first one's configuration is the default.
    """
    names = list(dict.fromkeys(name for curve in curves for name in curve.params))
    seen = {name: [plain(curve.params.get(name)) for curve in curves] for name in names}
    return SearchSpace(
        distributions={name: _distribution(values) for name, values in seen.items()},
        default={name: values[0] for name, values in seen.items()},
        sources=dict.fromkeys(names, "the table"),
    )


def plain(value: Any) -> Any:
    """A parameter's value as a distribution can hold it: lists and mappings as JSON text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value, sort_keys=True)


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether numbers are better looked at on a log scale."""
    return min(values) > 0 and max(values) > LOG_SPAN * min(values)


def is_number(value: Any) -> bool:
    """Truth values are no numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    distinct = list(dict.fromkeys(values))
    if not all(is_number(value) for value in distinct) or 2 * len(distinct) <= len(values) or len(distinct) == 1:
        return CategoricalDistribution(distinct)
    low, high, log = min(distinct), max(distinct), is_logarithmic(distinct)
    if all(isinstance(value, int) for value in distinct):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)
