"""The race: what looks best gets more, and what can no longer be hoped to win is dropped.

An upper-confidence rule for maxima (MaxUCB; Balef et al., 2025, arXiv:2505.05226) over modelled cost instead of
counts, with methods dropped by an optimistic bound on what they may still reach (after Rising Bandits; Li et al., 2020,
arXiv:2012.04371). Only values at the last rung are compared across methods: half-way through a schedule, methods that
start slowly look worse than they are.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.search.allocation._base import Allocation, Arm, Rank


@dataclass(frozen=True)
class Race(Allocation):
    """The constants of the rule.

    Args:
        exploration: weight of what is not known yet.
        warm_up: results at the last rung that every method gets first.
        patience: full trials' worth of cost before a method may be dropped.
        window: results at the last rung whose gain is thought to go on.
        noise: standard error of a value, where the trials tell none.
    """

    exploration: float = 4.0
    warm_up: int = 1
    patience: float = 8.0
    window: int = 3
    noise: float = 0.02

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """The task that has cost least, and in it the method with the highest index."""
        able = [arm for arm in arms if arm.study in ready]
        if not able:
            return None
        cost: dict[str, float] = defaultdict(float)
        for arm in arms:
            cost[arm.task] += arm.cost
        task = min((arm.task for arm in able), key=lambda name: cost[name])
        field = [arm for arm in arms if arm.task == task]
        return self._choose([arm for arm in able if arm.task == task], field).study

    def dropped(self, arms: Sequence[Arm]) -> Mapping[str, Rank]:
        """Per task, those whose bound lies below the leader by more than the margin."""
        tasks: dict[str, list[Arm]] = defaultdict(list)
        for arm in arms:
            tasks[arm.task].append(arm)
        return {study: why for field in tasks.values() for study, why in self._behind(field).items()}

    def _choose(self, able: list[Arm], field: list[Arm]) -> Arm:
        if new := [arm for arm in able if len(arm.bests) < self.warm_up and arm.starts <= self.warm_up]:
            return min(new, key=lambda arm: arm.cost)
        behind = self._behind(field)
        unit = statistics.median(arm.full_cost for arm in field)
        pulls = {arm.study: max(1.0, arm.cost / unit) for arm in field}
        total, low, width = sum(pulls.values()), *self._scale(field)

        def index(arm: Arm) -> float:
            value = (max(arm.best, low) - low) / width
            return value + (self.exploration * math.log(total) / pulls[arm.study]) ** 2

        return max([arm for arm in able if arm.study not in behind] or able, key=index)

    def _scale(self, field: list[Arm]) -> tuple[float, float]:
        """From the middle of the methods' best values to the best of all, at least two standard errors."""
        bests = [arm.best for arm in field if arm.bests]
        if not bests:
            return 0.0, 1.0
        low = statistics.median(bests)
        return low, max(max(bests) - low, 2 * self._noise(field))

    def _behind(self, field: list[Arm]) -> dict[str, Rank]:
        shown = [arm for arm in field if arm.bests]
        if not shown:
            return {}
        leader = max(shown, key=lambda arm: arm.best)
        unit = statistics.median(arm.full_cost for arm in field)
        margin = 2 * self._noise(field)
        found = {}
        for arm in shown:
            bound, pulls = arm.best + self._gain(arm), arm.cost / unit
            if arm is not leader and pulls >= self.patience and bound < leader.best - margin:
                found[arm.study] = Rank(bound, arm.best, leader.study, leader.best, margin, pulls)
        return found

    def _gain(self, arm: Arm) -> float:
        """What its best value has gained over the last results."""
        return arm.best - arm.bests[max(0, len(arm.bests) - 1 - self.window)]

    def _noise(self, field: list[Arm]) -> float:
        return statistics.median([arm.noise for arm in field if arm.noise is not None] or [self.noise])
