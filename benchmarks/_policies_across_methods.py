"""Published rules that allocate a budget to methods, as allocations of the search core.

Within a method, they have the same studies and rungs as this project's allocations. They keep state between calls, and
some know the budget, unlike :class:`~orchestrator.search.allocation.Race`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.search.allocation import Allocation, Arm


class RisingBandits(Allocation):
    """Round robin that drops a method when the extrapolation of its best score is no better than another's best.

    Li et al., 2020, arXiv:2012.04371. The slope is that of the last ``window`` results. The default is 3, since the
    paper's 7 results per method would exceed the budget of these replays.

    Args:
        budget: total cost, in the unit of the arms' costs.
        window: number of results at the last rung from which the slope is taken.
    """

    def __init__(self, budget: float, window: int = 3) -> None:
        self._budget = budget
        self._window = window
        self._dropped: set[str] = set()

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """Return the remaining method with the fewest trials."""
        remaining_budget = self._budget - sum(arm.cost for arm in arms)
        best = max(arm.best for arm in arms)
        for arm in arms:
            if len(arm.bests) > self._window and arm.best < best and self._extrapolate(arm, remaining_budget) <= best:
                self._dropped.add(arm.study)
        candidates = [arm for arm in arms if arm.study in ready and arm.study not in self._dropped]
        choice = min(candidates, key=lambda arm: arm.starts, default=None)
        return choice.study if choice else None

    def _extrapolate(self, arm: Arm, remaining_budget: float) -> float:
        """Return the best score that the arm would reach if it got the remaining budget alone."""
        slope = (arm.best - arm.bests[-1 - self._window]) / self._window
        return min(1.0, arm.best + slope * max(0.0, remaining_budget) / arm.full_cost)


@dataclass
class _Improvements:
    """Costs of a method at its last two improvements, and its best scores after them."""

    cost: float = 0.0
    cost_before: float = 0.0
    best: float = -math.inf
    best_before: float = -math.inf


class EstimatedCostOfImprovement(Allocation):
    """Random choice of methods, with probabilities inversely proportional to the estimated cost of improvement (ECI).

    Wang et al., 2021, arXiv:1911.04706 (FLAML). The estimate is the cost since the last improvement, or between the
    last two, whichever is larger; for a method below the best, at least the cost of closing the gap, which is twice the
    gap over the rate of the last improvement.

    Args:
        seed: seed of the random choices.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._improvements: dict[str, _Improvements] = {}

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """Return a method without trials, the cheapest first, or else a random one."""
        for arm in arms:
            self._update(arm)
        candidates = [arm for arm in arms if arm.study in ready]
        if not candidates:
            return None
        if untried := [arm for arm in candidates if not arm.starts]:
            return min(untried, key=lambda arm: arm.full_cost).study
        best = max(arm.best for arm in arms)
        weights = [1 / max(self._cost(arm, best), 1e-9) for arm in candidates]
        return self._random.choices(candidates, weights)[0].study

    def _update(self, arm: Arm) -> None:
        last = self._improvements.setdefault(arm.study, _Improvements())
        if arm.best > last.best:
            last.cost_before, last.best_before = last.cost, last.best
            last.cost, last.best = arm.cost, arm.best

    def _cost(self, arm: Arm, best: float) -> float:
        last = self._improvements[arm.study]
        if not arm.bests:
            return max(arm.full_cost, arm.cost)
        cost_per_improvement = max(arm.cost - last.cost, last.cost - last.cost_before)
        gain = last.best - last.best_before
        if best <= last.best or not math.isfinite(gain) or gain <= 0:
            return max(cost_per_improvement, 0.0)
        return max(cost_per_improvement, 2 * (best - last.best) * (arm.cost - last.cost_before) / gain)


class HalvingOverMethods(Allocation):
    """Successive halving with methods as arms (Karnin et al., 2013; Jamieson and Talwalkar, 2016, arXiv:1502.07943).

    The budget is divided into as many equal rounds as it takes to halve the methods down to one. In a round, the
    remaining methods get equal cost; after it, the better half of them remains.

    Args:
        budget: total cost, in the unit of the arms' costs.
    """

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._round = 0
        self._remaining: list[str] = []
        self._costs_at_round_start: dict[str, float] = {}

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """Return the remaining method with the lowest cost in this round."""
        if not self._remaining:
            self._remaining = [arm.study for arm in arms]
        rounds = max(1, math.ceil(math.log2(len(arms))))
        while self._round < rounds - 1 and sum(arm.cost for arm in arms) >= self._budget * (self._round + 1) / rounds:
            self._halve(arms)
        candidates = [arm for arm in arms if arm.study in self._remaining and arm.study in ready]
        choice = min(
            candidates, key=lambda arm: arm.cost - self._costs_at_round_start.get(arm.study, 0.0), default=None
        )
        return choice.study if choice else None

    def _halve(self, arms: Sequence[Arm]) -> None:
        best = {arm.study: arm.best for arm in arms}
        half = math.ceil(len(self._remaining) / 2)
        self._remaining = sorted(self._remaining, key=lambda study: -best[study])[:half]
        self._costs_at_round_start = {arm.study: arm.cost for arm in arms}
        self._round += 1


class SingleMethod(Allocation):
    """Allocation of the whole budget to one method.

    Args:
        study: name of the method's study.
    """

    def __init__(self, study: str) -> None:
        self._study = study

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """Return the method's study, if it has work."""
        return self._study if self._study in ready else None
