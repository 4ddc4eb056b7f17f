"""An estimate of the final's time from the trials so far; that much of the budget is reserved for it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass


@dataclass
class Pace:
    """How fast a method trains on a task, and how far its best trial has come.

    Args:
        task: The task's name.
        steps: Optimizer steps of all trials of the method.
        lane_seconds: Lane time that these steps took, in seconds.
        best: Step and value of the best trial; higher is better, whatever the metric.
    """

    task: str
    steps: int = 0
    lane_seconds: float = 0.0
    best: tuple[int, float] = (0, -math.inf)


@dataclass(frozen=True, kw_only=True)
class FinalEstimate:
    """An estimate of the time that the final takes.

    Args:
        contenders: Largest number of methods per task that are retrained.
        seeds: Number of retrainings per method.
        steps: Optimizer steps of a retraining.
    """

    contenders: int
    seeds: int
    steps: int

    def seconds_per_retraining(self, paces: Collection[Pace]) -> list[float]:
        """Return the lane seconds of each retraining if the final began now, at the pace of its method.

        A method without a result may be in the final too, and is assumed to have the average pace.

        Args:
            paces: All methods on all tasks.
        """
        steps = sum(pace.steps for pace in paces)
        if not steps:
            return []
        average = sum(pace.lane_seconds for pace in paces) / steps
        seconds_per_step = [
            pace.lane_seconds / pace.steps if pace.steps else average for pace in self._best_methods(paces)
        ]
        return [seconds * self.steps for seconds in seconds_per_step for _ in range(self.seeds)]

    def _best_methods(self, paces: Collection[Pace]) -> list[Pace]:
        """Return the methods of each task that would be retrained now."""
        tasks: dict[str, list[Pace]] = {}
        for pace in sorted(paces, key=lambda pace: pace.best, reverse=True):
            tasks.setdefault(pace.task, []).append(pace)
        return [pace for methods in tasks.values() for pace in methods[: self.contenders]]
