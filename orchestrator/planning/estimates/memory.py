"""Memory of trials that train in one pack."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.planning.estimates.step import StepCost


def peak_bytes(costs: Sequence[StepCost]) -> float:
    """Return the peak memory of one packed step above the backbone, in bytes.

    The activations of all trials exist together at the end of the forward pass; transient tensors exist for one trial
    at a time.

    Args:
        costs: cost of each trial in the pack; a single one for a trial that trains alone.
    """
    lasting_bytes = sum(cost.adapter_bytes + cost.optimizer_bytes + cost.activation_bytes for cost in costs)
    return lasting_bytes + max((cost.transient_bytes for cost in costs), default=0.0)
