"""Learning curves: what training a configuration would have shown, and taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.common.trial_types import TrialKey


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One configuration's training, from the first step to the last.

    Args:
        method: that is trained.
        config_id: its number among the configurations of the method.
        params: the method's parameters, JSON values.
        seconds: since the beginning, of training and scoring, by optimizer step; they grow.
        scores: by optimizer step; higher is better. NaN where training had diverged.
        standard_errors: of the scores, where they are known.
    """

    method: str
    config_id: int
    params: Mapping[str, Any]
    seconds: Mapping[int, float]
    scores: Mapping[int, float]
    standard_errors: Mapping[int, float] = field(default_factory=dict)

    def between(self, start: int, stop: int) -> float:
        """Seconds from a step, or from the beginning, to a later one."""
        return self.seconds[stop] - (self.seconds[start] if start else 0.0)


class Curves(Protocol):
    """Where a simulated lane learns what a trial would have shown."""

    def of(self, key: TrialKey, params: Mapping[str, Any]) -> Curve:
        """A trial's curve, the same one each time that the trial is asked for."""
