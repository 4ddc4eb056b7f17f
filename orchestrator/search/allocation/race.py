"""The race: methods with better scores get more trials, and methods that can no longer win are dropped.

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
from typing import ClassVar

from orchestrator.search.allocation._base import Allocation, Arm, Elimination


@dataclass(frozen=True)
class Race(Allocation):
    """The rule with its constants.

    Args:
        exploration: Weight of uncertainty in a method's index.
        warm_up: Number of results at the last rung that every method gets first.
        patience: Cost in full trials before a method may be dropped.
        window: Number of latest results at the last rung whose gain is expected to continue.
        noise: Standard error of a value, where the trials did not measure it.
    """

    name: ClassVar[str] = "race"

    exploration: float = 4.0
    warm_up: int = 1
    patience: float = 8.0
    window: int = 3
    noise: float = 0.02

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """Return the method with the highest index in the task that has cost least."""
        candidates = [arm for arm in arms if arm.study in ready]
        if not candidates:
            return None
        cost: dict[str, float] = defaultdict(float)
        for arm in arms:
            cost[arm.task] += arm.cost
        task = min((arm.task for arm in candidates), key=lambda name: cost[name])
        rivals = [arm for arm in arms if arm.task == task]
        return self._choose_within_task([arm for arm in candidates if arm.task == task], rivals).study

    def dropped(self, arms: Sequence[Arm]) -> Mapping[str, Elimination]:
        """Return, per task, the methods whose bound lies below the leader by more than the margin."""
        tasks: dict[str, list[Arm]] = defaultdict(list)
        for arm in arms:
            tasks[arm.task].append(arm)
        return {study: reason for rivals in tasks.values() for study, reason in self._eliminations(rivals).items()}

    def _choose_within_task(self, candidates: list[Arm], rivals: list[Arm]) -> Arm:
        untried = [arm for arm in candidates if len(arm.bests) < self.warm_up and arm.starts <= self.warm_up]
        if untried:
            return min(untried, key=lambda arm: arm.cost)
        eliminated = self._eliminations(rivals)
        unit = statistics.median(arm.full_cost for arm in rivals)
        pulls = {arm.study: max(1.0, arm.cost / unit) for arm in rivals}
        total, low, width = sum(pulls.values()), *self._scale(rivals)

        def index(arm: Arm) -> float:
            value = (max(arm.best, low) - low) / width
            return value + (self.exploration * math.log(total) / pulls[arm.study]) ** 2

        # a dropped method still gets work that no other method can do, rather than leave a lane idle
        return max([arm for arm in candidates if arm.study not in eliminated] or candidates, key=index)

    def _scale(self, rivals: list[Arm]) -> tuple[float, float]:
        """Return the median of the methods' best values, and how far the best of all lies above it.

        The distance is at least two standard errors, so that noise is not stretched over the whole scale. Any distance
        will do where there is none, as between methods without a single mistake.
        """
        bests = [arm.best for arm in rivals if arm.bests]
        if not bests:
            return 0.0, 1.0
        low = statistics.median(bests)
        return low, max(max(bests) - low, 2 * self._noise(rivals)) or 1.0

    def _eliminations(self, rivals: list[Arm]) -> dict[str, Elimination]:
        scored = [arm for arm in rivals if arm.bests]
        if not scored:
            return {}
        leader = max(scored, key=lambda arm: arm.best)
        unit = statistics.median(arm.full_cost for arm in rivals)
        margin = 2 * self._noise(rivals)
        eliminations = {}
        for arm in scored:
            bound, pulls = arm.best + self._recent_gain(arm), arm.cost / unit
            if arm is not leader and pulls >= self.patience and bound < leader.best - margin:
                eliminations[arm.study] = Elimination(bound, arm.best, leader.study, leader.best, margin, pulls)
        return eliminations

    def _recent_gain(self, arm: Arm) -> float:
        """Return by how much the best value of a method rose over its latest results."""
        return arm.best - arm.bests[max(0, len(arm.bests) - 1 - self.window)]

    def _noise(self, rivals: list[Arm]) -> float:
        return statistics.median([arm.noise for arm in rivals if arm.noise is not None] or [self.noise])
