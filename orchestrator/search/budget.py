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
        final_steps: optimizer steps that the final will train, at most; time is kept for them.
        lanes: that share the work, also in the final.
    """

    trials: int | None = None
    wall_seconds: float | None = None
    lane_seconds: float | None = None
    final_steps: int = 0
    lanes: int = 1


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
        self.steps = 0

    @property
    def trials_left(self) -> bool:
        """Another trial may start, as far as their number goes."""
        return self._limits.trials is None or self.trials < self._limits.trials

    @property
    def wall_seconds(self) -> float:
        """Wall time so far."""
        return self._clock() - self._since

    @property
    def final_seconds(self) -> float:
        """Lane time that the final will take, judged by what the steps of the search took so far."""
        return self._limits.final_steps * self.lane_seconds / self.steps if self.steps else 0.0

    @property
    def wall_spent(self) -> bool:
        """The wall time is over, but for what the final needs."""
        return _over(self._limits.wall_seconds, self.wall_seconds, self.final_seconds / self._limits.lanes)

    @property
    def spent(self) -> bool:
        """Time is over, of either kind: nothing starts and nothing goes on."""
        return self.wall_spent or _over(self._limits.lane_seconds, self.lane_seconds, self.final_seconds)


def _over(limit: float | None, spent: float, final: float) -> bool:
    """Whether a limit is reached. The final gets half of it at most: without a search it has nothing to compare."""
    return limit is not None and spent + min(final, limit / 2) >= limit
