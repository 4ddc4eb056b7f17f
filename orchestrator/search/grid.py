"""Search spaces whose points can be listed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

MAX_LISTED_POINTS = 64
"""Maximum number of points of a space that is drawn from a list without repetition, whatever the sampler."""
MAX_GRID_POINTS = 100_000
"""The largest number of points of a grid."""


def points(
    distributions: Mapping[str, BaseDistribution], limit: int = MAX_LISTED_POINTS
) -> list[dict[str, Any]] | None:
    """Return every point of a space in a fixed order, or ``None`` if there are more than ``limit``."""
    values = {name: _values(distribution, limit) for name, distribution in sorted(distributions.items())}
    listed = {name: options for name, options in values.items() if options is not None}
    if len(listed) < len(values) or math.prod(map(len, listed.values())) > limit:
        return None
    return [dict(zip(listed, point, strict=True)) for point in itertools.product(*listed.values())]


def grid_problem(distributions: Mapping[str, BaseDistribution]) -> tuple[str, str] | None:
    """Return why a space cannot be searched as a grid.

    Returns:
        The parameter that prevents it and a message of one line; ``None`` if nothing does.
    """
    sizes = {}
    for name, distribution in distributions.items():
        values = _values(distribution, MAX_GRID_POINTS)
        if values is None:
            return name, "has no steps, and a grid tries every value; write choices: [...], or a step, or sampler: tpe"
        sizes[name] = len(values)
    if (count := math.prod(sizes.values())) > MAX_GRID_POINTS:
        longest = max(sizes, key=lambda name: sizes[name])
        message = (
            f"is one of several parameters that make {count:,} points; a grid has at most {MAX_GRID_POINTS:,}, "
            "write fewer values"
        )
        return longest, message
    return None


def _values(distribution: BaseDistribution, limit: int) -> list[Any] | None:
    """Return the values of one parameter, or ``None`` if there are more than ``limit``."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        return None
    if distribution.single():
        return [distribution.low]
    if distribution.step is None:
        return None
    # 1e-9: (0.3 - 0.0) / 0.1 is a little less than 3
    steps = math.floor((distribution.high - distribution.low) / distribution.step + 1e-9)
    if steps >= limit:
        return None
    return [min(distribution.low + i * distribution.step, distribution.high) for i in range(steps + 1)]
