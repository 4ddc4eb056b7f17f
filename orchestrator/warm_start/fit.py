"""Configurations of other sweeps, moved into a search space."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.search.space import nearest
from orchestrator.tracking.runs import as_text, clean
from search_spaces._base import SearchSpace

NEAR = 0.05
"""Two numbers of less than this share of their range apart are nearly the same."""
WIDE = 10.0
"""A range over more than this factor is measured in orders of magnitude."""


def fitted(space: SearchSpace, params: Mapping[str, Any]) -> dict[str, Any]:
    """The point of a space that is nearest to a configuration, which may be a run's: under MLflow's names, as texts.

    What the space does not search is left out; what the configuration does not say is as in the default.
    """
    said = {clean(name): value for name, value in params.items()}
    return {
        name: _fitted(distribution, said[clean(name)]) if clean(name) in said else space.default[name]
        for name, distribution in space.distributions.items()
    }


def nearly_same(space: SearchSpace, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether trying the other tells next to nothing that trying the one did not."""
    return all(_distance(axis, one[name], other[name]) < NEAR for name, axis in space.distributions.items())


def _fitted(distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        same = [choice for choice in distribution.choices if as_text(choice) == as_text(value)]
        return same[0] if same else nearest(distribution, _parsed(value))
    return nearest(distribution, _parsed(value))


def _parsed(value: Any) -> Any:
    """What a text of MLflow's stands for."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        return value
    return found if isinstance(found, bool) or (isinstance(found, int | float) and math.isfinite(found)) else value


def _distance(axis: BaseDistribution, one: Any, other: Any) -> float:
    """In shares of the axis; values that are no numbers are as far apart as can be."""
    if one == other:
        return 0.0
    if not isinstance(axis, (FloatDistribution, IntDistribution)):
        return 1.0
    logarithmic = axis.log or (axis.low > 0 and axis.high / axis.low > WIDE)
    low, high, first, second = (math.log(v) if logarithmic else v for v in (axis.low, axis.high, one, other))
    return float(abs(first - second) / (high - low))
