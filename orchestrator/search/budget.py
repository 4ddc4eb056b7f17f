"""The limits of a sweep, and what it has spent so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.search.reserve import FinalEstimate, Pace


@dataclass(frozen=True, kw_only=True)
class SpendingLimits:
    """What a sweep may spend; ``None`` is no limit.

    Args:
        trials: Number of trials that are started, failed ones included.
        wall_seconds: Wall time of all attempts of the sweep together.
        elapsed: Wall time in seconds of earlier attempts.
        lane_seconds: Time in seconds of all lanes together.
        final: The estimate of the final, for which time is reserved.
        lanes: Number of lanes that share the work, also in the final.
    """

    trials: int | None = None
    wall_seconds: float | None = None
    elapsed: float = 0.0
    lane_seconds: float | None = None
    final: FinalEstimate | None = None
    lanes: int = 1


class Budget:
    """Counts what a sweep spends, and tells when its limits are reached.

    Args:
        limits: What may be spent.
        clock: Monotonic seconds.
    """

    def __init__(self, limits: SpendingLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._started_at = clock() - limits.elapsed
        self.trials = 0
        self.lane_seconds = 0.0
        self.paces: dict[str, Pace] = {}

    @property
    def trials_left(self) -> bool:
        """Whether the number of trials allows another one."""
        return self._limits.trials is None or self.trials < self._limits.trials

    @property
    def wall_seconds(self) -> float:
        """Wall time so far, in seconds."""
        return self._clock() - self._started_at

    @property
    def wall_spent(self) -> bool:
        """Whether the wall time is over, less what the final needs: no lane count shortens its longest retraining."""
        limit = self._limits.wall_seconds
        if limit is None:
            return False
        retrainings = self._retraining_seconds()
        final = max(sum(retrainings) / self._limits.lanes, max(retrainings, default=0.0))
        return _reaches(limit, self.wall_seconds, final)

    @property
    def spent(self) -> bool:
        """Whether wall time or lane time is over, so that nothing starts and nothing continues."""
        limit = self._limits.lane_seconds
        return self.wall_spent or (
            limit is not None and _reaches(limit, self.lane_seconds, sum(self._retraining_seconds()))
        )

    def _retraining_seconds(self) -> list[float]:
        """Return the lane time of each retraining in the final, in seconds."""
        return self._limits.final.seconds_per_retraining(self.paces.values()) if self._limits.final else []


def _reaches(limit: float, spent: float, final: float) -> bool:
    """Return whether a limit is reached. The final gets at most half of it: it needs a search to have a choice."""
    return spent + min(final, limit / 2) >= limit
