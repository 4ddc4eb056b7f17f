"""The configurations that are tried without asking a sampler: the default, earlier sweeps' best, and listed spaces."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.search.grid import LISTED, MOST, points
from orchestrator.search.space import nearest
from search_spaces._base import SearchSpace

Allowed = Callable[[Mapping[str, Any]], bool]


class Queue:
    """What a study tries at which number.

    The default comes first. While the prior is believed, any first ``n`` trials have at most a third from it, rounded
    up: a wrong one leaves the sampler two trials in three. A listed space is tried point by point, each once.

    Args:
        space: where to look.
        prior: configurations from elsewhere. Values outside the space move to its edge, what is missing is the
            default's; what is then there twice, or not allowed, is left out.
        allowed: whether a configuration may be trained; the default is.
        grid: whether every point is to be tried, and not only where they are few.
        seed: of the order of a list.
    """

    def __init__(
        self,
        space: SearchSpace,
        prior: Sequence[Mapping[str, Any]] = (),
        *,
        allowed: Allowed = lambda params: True,
        grid: bool = False,
        seed: int = 0,
    ) -> None:
        self._default = {name: space.default[name] for name in space.distributions}
        self._prior = _fitted(space, prior, self._default, allowed)
        listed = points(space.distributions, MOST if grid else LISTED)
        self._listed = None if listed is None else self._in_turns(listed, allowed, random.Random(seed))

    @property
    def length(self) -> int | None:
        """How many configurations there are; ``None`` if there is no end."""
        return None if self._listed is None else len(self._listed)

    @property
    def prior(self) -> Sequence[Mapping[str, Any]]:
        """What is tried of the configurations from elsewhere, as it is tried."""
        return self._prior

    def at(self, number: int, *, use_prior: bool = True) -> dict[str, Any] | None:
        """The configuration of a number, or ``None`` if the sampler's turn has come.

        Args:
            number: the trial's.
            use_prior: whether the prior has its turns; in a list, it always has.
        """
        if self._listed is not None:
            return dict(self._listed[number])
        if number == 0:
            return dict(self._default)
        turn = _turn(number)
        if turn is None or turn >= len(self._prior) or not use_prior:
            return None
        return dict(self._prior[turn])

    def _in_turns(
        self, listed: Sequence[Mapping[str, Any]], allowed: Allowed, order: random.Random
    ) -> list[Mapping[str, Any]]:
        """The default and the prior at their numbers, and between them the other points, shuffled."""
        first = [self._default, *self._prior]
        others = [point for point in listed if point not in first and allowed(point)]
        order.shuffle(others)
        waiting: list[Mapping[str, Any]] = list(self._prior)
        queue: list[Mapping[str, Any]] = [self._default]
        while waiting or others:
            is_turn = _turn(len(queue)) is not None
            queue.append((waiting if (waiting and is_turn) or not others else others).pop(0))
        return queue


def _turn(number: int) -> int | None:
    """Which of the prior's configurations has its turn, counted from 0: at the numbers 1, 3, 6, 9 and so on."""
    if number == 1:
        return 0
    return number // 3 if number and number % 3 == 0 else None


def _fitted(
    space: SearchSpace, prior: Sequence[Mapping[str, Any]], default: Mapping[str, Any], allowed: Allowed
) -> list[Mapping[str, Any]]:
    kept: list[Mapping[str, Any]] = []
    for params in prior:
        fitted = {name: nearest(one, params.get(name, default[name])) for name, one in space.distributions.items()}
        if fitted != default and fitted not in kept and allowed(fitted):
            kept.append(fitted)
    return kept
