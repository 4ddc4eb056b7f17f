"""Move configurations of other sweeps into a search space, and compare them there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.search.space import nearest
from orchestrator.tracking.run_values import as_text, clean
from search_spaces._base import SearchSpace

MAX_NEAR_DISTANCE = 0.05
"""Two numbers whose distance is a smaller share of their range are nearly equal."""
MAX_LINEAR_RATIO = 10.0
"""A range of positive numbers over more than this factor is measured on a logarithmic scale."""


def fit_to_space(space: SearchSpace, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the point of a space that is nearest to a configuration.

    Args:
        space: The search space. Its parameters that the configuration lacks get the default's value; what it does not
            search is left out.
        params: The configuration; a run's has MLflow's names, and texts as values.
    """
    values = {clean(name): value for name, value in params.items()}
    return {
        name: _fit(distribution, values[clean(name)]) if clean(name) in values else space.default[name]
        for name, distribution in space.distributions.items()
    }


def nearly_equal(space: SearchSpace, params: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two configurations are so near in every parameter that trying the second shows little new."""
    return all(
        _distance(distribution, params[name], other[name]) < MAX_NEAR_DISTANCE
        for name, distribution in space.distributions.items()
    )


def _fit(distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        equal = [choice for choice in distribution.choices if as_text(choice) == as_text(value)]
        return equal[0] if equal else nearest(distribution, _parse_text(value))
    return nearest(distribution, _parse_text(value))


def _parse_text(value: Any) -> Any:
    """Return the number or truth value that a text of MLflow's stands for, or the value itself."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    return parsed if isinstance(parsed, bool) or (isinstance(parsed, int | float) and math.isfinite(parsed)) else value


def _distance(distribution: BaseDistribution, value: Any, other: Any) -> float:
    """Return the distance of two values as a share of their range; 1 for different values that are not numbers."""
    if value == other:
        return 0.0
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        return 1.0
    low, high = distribution.low, distribution.high
    logarithmic = distribution.log or (low > 0 and high / low > MAX_LINEAR_RATIO)
    low, high, first, second = (math.log(number) if logarithmic else number for number in (low, high, value, other))
    return float(abs(first - second) / (high - low))
