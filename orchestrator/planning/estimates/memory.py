"""The memory of trials that train together."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.planning.estimates.step import StepCost


def peak_bytes(costs: Sequence[StepCost]) -> float:
    """The most that trials need at once which train in one packed step, above their backbone.

    All activations are there when the forward pass ends; of what passes, it is one trial's at a time.

    Args:
        costs: of each trial; one for a trial that trains alone.
    """
    kept = sum(cost.adapter + cost.optimizer + cost.activations for cost in costs)
    return kept + max((cost.transient_bytes for cost in costs), default=0.0)
