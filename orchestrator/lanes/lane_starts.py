"""Which lanes may start again: one whose starts keep failing waits longer each time, and is given up in the end."""

from __future__ import annotations

from dataclasses import dataclass, field

FAILED_START_LIMIT = 4
"""Failed starts in a row after which a lane is given up."""
FIRST_PAUSE_S = 2.0


@dataclass
class _Failures:
    count: int
    reason: str
    next_start: float


@dataclass
class LaneStarts:
    """Failed starts of lanes, without Ray, which starts each lane again at once and for ever.

    A lane whose GPU does not hold the backbone would otherwise load it for ever. A lane that is given up retires when
    it starts the next time, and its group continues without it.

    Args:
        limit: failed starts in a row after which a lane is given up.
        first_pause_s: seconds before the second start; each further pause is twice as long.
    """

    limit: int = FAILED_START_LIMIT
    first_pause_s: float = FIRST_PAUSE_S
    _failures: dict[int, _Failures] = field(default_factory=dict)

    def fail(self, lane: int, reason: str, now: float) -> None:
        """Record a failed start. During the pause after one, further reports come from other workers of the lane."""
        earlier = self._failures.get(lane)
        if earlier and now < earlier.next_start:
            return
        count = earlier.count + 1 if earlier else 1
        self._failures[lane] = _Failures(count, reason, now + self.first_pause_s * 2 ** (count - 1))

    def succeed(self, lane: int) -> None:
        """Record that a lane trains."""
        self._failures.pop(lane, None)

    def pause(self, lane: int, now: float) -> float:
        """Return the seconds for which a lane must not start yet."""
        return max(0.0, self._failures[lane].next_start - now) if lane in self._failures else 0.0

    def given_up(self) -> dict[int, str]:
        """Return why each lane that was given up could not start."""
        return {
            lane: f"lane {lane} could not start, tried {failures.count} times: {failures.reason}"
            for lane, failures in sorted(self._failures.items())
            if failures.count >= self.limit
        }
