"""Allocations that compare nothing: every method gets as many trials, or as much time, as any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from orchestrator.search.allocation._base import Allocation, Arm


class RoundRobin(Allocation):
    """Methods take turns in starting a trial, and tasks within a turn."""

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """The method with the fewest trials."""
        by_task: Counter[str] = Counter()
        for arm in arms:
            by_task[arm.task] += arm.starts
        able = [arm for arm in arms if arm.study in ready]
        first = min(able, key=lambda arm: (arm.starts, by_task[arm.task]), default=None)
        return first.study if first else None


class Equal(Allocation):
    """Every method gets the same cost, so that cheap ones try more configurations."""

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """The method that has cost least."""
        able = [arm for arm in arms if arm.study in ready]
        first = min(able, key=lambda arm: arm.cost, default=None)
        return first.study if first else None
