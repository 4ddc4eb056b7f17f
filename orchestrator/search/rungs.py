"""The rungs of a study: the steps at which trials report, the results there, and the trials that wait there.

Which trials continue at a rung is decided in :mod:`orchestrator.search.early_stopping`.
"""

from __future__ import annotations

import bisect
import heapq
import math
import sys


def rung_steps(max_steps: int, first_rung: float, reduction_factor: float) -> tuple[int, ...]:
    """Return the optimizer steps at which trials are compared; the last is ``max_steps``.

    Rungs grow by ``reduction_factor``. A rung that would leave less than that factor to the end is left out, since
    pausing there saves little. The first rung is always kept.

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

    def within(self, count: int, noise: float) -> int:
        """Return how many results are among the best ``count``, or at most ``noise`` worse than the last of them."""
        if not 0 < count < len(self._losses):
            return count
        return bisect.bisect_right(self._losses, (self._losses[count - 1][0] + noise, sys.maxsize))

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
