"""Where a parameter's values lie between 0 and 1, so that ranges of different methods can be compared."""

from __future__ import annotations

import math
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

APART = 100.0
"""Between choices without an order: so far that none tells anything of another."""


class Axis(Protocol):
    """One parameter's values on a line."""

    def place(self, value: Any) -> float:
        """Where a value is."""

    def value(self, share: float) -> Any:
        """The value that such a share of the parameter's range lies below, within the range and on its steps."""


class NumberAxis:
    """A number's place between 0 and 1, logarithmic where its distribution is.

    Args:
        distribution: of numbers, with more than one value.
    """

    def __init__(self, distribution: FloatDistribution | IntDistribution) -> None:
        self._distribution = distribution
        # every whole number, or step, takes the same share of the scale
        margin = (distribution.step or 0) / 2
        self._low = self._scaled(distribution.low - margin)
        self._high = self._scaled(distribution.high + margin)

    def place(self, value: float) -> float:
        """Where a value is."""
        return (self._scaled(value) - self._low) / (self._high - self._low)

    def value(self, share: float) -> int | float:
        """The value at a place."""
        one = self._distribution
        scaled = self._low + float(share) * (self._high - self._low)
        value = math.exp(scaled) if one.log else scaled
        if one.step is not None:
            value = one.low + round((value - one.low) / one.step) * one.step
        value = min(max(value, one.low), one.high)
        return round(value) if isinstance(one, IntDistribution) else value

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._distribution.log else value


class ChoiceAxis:
    """Choices: numbers in their order from 0 to 1, any others :data:`APART`.

    Args:
        distribution: of more than one choice.
    """

    def __init__(self, distribution: CategoricalDistribution) -> None:
        numbers = [one for one in distribution.choices if isinstance(one, (int, float)) and not isinstance(one, bool)]
        ordered = len(numbers) == len(distribution.choices)
        self._choices: list[Any] = sorted(numbers) if ordered else sorted(distribution.choices, key=repr)
        self._unit = 1 / (len(self._choices) - 1) if ordered else APART

    def place(self, value: Any) -> float:
        """Where a choice is."""
        return self._choices.index(value) * self._unit

    def value(self, share: float) -> Any:
        """The choice at a share of the list."""
        return self._choices[min(int(share * len(self._choices)), len(self._choices) - 1)]


def axis_of(distribution: BaseDistribution) -> Axis:
    """The axis of a parameter.

    Raises:
        TypeError: if the distribution is of no kind that spaces have.
    """
    if isinstance(distribution, CategoricalDistribution):
        return ChoiceAxis(distribution)
    if isinstance(distribution, (FloatDistribution, IntDistribution)):
        return NumberAxis(distribution)
    raise TypeError(f"{type(distribution).__name__} is not a distribution of one value")
