"""What a sweep may cost, and what it has cost so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a sweep may cost; ``None`` is no limit.

    Args:
        trials: that are started, failed ones included.
        wall_seconds: since the search was made.
        lane_seconds: seconds of all lanes together.
    """

    trials: int | None = None
    wall_seconds: float | None = None
    lane_seconds: float | None = None


class Budget:
    """Keeps count.

    Args:
        limits: what may be spent.
        clock: seconds, monotonic.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._since = clock()
        self.trials = 0
        self.lane_seconds = 0.0

    @property
    def trials_left(self) -> bool:
        """Another trial may start, as far as their number goes."""
        return self._limits.trials is None or self.trials < self._limits.trials

    @property
    def wall_seconds(self) -> float:
        """Wall time so far."""
        return self._clock() - self._since

    @property
    def wall_spent(self) -> bool:
        """The wall time is over."""
        return self._limits.wall_seconds is not None and self.wall_seconds >= self._limits.wall_seconds

    @property
    def spent(self) -> bool:
        """Time is over, of either kind: nothing starts and nothing goes on."""
        lanes = self._limits.lane_seconds
        return self.wall_spent or (lanes is not None and self.lane_seconds >= lanes)
