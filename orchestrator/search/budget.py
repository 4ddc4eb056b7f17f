"""What a sweep may cost, and what it has cost so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.search.reserve import Final, Pace


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a sweep may cost; ``None`` is no limit.

    Args:
        trials: that are started, failed ones included.
        wall_seconds: of all lives of the sweep together.
        elapsed: those of earlier lives.
        lane_seconds: seconds of all lanes together.
        final: what the final will train; time is kept for it.
        lanes: that share the work, also in the final.
    """

    trials: int | None = None
    wall_seconds: float | None = None
    elapsed: float = 0.0
    lane_seconds: float | None = None
    final: Final | None = None
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
        self._since = clock() - limits.elapsed
        self.trials = 0
        self.lane_seconds = 0.0
        self.paces: dict[str, Pace] = {}

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
        """The wall time is over, but for what the final needs: no less than its longest retraining."""
        limit = self._limits.wall_seconds
        if limit is None:
            return False
        each = self._final()
        return _over(limit, self.wall_seconds, max(sum(each) / self._limits.lanes, max(each, default=0.0)))

    @property
    def spent(self) -> bool:
        """Time is over, of either kind: nothing starts and nothing goes on."""
        limit = self._limits.lane_seconds
        return self.wall_spent or (limit is not None and _over(limit, self.lane_seconds, sum(self._final())))

    def _final(self) -> list[float]:
        """Lane time of each retraining in the final."""
        return self._limits.final.lane_seconds(self.paces.values()) if self._limits.final else []


def _over(limit: float, spent: float, final: float) -> bool:
    """Whether a limit is reached. The final gets half of it at most: without a search it has nothing to compare."""
    return spent + min(final, limit / 2) >= limit
