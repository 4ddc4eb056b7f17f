"""Scales of an axis: positions of values, and ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A map from a range of values to a range of positions.

    Args:
        low: the smallest value.
        high: the largest value.
        start: position of the smallest value.
        end: position of the largest value.
        log: whether the scale is logarithmic; both values are then above 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def over(
        cls, values: Iterable[float], start: float, end: float, *, log: bool = False, margin: float = 0.06
    ) -> Scale:
        """Return a scale that holds all finite values, with a margin at both ends."""
        finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
        if not finite:
            return cls(1.0, 10.0, start, end, log) if log else cls(0.0, 1.0, start, end)
        low, high = min(finite), max(finite)
        if log:
            stretch = max((high / low) ** margin, 1.3 if high / low < 4 else 1.1)
            return cls(low / stretch, high * stretch, start, end, True)
        room = (high - low) * margin or abs(high) * margin or 0.5
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(at, self.low))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values within the range, ``about`` in number."""
        return _powers(self.low, self.high, about) if self.log else _steps(self.low, self.high, about)


def _steps(low: float, high: float, about: int) -> list[float]:
    """Return multiples of the coarsest round step that gives at least half of ``about`` values."""
    power = 10.0 ** math.ceil(math.log10(high - low))
    for factor in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01):
        step = factor * power
        multiples = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        if len(multiples) >= (about + 1) // 2:
            return [multiple * step for multiple in multiples]
    raise AssertionError("a hundredth of the range fits into it")


def _powers(low: float, high: float, about: int) -> list[float]:
    """Return powers of ten, with 2 and 5 between them where there is room; round steps within a single power."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        values = [value for value in values if low <= value <= high]
        if len(values) >= min(3, about):
            return values[:: max(1, math.ceil(len(values) / about))]
    return [value for value in _steps(low, high, about) if value > 0]
