"""The memory of trials that train together, and what their observed peaks teach."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Sequence

from orchestrator.estimates.step import StepCost

RECENT = 8


def peak_bytes(costs: Sequence[StepCost]) -> float:
    """The most that trials need at once which train in one packed step, above their backbone.

    All activations are there when the forward pass ends; of what passes, it is one trial's at a time.

    Args:
        costs: of each trial; one for a trial that trains alone.
    """
    kept = sum(cost.adapter + cost.optimizer + cost.activations for cost in costs)
    return kept + max((cost.passing for cost in costs), default=0.0)


class Corrections:
    """What observed peaks teach of estimated ones: a factor per method.

    A factor is the median of the last ratios that were seen. One that ran out of memory raises it at once to what was
    needed at least.
    """

    def __init__(self) -> None:
        self._ratios: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._least: dict[str, float] = defaultdict(float)

    def tell(self, method: str, estimated: float, observed: float, *, fitted: bool = True) -> None:
        """What a trial has shown.

        Args:
            method: of the trial.
            estimated: its peak, without a factor, in bytes.
            observed: its peak; or what it had at its disposal and was not enough.
            fitted: whether there was room for it.
        """
        if not estimated:
            return
        if fitted:
            self._ratios[method].append(observed / estimated)
        else:
            self._least[method] = max(self._least[method], observed / estimated)

    def factor(self, method: str) -> float:
        """What to multiply the method's estimates with; 1 as long as nothing was seen."""
        seen = self._ratios[method]
        return max(statistics.median(seen) if seen else 1.0, self._least[method])
