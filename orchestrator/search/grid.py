"""Search spaces that are small enough to be listed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

LISTED = 64
"""Up to this many points a space is drawn from its list, without repetition: a model of it has nothing to add."""


def points(distributions: Mapping[str, BaseDistribution]) -> list[dict[str, Any]] | None:
    """Every point of a space in a fixed order, or ``None`` if there are more than :data:`LISTED`."""
    axes = {name: _values(distribution) for name, distribution in sorted(distributions.items())}
    listed = {name: values for name, values in axes.items() if values is not None}
    if len(listed) < len(axes) or math.prod(map(len, listed.values())) > LISTED:
        return None
    return [dict(zip(listed, point, strict=True)) for point in itertools.product(*listed.values())]


def _values(distribution: BaseDistribution) -> list[Any] | None:
    """The values of one parameter, or ``None`` if they are too many."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        return None
    if distribution.single():
        return [distribution.low]
    if distribution.step is None:
        return None
    steps = math.floor((distribution.high - distribution.low) / distribution.step + 1e-9)
    if steps >= LISTED:
        return None
    return [min(distribution.low + i * distribution.step, distribution.high) for i in range(steps + 1)]
