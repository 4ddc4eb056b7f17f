"""The configurations that are tried without a sampler: the default, earlier sweeps' best, and small listed spaces."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.search.grid import MAX_GRID_POINTS, MAX_LISTED_POINTS, points
from orchestrator.search.space import nearest
from search_spaces._base import SearchSpace

IsAllowed = Callable[[Mapping[str, Any]], bool]


class Queue:
    """The configurations of a study's trials by number, as far as no sampler is needed.

    The default comes first. While the prior is used, at most a third of any first ``n`` trials come from it, rounded
    up: a wrong prior leaves the sampler two trials in three. A listed space is tried point by point, each once.

    Args:
        space: The search space.
        prior: Configurations from earlier sweeps. Values outside the space move to its edge, missing ones are the
            default's; duplicates, and configurations that are not allowed, are left out.
        allowed: Whether a configuration may be trained; the default always may.
        grid: Whether every point is tried, and not only if there are few.
        seed: Seed of the order of a list.
    """

    def __init__(
        self,
        space: SearchSpace,
        prior: Sequence[Mapping[str, Any]] = (),
        *,
        allowed: IsAllowed = lambda params: True,
        grid: bool = False,
        seed: int = 0,
    ) -> None:
        self._default = {name: space.default[name] for name in space.distributions}
        self._prior = _fit_prior(space, prior, self._default, allowed)
        listed = points(space.distributions, MAX_GRID_POINTS if grid else MAX_LISTED_POINTS)
        self._listed = None if listed is None else self._order_points(listed, allowed, random.Random(seed))

    @property
    def length(self) -> int | None:
        """Number of configurations of a listed space; ``None`` if the space is not listed."""
        return None if self._listed is None else len(self._listed)

    @property
    def prior(self) -> Sequence[Mapping[str, Any]]:
        """The configurations from earlier sweeps as they are tried: inside the space, without duplicates."""
        return self._prior

    def at(self, number: int, *, use_prior: bool = True) -> dict[str, Any] | None:
        """Return the configuration of a trial, or ``None`` if a sampler proposes it.

        Args:
            number: The trial's number.
            use_prior: Whether the prior has its turns; in a listed space it always has.
        """
        if self._listed is not None:
            return dict(self._listed[number])
        if number == 0:
            return dict(self._default)
        turn = _prior_turn(number)
        if turn is None or turn >= len(self._prior) or not use_prior:
            return None
        return dict(self._prior[turn])

    def _order_points(
        self, listed: Sequence[Mapping[str, Any]], allowed: IsAllowed, order: random.Random
    ) -> list[Mapping[str, Any]]:
        """Return the default and the prior at their numbers, and between them the other points, shuffled."""
        first = [self._default, *self._prior]
        shuffled = [point for point in listed if point not in first and allowed(point)]
        order.shuffle(shuffled)
        prior: list[Mapping[str, Any]] = list(self._prior)
        queue: list[Mapping[str, Any]] = [self._default]
        while prior or shuffled:
            is_turn = _prior_turn(len(queue)) is not None
            queue.append((prior if (prior and is_turn) or not shuffled else shuffled).pop(0))
        return queue


def _prior_turn(number: int) -> int | None:
    """Return which configuration of the prior has its turn, counted from 0: at the numbers 1, 3, 6, 9 and so on."""
    if number == 1:
        return 0
    return number // 3 if number and number % 3 == 0 else None


def _fit_prior(
    space: SearchSpace, prior: Sequence[Mapping[str, Any]], default: Mapping[str, Any], allowed: IsAllowed
) -> list[Mapping[str, Any]]:
    fitted: list[Mapping[str, Any]] = []
    for params in prior:
        point = {
            name: nearest(distribution, params.get(name, default[name]))
            for name, distribution in space.distributions.items()
        }
        if point != default and point not in fitted and allowed(point):
            fitted.append(point)
    return fitted
