"""Positions of a parameter's values between 0 and 1, so that ranges of different methods can be compared."""

from __future__ import annotations

import math
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

UNORDERED_DISTANCE = 100.0
"""Distance between choices without an order: so large that the value of one says nothing about another."""


class Axis(Protocol):
    """One parameter's values on a line."""

    def position(self, value: Any) -> float:
        """Return the position of a value."""

    def value(self, share: float) -> Any:
        """Return the value at a share of the range in 0..1, within the range and on its steps."""


class NumberAxis:
    """Numbers between 0 and 1, on a logarithmic scale where their distribution has one.

    Args:
        distribution: A distribution of numbers with more than one value.
    """

    def __init__(self, distribution: FloatDistribution | IntDistribution) -> None:
        self._distribution = distribution
        # half a step on either side, so that every whole number or step takes the same share of the scale
        margin = (distribution.step or 0) / 2
        self._low = self._scaled(distribution.low - margin)
        self._high = self._scaled(distribution.high + margin)

    def position(self, value: float) -> float:
        """Return the position of a number."""
        return (self._scaled(value) - self._low) / (self._high - self._low)

    def value(self, share: float) -> int | float:
        """Return the number at a share of the range."""
        distribution = self._distribution
        scaled = self._low + float(share) * (self._high - self._low)
        value = math.exp(scaled) if distribution.log else scaled
        if distribution.step is not None:
            value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
        value = min(max(value, distribution.low), distribution.high)
        return round(value) if isinstance(distribution, IntDistribution) else value

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._distribution.log else value


class ChoiceAxis:
    """Choices: numbers in their order from 0 to 1, any others :data:`UNORDERED_DISTANCE` apart.

    Args:
        distribution: A distribution of more than one choice.
    """

    def __init__(self, distribution: CategoricalDistribution) -> None:
        choices = distribution.choices
        numbers = [choice for choice in choices if isinstance(choice, (int, float)) and not isinstance(choice, bool)]
        ordered = len(numbers) == len(choices)
        self._choices: list[Any] = sorted(numbers) if ordered else sorted(choices, key=repr)
        self._unit = 1 / (len(self._choices) - 1) if ordered else UNORDERED_DISTANCE

    def position(self, value: Any) -> float:
        """Return the position of a choice."""
        return self._choices.index(value) * self._unit

    def value(self, share: float) -> Any:
        """Return the choice at a share of the list."""
        return self._choices[min(int(share * len(self._choices)), len(self._choices) - 1)]


def axis_of(distribution: BaseDistribution) -> Axis:
    """Return the axis of a parameter.

    Raises:
        TypeError: If search spaces have no distributions of this kind.
    """
    if isinstance(distribution, CategoricalDistribution):
        return ChoiceAxis(distribution)
    if isinstance(distribution, (FloatDistribution, IntDistribution)):
        return NumberAxis(distribution)
    raise TypeError(f"{type(distribution).__name__} is not a distribution of one value")
