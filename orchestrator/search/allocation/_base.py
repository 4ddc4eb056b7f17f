"""What an allocation rule sees of a method, and what it has to answer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Arm:
    """A method on a task, as an arm of a bandit.

    Args:
        study: ``task/method``.
        starts: Number of its trials that were started.
        cost: Modelled cost of all pieces of its trials, including those that run.
        full_cost: Modelled cost of one trial from start to end at the default configuration.
        bests: Its best value at the last rung after each result there; higher is better, whatever the metric.
        noise: Standard error of those values; ``None`` if the trials did not measure it.
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
        """The task's name."""
        return self.study.rpartition("/")[0]


@dataclass(frozen=True)
class Elimination:
    """The numbers that justify dropping a method, in units of the task's metric with higher being better.

    The fields are those of the journal's event ``drop``.

    Args:
        bound: An optimistic bound on the value that the method can still reach.
        best: The method's best value at the last rung.
        leader: The study with the best value of the task.
        leader_best: The leader's best value.
        margin: By how much the bound may lie below the leader's value before the method is dropped.
        pulls: The cost of the method so far, in full trials.
    """

    bound: float
    best: float
    leader: str
    leader_best: float
    margin: float
    pulls: float


class Allocation(ABC):
    """A rule that decides between methods. It has no memory: equal arms get equal answers, also after a resume."""

    name: ClassVar[str] = ""
    """The rule's name in a configuration."""

    @abstractmethod
    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """Return the study that gets the next piece of work.

        Args:
            arms: All studies, in the order of the plan.
            ready: The studies that have work to do.

        Returns:
            One of ``ready``, or ``None`` if it is empty.
        """

    def dropped(self, arms: Sequence[Arm]) -> Mapping[str, Elimination]:
        """Return the studies that get no work for now, each with its reason; by default none."""
        return {}
