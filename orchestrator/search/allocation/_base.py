"""What is known of a method when lanes are given out, and what an allocation has to answer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """A method on a task.

    Args:
        study: ``task/method``.
        starts: trials that were started.
        cost: of all pieces of its trials, those under way included; modelled.
        full_cost: of one trial from start to end, at the default configuration.
        bests: its best value at the last rung after each result there, turned so that higher is better.
        noise: standard error of those values; ``None`` where nobody knows.
    """

    study: str
    starts: int
    cost: float
    full_cost: float
    bests: Sequence[float]
    noise: float | None = None

    @property
    def best(self) -> float:
        """Its best value at the last rung; minus infinity before the first."""
        return self.bests[-1] if self.bests else -math.inf

    @property
    def task(self) -> str:
        """The task."""
        return self.study.rpartition("/")[0]


@dataclass(frozen=True)
class Rank:
    """Why a method is out of the race, in numbers that can be checked; of the task's metric, higher is better.

    Args:
        bound: the best value that it can still be hoped to reach.
        best: its best value at the last rung.
        leader: the study that is ahead.
        leader_best: the leader's best value.
        margin: by how much the bound may lie below that before the method is dropped.
        pulls: what was spent on it, in full trials.
    """

    bound: float
    best: float
    leader: str
    leader_best: float
    margin: float
    pulls: float


class Allocation(ABC):
    """Decides between methods. It has no memory: the same arms get the same answer."""

    @abstractmethod
    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """Which study gets the next piece of work.

        Args:
            arms: all studies, in the order of the plan.
            ready: those that have work.

        Returns:
            One of ``ready``, or ``None`` if it is empty.
        """

    def dropped(self, arms: Sequence[Arm]) -> Mapping[str, Rank]:
        """The studies that are out of the race, for now or for good, and why."""
        return {}
