"""Allocation rules that compare no scores: every method gets as many trials, or as much time, as any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from orchestrator.search.allocation._base import Allocation, Arm


class RoundRobin(Allocation):
    """Methods take turns in starting a trial, and tasks take turns within a method's turn."""

    name = "round_robin"

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """Return the method with the fewest trials; of several, the one whose task has the fewest."""
        starts: Counter[str] = Counter()
        for arm in arms:
            starts[arm.task] += arm.starts
        candidates = [arm for arm in arms if arm.study in ready]
        fewest = min(candidates, key=lambda arm: (arm.starts, starts[arm.task]), default=None)
        return fewest.study if fewest else None


class Equal(Allocation):
    """Every method gets the same cost, so that cheap methods try more configurations."""

    name = "equal"

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """Return the method that has cost least."""
        candidates = [arm for arm in arms if arm.study in ready]
        cheapest = min(candidates, key=lambda arm: arm.cost, default=None)
        return cheapest.study if cheapest else None
