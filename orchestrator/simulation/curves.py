"""Learning curves: the scores and the seconds that training a configuration would have had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.common.trial_types import TrialKey


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One configuration's training, from the first step to the last.

    Args:
        method: The method's name.
        config_id: The configuration's number among those of the method.
        params: The method's parameters, JSON values.
        seconds: Seconds of training and scoring since the beginning, by optimizer step; they grow.
        scores: Scores by optimizer step; higher is better. NaN where training had diverged.
        standard_errors: Standard errors of the scores by optimizer step, where they are known.
    """

    method: str
    config_id: int
    params: Mapping[str, Any]
    seconds: Mapping[int, float]
    scores: Mapping[int, float]
    standard_errors: Mapping[int, float] = field(default_factory=dict)

    def between(self, start: int, stop: int) -> float:
        """Return the seconds from a step, or from 0, to a later step."""
        return self.seconds[stop] - (self.seconds[start] if start else 0.0)


class Curves(Protocol):
    """The learning curves that simulated lanes report."""

    def of(self, key: TrialKey, params: Mapping[str, Any]) -> Curve:
        """Return a trial's curve, the same each time."""
