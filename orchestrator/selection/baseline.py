"""Baselines: what trivial predictors score on the same rows, and by how much methods are better than the best of them.

A method is better where the lower bound of its lead lies above 0. All methods are held against one baseline at once, so
the bound is Dunnett's (1955): among methods that are no better, the probability that any seems so is at most 5 %. It is
never above what one pair's two-sided 95 % interval gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from orchestrator.common.metric import Metric
from orchestrator.selection.evidence import Evidence
from orchestrator.selection.tied_set import critical_value, errors_of_equals

State = Literal["recommended", "no_better_than_baseline"]
NO_BETTER: State = "no_better_than_baseline"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a trivial predictor scores on the test split.

    Args:
        name: What it does, as in "no method was better than NAME".
        score: Its score, in the task's metric.
        interval: 95 % interval of the score over test rows.
    """

    name: str
    score: float
    interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "interval": list(self.interval)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the baseline that JSON values describe."""
        return cls(name=values["name"], score=values["score"], interval=(values["interval"][0], values["interval"][1]))

    @property
    def text(self) -> str:
        """Its score with the interval."""
        return f"{self.score:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"


def state_of(*, is_better: bool) -> State:
    """Return what a sweep has come to, by whether its chosen method is better than the best trivial predictor."""
    return "recommended" if is_better else NO_BETTER


def leads(
    evidence: Evidence, metric: Metric, methods: Sequence[int], baseline: int, *, level: float = 0.95, seed: int = 0
) -> list[tuple[float, float]]:
    """Return by how much each method is better than a baseline, and the lower bound of that.

    Args:
        evidence: Scores of methods and baselines with their covariance.
        metric: Metric of the scores.
        methods: Positions of the methods that are held against it at once.
        baseline: Position of the baseline.
        level: Probability with which no method seems better that is not.
        seed: Seed of the draws that give the critical value.
    """
    if not methods:
        return []
    signed = metric.sign * evidence.means
    standard_errors = np.array([evidence.contrast(method, baseline)[0] for method in methods])
    errors = errors_of_equals(evidence, seed)
    critical = critical_value(errors[:, list(methods)] - errors[:, [baseline]], standard_errors, level)
    differences = signed[list(methods)] - signed[baseline]
    return [
        (float(lead), float(lead - critical * error)) for lead, error in zip(differences, standard_errors, strict=True)
    ]
