"""How long the final will take, as far as the search has shown: that much of the budget is kept for it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass


@dataclass
class Pace:
    """How fast a method trains on a task, and how far its best trial has come.

    Args:
        task: its name.
        steps: optimizer steps of all its trials.
        lane_seconds: that they took.
        best: step and value of its best trial, turned so that higher is better.
    """

    task: str
    steps: int = 0
    lane_seconds: float = 0.0
    best: tuple[int, float] = (0, -math.inf)


@dataclass(frozen=True, kw_only=True)
class Final:
    """What the final will train.

    Args:
        contenders: methods of a task that are retrained, at most.
        seeds: how often each is.
        steps: optimizer steps of a retraining.
    """

    contenders: int
    seeds: int
    steps: int

    def lane_seconds(self, paces: Collection[Pace]) -> list[float]:
        """Of every retraining, if the final began now, each at its method's own pace.

        One that has not come to a rung may be in the final too, and is thought to be as fast as the others on average.

        Args:
            paces: of all methods on all tasks.
        """
        steps = sum(pace.steps for pace in paces)
        if not steps:
            return []
        usual = sum(pace.lane_seconds for pace in paces) / steps
        rates = [pace.lane_seconds / pace.steps if pace.steps else usual for pace in self._ahead(paces)]
        return [rate * self.steps for rate in rates for _ in range(self.seeds)]

    def _ahead(self, paces: Collection[Pace]) -> list[Pace]:
        """The best methods of each task as it stands."""
        tasks: dict[str, list[Pace]] = {}
        for pace in sorted(paces, key=lambda pace: pace.best, reverse=True):
            tasks.setdefault(pace.task, []).append(pace)
        return [pace for found in tasks.values() for pace in found[: self.contenders]]
