"""Search spaces whose points can be listed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

LISTED = 64
"""Up to this many points a space is drawn from its list, without repetition: a model of it has nothing to add."""
MOST = 100_000
"""A grid has so many points at most."""


def points(distributions: Mapping[str, BaseDistribution], most: int = LISTED) -> list[dict[str, Any]] | None:
    """Every point of a space in a fixed order, or ``None`` if there are more than ``most``."""
    axes = {name: _values(distribution, most) for name, distribution in sorted(distributions.items())}
    listed = {name: values for name, values in axes.items() if values is not None}
    if len(listed) < len(axes) or math.prod(map(len, listed.values())) > most:
        return None
    return [dict(zip(listed, point, strict=True)) for point in itertools.product(*listed.values())]


def unlistable(distributions: Mapping[str, BaseDistribution]) -> tuple[str, str] | None:
    """What keeps a space from being a grid.

    Returns:
        A parameter and why it is in the way, one line; ``None`` if nothing is.
    """
    sizes = {}
    for name, distribution in distributions.items():
        values = _values(distribution, MOST)
        if values is None:
            return name, "has no steps, and a grid tries every value; write choices: [...], or a step, or sampler: tpe"
        sizes[name] = len(values)
    if (count := math.prod(sizes.values())) > MOST:
        longest = max(sizes, key=lambda name: sizes[name])
        return longest, f"is one of several that make {count:,} points; a grid has {MOST:,} at most, write fewer values"
    return None


def _values(distribution: BaseDistribution, most: int) -> list[Any] | None:
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
    if steps >= most:
        return None
    return [min(distribution.low + i * distribution.step, distribution.high) for i in range(steps + 1)]
