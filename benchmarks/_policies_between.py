"""Published ways to share a budget between methods, each with the same studies and rungs within a method as ours.

They remember what they have seen, and some are told the budget, which :class:`~orchestrator.search.allocation.Race` is
not.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.search.allocation import Allocation, Arm


class RisingBandits(Allocation):
    """Rounds over the methods; one is out for good when its extrapolated end is no better than another's best.

    Li et al., 2020, arXiv:2012.04371. The slope is that of the last ``window`` results; the paper's 7 would not fill
    here within the budget, and 3 is what is used.

    Args:
        budget: in the unit of the arms' costs.
        window: results at the last rung.
    """

    def __init__(self, budget: float, window: int = 3) -> None:
        self._budget = budget
        self._window = window
        self._out: set[str] = set()

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """The method with the fewest trials of those that are in."""
        left = self._budget - sum(arm.cost for arm in arms)
        best = max(arm.best for arm in arms)
        for arm in arms:
            if len(arm.bests) > self._window and arm.best < best and self._end(arm, left) <= best:
                self._out.add(arm.study)
        able = [arm for arm in arms if arm.study in ready and arm.study not in self._out]
        first = min(able, key=lambda arm: arm.starts, default=None)
        return first.study if first else None

    def _end(self, arm: Arm, left: float) -> float:
        slope = (arm.best - arm.bests[-1 - self._window]) / self._window
        return min(1.0, arm.best + slope * max(0.0, left) / arm.full_cost)


@dataclass
class _Improvements:
    """Costs of a method at its last two improvements, and the score before and after the last one."""

    cost: float = 0.0
    cost_before: float = 0.0
    best: float = -math.inf
    best_before: float = -math.inf


class EstimatedCostOfImprovement(Allocation):
    """Methods are drawn in proportion to the inverse of what their next improvement is thought to cost.

    Wang et al., 2021, arXiv:1911.04706 (FLAML): the time since the last improvement or the one before it, whichever is
    longer; for a method that is behind, at least the time to close the gap at twice its present pace.

    Args:
        seed: of what is drawn.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._known: dict[str, _Improvements] = {}

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """A draw among those that have work; the new ones first, the cheapest before the others."""
        for arm in arms:
            self._note(arm)
        able = [arm for arm in arms if arm.study in ready]
        if not able:
            return None
        if new := [arm for arm in able if not arm.starts]:
            return min(new, key=lambda arm: arm.full_cost).study
        best = max(arm.best for arm in arms)
        weights = [1 / max(self._cost(arm, best), 1e-9) for arm in able]
        return self._random.choices(able, weights)[0].study

    def _note(self, arm: Arm) -> None:
        known = self._known.setdefault(arm.study, _Improvements())
        if arm.best > known.best:
            known.cost_before, known.best_before = known.cost, known.best
            known.cost, known.best = arm.cost, arm.best

    def _cost(self, arm: Arm, best: float) -> float:
        known = self._known[arm.study]
        if not arm.bests:
            return max(arm.full_cost, arm.cost)
        again = max(arm.cost - known.cost, known.cost - known.cost_before)
        gained = known.best - known.best_before
        if best <= known.best or not math.isfinite(gained) or gained <= 0:
            return max(again, 0.0)
        return max(again, 2 * (best - known.best) * (arm.cost - known.cost_before) / gained)


class HalvingOverMethods(Allocation):
    """Successive halving with methods as arms (Karnin et al., 2013; Jamieson and Talwalkar, 2016, arXiv:1502.07943).

    The budget is cut into as many equal rounds as it takes to halve the methods down to one. In a round, those that are
    left get equal cost; after it, the better half stays.

    Args:
        budget: in the unit of the arms' costs.
    """

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._round = 0
        self._left: list[str] = []
        self._before: dict[str, float] = {}

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """The method that has cost least in this round."""
        if not self._left:
            self._left = [arm.study for arm in arms]
        rounds = max(1, math.ceil(math.log2(len(arms))))
        while self._round < rounds - 1 and sum(a.cost for a in arms) >= self._budget * (self._round + 1) / rounds:
            self._halve(arms)
        able = [arm for arm in arms if arm.study in self._left and arm.study in ready]
        first = min(able, key=lambda arm: arm.cost - self._before.get(arm.study, 0.0), default=None)
        return first.study if first else None

    def _halve(self, arms: Sequence[Arm]) -> None:
        best = {arm.study: arm.best for arm in arms}
        self._left = sorted(self._left, key=lambda study: -best[study])[: math.ceil(len(self._left) / 2)]
        self._before = {arm.study: arm.cost for arm in arms}
        self._round += 1


class Only(Allocation):
    """One method alone.

    Args:
        study: its study.
    """

    def __init__(self, study: str) -> None:
        self._study = study

    def choose(self, arms: Sequence[Arm], ready: Collection[str]) -> str | None:
        """That one."""
        return self._study if self._study in ready else None
