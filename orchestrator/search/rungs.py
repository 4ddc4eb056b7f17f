"""Successive halving within one method, in its promoting variant (ASHA; Li et al., 2020, arXiv:1810.05934).

A trial pauses at a rung and continues once it is among the best there. No trial is stopped for good while the search
lasts, and a rung that has too few results to compare decides nothing.
"""

from __future__ import annotations

import bisect
import heapq
import math
from dataclasses import dataclass


def rung_steps(max_steps: int, first_rung: float, reduction_factor: float) -> tuple[int, ...]:
    """Return the optimizer steps at which trials are compared; the last is ``max_steps``.

    Rungs grow by ``reduction_factor``. A rung that would leave less than that factor to the end is left out, since
    stopping there saves little. The first rung is always kept.

    Args:
        max_steps: Optimizer steps of a full trial, at least 1.
        first_rung: The first rung as a fraction of ``max_steps``, above 0 and at most 1.
        reduction_factor: The factor between two rungs, above 1.

    Raises:
        ValueError: If an argument is out of range.
    """
    if max_steps < 1 or not 0 < first_rung <= 1 or reduction_factor <= 1:
        raise ValueError("needs max_steps >= 1, 0 < first_rung <= 1 and reduction_factor > 1")
    steps: list[int] = []
    step = max(1.0, max_steps * first_rung)
    while round(step) < max_steps and (not steps or step * reduction_factor <= max_steps):
        steps.append(round(step))
        step *= reduction_factor
    return (*dict.fromkeys(steps), max_steps)


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Decides how many trials continue at a rung.

    Args:
        reduction_factor: The best ``1 / reduction_factor`` of a rung's results continue.
        min_results: A rung with fewer results than this decides nothing.
        through: Number of a method's first trials that pause nowhere. The first is the default configuration: methods
            are compared by what they reach at the last rung, so each needs a trial that gets there.
    """

    reduction_factor: float = 2.0
    min_results: int = 2
    through: int = 1

    def quota(self, results: int, *, no_more: bool) -> int:
        """Return how many of a rung's results continue.

        Args:
            results: The number of results at the rung.
            no_more: Whether no result will follow; if there are too few to compare, all continue then.
        """
        if results >= self.min_results:
            return max(1, int(results / self.reduction_factor))
        return results if no_more else 0


class Rung:
    """The results of one method at one rung, and the trials that wait there.

    Args:
        sign: 1 if higher values are better, and -1 otherwise.
    """

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._losses: list[tuple[float, int]] = []
        self._waiting: list[tuple[float, int]] = []
        self.results = 0

    def add(self, number: int, value: float) -> None:
        """Add a trial's result; one that is not finite counts as a result, and no other is worse."""
        self.results += 1
        if math.isfinite(value):
            bisect.insort(self._losses, self._loss(number, value))

    def rank(self, number: int, value: float) -> int:
        """Return how many results are better; of equal results, that of the earlier trial is."""
        return bisect.bisect_left(self._losses, self._loss(number, value))

    def wait(self, number: int, value: float) -> None:
        """Let a trial wait here."""
        heapq.heappush(self._waiting, self._loss(number, value))

    def best_waiting(self, quota: int) -> int | None:
        """Return the best trial that waits, if it is among the best ``quota`` of all results."""
        if self._waiting and bisect.bisect_left(self._losses, self._waiting[0]) < quota:
            return self._waiting[0][1]
        return None

    def leave(self, number: int) -> None:
        """Remove a trial from those that wait."""
        if self._waiting and self._waiting[0][1] == number:
            heapq.heappop(self._waiting)
        else:
            self._waiting = [loss for loss in self._waiting if loss[1] != number]
            heapq.heapify(self._waiting)

    def _loss(self, number: int, value: float) -> tuple[float, int]:
        return (-self._sign * value, number)
